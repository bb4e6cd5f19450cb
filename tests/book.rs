//! The book tells the truth: its graphs parse, verify and agree with the interpreter, what it shows of commands is what they
//! print, and its tables of ops are those of the program. `UPDATE_BOOK=1 cargo test --test book` writes what is made.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

const BEGIN: &str = "<!-- made from `tilewright ops` by `UPDATE_BOOK=1 cargo test --test book` -->\n";
const END: &str = "<!-- end of what is made -->\n";

fn book() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/book")
}

fn tilewright(args: &[&str]) -> (bool, String, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_tilewright")).args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (out.status.success(), text(out.stdout), text(out.stderr))
}

/// A table in Markdown for each table of `tilewright ops`.
fn tables() -> String {
    let (ok, lines, said) = tilewright(&["ops", "--json"]);
    assert!(ok, "{said}");
    let rows: Vec<serde_json::Value> = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let mut out = String::new();
    for (table, title) in [
        ("graph", "### Ops of graphs"),
        ("reduce", "### Kinds of reduction"),
        ("scalar", "### Scalar ops, at every element"),
    ] {
        write!(out, "{title}\n\n| op | operands | attributes | meaning and result |\n| --- | --- | --- | --- |\n")
            .unwrap();
        for row in rows.iter().filter(|r| r["table"] == table) {
            let text = |key: &str| row[key].as_str().unwrap();
            let named =
                |a: &serde_json::Value| format!("{}: {}", a["name"].as_str().unwrap(), a["type"].as_str().unwrap());
            let attributes: Vec<String> = row["attributes"].as_array().unwrap().iter().map(named).collect();
            let doc = text("doc").replace('|', "\\|");
            writeln!(out, "| `{}` | {} | {} | {doc} |", text("name"), text("operands"), attributes.join(", ")).unwrap();
        }
        out.push('\n');
    }
    out.truncate(out.trim_end().len());
    out + "\n"
}

#[test]
fn the_tables_of_ops_are_those_of_the_program() {
    let path = book().join("language.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap_or_else(|| panic!("no `{BEGIN}`"));
    let (made, after) = rest.split_once(END).unwrap_or_else(|| panic!("no `{END}`"));
    let want = tables();
    if std::env::var_os("UPDATE_BOOK").is_some() && made != want {
        std::fs::write(&path, format!("{before}{BEGIN}{want}{END}{after}")).unwrap();
        return;
    }
    assert_eq!(made, want, "`UPDATE_BOOK=1 cargo test --test book` writes the tables");
}

/// Every graph of the book in a block of its own; they are run and compared with the interpreter.
#[test]
fn graphs_of_the_book_run() {
    let folder = tempfile::tempdir().unwrap();
    let mut count = 0;
    for entry in std::fs::read_dir(book()).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        for block in text.split("```tw\n").skip(1) {
            let (graph, _) = block.split_once("```").unwrap_or_else(|| panic!("{}: an open block", path.display()));
            let file = folder.path().join("g.tw");
            std::fs::write(&file, graph).unwrap();
            let (ok, _, said) = tilewright(&["run", file.to_str().unwrap(), "--check"]);
            assert!(ok, "{}:\n{graph}\n{said}", path.display());
            count += 1;
        }
    }
    assert!(count >= 6, "{count} graphs");
}

/// What a command prints that stands after a dollar sign; if it names a file, that is the last graph above it.
fn shown(folder: &Path, graph: &str, command: &str) -> String {
    let arguments: Vec<&str> = command.split_whitespace().collect();
    if let Some(file) = arguments.iter().find(|a| a.ends_with(".tw")) {
        std::fs::write(folder.join(file), graph).unwrap();
    }
    let out = Command::new(env!("CARGO_BIN_EXE_tilewright")).args(&arguments).current_dir(folder).output().unwrap();
    assert!(out.status.success(), "{command}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// Blocks ```` ```console ```` begin with a command, `$ tilewright ..`, and go on with what it prints.
#[test]
fn commands_print_what_the_book_says() {
    let folder = tempfile::tempdir().unwrap();
    let mut count = 0;
    for entry in std::fs::read_dir(book()).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let (mut made, mut graph, mut rest) = (String::new(), "", text.as_str());
        while let Some((before, block)) = rest.split_once("\n```console\n$ tilewright ") {
            graph = before.rsplit_once("```tw\n").and_then(|(_, g)| g.split_once("```")).map_or(graph, |(g, _)| g);
            let (block, after) =
                block.split_once("```\n").unwrap_or_else(|| panic!("{}: an open block", path.display()));
            let command = block.lines().next().unwrap_or_default();
            let answer = shown(folder.path(), graph, command);
            made += &format!("{before}\n```console\n$ tilewright {command}\n{answer}```\n");
            rest = after;
            count += 1;
        }
        made += rest;
        if std::env::var_os("UPDATE_BOOK").is_some() && made != text {
            std::fs::write(&path, made).unwrap();
        } else {
            assert!(made == text, "{}: `UPDATE_BOOK=1 cargo test --test book` writes\n{made}", path.display());
        }
    }
    assert!(count >= 5, "{count} commands");
}

#[test]
fn every_chapter_is_in_the_summary_and_every_picture_in_a_chapter() {
    let names = std::fs::read_dir(book()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let (chapters, pictures): (Vec<String>, Vec<String>) = names.partition(|name| name.ends_with(".md"));
    let text = |name: &str| std::fs::read_to_string(book().join(name)).unwrap();
    let (summary, all) = (text("SUMMARY.md"), chapters.iter().map(|name| text(name)).collect::<String>());
    for name in chapters.iter().filter(|name| *name != "SUMMARY.md") {
        assert!(summary.contains(&format!("({name})")), "{name} is in no list");
    }
    for name in pictures {
        assert!(all.contains(&format!("({name})")), "{name} is in no chapter");
    }
}

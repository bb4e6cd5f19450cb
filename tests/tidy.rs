//! The shape of the source tree: headers, file sizes, where `unsafe` may stand, crate edges.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::too_many_lines)]

use std::path::{Path, PathBuf};

/// Files longer than [`LIMIT`], with the reason.
const LONG: &[(&str, &str)] = &[];
const LIMIT: usize = 500;

fn sources() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut todo: Vec<PathBuf> = ["ir", "passes", "codegen", "runtime", "snapshot", "src", "tests", "examples", "fuzz"]
        .map(|d| root.join(d))
        .to_vec();
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() && !path.ends_with("target") {
                todo.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path.strip_prefix(root).unwrap().to_path_buf());
            }
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

#[test]
fn every_file_says_what_it_is() {
    let bare: Vec<PathBuf> = sources().into_iter().filter(|p| !read(p).starts_with("//!")).collect();
    assert!(bare.is_empty(), "files without a //! header: {bare:?}");
}

#[test]
fn files_stay_short() {
    let long: Vec<String> = sources()
        .iter()
        .filter(|p| !LONG.iter().any(|(name, _)| p.to_string_lossy() == *name))
        .map(|p| (read(p).lines().count(), p))
        .filter(|(n, _)| *n > LIMIT)
        .map(|(n, p)| format!("{} has {n} lines", p.display()))
        .collect();
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn unsafe_stands_where_docs_give_its_argument() {
    let argued = read(Path::new("docs/UNSAFE.md"));
    let listed: Vec<&str> = argued.split('`').filter(|w| w.ends_with(".rs") && *w != "tests/tidy.rs").collect();
    let uses = |p: &Path| {
        read(p).lines().any(|l| {
            let code = l.split("//").next().unwrap_or("");
            ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"].iter().any(|word| code.contains(word))
        })
    };
    let found: Vec<String> = sources()
        .into_iter()
        .filter(|p| p.as_os_str() != "tests/tidy.rs" && uses(p))
        .map(|p| p.to_string_lossy().into_owned())
        .collect();
    let missing: Vec<&String> = found.iter().filter(|p| !listed.contains(&p.as_str())).collect();
    assert!(missing.is_empty(), "unsafe in files that docs/UNSAFE.md does not list: {missing:?}");
    let idle: Vec<&&str> = listed.iter().filter(|p| p.contains('/') && !found.iter().any(|f| f == **p)).collect();
    assert!(idle.is_empty(), "docs/UNSAFE.md lists files without unsafe: {idle:?}");
}

#[test]
fn crates_have_no_back_edges() {
    for (name, allowed) in [
        ("ir", &[][..]),
        ("passes", &["ir"]),
        ("codegen", &["ir"]),
        ("runtime", &["ir", "codegen"]),
        (".", &["ir", "passes", "codegen", "runtime"]),
        // It stands on the facade, and re-exports what users of its macro name.
        ("snapshot", &["ir", "passes", "codegen"]),
    ] {
        let manifest = read(Path::new(&format!("{name}/Cargo.toml")));
        let dependencies = manifest.split("\n[dependencies]").nth(1).unwrap();
        let dependencies = dependencies.split("[dev-dependencies]").next().unwrap();
        for other in ["ir", "passes", "codegen", "runtime", "snapshot"] {
            let used = dependencies.contains(&format!("tilewright-{other}"));
            assert!(!used || allowed.contains(&other), "{name} must not depend on {other}");
        }
    }
}

//! The reference of rules in the book is made from the rule files and from what fires where: over models, the cases and the
//! op programs. Every shipped rule fires somewhere. `UPDATE_BOOK=1 cargo test --test rule_book` writes it.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "support/models.rs"]
mod models;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use tilewright::compile::{Options, Target, fired};
use tilewright::explain::explain;
use tilewright::formats::Safetensors;
use tilewright::formats::op_program::OpProgram;
use tilewright_codegen::cpu::ukernel::Isa;
use tilewright_ir::graph::Module;
use tilewright_ir::text::parse;
use tilewright_ir::types::{Bindings, DType};
use tilewright_passes::egraph::{Condition, Numerics, Rule, assumptions, shipped};

const BEGIN: &str = "<!-- made from the rule files by `UPDATE_BOOK=1 cargo test --test rule_book` -->\n";
const END: &str = "<!-- end of what is made -->\n";
/// Most cases or op programs that are named for a rule that no model has.
const NAMED: usize = 3;

/// Where a rule fires; where it does, whether a kernel comes from it.
#[derive(Default)]
struct Fires {
    models: Vec<(String, bool)>,
    cases: Vec<(String, bool)>,
    ops: Vec<String>,
}

fn options(numerics: Numerics) -> Options {
    Options { numerics, isa: Isa::Avx512, threads: 1, ..Options::host().unwrap() }
}

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The names of the rules that fire in a module, and whether kernels for a CPU or a GPU come from them. Approximations are
/// asked for only where nothing else is left to fire.
fn of(module: &Module) -> BTreeMap<String, bool> {
    let all = fired(module, &options(Numerics::Approx)).unwrap();
    let mut found: BTreeMap<String, bool> = all.iter().flatten().map(|f| (f.rule.to_string(), false)).collect();
    for target in [Target::Cpu, Target::Sm90a] {
        let report = explain(module, &options(Numerics::default()), target, &Bindings::new()).unwrap();
        for rule in report.functions.into_iter().flat_map(|f| f.used) {
            found.insert(rule, true);
        }
    }
    found
}

fn cases() -> Vec<(String, Module)> {
    let (mut open, mut out) = (vec![root("tests/cases")], Vec::new());
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("errors") {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "tw") {
                let name = path.strip_prefix(root("tests/cases")).unwrap().with_extension("").display().to_string();
                out.push((name, parse("case", &std::fs::read_to_string(path).unwrap()).unwrap()));
            }
        }
    }
    out.sort_by(|a, b| a.0.cmp(&b.0));
    out
}

fn op_programs() -> Vec<(String, Module)> {
    let data = root("tests/data/ops");
    let index: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(data.join("index.json")).unwrap()).unwrap();
    let read = |case: &serde_json::Value| {
        let file = Safetensors::open(data.join(case["file"].as_str().unwrap())).unwrap();
        (case["name"].as_str().unwrap().to_string(), OpProgram::from_file(&file, DType::F32).unwrap().module)
    };
    index.as_array().unwrap().iter().map(read).collect()
}

fn firing() -> BTreeMap<String, Fires> {
    let mut out: BTreeMap<String, Fires> = BTreeMap::new();
    for (name, module) in models::models() {
        for (rule, used) in of(&module) {
            out.entry(rule).or_default().models.push((name.into(), used));
        }
    }
    for (name, module) in cases() {
        for (rule, used) in of(&module) {
            out.entry(rule).or_default().cases.push((name.clone(), used));
        }
    }
    for (name, module) in op_programs() {
        for rule in fired(&module, &options(Numerics::Approx)).unwrap().into_iter().flatten() {
            out.entry(rule.rule.to_string()).or_default().ops.push(name.clone());
        }
    }
    out
}

impl Fires {
    /// Names, in bold where a kernel comes from the rule.
    fn text(&self) -> String {
        let marked = |(name, used): &(String, bool)| if *used { format!("**{name}**") } else { name.clone() };
        if !self.models.is_empty() {
            return self.models.iter().map(marked).collect::<Vec<_>>().join(", ");
        }
        // Those that kernels come from first.
        let mut cases = self.cases.clone();
        cases.sort_by_key(|c| !c.1);
        let code = |c: &(String, bool)| if c.1 { format!("**`{}`**", c.0) } else { format!("`{}`", c.0) };
        let mut shown: Vec<String> = cases.iter().take(NAMED).map(code).collect();
        if shown.is_empty() {
            shown = self.ops.iter().take(NAMED).map(|name| format!("op program `{name}`")).collect();
        }
        shown.join(", ")
    }
}

fn conditions(of: &[Condition]) -> String {
    of.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn row(out: &mut String, rule: &Rule, fires: &Fires) {
    let assumed = assumptions(&rule.class);
    let class =
        if assumed.is_empty() { rule.class.to_string() } else { format!("{}({})", rule.class, conditions(assumed)) };
    let mut parts = Vec::new();
    for (word, list) in [("if", &rule.truth), ("when", &rule.profit)] {
        if !list.is_empty() {
            parts.push(format!("{word} `{}`", conditions(list)));
        }
    }
    let sides = format!("`{}` ⇒ `{}`", rule.left, rule.right);
    let conditions = parts.join("<br>");
    writeln!(out, "| `{}` | {class} | {sides} | {conditions} | {} |", rule.name, fires.text()).unwrap();
}

fn tables(firing: &BTreeMap<String, Fires>) -> String {
    let set = shipped().unwrap();
    let (mut out, mut group) = (String::new(), None);
    let nowhere = Fires::default();
    for rule in &set.rules {
        if group != Some(&rule.group) {
            group = Some(&rule.group);
            let count = set.rules.iter().filter(|r| r.group == rule.group).count();
            let file = &rule.line.file;
            write!(out, "\n### {}: {count} rules of `{file}`\n\n", rule.group).unwrap();
            out.push_str("| rule | class | what is made equal | conditions | where it fires |\n| --- | --- | --- | --- | --- |\n");
        }
        row(&mut out, rule, firing.get(&*rule.name).unwrap_or(&nowhere));
    }
    out.push('\n');
    out
}

#[test]
fn the_reference_of_rules_is_that_of_the_files_and_every_rule_fires_somewhere() {
    let firing = firing();
    let set = shipped().unwrap();
    let idle: Vec<&str> = set.rules.iter().map(|r| &*r.name).filter(|name| !firing.contains_key(*name)).collect();
    let path = root("docs/book/rule-reference.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap_or_else(|| panic!("no `{BEGIN}`"));
    let (made, after) = rest.split_once(END).unwrap_or_else(|| panic!("no `{END}`"));
    let want = tables(&firing);
    if std::env::var_os("UPDATE_BOOK").is_some() && made != want {
        std::fs::write(&path, format!("{before}{BEGIN}{want}{END}{after}")).unwrap();
    } else {
        assert_eq!(made, want, "`UPDATE_BOOK=1 cargo test --test rule_book` writes the tables");
    }
    assert!(idle.is_empty(), "{} rules that nothing needs: {idle:?}", idle.len());
}

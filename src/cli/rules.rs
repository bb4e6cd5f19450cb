//! `tilewright rules`: list and check rewrite rules.

use super::progress::bar;
use std::path::PathBuf;
use tilewright_ir::diag::Diagnostic;
use tilewright_passes::egraph::{check, rules};

/// Arguments of `rules`.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// One rule a line: name, class, group
    List {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Test rules on random data
    Check {
        /// Rule files; the shipped ones if none is named
        files: Vec<PathBuf>,
        /// One JSON object a rule
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(args: &Args) -> Result<(), Diagnostic> {
    match &args.action {
        Action::List { json } => list(*json),
        Action::Check { files, json } => check_files(files, *json),
    }
}

fn list(json: bool) -> Result<(), Diagnostic> {
    let mut out = String::new();
    for rule in &rules::shipped()?.rules {
        let (name, class, group) = (&rule.name, rule.class.to_string(), &rule.group);
        if json {
            let row = serde_json::json!({ "name": name.to_string(), "class": class, "group": group.to_string() });
            out += &format!("{row}\n");
        } else {
            out += &format!("{name:<24} {class:<32} {group}\n");
        }
    }
    super::print(&out)
}

fn check_files(files: &[PathBuf], json: bool) -> Result<(), Diagnostic> {
    let mut sets = Vec::new();
    if files.is_empty() {
        sets.push(rules::shipped()?);
    }
    for path in files {
        let bytes = crate::formats::map_file(path)?;
        let text = std::str::from_utf8(&bytes)
            .map_err(|e| Diagnostic::new("text", format!("{} is not UTF-8: {e}", path.display())))?;
        sets.push(rules::RuleSet::parse(&path.display().to_string(), text)?);
    }
    if let Some((path, _)) = files.iter().zip(&sets).find(|(_, set)| set.rules.is_empty()) {
        return Err(Diagnostic::new("no-rules", format!("{} has no rules", path.display())));
    }
    let rules: Vec<_> = sets.iter().flat_map(|s| &s.rules).collect();
    let bar = bar("checking rules", rules.len());
    let mut failed = 0;
    for rule in &rules {
        let found = check::check_rule(rule, 1);
        bar.inc(1);
        let counterexample = found.err().map(|c| c.to_string());
        failed += usize::from(counterexample.is_some());
        if json {
            let line = serde_json::json!({
                "name": rule.name.to_string(), "passed": counterexample.is_none(), "counterexample": counterexample
            });
            bar.suspend(|| super::print(&format!("{line}\n")))?;
        } else if let Some(counterexample) = counterexample {
            bar.suspend(|| super::print(&format!("rule {} is wrong:\n{counterexample}\n", rule.name)))?;
        }
    }
    drop(bar);
    if !json {
        super::print(&format!("rules: {} passed, {failed} failed\n", rules.len() - failed))?;
    }
    if failed > 0 { Err(Diagnostic::new("rule-check", format!("{failed} rules are wrong"))) } else { Ok(()) }
}

//! `tilewright rules`: list and check rewrite rules.

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
    },
}

pub(super) fn run(args: &Args) -> Result<(), Diagnostic> {
    match &args.action {
        Action::List { json } => list(*json),
        Action::Check { files } => check_files(files),
    }
}

fn list(json: bool) -> Result<(), Diagnostic> {
    for rule in &rules::shipped()?.rules {
        let (name, class, group) = (&rule.name, rule.class.to_string(), &rule.group);
        if json {
            println!("{}", serde_json::json!({ "name": name.to_string(), "class": class, "group": group.to_string() }));
        } else {
            println!("{name:<24} {class:<32} {group}");
        }
    }
    Ok(())
}

fn check_files(files: &[PathBuf]) -> Result<(), Diagnostic> {
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
    let (mut passed, mut failed) = (0, 0);
    for rule in sets.iter().flat_map(|s| &s.rules) {
        match check::check_rule(rule, 1) {
            Ok(_) => passed += 1,
            Err(counterexample) => {
                failed += 1;
                println!("rule {} is wrong:\n{counterexample}", rule.name);
            }
        }
    }
    println!("rules: {passed} passed, {failed} failed");
    if failed > 0 { Err(Diagnostic::new("rule-check", format!("{failed} rules are wrong"))) } else { Ok(()) }
}

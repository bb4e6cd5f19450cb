//! `tilewright rules`: list and check rewrite rules.

use super::progress;
use std::path::PathBuf;
use tilewright_ir::diag::Diagnostic;
use tilewright_passes::egraph::{Numerics, assumptions, check, rules};

/// Arguments of `rules`.
#[derive(clap::Args)]
#[command(
    after_help = "Classes, and the value of `--numerics` from which a rule may fire (each value allows those before it):\n\
    exact         exact        every bit stays, infinities and NaN included\n\
    rounding      rounding     the last bits of one operation may change\n\
    reassociates  reassociate  real algebra: sums and products in another order; finite where both sides are\n\
    domain(..)    reassociate  real algebra under an assumption about the data that nothing checks:\n\
    \x20                          finite(?a), moderate(?a) (exp of it neither overflows nor underflows),\n\
    \x20                          inside(?t, ?j) (t is a position of axis j), unsigned-zero(?a) (it is not -0)\n\
    approx(..)    approx       an approximation, described in words"
)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// One rule a line: name, class, the value of `--numerics` from which it may fire, group
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
        let (name, group, numerics) = (&rule.name, &rule.group, Numerics::least(&rule.class).to_string());
        let assumes: Vec<String> = assumptions(&rule.class).iter().map(ToString::to_string).collect();
        if json {
            let row = serde_json::json!({
                "name": name.to_string(), "class": rule.class.to_string(), "assumes": assumes, "numerics": numerics,
                "group": group.to_string(),
            });
            out += &format!("{row}\n");
        } else {
            let assumed = if assumes.is_empty() { String::new() } else { format!("({})", assumes.join(", ")) };
            let class = format!("{}{assumed}", rule.class);
            out += &format!("{name:<24} {class:<28} {numerics:<12} {group}\n");
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
        let text = crate::formats::read_text(path)?;
        sets.push(rules::RuleSet::parse(&path.display().to_string(), &text)?);
    }
    if let Some((path, _)) = files.iter().zip(&sets).find(|(_, set)| set.rules.is_empty()) {
        return Err(Diagnostic::new("no-rules", format!("{} has no rules", path.display())));
    }
    let rules: Vec<_> = sets.iter().flat_map(|s| &s.rules).collect();
    progress::steps("checking rules", rules.len());
    let mut failed = 0;
    for rule in &rules {
        let found = check::check_rule(rule, 1);
        progress::step();
        let counterexample = found.err().map(|c| c.to_string());
        failed += usize::from(counterexample.is_some());
        if json {
            let line = serde_json::json!({
                "name": rule.name.to_string(), "passed": counterexample.is_none(), "counterexample": counterexample
            });
            super::print(&format!("{line}\n"))?;
        } else if let Some(counterexample) = counterexample {
            super::print(&format!("rule {} is wrong:\n{counterexample}\n", rule.name))?;
        }
    }
    if !json {
        super::print(&format!("rules: {} passed, {failed} failed\n", rules.len() - failed))?;
    }
    if failed > 0 { Err(Diagnostic::new("rule-check", format!("{failed} rules are wrong"))) } else { Ok(()) }
}

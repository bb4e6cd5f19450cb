//! `tilewright rules`: list and check rewrite rules.

use super::progress;
use crate::formats::write_whole;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use tilewright_ir::diag::Diagnostic;
use tilewright_passes::egraph::{Condition, Numerics, Rule, assumptions, check, rules};

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
    approx(..)    approx       an approximation, described in words\n\n\
    A rule is tested in every element type that it can match, on sizes 0, 1, odd and large: one that is exact bit by bit on\n\
    the strict interpreter, with infinities, NaN, -0 and subnormal numbers; others in f64, within the rounding of their class."
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
    /// Test rules on random types, sizes and data; exit code 1 if one is wrong
    Check {
        /// Rule files; the shipped ones if none is named
        files: Vec<PathBuf>,
        /// Say of each rule in which types it was tested, and of each `if` condition what goes wrong without it
        #[arg(long, conflicts_with = "json")]
        verbose: bool,
        /// Write the counterexample of a rule that is wrong to RULE.tw in this folder: its results are the two sides
        #[arg(long, value_name = "FOLDER", default_value = "counterexamples")]
        out: PathBuf,
        /// One JSON object a rule
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(args: &Args) -> Result<(), Diagnostic> {
    match &args.action {
        Action::List { json } => list(*json),
        Action::Check { files, verbose, out, json } => {
            check_files(files, Report { json: *json, verbose: *verbose, out, written: BTreeSet::new() })
        }
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

/// What is done with what a check finds.
struct Report<'a> {
    json: bool,
    verbose: bool,
    out: &'a Path,
    written: BTreeSet<PathBuf>,
}

fn check_files(files: &[PathBuf], mut report: Report<'_>) -> Result<(), Diagnostic> {
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
    let (mut failed, mut conditions, mut unneeded) = (0, 0, 0);
    for rule in &rules {
        let found = check::check_thoroughly(rule);
        failed += usize::from(found.is_err());
        // Of a rule that is wrong it does not matter which conditions it needs.
        let without = if found.is_ok() { check::without_conditions(rule) } else { Vec::new() };
        conditions += without.len();
        unneeded += without.iter().filter(|(_, found)| found.is_ok()).count();
        progress::step();
        report.rule(rule, &found, &without)?;
    }
    if !report.json {
        let passed = rules.len() - failed;
        super::print(&format!(
            "rules: {passed} passed, {failed} failed; conditions: {conditions}, {unneeded} not needed\n"
        ))?;
    }
    if failed > 0 { Err(Diagnostic::new("rule-check", format!("{failed} rules are wrong"))) } else { Ok(()) }
}

type Found = Result<check::RuleReport, check::Counterexample>;

impl Report<'_> {
    fn rule(&mut self, rule: &Rule, found: &Found, without: &[(Condition, Found)]) -> Result<(), Diagnostic> {
        let program = found.as_ref().err().map(|c| self.program(c)).transpose()?;
        let (file, reason) = match program {
            Some(Ok(path)) => (Some(path.display().to_string()), None),
            Some(Err(why)) => (None, Some(why)),
            None => (None, None),
        };
        let types = found.as_ref().map_or(&[][..], |report| &report.types);
        let counterexample = |found: &Found| found.as_ref().err().map(ToString::to_string);
        if self.json {
            let without: Vec<_> = without
                .iter()
                .map(|(c, found)| {
                    serde_json::json!({ "condition": c.to_string(), "counterexample": counterexample(found) })
                })
                .collect();
            let line = serde_json::json!({
                "name": rule.name.to_string(), "at": format!("{}:{}", rule.line.file, rule.line.number),
                "passed": found.is_ok(), "types": types, "counterexample": counterexample(found), "program": file,
                "without": without,
            });
            return super::print(&format!("{line}\n"));
        }
        let mut out = String::new();
        if let Some(counterexample) = counterexample(found) {
            let place = format!("{}:{}", rule.line.file, rule.line.number);
            out += &format!("{place}: {counterexample}\n");
            out += &match (file, reason) {
                (Some(file), _) => format!("  written to {file}\n"),
                (None, reason) => format!("  not written as a program: {}\n", reason.unwrap_or_default()),
            };
        } else if self.verbose {
            out += &format!("{}: {}, tested in {}\n", rule.name, rule.class, types.join("; "));
        }
        for (condition, found) in without {
            match found {
                Err(c) if self.verbose => {
                    out += &format!("  without {condition}: {}\n", c.reason);
                    c.data.iter().for_each(|line| out += &format!("    {line}\n"));
                }
                Err(_) => {}
                Ok(_) => out += &format!("{}: nothing was found that needs `if {condition}`\n", rule.name),
            }
        }
        super::print(&out)
    }

    /// Writes a counterexample as a program, or says why there is none. Errors: `file`.
    fn program(&mut self, found: &check::Counterexample) -> Result<Result<PathBuf, String>, Diagnostic> {
        let text = match &found.program {
            Ok(text) => text,
            Err(why) => return Ok(Err(why.clone())),
        };
        std::fs::create_dir_all(self.out)
            .map_err(|e| Diagnostic::new("file", format!("cannot make the folder {}: {e}", self.out.display())))?;
        // Rules of several files may have one name.
        let name = |n: usize| if n == 1 { format!("{}.tw", found.rule) } else { format!("{}-{n}.tw", found.rule) };
        let mut paths = (1..).map(|n| self.out.join(name(n)));
        let path = paths.find(|p| !self.written.contains(p)).ok_or_else(|| Diagnostic::bug("no more names"))?;
        write_whole(&path, |out| out.write_all(text.as_bytes()))?;
        self.written.insert(path.clone());
        Ok(Ok(path))
    }
}

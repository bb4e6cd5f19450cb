//! Rules that a user adds to the shipped ones, behind the check of rules.

use super::check::check_thoroughly;
use super::rules::{Rule, RuleSet, shipped};
use std::sync::Arc;
use tilewright_ir::diag::Diagnostic;

/// Whether added rules are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// A rule that the check finds wrong is an error.
    Checked,
    /// Rules are taken as they are. One that is wrong makes wrong results.
    Open,
}

/// The rules of level 2: the shipped ones and what a user adds. Which of them may fire, `numerics` says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UserRules {
    /// All rules, where some were added.
    all: Option<Arc<RuleSet>>,
}

impl UserRules {
    /// These rules and those of a rule file with this name and text.
    ///
    /// Errors: those of [`RuleSet::parse`]; `no-rules`; `duplicate-rule` for a name that a rule already has; `wrong-rule` for the
    /// first that the check finds wrong, with the counterexample.
    pub fn with(&self, file: &str, text: &str, gate: Gate) -> Result<UserRules, Diagnostic> {
        let added = RuleSet::parse(file, text)?;
        if added.rules.is_empty() {
            return Err(Diagnostic::new("no-rules", format!("{file} has no rules")));
        }
        let mut all = self.rules()?;
        all.extend(added.clone())?;
        if gate == Gate::Checked {
            for rule in &added.rules {
                check_thoroughly(rule).map_err(|found| {
                    let message = format!("the rule `{}` is wrong: {}", rule.name, found.reason);
                    let d = rule.line.error("wrong-rule", message, 0, rule.name.chars().count());
                    found.data.into_iter().fold(d, Diagnostic::note)
                })?;
            }
        }
        Ok(UserRules { all: Some(Arc::new(all)) })
    }

    /// The rules of which `keep` holds, shipped ones among them. Errors: those of [`shipped`].
    pub fn only(&self, keep: &dyn Fn(&Rule) -> bool) -> Result<UserRules, Diagnostic> {
        let rules = self.rules()?.rules.into_iter().filter(|rule| keep(rule)).collect();
        Ok(UserRules { all: Some(Arc::new(RuleSet { rules })) })
    }

    /// Without the rules, and the rules of the groups, of these names.
    ///
    /// Errors: `unknown-rule` for a name that neither has.
    pub fn without(&self, names: &[String]) -> Result<UserRules, Diagnostic> {
        let all = self.rules()?.rules;
        let named = |rule: &Rule, name: &String| *rule.name == **name || *rule.group == **name;
        if let Some(name) = names.iter().find(|name| !all.iter().any(|rule| named(rule, name))) {
            let mut groups: Vec<&str> = all.iter().map(|rule| &*rule.group).collect();
            groups.dedup();
            let message = format!("no rule and no group of rules is called `{}`", name.escape_default());
            let known = format!("groups: {}; `tilewright rules list` has the rules", groups.join(", "));
            return Err(Diagnostic::new("unknown-rule", message).note(known));
        }
        self.only(&|rule| !names.iter().any(|name| named(rule, name)))
    }

    /// Whether there are others than the shipped ones.
    pub fn is_empty(&self) -> bool {
        self.all.is_none()
    }

    /// All rules, the shipped ones first. Errors: those of [`shipped`].
    pub fn rules(&self) -> Result<RuleSet, Diagnostic> {
        self.all.as_deref().map_or_else(shipped, |all| Ok(all.clone()))
    }

    /// Whether a rule was added.
    pub fn has(&self, name: &str) -> bool {
        let shipped = || shipped().is_ok_and(|set| set.rules.iter().any(|r| &*r.name == name));
        self.all.as_ref().is_some_and(|all| all.rules.iter().any(|r| &*r.name == name)) && !shipped()
    }
}

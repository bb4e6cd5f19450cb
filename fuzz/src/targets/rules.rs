//! `.rules` files: what is accepted is printed, parsed again, made rewrites of, and sometimes checked on random data.

use super::{Outcome, Target, accepted, refused};
use crate::seeds;
use tilewright_ir::types::DType;
use tilewright_passes::egraph::{Numerics, Rule, RuleSet, check_rule, compile};

/// See the module.
pub struct Rules;

fn print(rule: &Rule) -> String {
    let group = if rule.group.is_empty() { String::new() } else { format!("group {}\n", rule.group) };
    format!("{group}{rule}")
}

impl Target for Rules {
    fn name(&self) -> &'static str {
        "rules"
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        seeds::rules()
    }

    fn words(&self) -> Vec<String> {
        super::graph_text::words()
    }

    fn run(&self, input: &[u8]) -> Result<Outcome, String> {
        let text = String::from_utf8_lossy(input);
        let set = match RuleSet::parse("fuzz.rules", &text) {
            Ok(set) => set,
            Err(error) => return refused(&error),
        };
        let printed: String = set.rules.iter().map(print).collect();
        let again = RuleSet::parse("printed.rules", &printed)
            .map_err(|d| format!("what is printed is refused: {d}\n{printed}"))?;
        if again.rules.iter().map(print).collect::<String>() != printed {
            return Err(format!("other rules come back from their text:\n{printed}"));
        }
        let mut signature = match compile(&set, Numerics::Approx, &[DType::F32, DType::Bf16]) {
            Ok(rewrites) => format!("{} rewrites", rewrites.len()),
            Err(error) => refused(&error)?.signature,
        };
        // Checking is slow: one rule of the set, of some sets.
        if input.len().is_multiple_of(8)
            && let Some(rule) = set.rules.get(input.len() / 8 % set.rules.len().max(1))
        {
            match check_rule(rule, 1) {
                Ok(_) => signature += " holds",
                Err(found) => signature += &crate::driver::skeleton(&found.reason),
            }
        }
        Ok(accepted(signature))
    }
}

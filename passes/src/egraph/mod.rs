//! The e-graph: values as scalar functions of named axes, rules in text files, a checker of rules, saturation.

pub mod check;
mod clock;
mod compile;
pub mod cover;
mod eval;
pub mod evaluate;
pub mod explain;
pub mod export;
pub mod facts;
pub mod index;
pub mod lang;
mod push;
pub mod rules;
pub mod saturate;
mod term;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod typing;
mod user;
mod widths;
mod words;

pub use egg::Id;

pub use check::{Counterexample, RuleReport, check_rule, check_thoroughly, without_conditions};
pub use compile::{IndexRewrite, Numerics, assumptions, compile};
pub use cover::{Cover, CoverLimits, Cut, DEFAULT_BUDGET, Device, cover};
pub use facts::{AxisInfo, Facts, Graph, InputInfo, Sort, Tables};
pub use index::{Import, Root, Stored, import, import_with};
pub use lang::{Affine, Attr, AxisId, AxisSet, ENode, Fold, GATHERED, Head, MAX_AXES, Number};
pub use rules::{Class, Condition, ConditionKind, Rule, RuleSet, shipped};
pub use saturate::{Fired, Limits, Saturation, Stop, saturate};
pub use term::{Line, Term};
pub use user::{Gate, UserRules};

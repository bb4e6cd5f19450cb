//! What a configuration says of checkpointing, and the step that comes of it.

use super::config::Config;
use super::model::Learner;
use crate::checkpoint::{Budget, Checkpointing, Curve, program_within};
use crate::compile::Options;
use crate::explain::text::bytes;
use crate::optim::Recipe;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::Module;
use tilewright_ir::types::Bindings;

/// What is computed again on the way back, to save memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum CheckpointConfig {
    /// Each block, of which nothing is kept but its input.
    Blocks,
    /// What a budget of the arena of the step asks for.
    Budget(Budget),
}

impl Default for CheckpointConfig {
    fn default() -> CheckpointConfig {
        CheckpointConfig::Budget(Budget::None)
    }
}

/// `true` for blocks, `false` for nothing, a number for bytes, or a text such as `"sqrt"`, `"500 MB"`, `"25 %"`.
impl<'de> Deserialize<'de> for CheckpointConfig {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<CheckpointConfig, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = CheckpointConfig;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false, or a budget such as \"sqrt\", \"500 MB\" or \"25 %\"")
            }

            fn visit_bool<E: Error>(self, blocks: bool) -> Result<CheckpointConfig, E> {
                Ok(if blocks { CheckpointConfig::Blocks } else { CheckpointConfig::default() })
            }

            fn visit_i64<E: Error>(self, bytes: i64) -> Result<CheckpointConfig, E> {
                self.visit_str(&bytes.to_string())
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<CheckpointConfig, E> {
                text.parse().map(CheckpointConfig::Budget).map_err(E::custom)
            }
        }
        from.deserialize_any(Any)
    }
}

// Runs are described as those were that began before there were budgets.
impl Serialize for CheckpointConfig {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            CheckpointConfig::Blocks => to.serialize_bool(true),
            CheckpointConfig::Budget(Budget::None) => to.serialize_bool(false),
            CheckpointConfig::Budget(budget) => to.collect_str(budget),
        }
    }
}

/// What a budget of a run comes to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Within {
    /// What was asked for.
    pub budget: String,
    /// How it is met.
    pub how: String,
    /// Bytes of the planned arena of a step.
    pub arena: u64,
    /// Those without checkpointing.
    pub arena_without: u64,
    /// Bytes that functions of the way forward keep, over all their runs.
    pub kept: f64,
    /// Operations of products and folds that are done again.
    pub again: f64,
    /// The fewest that a choice of values does again which keeps no more, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again_least: Option<f64>,
    /// Operations of the kernels of a step as a part of those without checkpointing.
    pub operations: f64,
    /// What each function keeps: its name, then op, type and scope of each value.
    pub values: Vec<(String, Vec<String>)>,
}

impl Within {
    fn of(budget: Budget, curve: &Curve) -> Within {
        let (point, plain) = (curve.point(), &curve.points[0]);
        let value =
            |v: &tilewright_passes::autodiff::KeptValue| format!("{} {} {}", v.op, v.ty, v.scope).trim_end().into();
        let values = point.kept.iter().map(|k| (k.forward.to_string(), k.values.iter().map(value).collect()));
        Within {
            budget: budget.to_string(),
            how: point.name(),
            arena: point.cost.peak as u64,
            arena_without: plain.cost.peak as u64,
            kept: point.kept_bytes,
            again: point.again,
            again_least: curve.least_again(point),
            operations: point.cost.flops / plain.cost.flops.max(1.0),
            values: values.collect(),
        }
    }
}

/// A paragraph for the start of a run.
impl fmt::Display for Within {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (arena, without) = (bytes(self.arena as i64), bytes(self.arena_without as i64));
        let more = 100.0 * (self.operations - 1.0);
        writeln!(f, "checkpointing by {}: {}", self.budget, self.how)?;
        writeln!(f, "  an arena of {arena}, {without} without; {more:.1} % more operations")?;
        let least = self.again_least.map_or(String::new(), |ops| format!(", {:.3} at least", ops / 1e9));
        writeln!(
            f,
            "  {} are kept, {:.3} GFLOP of products and folds done again{least}",
            bytes(self.kept as i64),
            self.again / 1e9
        )?;
        for (function, values) in &self.values {
            writeln!(f, "  @{function} keeps {}", values.join(", "))?;
        }
        Ok(())
    }
}

/// The step of a run, and what its budget comes to, if it has one.
///
/// Errors: `checkpoint-budget`, `no-chain`; those of the compiler.
pub(super) fn step(
    config: &Config,
    learner: &Learner,
    recipe: &Recipe,
    options: &Options,
) -> Result<(Module, Option<Within>), Diagnostic> {
    let budget = match config.train.checkpoint {
        CheckpointConfig::Blocks | CheckpointConfig::Budget(Budget::None) => {
            return Ok((learner.step(config, recipe)?, None));
        }
        CheckpointConfig::Budget(budget) => budget,
    };
    let build =
        |checkpointing: &Checkpointing| learner.step(config, &Recipe { checkpointing: Some(checkpointing), ..*recipe });
    let curve = program_within(&build, (budget, &Bindings::new()), options, &|_done, _of| {})
        .map_err(|d| d.note(format!("asked for by train.checkpoint = \"{budget}\"")))?;
    let within = Within::of(budget, &curve);
    Ok((curve.module, Some(within)))
}

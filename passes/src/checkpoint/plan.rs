//! How a gradient is taken: what functions keep, and whether blocks stand in segments.

use super::chain::Chain;
use super::{Segments, blocks, home, outlined, segmented};
use crate::autodiff::{Keep, Keeps};
use crate::build::{Build, add, fresh, kept};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Function, Module};
use tilewright_ir::op::GraphOp;

/// Logarithms of prices of a byte in operations: a product of matrices has between 16 and 16384 for each byte that it makes.
const PRICES: std::ops::RangeInclusive<i32> = -6..=14;

/// What is computed again beside what [`Keep`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segmented {
    /// Nothing.
    No,
    /// All of each segment of a chain, but what its blocks keep once it is computed again.
    Sqrt,
}

/// The first blocks of a chain, which keep something else than the others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mix {
    /// What they keep.
    pub keep: Keep,
    /// How many they are, in quarters of all, 1 to 3.
    pub quarters: u8,
}

/// How a gradient is taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// What functions keep.
    pub keep: Keep,
    /// What segments there are.
    pub segments: Segmented,
    /// Blocks that keep something else.
    pub first: Option<Mix>,
}

impl Plan {
    /// All that is costly is kept.
    pub const PLAIN: Plan = Plan::of(Keep::Costly, Segmented::No);
    /// Values that cost at least one operation a byte to make again are kept: inputs and results of products and statistics, but not what is
    /// made elementwise of these, as the kernel that reads it makes it again for less than a byte costs. No product is done again.
    pub const USUAL: Plan = Plan::of(Keep::PerByte(1.0), Segmented::No);
    /// A chain of n blocks in about sqrt(n) segments, after Chen et al.
    pub const SQRT: Plan = Plan::of(Keep::Costly, Segmented::Sqrt);

    const fn of(keep: Keep, segments: Segmented) -> Plan {
        Plan { keep, segments, first: None }
    }

    /// All plans whose blocks are alike, [`Plan::PLAIN`] first. Two may make the same program.
    pub fn all() -> impl Iterator<Item = Plan> {
        let keeps = || PRICES.map(|p| Keep::PerByte(f64::from(p).exp2())).chain([Keep::Nothing]);
        let whole = keeps().map(|keep| Plan::of(keep, Segmented::No));
        let segments = [Keep::Costly].into_iter().chain(keeps()).map(|keep| Plan::of(keep, Segmented::Sqrt));
        [Plan::PLAIN].into_iter().chain(whole).chain(segments)
    }

    /// Plans between two of which the first keeps more: by quarters of the blocks. None with segments.
    pub fn between(more: Plan, less: Plan) -> impl Iterator<Item = Plan> {
        let alike = |p: Plan| p.segments == Segmented::No && p.first.is_none();
        let most = if alike(more) && alike(less) { 3 } else { 0 };
        // The last blocks keep more: theirs is read first on the way back, and gone when others are computed again.
        (1..=most).map(move |quarters| Plan { first: Some(Mix { keep: less.keep, quarters }), ..more })
    }

    /// The module that is differentiated for this plan, and what its functions keep then. `no-chain` where a plan needs one.
    pub(super) fn applied(self, module: &Module) -> Result<(Module, Keeps), Diagnostic> {
        let mut keeps = Keeps::from(self.keep);
        if self == Plan::PLAIN {
            return Ok((module.clone(), keeps));
        }
        let chained = blocks(module).is_some();
        let mut made = if chained || self.segments == Segmented::Sqrt { outlined(module)? } else { wrapped(module)? };
        if self.segments == Segmented::Sqrt {
            made = segmented(&made, Segments::Sqrt)?;
        }
        if let Some(mix) = self.first {
            mix.split(&mut made, &mut keeps)?;
        }
        Ok((made, keeps))
    }
}

impl Mix {
    /// Gives the first blocks of the chain functions of their own. Errors: `no-chain` where blocks are no calls.
    fn split(self, module: &mut Module, keeps: &mut Keeps) -> Result<(), Diagnostic> {
        let none = || Diagnostic::new("no-chain", "there is no chain of blocks that are calls");
        let name = home(module).ok_or_else(none)?;
        let mut f = module.functions.get(&name).cloned().ok_or_else(none)?;
        let chain = Chain::of(&f).filter(|chain| chain.is_of_calls(&f)).ok_or_else(none)?;
        let nodes = chain.nodes();
        let count = nodes.len() * usize::from(self.quarters) / 4;
        for node in nodes.take(count) {
            let GraphOp::Call { function } = &mut f.nodes[node.index()].op else { return Err(none()) };
            let block = module.functions.get(function).cloned().ok_or_else(none)?;
            // Blocks of one function have one again.
            let known = keeps.of.keys().find(|k| module.functions.get(*k).is_some_and(|k| k.same_ops(&block)));
            *function = match known {
                Some(known) => known.clone(),
                None => {
                    let less = fresh(module, &format!("{}.less", block.name));
                    let at = module.functions.get_index_of(&block.name).unwrap_or_default();
                    module.functions.shift_insert(at, less.clone(), Function { name: less.clone(), ..block });
                    keeps.of.insert(less.clone(), self.keep);
                    less
                }
            };
        }
        module.functions.insert(name, f);
        Ok(())
    }
}

/// The module with an entry that calls what it was: of a program in one function, what that keeps is chosen, too.
pub(super) fn wrapped(module: &Module) -> Result<Module, Diagnostic> {
    let mut out = module.clone();
    let name = module.entry()?.name.clone();
    let Some(f) = out.functions.shift_remove(&name) else { return Err(Diagnostic::bug("an entry without a name")) };
    let inner = Function { name: fresh(&out, &format!("{name}.whole")), ..kept(f.clone()) };
    let mut entry = Function::new(&name, f.symbols.clone(), f.params.clone());
    for (made, node) in entry.nodes.iter_mut().zip(&f.nodes) {
        made.places.clone_from(&node.places);
    }
    let args: Vec<_> = (0..f.params.len()).map(|i| entry.param(i)).collect();
    let op = GraphOp::Call { function: inner.name.clone() };
    add(&mut out, inner);
    entry.results = Build::new(&mut out, &mut entry).push_all(op, &args)?;
    add(&mut out, entry);
    Ok(out)
}

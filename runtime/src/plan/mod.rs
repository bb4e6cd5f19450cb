//! The static memory plan: where every buffer of a program lies, known before it runs.
//!
//! In: programs, callees before callers. Out: a [`Plan`] each. Parameters and results lie in memory of the caller, who
//! places them; constants and the panels of weights are kept between runs; everything else shares one arena by liveness.
//! A call is one more interval, as large as the callee's whole arena, so that its buffers lie in the caller's.
//!
//! Places are chosen for the largest sizes and hold for all sizes (`place`); `layout` gives the numbers for a call.
//! O(n log n) in steps and buffers.

mod extent;
mod in_place;
mod layout;
mod live;
mod place;
#[cfg(test)]
mod tests;
mod text;

pub use extent::Extent;
pub(crate) use layout::inner_bindings;
pub use layout::{Layout, Layouts};
pub use text::print_plan;

use indexmap::IndexMap;
use live::Lives;
use place::{Interval, place};
use std::collections::BTreeMap;
use std::sync::Arc;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::Role;
use tilewright_ir::kernel::Program;
use tilewright_ir::types::{Dim, Symbol, SymbolDecl, Type};

/// Alignment of everything in an arena, in bytes: a cache line, and the widest vector.
pub const ALIGN: usize = crate::buffer::ALIGN;

/// Where a buffer lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// Memory of parameter `i`.
    Param(usize),
    /// Memory that the caller gives for result `k`.
    Result(usize),
    /// Constant number `i` of the program.
    Constant(usize),
    /// Panels number `i` of weights, made once and kept.
    Panels(usize),
    /// [`Plan::slots`] number `i`.
    Slot(usize),
}

/// How a result gets to the caller.
#[derive(Clone, Debug, PartialEq)]
pub enum Returned {
    /// The program writes it into the caller's memory.
    Written,
    /// It is donated parameter `i`, updated in place.
    Param(usize),
    /// Copied from there into the caller's memory after the last step: a value that is not the caller's to change, or
    /// is returned twice.
    Copied(Home),
}

/// What a slot holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Buffers of the same memory; indices into [`Plan::sizes`], the largest counts.
    Buffers(Vec<usize>),
    /// The arena of a callee, of which one may be chosen at run time: indices of programs, values of their symbols.
    Frame(Vec<(usize, BTreeMap<Symbol, Dim>)>),
}

/// A piece of the arena.
#[derive(Clone, Debug, PartialEq)]
pub struct Slot {
    /// What it holds.
    pub content: Content,
    /// First step that uses it.
    pub first: usize,
    /// Last step that uses it.
    pub last: usize,
    /// Slots that end below this one starts; lower in number.
    pub above: Vec<usize>,
    /// Size in bytes, a multiple of [`ALIGN`].
    pub bytes: Extent,
    /// First byte in the arena.
    pub offset: Extent,
}

/// Homes of what a step names, in its order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepHomes {
    /// Arguments of a launch, call, `cond` or `scan`; source and panels of a packing.
    pub arguments: Vec<Home>,
    /// What a `cond` decides by.
    pub predicate: Option<Home>,
    /// Results of a call, `cond` or `scan`; none where a scan hands an argument through.
    pub results: Vec<Option<Home>>,
    /// Programs that the step may run.
    pub callees: Vec<usize>,
    /// The slot of their arena.
    pub frame: Option<usize>,
    /// Slots of second memories for the carries of a scan, by result; none for those that stay in place.
    pub spares: Vec<Option<usize>>,
}

/// The memory plan of one program.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Symbols of the program.
    pub symbols: Vec<SymbolDecl>,
    /// Home of every buffer that a step or a result uses.
    pub homes: BTreeMap<Arc<str>, Home>,
    /// Homes by step.
    pub steps: Vec<StepHomes>,
    /// Pieces of the arena, each after all that it lies above.
    pub slots: Vec<Slot>,
    /// Types of the parameters.
    pub params: Vec<Type>,
    /// Results with their types.
    pub results: Vec<(Returned, Type)>,
    /// Which parameters the program writes into or returns: callers must own them.
    pub taken: Vec<bool>,
    /// Types of which sizes are needed, one per number of bytes.
    pub sizes: Vec<Type>,
    /// Number of [`Home::Panels`].
    pub panels: usize,
    /// Size of the arena, callees included.
    pub peak: Extent,
}

/// Plans for programs in which callees come before callers; the entry's weights are packed once.
///
/// Errors: `dim-overflow`; broken invariants, such as a step that writes a buffer which it does not own.
pub fn plan_programs(programs: &[Program]) -> Result<Vec<Plan>, Diagnostic> {
    let names: BTreeMap<&str, usize> = programs.iter().enumerate().map(|(i, p)| (&*p.name, i)).collect();
    let fixed = live::fixed_params(programs, &names)?;
    let mut plans: Vec<Plan> = Vec::with_capacity(programs.len());
    for (program, fixed) in programs.iter().zip(&fixed) {
        let plan = plan_program(program, fixed, &names, &plans);
        plans.push(plan.map_err(|d| d.note(format!("in the memory plan of `{}`", program.name)))?);
    }
    Ok(plans)
}

fn plan_program(
    program: &Program,
    fixed: &[bool],
    names: &BTreeMap<&str, usize>,
    plans: &[Plan],
) -> Result<Plan, Diagnostic> {
    let lives = Lives::new(program, fixed, names, plans)?;
    let mut sizes: IndexMap<Dim, Type> = IndexMap::new();
    let mut drafts = Vec::new();
    for group in &lives.groups {
        let mut bytes: Option<Extent> = None;
        let mut indices = Vec::new();
        for ty in &group.types {
            let exact = bytes_of(ty)?;
            let rounded = Extent::new(rounded(&exact)?, &program.symbols);
            bytes = Some(match bytes {
                None => rounded,
                Some(b) => b.max(&rounded, &program.symbols)?,
            });
            let entry = sizes.entry(exact);
            indices.push(entry.index());
            entry.or_insert_with(|| ty.clone());
        }
        indices.sort_unstable();
        indices.dedup();
        let bytes = bytes.ok_or_else(|| Diagnostic::bug("a buffer without a type"))?;
        drafts.push((Content::Buffers(indices), bytes, group.first, group.last));
    }
    for frame in &lives.frames {
        let mut bytes = Extent::new(Dim::constant(0), &program.symbols);
        for (callee, symbols) in &frame.callees {
            let one = plans[*callee].peak.substitute(symbols, &program.symbols)?;
            bytes = bytes.max(&one, &program.symbols)?;
        }
        drafts.push((Content::Frame(frame.callees.clone()), bytes, frame.step, frame.step));
    }
    let (slots, number, peak) = arrange(drafts, &program.symbols)?;
    let homes = lives.homes(&number);
    let steps = lives.steps(program, &homes, &number)?;
    let results = lives.results(program, &homes)?;
    let (symbols, sizes) = (program.symbols.clone(), sizes.into_values().collect());
    let params = program.params.iter().map(|p| p.buffer.ty.clone()).collect();
    Ok(Plan { symbols, homes, steps, slots, params, results, taken: lives.taken, sizes, panels: lives.panels, peak })
}

/// Slots in order, the slot that each draft became, and where the last ends.
fn arrange(
    drafts: Vec<(Content, Extent, usize, usize)>,
    symbols: &[SymbolDecl],
) -> Result<(Vec<Slot>, Vec<usize>, Extent), Diagnostic> {
    let intervals: Vec<Interval> = drafts
        .iter()
        .map(|(_, bytes, first, last)| {
            let size = bytes.bound(symbols).unwrap_or(i64::MAX).unsigned_abs();
            Interval { first: *first, last: *last, size }
        })
        .collect();
    let placement = place(&intervals);
    let mut number = vec![0; drafts.len()];
    for (i, &draft) in placement.order.iter().enumerate() {
        number[draft] = i;
    }
    let zero = Extent::new(Dim::constant(0), symbols);
    let (mut ends, mut peak): (Vec<Extent>, Extent) = (Vec::with_capacity(drafts.len()), zero.clone());
    let mut slots: Vec<Slot> = Vec::with_capacity(drafts.len());
    let mut drafts: Vec<Option<(Content, Extent, usize, usize)>> = drafts.into_iter().map(Some).collect();
    for &i in &placement.order {
        let taken = drafts[i].take().ok_or_else(|| Diagnostic::bug("a buffer is placed twice"))?;
        let (content, bytes, first, last) = taken;
        let mut above: Vec<usize> = placement.above[i].iter().map(|&low| number[low]).collect();
        above.sort_unstable();
        let mut offset = zero.clone();
        for &low in &above {
            let end = ends.get(low).ok_or_else(|| Diagnostic::bug("a buffer lies below one that it is above"))?;
            offset = offset.max(end, symbols)?;
        }
        let end = offset.plus(&bytes, symbols)?;
        peak = peak.max(&end, symbols)?;
        ends.push(end);
        slots.push(Slot { content, first, last, above, bytes, offset });
    }
    Ok((slots, number, peak))
}

fn overflow(ty: &Type) -> Diagnostic {
    Diagnostic::new("dim-overflow", format!("{ty} does not fit in memory"))
}

/// Bytes of a tensor. Errors: `dim-overflow`.
fn bytes_of(ty: &Type) -> Result<Dim, Diagnostic> {
    let (per, bytes) = ty.dtype.block();
    let elements = ty.elements().ok_or_else(|| overflow(ty))?;
    let blocks = if per == 1 { elements } else { elements.ceil_div(per as i64) };
    blocks.checked_mul(&Dim::from(bytes)).ok_or_else(|| overflow(ty))
}

/// The next multiple of [`ALIGN`].
fn rounded(bytes: &Dim) -> Result<Dim, Diagnostic> {
    let align = ALIGN as i64;
    let up = bytes.ceil_div(align).checked_mul(&Dim::constant(align));
    up.ok_or_else(|| Diagnostic::new("dim-overflow", format!("{bytes} bytes do not fit in memory")))
}

/// Whether a parameter's role lets callees write into it.
fn donated(program: &Program, param: usize) -> bool {
    program.params.get(param).is_some_and(|p| p.role == Role::Donated)
}

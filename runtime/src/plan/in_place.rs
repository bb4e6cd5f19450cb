//! Outputs that take the memory of an input which nobody reads afterwards.
//!
//! In: the roots of a program's buffers. Out: roots in which such an output has that of the input, so that a chain of
//! elementwise kernels needs one buffer. Whether a kernel allows it is proved (`may_overwrite`); what is not proved stays
//! apart. O(steps times arguments), and a proof for each kernel that is asked about.

use super::bytes_of;
use super::live::{buffers, unknown};
use std::collections::BTreeMap;
use std::sync::Arc;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::kernel::verify::may_overwrite;
use tilewright_ir::kernel::{Launch, Program, Space, Step};
use tilewright_ir::types::Type;

/// Steps between which a memory is used.
#[derive(Clone, Copy)]
struct Use {
    first: usize,
    last: usize,
}

struct Merge<'p> {
    program: &'p Program,
    index: &'p BTreeMap<&'p Arc<str>, usize>,
    types: Vec<&'p Type>,
    roots: Vec<usize>,
    /// By root.
    uses: BTreeMap<usize, Use>,
    /// Whether a root is the program's own memory, to be used as it likes.
    own: Vec<bool>,
    proofs: BTreeMap<(usize, usize, usize), bool>,
}

/// Gives outputs the root of an input that ends where they begin.
pub(super) fn merge(
    program: &Program,
    index: &BTreeMap<&Arc<str>, usize>,
    roots: Vec<usize>,
) -> Result<Vec<usize>, Diagnostic> {
    let mut own = vec![true; roots.len()];
    own[..program.params.len()].fill(false);
    for (name, _) in &program.constants {
        own[*index.get(name).ok_or_else(|| unknown(name))?] = false;
    }
    let types = buffers(program).map(|b| &b.ty).collect();
    let mut merge = Merge { program, index, types, roots, uses: BTreeMap::new(), own, proofs: BTreeMap::new() };
    merge.count()?;
    for (number, step) in program.steps.iter().enumerate() {
        if let Step::Launch(launch) = step {
            merge.launch(number, launch)?;
        }
    }
    Ok((0..merge.roots.len()).map(|b| merge.root(b)).collect())
}

impl Merge<'_> {
    /// At most two steps away: an alias, the output that it is an alias of, the input.
    fn root(&self, buffer: usize) -> usize {
        let mut at = buffer;
        while self.roots[at] != at {
            at = self.roots[at];
        }
        at
    }

    fn buffer(&self, name: &Arc<str>) -> Result<usize, Diagnostic> {
        self.index.get(name).copied().ok_or_else(|| unknown(name))
    }

    /// Panels may be kept between runs, and results are read after the last step.
    fn count(&mut self) -> Result<(), Diagnostic> {
        for (number, step) in self.program.steps.iter().enumerate() {
            for name in step.names() {
                let root = self.root(self.buffer(name)?);
                self.uses.entry(root).or_insert(Use { first: number, last: number }).last = number;
            }
            if let Step::Pack(pack) = step {
                let root = self.root(self.buffer(&pack.to)?);
                self.own[root] = false;
            }
        }
        for name in &self.program.results {
            let root = self.root(self.buffer(name)?);
            self.uses.entry(root).and_modify(|u| u.last = usize::MAX);
        }
        Ok(())
    }

    fn launch(&mut self, number: usize, launch: &Launch) -> Result<(), Diagnostic> {
        let kernel = self.program.kernels.get(launch.kernel);
        let kernel = kernel.ok_or_else(|| Diagnostic::bug("a launch of no kernel"))?;
        let arguments: Vec<usize> = launch.arguments.iter().map(|n| self.buffer(n)).collect::<Result<_, _>>()?;
        for (o, to) in kernel.arguments.iter().enumerate().filter(|(_, a)| a.space == Space::Out) {
            for (i, from) in kernel.arguments.iter().enumerate().filter(|(_, a)| a.space == Space::In) {
                let (Some(&source), Some(&target)) = (arguments.get(i), arguments.get(o)) else { continue };
                // most arguments are told apart by their sizes
                if from.axes == to.axes
                    && self.meet(number, &arguments, source, target)?
                    && *self.proofs.entry((launch.kernel, i, o)).or_insert_with(|| may_overwrite(kernel, i, o))
                {
                    self.unite(source, target);
                    break;
                }
            }
        }
        Ok(())
    }

    /// Whether `source` is read here for the last time, under this name only, and `target` begins here.
    fn meet(&self, step: usize, arguments: &[usize], source: usize, target: usize) -> Result<bool, Diagnostic> {
        let (from, to) = (self.root(source), self.root(target));
        let (Some(a), Some(b)) = (self.uses.get(&from), self.uses.get(&to)) else { return Ok(false) };
        let once = |root: usize| arguments.iter().filter(|b| self.root(**b) == root).count() == 1;
        let ends = a.last == step && a.first < step && b.first == step;
        Ok(ends
            && self.own[from]
            && self.own[to]
            && once(from)
            && once(to)
            && bytes_of(self.types[source])? == bytes_of(self.types[target])?)
    }

    fn unite(&mut self, source: usize, target: usize) {
        let (from, to) = (self.root(source), self.root(target));
        self.roots[to] = from;
        if let (Some(b), Some(a)) = (self.uses.remove(&to), self.uses.get_mut(&from)) {
            a.last = b.last;
        }
    }
}

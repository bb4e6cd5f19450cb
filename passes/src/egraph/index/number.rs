//! Numbers of axes, between the phases of the import. The e-graph has a bounded set of them, so they are dealt out like registers.

use super::super::facts::AxisInfo;
use super::super::lang::{AxisId, AxisSet, MAX_AXES, axis_bit};
use super::axes::{Atoms, Var};
use super::terms::Builder;
use petgraph::unionfind::UnionFind;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::NodeId;
use tilewright_ir::types::Dim;

impl Builder<'_> {
    /// Gives every atom that a value has a number. Like registers, atoms of one size that are in no space together share one,
    /// where nothing but scalars and barriers leads from one to the other: the term of a scalar binds its axes, so the name
    /// means nothing outside. Errors: `too-many-axes`.
    pub fn number_axes(&mut self, live: impl Iterator<Item = NodeId> + Clone) -> Result<(), Diagnostic> {
        let islands = self.islands(live.clone());
        // By island.
        let mut taken: Vec<AxisSet> = vec![0; self.axes.len()];
        for id in live {
            for leaf in self.leaves(id) {
                if self.numbers[leaf].is_some() {
                    continue;
                }
                let (taken, dim) = (&mut taken[islands.find(leaf)], self.axes.dim(leaf));
                let mut numbered = self.out.graph.analysis.axes.iter().zip(0..);
                let free = |(axis, number): (&AxisInfo, AxisId)| {
                    (*taken & axis_bit(number) == 0 && axis.dim == *dim).then_some(number)
                };
                let number = match numbered.find_map(free) {
                    Some(number) => number,
                    None => self.new_axis(dim.clone())?,
                };
                *taken |= axis_bit(number);
                self.numbers[leaf] = Some(number);
            }
        }
        Ok(())
    }

    fn new_axis(&mut self, dim: Dim) -> Result<AxisId, Diagnostic> {
        let next = self.out.graph.analysis.axes.len();
        let number = AxisId::try_from(next).ok().filter(|_| next < MAX_AXES).ok_or_else(|| {
            let name = &self.function.name;
            Diagnostic::new("too-many-axes", format!("`@{name}` needs more than {MAX_AXES} different axes"))
                .note("functions that are called have axes of their own")
        })?;
        self.out.graph.analysis.axes.push(AxisInfo { name: format!("a{number}").into(), dim });
        Ok(number)
    }

    /// Atoms of a node's results, of what it reads, and of what barriers keep apart.
    fn leaves(&self, id: NodeId) -> Atoms {
        let planned = &self.plans[id.index()];
        planned.dims.iter().chain([&planned.target]).flat_map(|dims| self.axes.all(dims)).collect()
    }

    /// Atoms that a chain of nodes joins; a barrier joins nothing.
    fn islands(&self, live: impl Iterator<Item = NodeId>) -> UnionFind<Var> {
        let mut islands = UnionFind::new(self.axes.len());
        for id in live {
            let mut all = self.leaves(id);
            if !self.barriers.contains_key(&id) {
                let read = self.function.nodes[id.index()].args.iter();
                all.extend(read.flat_map(|&a| self.axes.all(self.dims(a))));
            }
            all.windows(2).for_each(|pair| {
                islands.union(pair[0], pair[1]);
            });
        }
        islands
    }
}

//! Pipes of one team: rings of slots. A copy on a pipe happens as late as it may, when its slot is waited for; until then
//! its destination is poison, so a read without a wait is seen.

use super::access::Region;
use super::exec::Machine;
use super::value::{Data, Memory, Value};
use super::{failed, unsupported};
use crate::diag::Diagnostic;
use crate::kernel::expr::{Access, Expr, Ident};
use crate::kernel::tree::{LoadMods, Pipe, PipelineOp};
use std::collections::VecDeque;

/// A copy that was issued.
struct Pending {
    to: Region,
    from: Region,
    pad: Option<Expr>,
}

/// A ring of slots.
pub(super) struct Ring {
    /// The slot buffers' names, and the memories of every slot.
    names: Vec<Ident>,
    slots: Vec<Vec<usize>>,
    /// The slot that is taken next.
    next: usize,
    filling: Option<usize>,
    full: VecDeque<usize>,
    held: VecDeque<usize>,
    pending: Vec<(usize, Pending)>,
}

impl Machine {
    pub(super) fn declare_pipe(&mut self, p: &Pipe) -> Result<(), Diagnostic> {
        if &*p.from != "all" || &*p.to != "all" || p.stages == 0 {
            return Err(unsupported(format!("the pipe `{}` between roles", p.name)));
        }
        let mut slots = Vec::new();
        for _ in 0..p.stages {
            let mut memories = Vec::new();
            for b in &p.buffers {
                memories.push(self.scratch(b)?);
            }
            slots.push(memories);
        }
        let names = p.buffers.iter().map(|b| b.name.clone()).collect();
        let (full, held) = (VecDeque::new(), VecDeque::new());
        self.pipes.push(Ring { names, slots, next: 0, filling: None, full, held, pending: Vec::new() });
        self.bind(&p.name, Value::Pipe(self.pipes.len() - 1));
        Ok(())
    }

    fn ring(&mut self, name: &str) -> Result<&mut Ring, Diagnostic> {
        match self.lookup(name) {
            Some(Value::Pipe(i)) => {
                let i = *i;
                self.pipes.get_mut(i).ok_or_else(|| Diagnostic::bug("a pipe that is gone"))
            }
            Some(_) | None => Err(failed(format!("`{name}` is no pipe"))),
        }
    }

    /// The memory of a slot's buffer: of the slot that is filled, for those that write, else of one that is held.
    pub(super) fn slot(&mut self, access: &Access, writes: bool) -> Result<usize, Diagnostic> {
        let back = access.back as usize;
        let ring = self.ring(&access.buffer)?;
        let slot = match writes {
            true => ring.filling,
            false => ring.held.len().checked_sub(back + 1).and_then(|i| ring.held.get(i)).copied(),
        };
        let slot = slot.ok_or_else(|| failed(format!("`{access}` has no slot: it is not acquired or waited for")))?;
        let at = ring.names.iter().position(|n| Some(n) == access.field.as_ref());
        let memory = at.and_then(|i| ring.slots.get(slot)?.get(i));
        memory.copied().ok_or_else(|| failed(format!("the pipe of `{access}` has no such buffer")))
    }

    pub(super) fn pipeline(&mut self, op: PipelineOp, name: &Ident) -> Result<(), Diagnostic> {
        let ring = self.ring(name)?;
        let stuck = |what: &str| failed(format!("deadlock: `{what} {name}` waits for ever"));
        match op {
            PipelineOp::Acquire => {
                let used = ring.full.len() + ring.held.len() + usize::from(ring.filling.is_some());
                if ring.filling.is_some() || used >= ring.slots.len() {
                    return Err(stuck("acquire"));
                }
                let slot = ring.next;
                ring.filling = Some(slot);
                ring.next = (slot + 1) % ring.slots.len();
                let memories = ring.slots.get(slot).cloned().unwrap_or_default();
                for memory in memories {
                    let memory = self.memory_mut(memory)?;
                    memory.data = memory.data.poisoned();
                }
            }
            PipelineOp::Commit => {
                let slot = ring.filling.take().ok_or_else(|| failed(format!("`commit {name}` without a slot")))?;
                ring.full.push_back(slot);
            }
            PipelineOp::Wait => {
                let slot = ring.full.pop_front().ok_or_else(|| stuck("wait"))?;
                ring.held.push_back(slot);
                let (due, later) = std::mem::take(&mut ring.pending).into_iter().partition(|(s, _)| *s == slot);
                ring.pending = later;
                let due: Vec<(usize, Pending)> = due;
                for (_, copy) in due {
                    let tile = self.load(&copy.from, copy.pad.as_ref())?;
                    self.store(&copy.to, &tile, &format!("a copy on `{name}`"))?;
                }
            }
            PipelineOp::Release => {
                ring.held.pop_front().ok_or_else(|| failed(format!("`release {name}` without a slot")))?;
            }
        }
        Ok(())
    }

    /// Issues a copy on a pipe.
    pub(super) fn copy_on(
        &mut self,
        pipe: &Ident,
        to: &Access,
        from: &Access,
        mods: &LoadMods,
    ) -> Result<(), Diagnostic> {
        if mods.multicast {
            return Err(unsupported("multicast copies"));
        }
        if to.buffer != *pipe {
            return Err(unsupported(format!("a copy on `{pipe}` to `{to}`, which is none of its slots")));
        }
        let (to, from, pad) = (self.region_to(to)?, self.region(from)?, mods.pad.clone());
        let ring = self.ring(pipe)?;
        let slot = ring.filling.ok_or_else(|| failed(format!("a copy on `{pipe}` without a slot")))?;
        ring.pending.push((slot, Pending { to, from, pad }));
        Ok(())
    }

    /// Memory of a scratch buffer, without a name.
    fn scratch(&mut self, b: &crate::kernel::tree::Buffer) -> Result<usize, Diagnostic> {
        let axes = self.axes(&b.axes)?;
        let n = super::value::count(&axes)?;
        self.spend(n)?;
        let data = Data::unwritten(b.dtype, n)?;
        Ok(self.put_memory(Memory { axes, data, read_only: false }))
    }
}

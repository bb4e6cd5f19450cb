//! A body: one node for each class that a kernel computes, and the classes that it reads. Read as written: order, axes,
//! loops.

use super::super::lang::{AxisId, AxisSet, axis_bit};
use super::problem::{Choice, Class, Problem, Step};
use smallvec::SmallVec;

/// Most classes inside one kernel.
pub(super) const MOST_NODES: usize = 160;

/// Chosen nodes and inputs; both sorted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Body {
    /// Class and the number of its chosen node.
    pub nodes: Vec<(Class, usize)>,
    /// Classes that are read.
    pub inputs: Vec<Class>,
}

impl Body {
    /// One node, nothing else yet.
    pub fn single(class: Class, choice: usize) -> Body {
        Body { nodes: vec![(class, choice)], inputs: Vec::new() }
    }

    /// One class that is read.
    pub fn input(class: Class) -> Body {
        Body { nodes: Vec::new(), inputs: vec![class] }
    }

    /// The chosen node of a class.
    pub fn chosen(&self, class: Class) -> Option<usize> {
        self.nodes.binary_search_by_key(&class, |n| n.0).ok().and_then(|i| self.nodes.get(i)).map(|n| n.1)
    }

    /// Both bodies in one kernel; `None` where they choose different nodes of a class, where `other` needs `root`, or
    /// where the kernel would be too large.
    pub fn join(&self, other: &Body, root: Class) -> Option<Body> {
        if other.chosen(root).is_some() || other.inputs.binary_search(&root).is_ok() {
            return None;
        }
        let mut nodes = Vec::with_capacity(self.nodes.len() + other.nodes.len());
        let (mut a, mut b) = (self.nodes.iter().peekable(), other.nodes.iter().peekable());
        loop {
            match (a.peek(), b.peek()) {
                (Some(x), Some(y)) if x.0 == y.0 => {
                    if x.1 != y.1 {
                        return None;
                    }
                    nodes.push(**x);
                    a.next();
                    b.next();
                }
                (Some(x), Some(y)) if x.0 < y.0 => {
                    nodes.push(**x);
                    a.next();
                }
                (Some(_), Some(y)) | (None, Some(y)) => {
                    nodes.push(**y);
                    b.next();
                }
                (Some(x), None) => {
                    nodes.push(**x);
                    a.next();
                }
                (None, None) => break,
            }
        }
        if nodes.len() > MOST_NODES {
            return None;
        }
        let mut inputs: Vec<Class> = self.inputs.iter().chain(&other.inputs).copied().collect();
        inputs.sort_unstable();
        inputs.dedup();
        inputs.retain(|l| nodes.binary_search_by_key(l, |n| n.0).is_err());
        Some(Body { nodes, inputs })
    }
}

/// A value of a body.
pub(super) struct Local<'p> {
    /// Its class.
    pub class: Class,
    /// The chosen node; nothing for an input.
    pub choice: Option<&'p Choice>,
    /// Operands, as locals.
    pub kids: SmallVec<[usize; 4]>,
    /// Axes of the value as it is written.
    pub free: AxisSet,
    /// Per axis folded below: how many passes over it must have ended before this value can be computed.
    pub passes: SmallVec<[(AxisId, u8); 2]>,
}

impl Local<'_> {
    /// Passes over an axis that end before this value.
    pub fn passes(&self, axis: AxisId) -> u8 {
        self.passes.iter().find(|p| p.0 == axis).map_or(0, |p| p.1)
    }
}

/// A body in the order of evaluation, operands first.
pub(super) struct Written<'p> {
    /// Values.
    pub locals: Vec<Local<'p>>,
    /// What is stored, as locals.
    pub outputs: Vec<usize>,
    /// Axes of everything stored.
    pub grid: AxisSet,
}

/// Reads a body. `None` if it is no kernel: a value needs itself, an output varies along an axis that its class does not
/// have, or a value has an axis that no loop binds.
pub(super) fn written<'p>(problem: &'p Problem<'_>, body: &Body, outputs: &[Class]) -> Option<Written<'p>> {
    let mut places = problem.places.borrow_mut();
    let classes = || body.nodes.iter().map(|n| n.0).chain(body.inputs.iter().copied());
    classes().zip(0..).for_each(|(class, slot)| places[class] = slot);
    let found = order(problem, body, outputs, &places);
    classes().for_each(|class| places[class] = NOWHERE);
    found.filter(|w| w.is_bound(problem))
}

/// The place of a class that the body lacks.
pub(super) const NOWHERE: u32 = u32::MAX;

/// The values of a body in the order of evaluation. `places` gives each of its classes a number, nodes first.
fn order<'p>(problem: &'p Problem<'_>, body: &Body, outputs: &[Class], places: &[u32]) -> Option<Written<'p>> {
    let count = body.nodes.len() + body.inputs.len();
    let mut locals: Vec<Local<'p>> = Vec::with_capacity(count);
    // By place: how far the walk has come with a value, in the end its number as a local.
    let mut state = vec![UNSEEN; count];
    let chosen = |slot: usize, class: Class| {
        let &(_, choice) = body.nodes.get(slot)?;
        problem.classes[class].choices.get(choice)
    };
    let place = |class: Class| Some(places[class]).filter(|&p| p != NOWHERE).map(|p| p as usize);
    let mut stack: Vec<(Class, bool)> = outputs.iter().rev().map(|&o| (o, false)).collect();
    while let Some((class, done)) = stack.pop() {
        let slot = place(class)?;
        let choice = chosen(slot, class);
        let operands = choice.map_or(&[][..], |c| &c.kids);
        if done {
            let mut kids: SmallVec<[usize; 4]> = SmallVec::new();
            for &kid in operands {
                kids.push(state[place(kid)?]);
            }
            state[slot] = locals.len();
            let local = local(problem, class, choice, kids, &locals);
            locals.push(local);
            continue;
        }
        match state[slot] {
            UNSEEN => state[slot] = OPEN,
            OPEN => return None,
            _done => continue,
        }
        stack.push((class, true));
        for &kid in operands.iter().rev() {
            match state[place(kid)?] {
                UNSEEN => stack.push((kid, false)),
                OPEN => return None,
                _done => {}
            }
        }
    }
    let outputs = outputs.iter().map(|&o| Some(state[place(o)?])).collect::<Option<Vec<usize>>>()?;
    let grid = outputs.iter().fold(0, |set, &o| set | locals[o].free);
    Some(Written { locals, outputs, grid })
}

/// A value that a walk has not come to.
const UNSEEN: usize = usize::MAX;
/// Its operands are being visited.
const OPEN: usize = usize::MAX - 1;

/// A value whose operands are among `locals`.
fn local<'p>(
    problem: &Problem<'_>,
    class: Class,
    choice: Option<&'p Choice>,
    kids: SmallVec<[usize; 4]>,
    locals: &[Local<'p>],
) -> Local<'p> {
    let free = match choice {
        Some(c) => c.free(kids.iter().map(|&k| locals[k].free)),
        None => problem.classes[class].free,
    };
    let mut passes: SmallVec<[(AxisId, u8); 2]> = SmallVec::new();
    // What is below an `at` is done before the kernel starts.
    let below = if choice.is_some_and(|c| matches!(c.step, Step::At(_))) { &[] } else { &kids[..] };
    for &kid in below {
        for &(axis, count) in &locals[kid].passes {
            match passes.iter_mut().find(|p| p.0 == axis) {
                Some(p) => p.1 = p.1.max(count),
                None => passes.push((axis, count)),
            }
        }
    }
    if let Some(Step::Fold(_, axis)) = choice.map(|c| &c.step) {
        match passes.iter_mut().find(|p| p.0 == *axis) {
            Some(p) => p.1 = p.1.saturating_add(1),
            None => passes.push((*axis, 1)),
        }
    }
    Local { class, choice, kids, free, passes }
}

impl Choice {
    /// The axis that it folds.
    pub fn folds(&self) -> Option<AxisId> {
        match self.step {
            Step::Fold(_, axis) => Some(axis),
            Step::Load(..) | Step::Number | Step::Gather(..) | Step::At(_) | Step::Map { .. } => None,
        }
    }
}

impl Written<'_> {
    /// Whether outputs vary along no axis but those of their classes, and each value along no axis but those of the grid
    /// and of folds around every use.
    fn is_bound(&self, problem: &Problem<'_>) -> bool {
        let own = |o: &usize| self.locals[*o].free & !problem.classes[self.locals[*o].class].free == 0;
        if !self.outputs.iter().all(own) {
            return false;
        }
        // Axes bound around every use of a value.
        let mut around = vec![AxisSet::MAX; self.locals.len()];
        for &o in &self.outputs {
            around[o] &= self.grid;
        }
        for at in (0..self.locals.len()).rev() {
            let local = &self.locals[at];
            if local.free & !around[at] != 0 {
                return false;
            }
            let Some(choice) = local.choice else { continue };
            if let Step::At(_) = choice.step {
                continue;
            }
            let inside = around[at] | choice.folds().map_or(0, axis_bit);
            for &kid in &local.kids {
                around[kid] &= inside;
            }
        }
        true
    }
}

//! Liveness: which buffers are one memory, whose it is, and from which step to which it is in use.

use super::{Home, Plan, Returned, StepHomes, donated, in_place};
use std::collections::BTreeMap;
use std::sync::Arc;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::Role;
use tilewright_ir::kernel::{Program, ProgramBuffer, ScanArgument, ScanResult, Space, Step};
use tilewright_ir::types::{Dim, Symbol, Type};

/// Buffers that share memory in the arena.
pub(super) struct Group {
    pub(super) types: Vec<Type>,
    pub(super) first: usize,
    pub(super) last: usize,
}

/// A program and the values of its symbols in ours.
pub(super) type Callee = (usize, BTreeMap<Symbol, Dim>);

/// The arena of the programs that a step may run.
pub(super) struct Frame {
    pub(super) step: usize,
    pub(super) callees: Vec<Callee>,
    /// Groups of second memories for the carries of a scan, by result.
    spares: Vec<Option<usize>>,
}

/// Whose memory a root is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Home(Home),
    /// Group number in the arena.
    Group(usize),
    /// Never used.
    Nobody,
}

/// What is known of one program.
pub(super) struct Lives<'p> {
    index: BTreeMap<&'p Arc<str>, usize>,
    types: Vec<&'p Type>,
    roots: Vec<usize>,
    owners: Vec<Owner>,
    pub(super) groups: Vec<Group>,
    pub(super) frames: Vec<Frame>,
    returned: Vec<Option<Returned>>,
    pub(super) taken: Vec<bool>,
    pub(super) panels: usize,
}

pub(super) fn unknown(name: &str) -> Diagnostic {
    Diagnostic::bug(format!("no buffer `{name}`"))
}

pub(super) fn buffers(program: &Program) -> impl Iterator<Item = &ProgramBuffer> {
    program.params.iter().map(|p| &p.buffer).chain(&program.work)
}

fn number(program: &Program) -> Result<BTreeMap<&Arc<str>, usize>, Diagnostic> {
    let mut index = BTreeMap::new();
    for (i, b) in buffers(program).enumerate() {
        if index.insert(&b.name, i).is_some() {
            return Err(Diagnostic::bug(format!("two buffers `{}`", b.name)));
        }
    }
    Ok(index)
}

/// For each buffer the one whose memory it is, by `alias_of` and by results of calls that are their arguments.
fn roots(
    program: &Program,
    index: &BTreeMap<&Arc<str>, usize>,
    names: &BTreeMap<&str, usize>,
    plans: &[Plan],
) -> Result<Vec<usize>, Diagnostic> {
    let find = |name: &Arc<str>| index.get(name).copied().ok_or_else(|| unknown(name));
    let mut parent: Vec<usize> = (0..index.len()).collect();
    for (i, b) in buffers(program).enumerate() {
        if let Some(of) = &b.alias_of {
            parent[i] = find(of)?;
        }
    }
    for step in &program.steps {
        let plans = callees(step, names)?.iter().map(|(c, _)| plans.get(*c)).collect::<Option<Vec<&Plan>>>();
        // Without plans of callees, their results are memory of their own.
        let Some(plans) = plans else { continue };
        for (k, name) in results(step).into_iter().enumerate() {
            if let (Some(name), Some(argument)) = (name, handed_through(step, &plans, k)) {
                parent[find(name)?] = find(argument)?;
            }
        }
    }
    for i in 0..parent.len() {
        // Chains are walked once: every buffer on the way then points to the root.
        let mut way = Vec::new();
        let mut at = i;
        while parent[at] != at {
            way.push(at);
            at = parent[at];
            if way.len() > parent.len() {
                return Err(Diagnostic::bug("buffers that are aliases of each other"));
            }
        }
        way.into_iter().for_each(|b| parent[b] = at);
    }
    Ok(parent)
}

fn callees(step: &Step, names: &BTreeMap<&str, usize>) -> Result<Vec<Callee>, Diagnostic> {
    let find = |function: &str, symbols: &[(Symbol, Dim)]| {
        let found = names.get(function).copied();
        let found = found.ok_or_else(|| Diagnostic::bug(format!("no program `{function}`")))?;
        Ok((found, symbols.iter().cloned().collect()))
    };
    match step {
        Step::Launch(_) | Step::Pack(_) => Ok(Vec::new()),
        Step::Call(c) => Ok(vec![find(&c.function, &c.symbols)?]),
        Step::Cond(c) => Ok(vec![find(&c.yes.function, &c.yes.symbols)?, find(&c.no.function, &c.no.symbols)?]),
        Step::Scan(s) => Ok(vec![find(&s.body.function, &s.body.symbols)?]),
    }
}

/// Buffers for the parameters of the programs that a step runs.
fn arguments(step: &Step) -> Vec<&Arc<str>> {
    match step {
        Step::Launch(l) => l.arguments.iter().collect(),
        Step::Pack(p) => vec![&p.from, &p.to],
        Step::Call(c) => c.arguments.iter().collect(),
        Step::Cond(c) => c.arguments.iter().collect(),
        Step::Scan(s) => s.arguments.iter().map(ScanArgument::name).collect(),
    }
}

/// Names that the results of the programs get that a step runs.
fn results(step: &Step) -> Vec<Option<&Arc<str>>> {
    match step {
        Step::Launch(_) | Step::Pack(_) => Vec::new(),
        Step::Call(c) => c.results.iter().map(Some).collect(),
        Step::Cond(c) => c.results.iter().map(Some).collect(),
        Step::Scan(s) => s.results.iter().map(ScanResult::name).collect(),
    }
}

/// The argument whose memory result `k` is, whatever way the step takes.
fn handed_through<'s>(step: &'s Step, plans: &[&Plan], k: usize) -> Option<&'s Arc<str>> {
    let param = |plan: &&Plan| match plan.results.get(k)?.0 {
        Returned::Param(i) => Some(i),
        Returned::Written | Returned::Copied(_) => None,
    };
    let first = plans.first().and_then(param)?;
    if !plans.iter().all(|p| param(p) == Some(first)) {
        return None;
    }
    match step {
        Step::Launch(_) | Step::Pack(_) => None,
        Step::Call(c) => c.arguments.get(first),
        Step::Cond(c) => c.arguments.get(first),
        // The memory of a carry stays where it is only if the next step finds it as the same parameter.
        Step::Scan(s) => match (s.arguments.get(k)?, s.results.get(k)?) {
            (ScanArgument::Carry(name), ScanResult::Carry(_)) if first == k => Some(name),
            (_, _) => None,
        },
    }
}

/// Which parameters are weights of the entry wherever their program is called from, so that panels of them last.
pub(super) fn fixed_params(programs: &[Program], names: &BTreeMap<&str, usize>) -> Result<Vec<Vec<bool>>, Diagnostic> {
    let weights = |p: &Program| p.params.iter().map(|p| p.role == Role::Weight).collect();
    let mut fixed: Vec<Vec<bool>> = programs.iter().map(weights).collect();
    for (caller, program) in programs.iter().enumerate().rev() {
        let index = number(program)?;
        let roots = roots(program, &index, names, &[])?;
        let is_fixed = is_fixed(program, &index, &fixed[caller]);
        for step in &program.steps {
            for (callee, _) in callees(step, names)? {
                let function = &programs[callee].name;
                if callee >= caller {
                    return Err(Diagnostic::bug(format!("`{function}` is called before it is there")));
                }
                let arguments = arguments(step);
                if arguments.len() != fixed[callee].len() {
                    return Err(Diagnostic::bug(format!("a call of `{function}` with other arguments")));
                }
                for (k, (name, slot)) in arguments.iter().zip(&mut fixed[callee]).enumerate() {
                    let root = roots[*index.get(name).ok_or_else(|| unknown(name))?];
                    *slot &= is_fixed[root] && !is_carry(step, k);
                }
            }
        }
    }
    Ok(fixed)
}

/// Whether argument `k` is another memory in later steps of a scan.
fn is_carry(step: &Step, k: usize) -> bool {
    matches!(step, Step::Scan(s) if matches!(s.arguments.get(k), Some(ScanArgument::Carry(_))))
}

/// Whether argument `k` is handed to every step of a scan as it is; the lowering knows that no step changes it.
fn is_kept(step: &Step, k: usize) -> bool {
    matches!(step, Step::Scan(s) if matches!(s.arguments.get(k), Some(ScanArgument::Fixed(_))))
}

/// Constants and fixed parameters.
fn is_fixed(program: &Program, index: &BTreeMap<&Arc<str>, usize>, params: &[bool]) -> Vec<bool> {
    let mut fixed = vec![false; index.len()];
    fixed[..params.len()].copy_from_slice(params);
    for (name, _) in &program.constants {
        index.get(name).into_iter().for_each(|&i| fixed[i] = true);
    }
    fixed
}

impl<'p> Lives<'p> {
    pub(super) fn new(
        program: &'p Program,
        fixed: &[bool],
        names: &BTreeMap<&str, usize>,
        plans: &[Plan],
    ) -> Result<Lives<'p>, Diagnostic> {
        let index = number(program)?;
        let roots = in_place::merge(program, &index, roots(program, &index, names, plans)?)?;
        let mut owners = vec![Owner::Nobody; roots.len()];
        for (i, owner) in owners.iter_mut().enumerate().take(program.params.len()) {
            *owner = Owner::Home(Home::Param(i));
        }
        for (i, (name, _)) in program.constants.iter().enumerate() {
            owners[*index.get(name).ok_or_else(|| unknown(name))?] = Owner::Home(Home::Constant(i));
        }
        let fixed = is_fixed(program, &index, fixed);
        let (groups, frames, returned) = (Vec::new(), Vec::new(), Vec::new());
        let taken = vec![false; program.params.len()];
        let types = buffers(program).map(|b| &b.ty).collect();
        let mut lives = Lives { index, types, roots, owners, groups, frames, returned, taken, panels: 0 };
        lives.keep_panels(program, &fixed)?;
        lives.claim_results(program)?;
        lives.walk(program, names, plans)?;
        Ok(lives)
    }

    fn root(&self, name: &Arc<str>) -> Result<usize, Diagnostic> {
        self.index.get(name).map(|&i| self.roots[i]).ok_or_else(|| unknown(name))
    }

    fn keep_panels(&mut self, program: &Program, fixed: &[bool]) -> Result<(), Diagnostic> {
        for step in &program.steps {
            if let Step::Pack(pack) = step
                && fixed[self.root(&pack.from)?]
            {
                let to = self.root(&pack.to)?;
                if self.owners[to] != Owner::Nobody {
                    return Err(Diagnostic::bug(format!("the panels `{}` are made twice", pack.to)));
                }
                self.owners[to] = Owner::Home(Home::Panels(self.panels));
                self.panels += 1;
            }
        }
        Ok(())
    }

    /// The first result of a memory is written where it goes; later ones, and what is not ours to give, are copied.
    fn claim_results(&mut self, program: &Program) -> Result<(), Diagnostic> {
        for (k, name) in program.results.iter().enumerate() {
            let root = self.root(name)?;
            self.returned.push(match self.owners[root] {
                Owner::Nobody => {
                    self.owners[root] = Owner::Home(Home::Result(k));
                    Some(Returned::Written)
                }
                Owner::Home(Home::Param(i)) if donated(program, i) && !self.taken[i] => {
                    self.taken[i] = true;
                    Some(Returned::Param(i))
                }
                Owner::Home(home) => Some(Returned::Copied(home)),
                Owner::Group(_) => None,
            });
        }
        Ok(())
    }

    fn walk(&mut self, program: &Program, names: &BTreeMap<&str, usize>, plans: &[Plan]) -> Result<(), Diagnostic> {
        for (number, step) in program.steps.iter().enumerate() {
            for name in step.names() {
                self.touch(name, number)?;
            }
            match step {
                Step::Launch(launch) => {
                    let kernel = program.kernels.get(launch.kernel);
                    let kernel = kernel.ok_or_else(|| Diagnostic::bug("a launch of no kernel"))?;
                    if kernel.arguments.len() != launch.arguments.len() {
                        return Err(Diagnostic::bug(format!("a launch of `{}` with other arguments", kernel.name)));
                    }
                    for (name, argument) in launch.arguments.iter().zip(&kernel.arguments) {
                        if argument.space != Space::In {
                            self.write(program, name)?;
                        }
                    }
                }
                Step::Pack(pack) => {
                    let root = self.root(&pack.to)?;
                    if !matches!(self.owners[root], Owner::Home(Home::Panels(_))) {
                        self.write(program, &pack.to)?;
                    }
                }
                Step::Call(_) | Step::Cond(_) | Step::Scan(_) => {
                    self.call(program, step, number, callees(step, names)?, plans)?;
                }
            }
        }
        // Every name of a memory counts for its size.
        for (ty, &root) in self.types.iter().zip(&self.roots) {
            if let Owner::Group(g) = self.owners[root] {
                self.groups[g].types.push((*ty).clone());
            }
        }
        Ok(())
    }

    fn call(
        &mut self,
        program: &Program,
        step: &Step,
        number: usize,
        callees: Vec<Callee>,
        plans: &[Plan],
    ) -> Result<(), Diagnostic> {
        let names = results(step);
        let mut all = Vec::new();
        for (callee, _) in &callees {
            let plan = plans.get(*callee).ok_or_else(|| Diagnostic::bug("a callee without a plan"))?;
            if plan.results.len() != names.len() {
                return Err(Diagnostic::bug("a call with other results"));
            }
            let taken = arguments(step).into_iter().zip(&plan.taken).enumerate();
            for (_, (name, _)) in taken.filter(|(k, (_, taken))| **taken && !is_kept(step, *k)) {
                self.write(program, name)?;
            }
            all.push(plan);
        }
        names.iter().flatten().try_for_each(|name| self.write(program, name))?;
        let mut spares = vec![None; names.len()];
        if let Step::Scan(scan) = step {
            for (k, result) in scan.results.iter().enumerate() {
                if let ScanResult::Carry(name) = result
                    && handed_through(step, &all, k).is_none()
                {
                    let ty = self.types.get(*self.index.get(name).ok_or_else(|| unknown(name))?);
                    let types = ty.into_iter().map(|t| (*t).clone()).collect();
                    spares[k] = Some(self.groups.len());
                    self.groups.push(Group { types, first: number, last: number });
                }
            }
        }
        self.frames.push(Frame { step: number, callees, spares });
        Ok(())
    }

    fn touch(&mut self, name: &Arc<str>, step: usize) -> Result<(), Diagnostic> {
        let root = self.root(name)?;
        match self.owners[root] {
            Owner::Nobody => {
                self.owners[root] = Owner::Group(self.groups.len());
                self.groups.push(Group { types: Vec::new(), first: step, last: step });
            }
            Owner::Group(g) => self.groups[g].last = step,
            Owner::Home(_) => {}
        }
        Ok(())
    }

    /// Nothing may be written but our own memory and donated parameters.
    fn write(&mut self, program: &Program, name: &Arc<str>) -> Result<(), Diagnostic> {
        let root = self.root(name)?;
        match self.owners[root] {
            Owner::Home(Home::Param(i)) if donated(program, i) => self.taken[i] = true,
            Owner::Home(Home::Param(_) | Home::Constant(_) | Home::Panels(_)) => {
                return Err(Diagnostic::bug(format!("`{name}` is written, but its memory is not the program's own")));
            }
            Owner::Home(Home::Result(_) | Home::Slot(_)) | Owner::Group(_) | Owner::Nobody => {}
        }
        Ok(())
    }

    /// Homes by name; `number` gives the slots of groups, then those of frames.
    pub(super) fn homes(&self, number: &[usize]) -> BTreeMap<Arc<str>, Home> {
        let home = |(name, &i): (&&Arc<str>, &usize)| match self.owners[self.roots[i]] {
            Owner::Home(home) => Some(((*name).clone(), home)),
            Owner::Group(g) => Some(((*name).clone(), Home::Slot(number[g]))),
            Owner::Nobody => None,
        };
        self.index.iter().filter_map(home).collect()
    }

    pub(super) fn steps(
        &self,
        program: &Program,
        homes: &BTreeMap<Arc<str>, Home>,
        number: &[usize],
    ) -> Result<Vec<StepHomes>, Diagnostic> {
        let home = |name: &Arc<str>| homes.get(name).copied().ok_or_else(|| unknown(name));
        let mut frames = self.frames.iter().zip(&number[self.groups.len()..]);
        let step = |step: &Step| {
            let mut of = StepHomes {
                arguments: arguments(step).into_iter().map(home).collect::<Result<_, _>>()?,
                results: results(step).into_iter().map(|r| r.map(home).transpose()).collect::<Result<_, _>>()?,
                ..StepHomes::default()
            };
            if let Step::Cond(c) = step {
                of.predicate = Some(home(&c.predicate)?);
            }
            if !matches!(step, Step::Launch(_) | Step::Pack(_)) {
                let (frame, &slot) = frames.next().ok_or_else(|| Diagnostic::bug("a call without an arena"))?;
                of.callees = frame.callees.iter().map(|(c, _)| *c).collect();
                of.frame = Some(slot);
                of.spares = frame.spares.iter().map(|s| s.map(|g| number[g])).collect();
            }
            Ok(of)
        };
        program.steps.iter().map(step).collect()
    }

    pub(super) fn results(
        &self,
        program: &Program,
        homes: &BTreeMap<Arc<str>, Home>,
    ) -> Result<Vec<(Returned, Type)>, Diagnostic> {
        let result = |(name, returned): (&Arc<str>, &Option<Returned>)| {
            let ty = self.types[*self.index.get(name).ok_or_else(|| unknown(name))?].clone();
            let returned = returned.clone().filter(|_| homes.contains_key(name)).ok_or_else(|| unknown(name))?;
            Ok((returned, ty))
        };
        program.results.iter().zip(&self.returned).map(result).collect()
    }
}

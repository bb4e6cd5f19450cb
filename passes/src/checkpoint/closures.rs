//! Checkpointed gradients of closures over the DSL, inside the graph that is being built.

use super::{Plan, blocks};
use crate::autodiff::{Keeps, Kept, alias, gradients_keeping};
use crate::build::{add, fresh, renamed, renamed_rule};
use std::cell::RefCell;
use std::collections::BTreeMap;
use tilewright_ir::diag::{Diagnostic, Place};
use tilewright_ir::dsl::{Tensor, Tensors, Traced};
use tilewright_ir::graph::{Function, Module, Node, NodeId, Value};
use tilewright_ir::op::Name;

/// How gradients of closures are taken, and what they kept: `value_and_grad` of the DSL by a [`Plan`].
///
/// ```
/// use tilewright_ir::{dsl::{Graph, Tensor}, types::DType};
/// use tilewright_passes::checkpoint::Checkpointing;
///
/// let g = Graph::new("main");
/// let x = g.input("x", DType::F32, [4, 16]);
/// let weights: Vec<Tensor> = (0..9).map(|i| g.weight(&format!("w{i}"), DType::F32, [16, 16])).collect();
/// let loss = |weights: &Vec<Tensor>| weights.iter().fold(x.clone(), |x, w| x.matmul(w).tanh()).sum(&[0, 1]);
/// let (value, gradients) = Checkpointing::sqrt().value_and_grad(loss)(&weights);
/// let all: Vec<&Tensor> = std::iter::once(&value).chain(&gradients).collect();
/// // Three segments of three layers each, which are one function.
/// assert!(g.finish(&all)?.functions.contains_key("segment.bwd"));
/// # Ok::<(), tilewright_ir::diag::Diagnostic>(())
/// ```
#[derive(Debug)]
pub struct Checkpointing {
    plan: Plan,
    /// Whether the plan is for closures with a chain of blocks, and others stay as they are.
    of_chains: bool,
    kept: RefCell<Vec<Kept>>,
}

impl Checkpointing {
    /// By `plan`.
    pub fn by(plan: Plan) -> Checkpointing {
        Checkpointing { plan, of_chains: false, kept: RefCell::default() }
    }

    /// What a training step does where nothing else is asked for: blocks that repeat are functions, and functions keep what is worth
    /// its bytes, see [`Plan::USUAL`]. A closure without blocks stays one function, of which kernels keep what they choose.
    pub fn usual() -> Checkpointing {
        Checkpointing { of_chains: true, ..Checkpointing::by(Plan::USUAL) }
    }

    /// In about sqrt(n) segments of the n blocks that are found in the closure.
    pub fn sqrt() -> Checkpointing {
        Checkpointing::by(Plan::SQRT)
    }

    /// What functions have kept so far.
    pub fn kept(&self) -> Vec<Kept> {
        self.kept.borrow().clone()
    }

    /// The value of a scalar function and its gradient, see [`crate::autodiff::value_and_grad`].
    ///
    /// Errors, when the graph is finished: `no-chain` where the plan needs blocks and the closure has none.
    #[track_caller]
    pub fn value_and_grad<A: Tensors>(&self, f: impl Fn(&A) -> Tensor) -> impl Fn(&A) -> (Tensor, A) {
        let place = Place::caller();
        move |x| {
            let arguments = alias(x);
            let (y, keeps) = self.planned(&f, &arguments);
            let (gradients, kept) = gradients_keeping(&y, &arguments.list(), place.clone(), keeps);
            self.kept.borrow_mut().extend(kept);
            (y, arguments.rebuilt(gradients))
        }
    }

    /// The value of a closure whose blocks stand as the plan has them, and what functions keep.
    fn planned<A: Tensors>(&self, f: &impl Fn(&A) -> Tensor, x: &A) -> (Tensor, Keeps) {
        let graph = x.list().first().map(|t| t.graph().clone());
        let Some(graph) = graph.filter(|_| self.plan != Plan::PLAIN) else { return (f(x), self.plan.keep.into()) };
        let traced = graph.trace(|_| vec![f(x)]);
        let made = traced.and_then(|traced| self.appended(traced));
        made.unwrap_or_else(|| (graph.fail(Diagnostic::bug("a closure without a value")), Keeps::default()))
    }

    /// The value of a closure by the plan; none after a mistake.
    fn appended(&self, traced: Traced) -> Option<(Tensor, Keeps)> {
        let Traced { function, given } = traced;
        let given = given.iter().map(Option::as_ref).collect::<Option<Vec<&Tensor>>>()?;
        let graph = given.first().map(|t| t.graph().clone())?;
        let mut keeps = Keeps::default();
        let made = graph.extend(&given, |module, target, values| {
            let (entry, kept) = self.adopted(module, function)?;
            keeps = kept;
            Ok(inlined(&entry, target, values))
        })?;
        Some((made.into_iter().next()?, keeps))
    }

    /// The function by the plan, and what functions keep; those that it needs are added to the module.
    fn adopted(&self, module: &mut Module, f: Function) -> Result<(Function, Keeps), Diagnostic> {
        let mut all = module.clone();
        let name = fresh(&all, "closure");
        add(&mut all, Function { name: name.clone(), ..f });
        let whole = all.part(&name)?;
        let (planned, keeps) = match self.of_chains && blocks(&whole).is_none() {
            true => (whole, self.plan.keep.into()),
            false => self.plan.applied(&whole)?,
        };
        let planned = planned.part(&name)?;
        let names = names(module, &planned);
        let own = |name: &Name| Ok(names.get(name).unwrap_or(name).clone());
        let made = planned.functions.values().map(|f| with_names(f, &own)).collect::<Result<Vec<_>, Diagnostic>>()?;
        let mut entry = None;
        for f in made {
            match f.name == name {
                true => entry = Some(f),
                false if module.functions.contains_key(&f.name) => {}
                false => add(module, f),
            }
        }
        let of = keeps.of.into_iter().map(|(name, keep)| Ok((own(&name)?, keep)));
        let of = of.collect::<Result<BTreeMap<Name, _>, Diagnostic>>()?;
        Ok((entry.ok_or_else(|| Diagnostic::bug("a plan without an entry"))?, Keeps { of, ..keeps }))
    }
}

/// New names of the functions of `planned` that are others in `module`, which may be run as they are there; those that run such ones are
/// others, too.
fn names(module: &Module, planned: &Module) -> BTreeMap<Name, Name> {
    let mut all = module.clone();
    planned
        .functions
        .iter()
        .filter(|(name, _)| !module.functions.contains_key(*name))
        .for_each(|(_, f)| add(&mut all, f.clone()));
    let mut names: BTreeMap<Name, Name> = BTreeMap::new();
    loop {
        let before = names.len();
        for f in planned.functions.values().filter(|f| module.functions.contains_key(&f.name)) {
            let mut runs = f.nodes.iter().flat_map(Node::callees).chain(f.derivative.functions());
            let other = !module.functions.get(&f.name).is_some_and(|known| known.same_ops(f));
            if !names.contains_key(&f.name) && (other || runs.any(|callee| names.contains_key(callee))) {
                let own = fresh(&all, &f.name);
                add(&mut all, Function { name: own.clone(), ..f.clone() });
                names.insert(f.name.clone(), own);
            }
        }
        if names.len() == before {
            return names;
        }
    }
}

/// The function under the name `own` has for it, with such names for what it runs and is differentiated by.
fn with_names(f: &Function, own: &dyn Fn(&Name) -> Result<Name, Diagnostic>) -> Result<Function, Diagnostic> {
    let mut f = f.clone();
    f.name = own(&f.name)?;
    for node in &mut f.nodes {
        node.op = renamed(&node.op, own)?;
    }
    f.derivative = renamed_rule(&f.derivative, own)?;
    Ok(f)
}

/// Appends the nodes of `f` to `target`, where its parameters are `given`. Its results.
fn inlined(f: &Function, target: &mut Function, given: &[Value]) -> Vec<Value> {
    let (params, first) = (f.params.len(), target.nodes.len());
    let moved = |v: Value| match v.node.index().checked_sub(params) {
        None => given[v.node.index()],
        Some(i) => Value { node: NodeId((first + i) as u32), ..v },
    };
    for node in &f.nodes[params..] {
        target.nodes.push(Node { args: node.args.iter().map(|&a| moved(a)).collect(), ..node.clone() });
    }
    f.results.iter().map(|&r| moved(r)).collect()
}

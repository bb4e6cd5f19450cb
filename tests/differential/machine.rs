//! From a list of steps to a well-typed graph. A step is a few bytes: which op, and what it picks among the values so far.
//! A step that does not fit is left out, so any list is a graph, and a shorter list is a smaller graph.

use super::bound::Bound;
use super::data::Fill;
use super::{compose, elementwise, fold, rows, shape};
use proptest::prelude::*;
use tilewright_ir::dsl::{Graph, Tensor};
use tilewright_ir::graph::{Module, Role};
use tilewright_ir::types::{Bindings, DType, Dim, SymbolDecl, Type};

/// Most elements of a value, and most products of a contraction: the interpreters are slow.
pub const MOST_ELEMENTS: usize = 5000;
pub const MOST_PRODUCTS: usize = 60_000;
const MOST_RANK: usize = 4;

/// One op in the making.
#[derive(Clone, Debug)]
pub struct Step {
    kind: u8,
    picks: [u8; 10],
}

/// A graph in the making.
#[derive(Clone, Debug)]
pub struct Case {
    /// A function that the graph may call; empty is none.
    pub callee: Vec<Step>,
    /// The steps of the graph.
    pub steps: Vec<Step>,
    /// Sizes of `n` and `m` in two runs.
    pub sizes: [(u8, u8); 2],
    /// What the inputs are made from.
    pub seed: u64,
    /// Whether floats may be NaN, infinite or -0.
    pub special: bool,
}

/// Any case. Shrinking removes steps, then makes the rest simpler.
pub fn cases() -> impl Strategy<Value = Case> {
    let step = (any::<u8>(), any::<[u8; 10]>()).prop_map(|(kind, picks)| Step { kind, picks });
    let steps = |most| proptest::collection::vec(step.clone(), 0..most);
    let callee = prop_oneof![3 => Just(Vec::new()), 1 => steps(5)];
    let sizes = (0..N.len() as u8, 0..M.len() as u8);
    let sizes = [sizes.clone(), sizes];
    let special = proptest::bool::weighted(0.15);
    (callee, steps(12), sizes, any::<u64>(), special).prop_map(|(callee, steps, sizes, seed, special)| Case {
        callee,
        steps,
        sizes,
        seed,
        special,
    })
}

/// Sizes of `n`, which may be empty, and of `m`.
const N: &[i64] = &[3, 1, 0, 2, 8, 17];
const M: &[i64] = &[5, 1, 2, 7, 16, 33, 65, 257, 300];

/// A finished graph.
pub struct Built {
    /// The module; its entry is `main`.
    pub module: Module,
    /// What goes into each parameter.
    pub fills: Vec<Fill>,
    /// What is known of each result.
    pub bounds: Vec<Bound>,
    /// Values of the symbols in two runs.
    pub bindings: [Bindings; 2],
    /// Whether integers wrap in a dtype below i64, which the kernel interpreter does not do.
    pub wraps: bool,
    /// See [`Machine::infinite`].
    pub infinite: bool,
}

/// A value with what is known of it.
#[derive(Clone)]
pub struct Entry {
    /// The handle.
    pub tensor: Tensor,
    /// What is known.
    pub bound: Bound,
}

/// The function that may be called.
#[derive(Clone)]
pub struct Callee {
    /// Types and contents of its parameters.
    pub params: Vec<(Type, Role, Fill)>,
    /// What is known of its results.
    pub results: Vec<Bound>,
    /// See [`Machine::infinite`].
    pub infinite: bool,
}

/// The bytes of a step, one after the other.
pub struct Picks<'s> {
    bytes: std::slice::Iter<'s, u8>,
}

impl Picks<'_> {
    /// A number below `n`; 0 when all bytes are spent.
    pub fn below(&mut self, n: usize) -> usize {
        usize::from(self.bytes.next().copied().unwrap_or(0)) % n.max(1)
    }

    /// One of `items`.
    pub fn of<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }

    /// Holds in one case of `n`.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == n - 1
    }
}

/// A function under construction.
pub struct Machine {
    /// Where ops go.
    pub graph: Graph,
    /// Declared ranges of symbols.
    symbols: Vec<SymbolDecl>,
    /// Values that the symbols have in some run.
    runs: Vec<Bindings>,
    /// Sizes to choose from.
    pool: Vec<Dim>,
    /// Values so far.
    pub values: Vec<Entry>,
    /// Parameters so far.
    params: Vec<(Type, Role, Fill)>,
    /// Results that a donation asks for.
    pub kept: Vec<Entry>,
    /// The function that may be called.
    pub callee: Option<Callee>,
    /// See [`Built::wraps`].
    pub wraps: bool,
    /// Whether floats may be infinite: they may be from the start ([`Case::special`]), or after a fold of nothing.
    pub infinite: bool,
}

/// A row of the table of steps.
type Row = fn(&mut Machine, &mut Picks<'_>) -> Option<Entry>;

/// What a step may be. Rows that fail more bugs stand more often.
const ROWS: &[Row] = &[
    input,
    elementwise::unary,
    elementwise::binary,
    elementwise::compare,
    elementwise::select,
    elementwise::cast,
    fold::reduce,
    fold::reduce,
    fold::dot,
    fold::dot,
    fold::arg,
    fold::cumsum,
    fold::block_linear,
    shape::reshape,
    shape::reshape,
    shape::transpose,
    shape::broadcast,
    shape::slice,
    shape::pad,
    shape::concat,
    shape::flip,
    shape::take,
    shape::take_along,
    shape::scatter_add,
    shape::update_slice,
    shape::source,
    compose::softmax,
    compose::norm,
    compose::attention,
    compose::lookup,
    compose::call,
    rows::folded,
    rows::folded,
    rows::extreme,
    rows::crossed,
    elementwise::binary,
    elementwise::unary,
];

fn input(m: &mut Machine, p: &mut Picks<'_>) -> Option<Entry> {
    let dtypes = [DType::F32, DType::F32, DType::F32, DType::F64, DType::F16, DType::Bf16, DType::I64, DType::I32];
    let others = [DType::U8, DType::I8, DType::U32, DType::U64, DType::I16, DType::U16, DType::Bool, DType::I64];
    let dtype = if p.one_in(3) { p.of(&others) } else { p.of(&dtypes) };
    let dims = m.dims(p, 4);
    m.fresh(p, dtype, dims)
}

impl Machine {
    /// Up to `most - 1` sizes from the pool.
    pub fn dims(&self, p: &mut Picks<'_>, most: usize) -> Vec<Dim> {
        let rank = (p.below(most) + 2) % most;
        (0..rank).map(|_| self.dim(p)).collect()
    }

    /// A size from the pool.
    pub fn dim(&self, p: &mut Picks<'_>) -> Dim {
        self.pool[p.below(self.pool.len())].clone()
    }

    /// The largest value in any run.
    pub fn high(&self, d: &Dim) -> usize {
        let values = self.runs.iter().filter_map(|b| d.eval(b).ok());
        values.max().and_then(|v| usize::try_from(v).ok()).unwrap_or(usize::MAX)
    }

    /// Whether the size is 0 in some run.
    pub fn empty(&self, d: &Dim) -> bool {
        self.runs.iter().any(|b| d.eval(b) == Ok(0))
    }

    /// The least value that the declarations allow.
    pub fn low(&self, d: &Dim) -> usize {
        usize::try_from(d.bounds(&self.symbols).0).unwrap_or(0)
    }

    /// Elements in the largest run.
    pub fn elements(&self, shape: &[Dim]) -> usize {
        shape.iter().fold(1usize, |n, d| n.saturating_mul(self.high(d)))
    }

    /// Whether a value of this shape is small enough.
    pub fn small(&self, shape: &[Dim]) -> bool {
        shape.len() <= MOST_RANK && self.elements(shape) <= MOST_ELEMENTS
    }

    /// A parameter with suitable contents.
    pub fn fresh(&mut self, p: &mut Picks<'_>, dtype: DType, dims: Vec<Dim>) -> Option<Entry> {
        let fill = match dtype {
            DType::Bool => Fill::Truth,
            d if d.is_float() && p.one_in(4) => Fill::Real,
            d if d.is_float() => Fill::Lattice,
            d if d.is_block() => Fill::Block,
            _integer if p.one_in(4) => Fill::Bits,
            _integer => Fill::Small,
        };
        let role = if p.one_in(3) { Role::Weight } else { Role::Input };
        self.parameter(Type { dtype, shape: dims }, role, fill)
    }

    /// A parameter.
    pub fn parameter(&mut self, ty: Type, role: Role, fill: Fill) -> Option<Entry> {
        if !self.small(&ty.shape) || self.params.len() > 12 {
            return None;
        }
        let bound = fill.bound(ty.dtype, &|d| self.high(d));
        self.wraps |= fill == Fill::Bits && ty.dtype != DType::I64;
        let name = format!("p{}", self.params.len());
        let tensor = match role {
            Role::Input => self.graph.input(&name, ty.dtype, &ty.shape),
            Role::Weight => self.graph.weight(&name, ty.dtype, &ty.shape),
            Role::Donated => self.graph.donated(&name, ty.dtype, &ty.shape),
        };
        self.params.push((ty, role, fill));
        Some(Entry { tensor, bound })
    }

    /// The picked value among those that fit, the latest first.
    pub fn pick(&self, p: &mut Picks<'_>, fits: impl Fn(&Entry) -> bool) -> Option<Entry> {
        let fitting: Vec<&Entry> = self.values.iter().rev().filter(|e| fits(e)).collect();
        if fitting.is_empty() { None } else { Some(fitting[p.below(fitting.len())].clone()) }
    }

    /// The picked value, or a fresh parameter of a picked shape where none fits.
    pub fn pick_or_fresh(&mut self, p: &mut Picks<'_>, dtype: DType, fits: impl Fn(&Entry) -> bool) -> Option<Entry> {
        match self.pick(p, fits) {
            Some(e) => Some(e),
            None => {
                let mut dims = self.dims(p, 3);
                dims.push(self.dim(p));
                self.fresh(p, dtype, dims)
            }
        }
    }

    /// A finished step, unless the value is too large or too noisy to go on with.
    pub fn done(&self, tensor: Tensor, bound: Bound) -> Option<Entry> {
        let useful = bound.is_useful(tensor.dtype()) && (self.small(tensor.shape()) || tensor.is_poisoned());
        useful.then_some(Entry { tensor, bound })
    }

    fn step(&mut self, step: &Step) {
        let mut picks = Picks { bytes: step.picks.iter() };
        let row = ROWS[usize::from(step.kind) % ROWS.len()];
        if let Some(entry) = row(self, &mut picks) {
            self.values.push(entry);
        }
    }

    /// Up to three values, the last among them, and what must be returned.
    fn results(&self, seed: u64) -> Vec<Entry> {
        let count = self.values.len();
        let mut chosen = vec![count.saturating_sub(1)];
        for shift in 0..seed % 3 {
            let at = (seed >> (8 + 8 * shift)) as usize % count.max(1);
            if !chosen.contains(&at) {
                chosen.push(at);
            }
        }
        chosen.into_iter().filter_map(|at| self.values.get(at)).chain(&self.kept).cloned().collect()
    }

    fn new(graph: &Graph, symbols: &[SymbolDecl], runs: Vec<Bindings>, pool: Vec<Dim>, infinite: bool) -> Machine {
        let (values, params, kept) = (Vec::new(), Vec::new(), Vec::new());
        let symbols = symbols.to_vec();
        Machine {
            graph: graph.clone(),
            symbols,
            runs,
            pool,
            values,
            params,
            kept,
            callee: None,
            wraps: false,
            infinite,
        }
    }

    fn run(&mut self, steps: &[Step]) {
        steps.iter().for_each(|s| self.step(s));
        if self.values.is_empty() {
            let ty = Type::new(DType::F32, [self.pool[0].clone()]);
            let entry = self.parameter(ty, Role::Input, Fill::Lattice);
            self.values.extend(entry);
        }
    }
}

/// Builds the graph of a case. Errors: a mistake in a row, for it must make well-typed ops only.
pub fn build(case: &Case) -> Result<Built, String> {
    let graph = Graph::new("main");
    let sizes = case.sizes.map(|(n, m)| (N[usize::from(n)], M[usize::from(m)]));
    let [(n0, m0), (n1, m1)] = sizes;
    let decl = |name: &str, a: i64, b: i64| SymbolDecl {
        name: name.into(),
        low: a.min(b),
        high: a.max(b) + 40,
        step: 1,
        likely: None,
    };
    let mut symbols = vec![decl("n", n0, n1), decl("m", m0, m1)];
    // The callee's own size becomes `m`, 17 or 4.
    symbols.push(SymbolDecl {
        name: "k".into(),
        low: m0.min(m1).min(4),
        high: m0.max(m1).max(17) + 40,
        step: 1,
        likely: None,
    });
    for s in &symbols {
        graph.symbol(&s.name, s.low..=s.high);
    }
    let bindings = sizes.map(|(n, m)| Bindings::from([("n".into(), n), ("m".into(), m), ("k".into(), m)]));
    let constants = [3, 4, 5, 1, 2, 17, 32, 0, 33].map(|c: i64| Dim::from(c));
    let pool = |symbols: &[&str]| {
        let mut pool: Vec<Dim> = constants.to_vec();
        symbols.iter().for_each(|s| pool.extend([Dim::symbol(s), Dim::symbol(s)]));
        pool.swap(1, constants.len());
        pool
    };
    let (mut callee, mut wraps) = (None, false);
    if !case.callee.is_empty() {
        graph.function("shared", |g| {
            let ks = [m0.min(m1).min(4), m0.max(m1).max(17)];
            let runs = ks.map(|k| Bindings::from([("k".into(), k)])).to_vec();
            let mut m = Machine::new(g, &symbols, runs, pool(&["k"]), case.special);
            m.run(&case.callee);
            let results = m.results(case.seed >> 32);
            wraps |= m.wraps;
            let bounds = results.iter().map(|e| e.bound).collect();
            callee = Some(Callee { params: m.params, results: bounds, infinite: m.infinite });
            results.into_iter().map(|e| e.tensor).collect::<Vec<_>>()
        });
    }
    let mut m = Machine::new(&graph, &symbols, bindings.to_vec(), pool(&["n", "m"]), case.special);
    m.callee = callee;
    m.run(&case.steps);
    let results = m.results(case.seed);
    let tensors: Vec<&Tensor> = results.iter().map(|e| &e.tensor).collect();
    let module = graph.finish(&tensors).map_err(|d| format!("the generator is wrong: {d}"))?;
    Ok(Built {
        module,
        fills: m.params.into_iter().map(|p| p.2).collect(),
        bounds: results.iter().map(|e| e.bound).collect(),
        bindings,
        wraps: wraps || m.wraps,
        infinite: m.infinite,
    })
}

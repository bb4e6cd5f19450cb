//! Whether a rule for tangents is linear in them, which is what reverse mode transposes.
//!
//! What reverse mode makes of a rule is the transpose of its derivative by the tangents. Where that derivative does not use the
//! tangents, which `custom` sees by its parameters, the rule is `L t + c`, and `c` the same wherever the rule does not jump.
//! So two things are left to be seen here, at each node on the way to a tangent of a result: that nothing jumps in a tangent or
//! stops its derivative, and that zeros make zeros. The value of each node is followed for tangents of zero: `(t + y) - y` is `y - y` there.

use std::collections::BTreeMap;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Derivative, Function, Module, Node, NodeId, Value};
use tilewright_ir::infer::shown_name;
use tilewright_ir::op::{GraphOp, Name, ReduceKind, ScalarOp};
use tilewright_ir::types::Type;

/// What is known of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Known {
    /// Whether it is made of a tangent.
    moves: bool,
    /// What it is where all tangents are zero.
    at: At,
}

/// A value where all tangents are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum At {
    Zero,
    /// The same as this value of the function is there.
    Is(Value),
}

/// Looks at the rule `tangent`: its parameters from `first` on are tangents, and its results from `results` on are to be linear in them.
///
/// Errors: `custom-rule` with the node that is not.
pub fn check(module: &Module, tangent: &Name, first: usize, results: usize) -> Result<(), Diagnostic> {
    let Some(f) = module.functions.get(tangent) else { return Ok(()) };
    let param = |i: usize| if i < first { At::Is(f.param(i)) } else { At::Zero };
    let params = (0..f.params.len()).map(|i| Known { moves: i >= first, at: param(i) }).collect();
    let mut walk = Walk { module, tangent, known: BTreeMap::new() };
    let asked = f.results.get(results..).unwrap_or_default();
    let found = walk.values(f, params, asked)?;
    match asked.iter().zip(&found).find(|(_, known)| known.at != At::Zero) {
        Some((&value, _)) => {
            let error = not_linear(tangent, "where its tangents are zeros, what it returns is not, or nobody can tell");
            Err(f
                .node(value)
                .places
                .iter()
                .fold(error, |d, place| d.at(place.clone(), "this is to be linear in tangents")))
        }
        None => Ok(()),
    }
}

/// The error of a rule that is not linear, and why.
pub fn not_linear(tangent: &Name, why: &str) -> Diagnostic {
    let message = format!("`@{tangent}`, the rule for a derivative, is not linear in its tangents: {why}");
    Diagnostic::new("custom-rule", message).note("reverse mode transposes the rule")
}

struct Walk<'a> {
    module: &'a Module,
    tangent: &'a Name,
    /// What functions make of parameters.
    known: BTreeMap<(Name, Vec<Known>), Vec<Known>>,
}

/// Nodes by what decides their values: those of one key have the same ones.
type Numbers = BTreeMap<(GraphOp, Vec<At>, Vec<Type>), NodeId>;

impl Walk<'_> {
    /// What is known of the results of a call of `name`, which are those of `own` where they are no operands.
    fn call(&mut self, name: &Name, args: &[Known], own: &dyn Fn(usize) -> At) -> Result<Vec<Known>, Diagnostic> {
        let f = self.module.functions.get(name).ok_or_else(|| Diagnostic::bug("a call of no function"))?;
        // Operands that are the same are the first such parameter inside.
        let inside = |known: &Known| match args.iter().position(|a| a.at == known.at) {
            Some(i) if known.at != At::Zero => At::Is(f.param(i)),
            _zero => At::Zero,
        };
        let params: Vec<Known> = args.iter().map(|known| Known { at: inside(known), ..*known }).collect();
        let outside = |(i, known): (usize, Known)| match known.at {
            At::Zero => known,
            At::Is(v) => Known { at: args.get(v.node.index()).map_or_else(|| own(i), |a| a.at), ..known },
        };
        Ok(self.function(f, params)?.into_iter().enumerate().map(outside).collect())
    }

    /// What is known of the results of a function.
    fn function(&mut self, f: &Function, params: Vec<Known>) -> Result<Vec<Known>, Diagnostic> {
        let key = (f.name.clone(), params.clone());
        if let Some(known) = self.known.get(&key) {
            return Ok(known.clone());
        }
        let found = self.values(f, params, &f.results)?;
        self.known.insert(key, found.clone());
        Ok(found)
    }

    /// What is known of values of `f`.
    fn values(&mut self, f: &Function, params: Vec<Known>, asked: &[Value]) -> Result<Vec<Known>, Diagnostic> {
        let mut needed = vec![false; f.nodes.len()];
        asked.iter().for_each(|v| needed[v.node.index()] = true);
        for i in (f.params.len()..f.nodes.len()).rev() {
            if needed[i] {
                f.nodes[i].args.iter().for_each(|a| needed[a.node.index()] = true);
            }
        }
        let mut known: Vec<Vec<Known>> = params.into_iter().map(|p| vec![p]).collect();
        let of = |known: &[Vec<Known>], values: &[Value]| -> Vec<Known> {
            values.iter().filter_map(|v| known.get(v.node.index())?.get(v.index as usize).copied()).collect()
        };
        let mut numbers = Numbers::new();
        for (i, node) in f.nodes.iter().enumerate().skip(f.params.len()) {
            if !needed[i] {
                known.push(Vec::new());
                continue;
            }
            let args = of(&known, &node.args);
            let key = (node.op.clone(), args.iter().map(|a| a.at).collect(), node.types.clone());
            let first = *numbers.entry(key).or_insert(NodeId(i as u32));
            known.push(self.node(node, &args, &|index| At::Is(Value { node: first, index: index as u32 }))?);
        }
        Ok(of(&known, asked))
    }

    /// What is known of the results of a node, which are those of `own` where nothing simpler is known.
    fn node(&mut self, node: &Node, args: &[Known], own: &dyn Fn(usize) -> At) -> Result<Vec<Known>, Diagnostic> {
        let moves = args.iter().any(|a| a.moves);
        // Of a function that is run, its own nodes say.
        let whole = node.callees().is_empty() && node.types.iter().all(|t| !t.dtype.is_float());
        if moves && (self.stops(node) || jumps(&node.op) || whole) {
            let why = format!("a tangent goes through `{}`", shown_name(&node.op));
            let error = not_linear(self.tangent, &why);
            return Err(node.places.iter().fold(error, |d, place| d.at(place.clone(), "in this")));
        }
        let either = |i: usize, a: Known, b: Known| Known {
            moves: a.moves || b.moves,
            at: if a.at == b.at { a.at } else { own(i) },
        };
        match &node.op {
            GraphOp::Call { function } => self.call(function, args, own),
            GraphOp::Cond { yes, no } => {
                let args = args.get(1..).unwrap_or_default();
                let (yes, no) = (self.call(yes, args, own)?, self.call(no, args, own)?);
                let both = yes.into_iter().zip(no).enumerate();
                // What neither has is of one of both, and not the same.
                Ok(both.map(|(i, (a, b))| either(i, a, b)).collect())
            }
            GraphOp::Scan { body, carries, .. } => self.scan((body, *carries), args, own),
            op => {
                let at = if vanishes(op, args) { At::Zero } else { same(op, args).unwrap_or_else(|| own(0)) };
                Ok(vec![Known { moves, at }])
            }
        }
    }

    /// A scan, whose carries are zero in all steps, or in none for sure.
    fn scan(
        &mut self,
        (body, carries): (&Name, usize),
        args: &[Known],
        own: &dyn Fn(usize) -> At,
    ) -> Result<Vec<Known>, Diagnostic> {
        let f = self.module.functions.get(body).ok_or_else(|| Diagnostic::bug("a scan of no function"))?;
        let inside = |i: usize, at: At| if at == At::Zero { At::Zero } else { At::Is(f.param(i)) };
        let mut args: Vec<Known> = args.iter().enumerate().map(|(i, a)| Known { at: inside(i, a.at), ..*a }).collect();
        loop {
            let found = self.function(f, args.clone())?;
            let mut merged = args.clone();
            for (i, (a, b)) in merged.iter_mut().zip(&found).take(carries).enumerate() {
                a.moves |= b.moves;
                a.at = if b.at == At::Zero { a.at } else { At::Is(f.param(i)) };
            }
            if merged == args {
                let outside = |(i, known): (usize, Known)| match known.at {
                    At::Zero => known,
                    At::Is(_) => Known { at: own(i), ..known },
                };
                let stacked = found.get(carries..).unwrap_or_default();
                return Ok(args[..carries].iter().chain(stacked).copied().enumerate().map(outside).collect());
            }
            args = merged;
        }
    }

    /// Whether no derivative passes through the node.
    fn stops(&self, node: &Node) -> bool {
        node.callees().iter().any(|f| self.module.functions.get(*f).is_some_and(|f| f.derivative == Derivative::Zero))
    }
}

/// Whether an op of floats has a slope that does not use its operands, and yet is not linear in them.
fn jumps(op: &GraphOp) -> bool {
    use ScalarOp::{Ceil, Floor, Rem, Round, Sign, Trunc};
    let GraphOp::Map { op } = op else { return false };
    matches!(op, Floor {} | Ceil {} | Round {} | Trunc {} | Sign {} | Rem {})
}

/// The value that an op at elements gives back, where it is one of its operands or the tangents are zero.
fn same(op: &GraphOp, args: &[Known]) -> Option<At> {
    let GraphOp::Map { op } = op else { return None };
    match (op, args) {
        (ScalarOp::Add {}, [a, b]) if a.at == At::Zero => Some(b.at),
        (ScalarOp::Add {} | ScalarOp::Sub {}, [a, b]) if b.at == At::Zero => Some(a.at),
        (ScalarOp::Sub {}, [a, b]) if a.at == b.at => Some(At::Zero),
        (ScalarOp::Select {}, [_, a, b]) if a.at == b.at => Some(a.at),
        (_other, _) => None,
    }
}

/// Whether a value is zero for sure: what an op makes of operands, some of which are.
fn vanishes(op: &GraphOp, args: &[Known]) -> bool {
    let zero = |i: usize| args.get(i).is_some_and(|a| a.at == At::Zero);
    let is_zero = |a: &Known| a.at == At::Zero;
    let (all, any) = (args.iter().all(is_zero), args.iter().any(is_zero));
    match op {
        GraphOp::Constant { value } => value.0.to_f64().is_some_and(|v| v.iter().all(|x| *x == 0.0)),
        GraphOp::Map { op } => scalar_vanishes(op, args),
        GraphOp::Dot { .. } => any,
        GraphOp::Reduce { kind: ReduceKind::Sum, .. }
        | GraphOp::Cumsum { .. }
        | GraphOp::Broadcast { .. }
        | GraphOp::Reshape { .. }
        | GraphOp::Transpose { .. }
        | GraphOp::Slice { .. }
        | GraphOp::Flip { .. }
        | GraphOp::Take { .. }
        | GraphOp::TakeAlong { .. } => zero(0),
        GraphOp::Pad { .. } | GraphOp::Concat { .. } | GraphOp::UpdateSlice { .. } => all,
        GraphOp::ScatterAdd { .. } => zero(0) && zero(2),
        // Of nothing the largest and the smallest are infinite, and a product is 1.
        GraphOp::Reduce { kind: ReduceKind::Max | ReduceKind::Min | ReduceKind::Prod, .. } => false,
        GraphOp::Parameter { .. }
        | GraphOp::Iota { .. }
        | GraphOp::Size { .. }
        | GraphOp::Argmax { .. }
        | GraphOp::Argmin { .. }
        | GraphOp::Call { .. }
        | GraphOp::Cond { .. }
        | GraphOp::Scan { .. } => false,
    }
}

fn scalar_vanishes(op: &ScalarOp, args: &[Known]) -> bool {
    let zero = |i: usize| args.get(i).is_some_and(|a| a.at == At::Zero);
    let all = args.iter().all(|a| a.at == At::Zero);
    match op {
        ScalarOp::Add {}
        | ScalarOp::Sub {}
        | ScalarOp::Max {}
        | ScalarOp::Min {}
        | ScalarOp::Or {}
        | ScalarOp::Xor {} => all,
        ScalarOp::Mul {} | ScalarOp::And {} => zero(0) || zero(1),
        // `0 / 0` is no reason to refuse a quotient.
        ScalarOp::Div {}
        | ScalarOp::Rem {}
        | ScalarOp::Neg {}
        | ScalarOp::Abs {}
        | ScalarOp::Sign {}
        | ScalarOp::Floor {}
        | ScalarOp::Ceil {}
        | ScalarOp::Round {}
        | ScalarOp::Trunc {}
        | ScalarOp::Sqrt {}
        | ScalarOp::Expm1 {}
        | ScalarOp::Log1p {}
        | ScalarOp::Tanh {}
        | ScalarOp::Erf {}
        | ScalarOp::Sin {}
        | ScalarOp::Shl {}
        | ScalarOp::Shr {}
        | ScalarOp::IsNan {}
        | ScalarOp::Cast { .. } => zero(0),
        ScalarOp::Select {} => zero(1) && zero(2),
        ScalarOp::Pow {}
        | ScalarOp::Rsqrt {}
        | ScalarOp::Exp {}
        | ScalarOp::Exp2 {}
        | ScalarOp::Log {}
        | ScalarOp::Log2 {}
        | ScalarOp::Cos {}
        | ScalarOp::Eq {}
        | ScalarOp::Ne {}
        | ScalarOp::Lt {}
        | ScalarOp::Le {}
        | ScalarOp::Gt {}
        | ScalarOp::Ge {}
        | ScalarOp::Not {} => false,
    }
}

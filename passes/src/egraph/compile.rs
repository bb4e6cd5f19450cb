//! From rules to e-graph rewrites: one per order of commutative operands and, where a rule names numbers, per dtype.

use super::cover::usual_sizes;
use super::facts::{AxisInfo, Facts, Graph, Sort, Tables};
use super::lang::{Attr, AxisId, AxisSet, ENode, Fold, Head, Number, axis_bit};
use super::push::{push_at, same_dtype, wide_number};
use super::rules::{Class, Condition, ConditionKind, Rule, RuleSet};
use super::term::Term;
use super::widths::is_half;
use egg::{ConditionalApplier, ENodeOrVar, Id, Pattern, PatternAst, Rewrite, Subst, Var};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::op::ScalarOp;
use tilewright_ir::types::{Bindings, DType};

/// What the user lets rewriting do to the numbers; each level allows those above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Numerics {
    /// Every bit stays.
    Exact,
    /// One operation may round differently.
    Rounding,
    /// Sums may be regrouped; rules with a domain fire.
    #[default]
    Reassociate,
    /// Everything, approximations too.
    Approx,
}

impl Numerics {
    const NAMES: [(Numerics, &str); 4] = [
        (Numerics::Exact, "exact"),
        (Numerics::Rounding, "rounding"),
        (Numerics::Reassociate, "reassociate"),
        (Numerics::Approx, "approx"),
    ];

    /// The level with this name on the command line.
    pub fn by_name(name: &str) -> Option<Numerics> {
        Numerics::NAMES.into_iter().find(|row| row.1 == name).map(|row| row.0)
    }

    /// The lowest level at which rules of a class may fire.
    pub fn least(class: &Class) -> Numerics {
        match class {
            Class::Exact => Numerics::Exact,
            Class::Rounding => Numerics::Rounding,
            Class::Reassociates | Class::Domain(_) => Numerics::Reassociate,
            Class::Approx(_) => Numerics::Approx,
        }
    }

    /// Whether rules of a class may fire.
    pub fn allows(self, class: &Class) -> bool {
        self >= Numerics::least(class)
    }
}

/// The name on the command line.
impl std::fmt::Display for Numerics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(Numerics::NAMES.iter().find(|row| row.0 == *self).map_or("", |row| row.1))
    }
}

/// A rewrite of this language.
pub type IndexRewrite = Rewrite<ENode, Tables>;

/// The rewrites of the rules that `numerics` allows, for values of the float `dtypes`, and push-at.
///
/// Errors: `too-many-variants`; a bug where egg refuses what the loader let through.
pub fn compile(rules: &RuleSet, numerics: Numerics, dtypes: &[DType]) -> Result<Vec<IndexRewrite>, Diagnostic> {
    let mut out = vec![push_at()?];
    for &to in dtypes {
        out.push(same_dtype(to)?);
    }
    let halves = dtypes.iter().any(|d| is_half(*d));
    if halves {
        out.push(wide_number()?);
    }
    // A value in f32 beside each of f16 or bf16 serves rules that leave roundings out.
    let widens = |r: &Rule| !r.right.has_own() || numerics >= Numerics::Rounding;
    let possible = |r: &Rule| widens(r) && (halves || !is_of_halves(r)) && casts_from(&r.left, dtypes);
    for rule in rules.rules.iter().filter(|r| numerics.allows(&r.class) && possible(r)) {
        let mut lefts = rule.left.variants().ok_or_else(|| {
            let message = format!("`{}` has too many orders of commutative operands", rule.name);
            rule.line.error("too-many-variants", message, 0, rule.name.len())
        })?;
        if symmetric(rule) {
            lefts.truncate(1);
        }
        // Numbers and sizes have a dtype; other rules match any float.
        let own = rule.right.has_own();
        let typed = own || typed(&rule.left) || typed(&rule.right);
        let kinds = dtypes.iter().copied().filter(|d| !own || is_half(*d)).map(Some);
        let kinds: Vec<Option<DType>> = if typed { kinds.collect() } else { vec![None] };
        for dtype in kinds {
            for (k, left) in lefts.iter().enumerate() {
                out.push(rewrite(rule, left, k, dtype)?);
            }
        }
    }
    Ok(out)
}

/// Whether the left side is one op on two variables, and exchanging them gives the same rule: the right side of the other
/// order of the operands would be the same once more, in that order.
fn symmetric(rule: &Rule) -> bool {
    let Term::Apply(_, args) = &rule.left else { return false };
    let [Term::Variable(a), Term::Variable(b)] = args.as_slice() else { return false };
    let same = |c: &Condition| c.kind == ConditionKind::Half;
    let exchanged = rule.right.exchanged(a, b);
    rule.truth.iter().chain(&rule.profit).all(same) && rule.right.variants().is_some_and(|v| v.contains(&exchanged))
}

/// Whether a rule holds for f16 and bf16 only.
fn is_of_halves(rule: &Rule) -> bool {
    rule.truth.iter().any(|c| c.kind == ConditionKind::Half)
}

/// Whether all casts to floats of a left side are to one of `dtypes`: no rule makes values of another.
fn casts_from(left: &Term, dtypes: &[DType]) -> bool {
    let Term::Apply(head, args) = left else { return true };
    let known = match head {
        Head::Scalar(ScalarOp::Cast { to }) => !to.is_float() || dtypes.contains(to),
        _other => true,
    };
    known && args.iter().all(|a| casts_from(a, dtypes))
}

/// Whether a term has numbers or sizes, whose type is that of the left side of a rule.
pub(super) fn typed(term: &Term) -> bool {
    match term {
        Term::Variable(_) => false,
        Term::Own(_) | Term::Number(_) | Term::Apply(Head::Extent, _) => true,
        Term::Apply(_, args) => args.iter().any(typed),
    }
}

fn rewrite(rule: &Rule, left: &Term, variant: usize, dtype: Option<DType>) -> Result<IndexRewrite, Diagnostic> {
    let refused = |e: String| Diagnostic::bug(format!("the rule `{}` does not compile: {e}", rule.name));
    let pattern = |term: &Term| -> Result<Pattern<ENode>, Diagnostic> {
        let mut ast = PatternAst::default();
        build(term, dtype, &mut ast).map_err(refused)?;
        Ok(Pattern::new(ast))
    };
    let mut conditions = Vec::new();
    for c in rule.truth.iter().chain(&rule.profit) {
        let vars = c.arguments.iter().map(|name| variable(name)).collect::<Result<Vec<Var>, String>>();
        conditions.push((c.kind, vars.map_err(refused)?));
    }
    let condition = move |graph: &mut Graph, root: Id, subst: &Subst| {
        // Real algebra is not that of integers, and numbers of the rule have one dtype.
        let fits = match graph[root].data.sort {
            Sort::Value(found) => dtype.map_or_else(|| found.is_float() || found == DType::Bool, |d| d == found),
            Sort::Attr => false,
        };
        fits && conditions.iter().all(|(kind, vars)| holds(*kind, vars, graph, subst))
    };
    let name = format!("{}~{variant}~{}", rule.name, dtype.map_or("any", DType::name));
    let applier = ConditionalApplier { condition, applier: pattern(&rule.right)? };
    Rewrite::new(name, pattern(left)?, applier).map_err(refused)
}

fn variable(name: &str) -> Result<Var, String> {
    format!("?{name}").parse().map_err(|e| format!("{e}"))
}

fn build(term: &Term, dtype: Option<DType>, ast: &mut PatternAst<ENode>) -> Result<Id, String> {
    let node = match term {
        Term::Variable(name) => ENodeOrVar::Var(variable(name)?),
        Term::Number(value) => {
            let number = dtype.and_then(|d| Number::new(d, *value)).ok_or("a number without a float dtype")?;
            ENodeOrVar::ENode(ENode::attr(Attr::Const(number)))
        }
        Term::Own(x) => {
            let to = dtype.ok_or("a cast without a dtype")?;
            let child = build(x, Some(to), ast)?;
            ENodeOrVar::ENode(ENode::new(Head::Scalar(ScalarOp::Cast { to }), vec![child]))
        }
        Term::Apply(head, args) => {
            let mut children = args.iter().map(|a| build(a, dtype, ast)).collect::<Result<Vec<Id>, String>>()?;
            match (head, args.first()) {
                (Head::Extent, _) => {
                    let leaf = ENode::attr(Attr::DType(dtype.ok_or("a size without a float dtype")?));
                    children.push(ast.add(ENodeOrVar::ENode(leaf)));
                }
                // A position has the dtype of its use: any, but the same on both sides.
                (Head::Iota, Some(Term::Variable(axis))) => {
                    children.push(ast.add(ENodeOrVar::Var(variable(&format!("{axis}-dtype"))?)));
                }
                (_, Some(_) | None) => {}
            }
            ENodeOrVar::ENode(ENode::new(head.clone(), children))
        }
    };
    Ok(ast.add(node))
}

/// Whether a condition of a rule file holds for the classes that a match bound. Assumptions are not asked here.
fn holds(kind: ConditionKind, vars: &[Var], graph: &Graph, subst: &Subst) -> bool {
    let facts = |i: usize| -> Option<&Facts> { vars.get(i).and_then(|v| subst.get(*v)).map(|id| &graph[*id].data) };
    let free = |i: usize| facts(i).map_or(0, |f| f.free);
    let axis = |i: usize| facts(i).and_then(Facts::axis);
    let bit = |i: usize| axis(i).map_or(0, axis_bit);
    match kind {
        ConditionKind::Indep => bit(1) != 0 && free(0) & bit(1) == 0,
        ConditionKind::Varies => free(0) & bit(1) != 0,
        ConditionKind::Narrow => free(0) & !free(1) == 0 && free(0) != free(1),
        ConditionKind::Indexed => free(0) != 0,
        ConditionKind::Positive => {
            let value = facts(0).and_then(|f| f.number).map_or(f64::NAN, Number::value);
            value > 0.0 && value.is_finite()
        }
        ConditionKind::Fewer => {
            let (a, b, c) = (free(0), free(1), free(2));
            let sizes = usual_sizes(graph, &Bindings::new());
            let products = |first, second| points(graph, &sizes, first) + points(graph, &sizes, second);
            2.0 * products(b | c, a | (b | c) & !bit(4)) <= products(a | b, (a | b) & !bit(3) | c)
        }
        ConditionKind::Nonempty => axis(0)
            .and_then(|a| graph.analysis.axes.get(usize::from(a)))
            .is_some_and(|info| graph.analysis.at_least_one(&info.dim)),
        ConditionKind::Wide => facts(0).and_then(Facts::dtype).is_some_and(|d| d != DType::F16),
        ConditionKind::Half => facts(0).and_then(Facts::dtype).is_some_and(is_half),
        ConditionKind::Single => facts(0).and_then(Facts::dtype) == Some(DType::F32),
        ConditionKind::Implied => vars.first().and_then(|v| subst.get(*v)).is_some_and(|x| {
            let cast = |to| graph.lookup(ENode::new(Head::Scalar(ScalarOp::Cast { to }), vec![*x]));
            [DType::Bf16, DType::F16].into_iter().filter_map(cast).any(|half| implied(graph, half, 0))
        }),
        ConditionKind::Unshifted => {
            let (Some(s), Some(j)) = (vars.first().and_then(|v| subst.get(*v)), axis(1)) else { return false };
            let is_max = |id: Id| {
                graph[id].nodes.iter().any(|n| {
                    let over = n.children.first().and_then(|c| graph[*c].data.axis());
                    n.head == Head::Fold(Fold::Max) && over == Some(j)
                })
            };
            let shifted =
                |n: &ENode| n.head == Head::Scalar(ScalarOp::Sub {}) && n.children.get(1).is_some_and(|c| is_max(*c));
            !graph[*s].nodes.iter().any(shifted)
        }
        ConditionKind::Finite | ConditionKind::Moderate | ConditionKind::Inside | ConditionKind::UnsignedZero => true,
    }
}

/// The product of the sizes of some axes.
fn points(graph: &Graph, sizes: &Bindings, axes: AxisSet) -> f64 {
    let size = |(i, info): (usize, &AxisInfo)| {
        let inside = AxisId::try_from(i).is_ok_and(|axis| axes & axis_bit(axis) != 0);
        if inside { info.dim.eval(sizes).unwrap_or(1).max(1) as f64 } else { 1.0 }
    };
    graph.analysis.axes.iter().enumerate().map(size).product()
}

/// Views of views that are followed.
const MOST_VIEWS: usize = 4;

/// Whether a value in f16 or bf16 is the result of an op in that dtype, perhaps seen through a view.
fn implied(graph: &Graph, half: Id, views: usize) -> bool {
    let half = graph.find(half);
    let operand = |n: &ENode, i: usize| n.children.get(i).and_then(|c| graph[*c].data.dtype());
    let op = |n: &ENode| match &n.head {
        Head::Scalar(ScalarOp::Cast { .. }) => false,
        Head::Scalar(_) | Head::Fold(_) => true,
        Head::At => operand(n, 1).is_some() && views < MOST_VIEWS && implied(graph, n.children[1], views + 1),
        Head::Load | Head::Gather | Head::Iota | Head::Extent | Head::Attr(_) => false,
    };
    graph.analysis.rounded.iter().any(|r| graph.find(*r) == half) || graph[half].nodes.iter().any(op)
}

/// Conditions that a class assumes.
pub fn assumptions(class: &Class) -> &[Condition] {
    if let Class::Domain(list) = class { list } else { &[] }
}

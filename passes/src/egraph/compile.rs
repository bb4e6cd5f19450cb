//! From rules to e-graph rewrites: one per order of commutative operands and, where a rule names numbers, per dtype.

use super::facts::{Facts, Graph, Sort, Tables};
use super::lang::{Attr, ENode, Fold, Head, Number, axis_bit};
use super::push::push_at;
use super::rules::{Class, Condition, ConditionKind, Rule, RuleSet};
use super::term::Term;
use egg::{ConditionalApplier, ENodeOrVar, Id, Pattern, PatternAst, Rewrite, Subst, Var};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::op::ScalarOp;
use tilewright_ir::types::DType;

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
    for rule in rules.rules.iter().filter(|r| numerics.allows(&r.class)) {
        let lefts = rule.left.variants().ok_or_else(|| {
            let message = format!("`{}` has too many orders of commutative operands", rule.name);
            rule.line.error("too-many-variants", message, 0, rule.name.len())
        })?;
        // Numbers and sizes have a dtype; other rules match any float.
        let typed = typed(&rule.left) || typed(&rule.right);
        let kinds: Vec<Option<DType>> = if typed { dtypes.iter().copied().map(Some).collect() } else { vec![None] };
        for dtype in kinds {
            for (k, left) in lefts.iter().enumerate() {
                out.push(rewrite(rule, left, k, dtype)?);
            }
        }
    }
    Ok(out)
}

fn typed(term: &Term) -> bool {
    match term {
        Term::Variable(_) => false,
        Term::Number(_) | Term::Apply(Head::Extent, _) => true,
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
        ConditionKind::Nonempty => axis(0)
            .and_then(|a| graph.analysis.axes.get(usize::from(a)))
            .is_some_and(|info| graph.analysis.at_least_one(&info.dim)),
        ConditionKind::Wide => facts(0).and_then(Facts::dtype).is_some_and(|d| d != DType::F16),
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

/// Conditions that a class assumes.
pub fn assumptions(class: &Class) -> &[Condition] {
    if let Class::Domain(list) = class { list } else { &[] }
}

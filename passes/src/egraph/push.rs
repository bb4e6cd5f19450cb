//! Rewrites that no pattern says.
//!
//! push-at: `(at m (op x y))` = `(op (at m x) (at m y))` for elementwise heads, down to loads. Exact. A fold stays
//! behind its `at`: pushing it would make a second copy of the loop.
//!
//! wide-number: `(cast-f32 c)` of a constant or a size in f16 or bf16 is that constant or size in f32. Exact.
//!
//! same-f32: `(cast-f32 x)` of a value in f32 is that value; same-f64 and others likewise. Exact.

use super::compile::IndexRewrite;
use super::facts::{Graph, Tables};
use super::lang::{Affine, Attr, AxisId, AxisSet, ENode, GATHERED, Head, Number, axis_bit};
use super::widths::is_half;
use egg::{Applier, ENodeOrVar, Id, Pattern, PatternAst, Rewrite, Subst, Symbol, Var};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::op::ScalarOp;
use tilewright_ir::types::DType;

/// The rewrite. Errors: a bug where egg refuses it.
pub(super) fn push_at() -> Result<IndexRewrite, Diagnostic> {
    let variable = |name: &str| name.parse::<Var>().map_err(|e| Diagnostic::bug(format!("`{name}`: {e}")));
    let (map, body) = (variable("?m")?, variable("?x")?);
    let mut ast = PatternAst::default();
    let children = vec![ast.add(ENodeOrVar::Var(map)), ast.add(ENodeOrVar::Var(body))];
    ast.add(ENodeOrVar::ENode(ENode::new(Head::At, children)));
    let applier = PushAt { map, body };
    Rewrite::new("push-at", Pattern::new(ast), applier).map_err(|e| Diagnostic::bug(format!("push-at: {e}")))
}

/// The rewrite of numbers. Errors: a bug where egg refuses it.
pub(super) fn wide_number() -> Result<IndexRewrite, Diagnostic> {
    let (pattern, body) = cast(DType::F32)?;
    let done = Rewrite::new("wide-number", pattern, WideNumber { body });
    done.map_err(|e| Diagnostic::bug(format!("wide-number: {e}")))
}

/// The rewrite of conversions to one dtype. Errors: a bug where egg refuses it.
pub(super) fn same_dtype(to: DType) -> Result<IndexRewrite, Diagnostic> {
    let (pattern, body) = cast(to)?;
    let done = Rewrite::new(format!("same-{to}"), pattern, SameDtype { body, to });
    done.map_err(|e| Diagnostic::bug(format!("same-{to}: {e}")))
}

/// `(cast ?x)` to a dtype, and `?x`.
fn cast(to: DType) -> Result<(Pattern<ENode>, Var), Diagnostic> {
    let variable = "?x".parse::<Var>().map_err(|e| Diagnostic::bug(format!("`?x`: {e}")))?;
    let mut ast = PatternAst::default();
    let children = vec![ast.add(ENodeOrVar::Var(variable))];
    ast.add(ENodeOrVar::ENode(ENode::new(Head::Scalar(ScalarOp::Cast { to }), children)));
    Ok((Pattern::new(ast), variable))
}

/// The side of a union that was matched: its class, or the very term if the e-graph is one that explains itself. Such an
/// e-graph wants unions of terms, and ids that stand for one term each: hence `add_uncanonical` in this file.
fn matched(
    graph: &mut Graph,
    class: Id,
    head: Head,
    mut before: Vec<Id>,
    operand: impl FnOnce(&mut Graph) -> Id,
) -> Id {
    if !graph.are_explanations_enabled() {
        return class;
    }
    before.push(operand(graph));
    graph.add_uncanonical(ENode::new(head, before))
}

struct WideNumber {
    body: Var,
}

impl Applier<ENode, Tables> for WideNumber {
    fn apply_one(
        &self,
        graph: &mut Graph,
        class: Id,
        subst: &Subst,
        _: Option<&PatternAst<ENode>>,
        name: Symbol,
    ) -> Vec<Id> {
        let Some(&body) = subst.get(self.body) else { return Vec::new() };
        if !graph[body].data.dtype().is_some_and(is_half) {
            return Vec::new();
        }
        let constant = |n: &&ENode| matches!(n.head, Head::Attr(Attr::Const(_)) | Head::Extent);
        let Some(node) = graph[body].nodes.iter().find(constant).cloned() else { return Vec::new() };
        let number = graph[body].data.number.and_then(|n| Number::new(DType::F32, n.value()));
        let wide = match (number, node.children.first()) {
            (Some(number), _) => graph.add_uncanonical(ENode::attr(Attr::Const(number))),
            (None, Some(&axis)) => {
                let dtype = graph.add_uncanonical(ENode::attr(Attr::DType(DType::F32)));
                graph.add_uncanonical(ENode::new(Head::Extent, vec![axis, dtype]))
            }
            (None, None) => return Vec::new(),
        };
        let head = Head::Scalar(ScalarOp::Cast { to: DType::F32 });
        let from = matched(graph, class, head, Vec::new(), |graph| graph.add_uncanonical(node));
        if graph.union_trusted(from, wide, name) { vec![wide] } else { Vec::new() }
    }

    fn vars(&self) -> Vec<Var> {
        vec![self.body]
    }
}

struct SameDtype {
    body: Var,
    to: DType,
}

impl Applier<ENode, Tables> for SameDtype {
    fn apply_one(
        &self,
        graph: &mut Graph,
        class: Id,
        subst: &Subst,
        _: Option<&PatternAst<ENode>>,
        name: Symbol,
    ) -> Vec<Id> {
        let Some(&body) = subst.get(self.body) else { return Vec::new() };
        if graph[body].data.dtype() != Some(self.to) {
            return Vec::new();
        }
        let from = matched(graph, class, Head::Scalar(ScalarOp::Cast { to: self.to }), Vec::new(), |_| body);
        if graph.union_trusted(from, body, name) { vec![body] } else { Vec::new() }
    }

    fn vars(&self) -> Vec<Var> {
        vec![self.body]
    }
}

struct PushAt {
    map: Var,
    body: Var,
}

impl Applier<ENode, Tables> for PushAt {
    fn apply_one(
        &self,
        graph: &mut Graph,
        class: Id,
        subst: &Subst,
        _: Option<&PatternAst<ENode>>,
        name: Symbol,
    ) -> Vec<Id> {
        let (Some(&leaf), Some(&body)) = (subst.get(self.map), subst.get(self.body)) else { return Vec::new() };
        let Some(Attr::Subst(map)) = graph[leaf].data.attr.clone() else { return Vec::new() };
        let mut made = Vec::new();
        if graph[body].data.free & domain(&map) == 0 {
            made.push((matched(graph, class, Head::At, vec![leaf], |_| body), body));
        }
        for node in graph[body].nodes.clone() {
            if let Some(new) = push(graph, &map, &node) {
                let from = matched(graph, class, Head::At, vec![leaf], |graph| graph.add_uncanonical(node));
                made.push((from, new));
            }
        }
        made.retain(|&(from, to)| graph.union_trusted(from, to, name));
        made.into_iter().map(|(_, to)| to).collect()
    }

    fn vars(&self) -> Vec<Var> {
        vec![self.map, self.body]
    }
}

fn domain(map: &[(AxisId, Affine)]) -> AxisSet {
    map.iter().fold(0, |set, (axis, _)| set | axis_bit(*axis))
}

/// Views of views that are made one. A tensor beside itself is a view of itself, of which there is no last.
const COMPOSED: usize = 8;

/// `at` of a class as far as it depends on the map. A view would have as many names as there are ways to it if what it does
/// not depend on stayed in the map, or if views of views were made.
fn at(graph: &mut Graph, map: &[(AxisId, Affine)], id: Id) -> Id {
    view(graph, map, id, COMPOSED)
}

/// [`at`], where `most` views may be composed.
fn view(graph: &mut Graph, map: &[(AxisId, Affine)], id: Id, most: usize) -> Id {
    let free = graph[id].data.free;
    let differs = |(axis, with): &&(AxisId, Affine)| free & axis_bit(*axis) != 0 && with.as_axis() != Some(*axis);
    let map: Vec<_> = map.iter().filter(differs).cloned().collect();
    if map.is_empty() {
        return id;
    }
    let below = graph[id].nodes.iter().find(|n| n.head == Head::At).cloned();
    let below = below.filter(|_| most > 0);
    if let Some(found) = below.and_then(|node| compose(graph, &map, &node, most - 1)) {
        return found;
    }
    let leaf = graph.add_uncanonical(ENode::attr(Attr::Subst(map)));
    graph.add_uncanonical(ENode::new(Head::At, vec![leaf, id]))
}

/// `map` of an `at` node, as one `at` of what is below.
fn compose(graph: &mut Graph, map: &[(AxisId, Affine)], node: &ENode, most: usize) -> Option<Id> {
    let [leaf, body] = node.children[..] else { return None };
    let Some(Attr::Subst(inner)) = &graph[leaf].data.attr else { return None };
    let mut both: Vec<(AxisId, Affine)> =
        inner.iter().map(|(axis, e)| Some((*axis, e.substitute(map)?))).collect::<Option<_>>()?;
    both.extend(map.iter().filter(|t| !inner.iter().any(|u| u.0 == t.0)).cloned());
    both.sort();
    Some(view(graph, &both, body, most))
}

fn push(graph: &mut Graph, map: &[(AxisId, Affine)], node: &ENode) -> Option<Id> {
    let attr = |graph: &Graph, i: usize| node.children.get(i).and_then(|c| graph[*c].data.attr.clone());
    match &node.head {
        Head::Scalar(_) => {
            let children = node.children.iter().map(|&c| at(graph, map, c)).collect();
            Some(graph.add_uncanonical(ENode::new(node.head.clone(), children)))
        }
        Head::At => compose(graph, map, node, COMPOSED),
        Head::Load | Head::Gather => {
            let Some(Attr::Map(dims)) = attr(graph, 1) else { return None };
            // The stand-in for the loaded index is no axis that a map could replace.
            debug_assert!(!map.iter().any(|t| t.0 == GATHERED));
            let dims: Vec<Affine> = dims.iter().map(|e| e.substitute(map)).collect::<Option<_>>()?;
            let dims = graph.add_uncanonical(ENode::attr(Attr::Map(dims)));
            let mut children = vec![*node.children.first()?, dims];
            if let Some(&index) = node.children.get(2) {
                children.push(at(graph, map, index));
            }
            Some(graph.add_uncanonical(ENode::new(node.head.clone(), children)))
        }
        Head::Iota => {
            let axis = node.children.first().and_then(|c| graph[*c].data.axis())?;
            let target = map.iter().find(|t| t.0 == axis)?.1.as_axis()?;
            let target = graph.add_uncanonical(ENode::attr(Attr::Axis(target)));
            Some(graph.add_uncanonical(ENode::new(Head::Iota, vec![target, *node.children.get(1)?])))
        }
        Head::Extent | Head::Fold(_) | Head::Attr(_) => None,
    }
}

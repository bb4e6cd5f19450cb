//! A scan in segments: a scan over scans, whose outer step is a region.
//!
//! before: `%c, %s = scan %x, %xs body=@step carries=1 length=12`
//! after:  `%c, %t = scan %x, %ys body=@segment carries=1 length=3`, where `@segment` scans `@step` over 4 rows of `%ys`, which is
//!         `%xs` as 3 times 4 rows. What does not divide is one more call of a region, of fewer steps; then cotangents of `%xs` are
//!         sums with zeros, and those of -0 are 0.

use super::{Segments, declared};
use crate::build::Build;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Derivative, Function, Module, Node, NodeId, Param, Role, Value};
use tilewright_ir::op::{GraphOp, Name};
use tilewright_ir::types::{Dim, Type};

/// The scan of a node: its body, carries, and a length that is known and worth segments.
fn scan(node: &Node) -> Option<(&Name, usize, i64)> {
    let GraphOp::Scan { body, carries, length } = &node.op else { return None };
    Some((body, *carries, length.as_const().filter(|n| *n > 3)?))
}

/// Lengths of the scans of a function that can be split.
pub(super) fn lengths(f: &Function) -> impl Iterator<Item = usize> {
    f.nodes.iter().filter_map(|n| scan(n).map(|(_, _, length)| length as usize))
}

/// The function with its scans in segments.
pub(super) fn segmented(module: &mut Module, f: &Function, segments: Segments) -> Result<Function, Diagnostic> {
    if lengths(f).next().is_none() {
        return Ok(f.clone());
    }
    let mut out = Function::new(&f.name, f.symbols.clone(), f.params.clone());
    let mut values: Vec<Vec<Value>> = Vec::with_capacity(f.nodes.len());
    for (i, node) in f.nodes.iter().enumerate() {
        if i < f.params.len() {
            out.nodes[i].clone_from(node);
            values.push(vec![out.param(i)]);
            continue;
        }
        let args: Vec<Value> = node.args.iter().map(|a| values[a.node.index()][a.index as usize]).collect();
        let id = NodeId(out.nodes.len() as u32);
        values.push(match scan(node) {
            Some((body, carries, length)) => {
                let mut b = Build::new(module, &mut out);
                b.stand_for(node);
                let inner = (length as usize).div_ceil(segments.of(length as usize)) as i64;
                Split { body, carries, inner, user: &f.name }.run(&mut b, &args, length)?
            }
            None => {
                out.nodes.push(Node { args, ..node.clone() });
                (0..node.types.len() as u32).map(|index| Value { node: id, index }).collect()
            }
        });
    }
    out.results = f.results.iter().map(|r| values[r.node.index()][r.index as usize]).collect();
    out.derivative = f.derivative.clone();
    Ok(out)
}

/// How one scan is split.
struct Split<'a> {
    body: &'a Name,
    carries: usize,
    /// Steps of a segment.
    inner: i64,
    user: &'a str,
}

impl Split<'_> {
    /// The results of the scan.
    fn run(&self, b: &mut Build<'_>, args: &[Value], length: i64) -> Result<Vec<Value>, Diagnostic> {
        let (outer, rest) = (length / self.inner, length % self.inner);
        let whole = self.segment(b, args, self.inner)?;
        let mut all = args[..self.carries].to_vec();
        for &x in &args[self.carries..] {
            let mut shape = b.f.ty(x).shape.clone();
            let x = rows(b, x, 0, outer * self.inner)?;
            shape[0] = Dim::constant(self.inner);
            shape.insert(0, Dim::constant(outer));
            all.push(b.reshape(x, shape)?);
        }
        let op = GraphOp::Scan { body: whole, carries: self.carries, length: Dim::constant(outer) };
        let mut results = b.push_all(op, &all)?;
        for x in &mut results[self.carries..] {
            let mut shape = b.f.ty(*x).shape.clone();
            shape.remove(0);
            shape[0] = Dim::constant(outer * self.inner);
            *x = b.reshape(*x, shape)?;
        }
        if rest == 0 {
            return Ok(results);
        }
        let last = self.segment(b, args, rest)?;
        let mut all = results[..self.carries].to_vec();
        for &x in &args[self.carries..] {
            all.push(rows(b, x, outer * self.inner, length)?);
        }
        let more = b.push_all(GraphOp::Call { function: last }, &all)?;
        results[..self.carries].copy_from_slice(&more[..self.carries]);
        for (x, y) in results.iter_mut().zip(more).skip(self.carries) {
            *x = b.push(GraphOp::Concat { axis: 0 }, &[*x, y])?;
        }
        Ok(results)
    }

    /// A region of `steps` steps.
    fn segment(&self, b: &mut Build<'_>, args: &[Value], steps: i64) -> Result<Name, Diagnostic> {
        let body = b.module.functions.get(self.body).ok_or_else(|| Diagnostic::bug("a scan without a body"))?;
        let params = args.iter().enumerate().map(|(i, &x)| {
            let mut ty: Type = b.f.ty(x).clone();
            if i >= self.carries {
                ty.shape[0] = Dim::constant(steps);
            }
            let name = body.params[i].name.clone();
            Param { name, ty, role: Role::Input }
        });
        let mut f = Function::new("segment", b.f.symbols.clone(), params.collect());
        for (node, of) in f.nodes.iter_mut().zip(&body.nodes) {
            node.places.clone_from(&of.places);
        }
        let given: Vec<Value> = (0..args.len()).map(|i| f.param(i)).collect();
        let mut inner = Build::new(b.module, &mut f);
        let op = GraphOp::Scan { body: self.body.clone(), carries: self.carries, length: Dim::constant(steps) };
        f.results = inner.push_all(op, &given)?;
        f.derivative = Derivative::Checkpoint;
        Ok(declared(b.module, f, self.user))
    }
}

/// Rows `from..to`.
fn rows(b: &mut Build<'_>, x: Value, from: i64, to: i64) -> Result<Value, Diagnostic> {
    let mut limit = b.f.ty(x).shape.clone();
    let mut start = vec![Dim::constant(0); limit.len()];
    (start[0], limit[0]) = (Dim::constant(from), Dim::constant(to));
    b.slice(x, start, limit)
}

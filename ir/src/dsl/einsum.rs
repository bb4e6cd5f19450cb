//! Einstein summation over named axes.
//!
//! `"b h q d, b h k d -> b h q k"` names axes by words; `"bhqd,bhkd->bhqk"`, without spaces inside an operand, by
//! letters. A label that the result does not have is summed; one that an operand has twice takes its diagonal; `...`
//! stands for axes that are not named, which broadcast, and are summed if the result has no `...`. Without `->`, the
//! result has the axes of `...`, then the labels that occur once, in alphabetical order.

use super::pattern::{Token, pattern_error, sides, tokens};
use super::{Graph, Tensor};
use crate::diag::Diagnostic;
use crate::op::{Axes, DotDims, GraphOp};
use crate::types::{DType, Dim};

/// A label with the byte of the pattern where it stands; axes of `...` have numbers, counted from the last.
#[derive(Clone, Debug)]
struct Label {
    name: String,
    at: usize,
    length: usize,
}

/// A tensor whose axes have names.
#[derive(Clone)]
struct Named {
    tensor: Tensor,
    labels: Vec<String>,
}

/// The sum of products that `pattern` describes.
///
/// Errors: `bad-pattern` with a caret into the pattern, `shape-mismatch` for a label of two sizes, `dtype-mismatch`.
/// Without operands there is no graph, and the result is `None`.
#[track_caller]
pub fn einsum(pattern: &str, operands: &[&Tensor]) -> Option<Tensor> {
    let first = operands.first()?;
    if operands.iter().any(|t| t.is_poisoned()) {
        return Some(first.poisoned());
    }
    Some(match plan(pattern, operands) {
        Ok((inputs, output)) => contract(inputs, &output),
        Err(error) => first.mistake(error, operands),
    })
}

/// The operands with names for axes, and the names of the result's axes.
#[track_caller]
fn plan(pattern: &str, operands: &[&Tensor]) -> Result<(Vec<Named>, Vec<String>), Diagnostic> {
    let all = tokens(pattern)?;
    let (left, right) = sides(pattern, &all)?;
    // Labels are words if two of them stand side by side.
    let is_label = |t: &Token| !matches!(t.text, "," | "->");
    let words = all.windows(2).any(|w| w.iter().all(|t| is_label(t) && t.text != "..."));
    let terms: Vec<&[Token]> = left.split(|t| t.text == ",").collect();
    if terms.len() != operands.len() {
        let message = format!("the pattern has {} operands, the call has {}", terms.len(), operands.len());
        return Err(pattern_error(pattern, 0, pattern.chars().count(), message));
    }
    let mut inputs = Vec::with_capacity(operands.len());
    let mut sizes: Vec<(Label, Dim, usize)> = Vec::new();
    let mut ellipsis = 0;
    for (n, (term, &tensor)) in terms.iter().zip(operands).enumerate() {
        let labels = labels(pattern, term, words)?;
        let (labels, hidden) = expand(pattern, term, &labels, tensor, n)?;
        ellipsis = ellipsis.max(hidden);
        for (label, size) in labels.iter().zip(tensor.shape()) {
            // Hidden axes broadcast: size 1 says nothing.
            let stretches = label.name.starts_with('.') && size.is(1);
            match sizes.iter().find(|(l, ..)| l.name == label.name) {
                Some((_, s, _)) if s == size || stretches => {}
                Some((_, s, m)) => {
                    let message =
                        format!("label `{}` has size {s} in operand {m} and {size} in operand {n}", label.name);
                    let mut error = pattern_error(pattern, label.at, label.length, message);
                    error.code = "shape-mismatch";
                    return Err(error);
                }
                None if stretches => {}
                None => sizes.push((label.clone(), size.clone(), n)),
            }
        }
        inputs.push(Named { tensor: tensor.clone(), labels: labels.into_iter().map(|l| l.name).collect() });
    }
    let output = match right {
        Some(term) => {
            if let Some(t) = term.iter().find(|t| t.text == ",") {
                return Err(pattern_error(pattern, t.at, 1, "the result is one tensor"));
            }
            output_labels(pattern, &labels(pattern, term, words)?, ellipsis, &inputs)?
        }
        None => implicit(&inputs, ellipsis),
    };
    for named in &mut inputs {
        drop_stretched(named, &sizes);
    }
    // A hidden axis that is 1 in every operand was dropped everywhere.
    Ok((inputs, output))
}

/// Labels of one operand, `...` as it stands.
#[track_caller]
fn labels(pattern: &str, term: &[Token], words: bool) -> Result<Vec<Label>, Diagnostic> {
    let mut out = Vec::new();
    for t in term {
        if matches!(t.text, "(" | ")") {
            return Err(pattern_error(pattern, t.at, 1, "groups belong to `rearrange`, not to `einsum`"));
        }
        if words || t.text == "..." {
            out.push(Label { name: t.text.into(), at: t.at, length: t.text.len() });
        } else {
            // Names are ASCII: a byte is a character.
            let letter = |(i, c): (usize, char)| Label { name: c.into(), at: t.at + i, length: 1 };
            out.extend(t.text.char_indices().map(letter));
        }
    }
    let mut dots = out.iter().filter(|l| l.name == "...").skip(1);
    match dots.next() {
        Some(second) => Err(pattern_error(pattern, second.at, 3, "a second `...` in one operand")),
        None => Ok(out),
    }
}

/// Names the axes that `...` hides, by number from the last: `.0`, `.1`; gives their count.
#[track_caller]
fn expand(
    pattern: &str,
    term: &[Token],
    labels: &[Label],
    tensor: &Tensor,
    n: usize,
) -> Result<(Vec<Label>, usize), Diagnostic> {
    let dots = labels.iter().position(|l| l.name == "...");
    let plain = labels.len() - usize::from(dots.is_some());
    let hidden = tensor.rank().checked_sub(plain).filter(|h| *h == 0 || dots.is_some());
    let Some(hidden) = hidden else {
        let start = term.first().map_or(0, |t| t.at);
        let end = term.last().map_or(1, |t| t.at + t.text.len());
        let message = format!("{plain} labels for operand {n}, which is {}", tensor.ty());
        return Err(pattern_error(pattern, start, end - start, message));
    };
    let mut out = labels.to_vec();
    if let Some(at) = dots {
        let dot = out.remove(at);
        let names = (0..hidden).rev().map(|i| Label { name: format!(".{i}"), ..dot.clone() });
        out.splice(at..at, names);
    }
    Ok((out, hidden))
}

#[track_caller]
fn output_labels(
    pattern: &str,
    labels: &[Label],
    ellipsis: usize,
    inputs: &[Named],
) -> Result<Vec<String>, Diagnostic> {
    let mut out: Vec<String> = Vec::new();
    for label in labels {
        if label.name == "..." {
            out.extend((0..ellipsis).rev().map(|i| format!(".{i}")));
            continue;
        }
        let fail = |message: String| Err(pattern_error(pattern, label.at, label.length, message));
        if out.contains(&label.name) {
            return fail(format!("label `{}` twice in the result", label.name));
        }
        if !inputs.iter().any(|i| i.labels.contains(&label.name)) {
            return fail(format!("label `{}` of the result is in no operand", label.name));
        }
        out.push(label.name.clone());
    }
    Ok(out)
}

fn implicit(inputs: &[Named], ellipsis: usize) -> Vec<String> {
    let all: Vec<&String> = inputs.iter().flat_map(|i| &i.labels).filter(|l| !l.starts_with('.')).collect();
    let mut once: Vec<String> =
        all.iter().filter(|l| all.iter().filter(|m| m == l).count() == 1).map(|l| l.to_string()).collect();
    once.sort();
    (0..ellipsis).rev().map(|i| format!(".{i}")).chain(once).collect()
}

/// Drops hidden axes of size 1, which broadcast.
#[track_caller]
fn drop_stretched(named: &mut Named, sizes: &[(Label, Dim, usize)]) {
    for i in (0..named.labels.len()).rev() {
        let name = &named.labels[i];
        let stretches = name.starts_with('.') && named.tensor.shape().get(i).is_some_and(|d| d.is(1));
        if stretches && !sizes.iter().any(|(l, d, _)| l.name == *name && d.is(1)) {
            named.tensor = named.tensor.squeeze(i as i64);
            named.labels.remove(i);
        }
    }
}

/// Contracts from left to right.
#[track_caller]
fn contract(inputs: Vec<Named>, output: &[String]) -> Tensor {
    let mut rest: Vec<Named> = Vec::with_capacity(inputs.len());
    for named in inputs {
        rest.push(diagonal(named));
    }
    rest.reverse();
    let Some(mut sum) = rest.pop() else { return Graph::new("main").fail(Diagnostic::bug("einsum of nothing")) };
    while let Some(next) = rest.pop() {
        let needed = |l: &String| output.contains(l) || rest.iter().any(|r| r.labels.contains(l));
        let left = sum_out(sum, |l| needed(l) || next.labels.contains(l));
        let right = sum_out(next, |l| needed(l) || left.labels.contains(l));
        sum = product(&left, &right, needed);
    }
    let sum = sum_out(sum, |l| output.contains(l));
    let out = align(&sum, output);
    // Hidden axes of size 1 in all operands come back here.
    let mut tensor = out;
    for (i, name) in output.iter().enumerate() {
        if !sum.labels.contains(name) {
            tensor = tensor.unsqueeze(i as i64);
        }
    }
    tensor
}

/// Keeps the first of two axes with one label, at equal positions.
#[track_caller]
fn diagonal(mut named: Named) -> Named {
    let mut j = 1;
    while j < named.labels.len() {
        let Some(i) = named.labels[..j].iter().position(|l| *l == named.labels[j]) else {
            j += 1;
            continue;
        };
        let mut shape = named.tensor.shape().to_vec();
        if j >= shape.len() {
            return named;
        }
        shape[j] = Dim::constant(1);
        let ids = named.tensor.graph.iota(DType::I64, shape, i);
        named.tensor = named.tensor.take_along(&ids, j as i64).squeeze(j as i64);
        named.labels.remove(j);
    }
    named
}

/// Sums the axes that `keep` refuses.
#[track_caller]
fn sum_out(named: Named, keep: impl Fn(&String) -> bool) -> Named {
    let axes: Vec<i64> = (0..named.labels.len()).filter(|&i| !keep(&named.labels[i])).map(|i| i as i64).collect();
    if axes.is_empty() {
        return named;
    }
    let labels = named.labels.into_iter().filter(|l| keep(l)).collect();
    Named { tensor: named.tensor.sum(&axes), labels }
}

/// One contraction: shared labels that are needed are batch axes, other shared ones are summed.
#[track_caller]
fn product(left: &Named, right: &Named, needed: impl Fn(&String) -> bool) -> Named {
    let mut dims = DotDims::default();
    let (mut batch, mut free) = (Vec::new(), Vec::new());
    for (i, label) in left.labels.iter().enumerate() {
        match right.labels.iter().position(|l| l == label) {
            Some(j) if needed(label) => {
                dims.batch.0.push(i);
                dims.batch.1.push(j);
                batch.push(label.clone());
            }
            Some(j) => {
                dims.contract.0.push(i);
                dims.contract.1.push(j);
            }
            None => free.push(label.clone()),
        }
    }
    let others = right.labels.iter().filter(|l| !left.labels.contains(l)).cloned();
    let labels: Vec<String> = batch.into_iter().chain(free).chain(others).collect();
    if dims.contract.0.is_empty() && left.tensor.dtype() == right.tensor.dtype() {
        // Nothing is summed: a product of broadcasts.
        let (a, b) = (spread(left, right, &labels), spread(right, left, &labels));
        return Named { tensor: a * b, labels };
    }
    Named { tensor: left.tensor.dot(&right.tensor, dims), labels }
}

/// `named` with axes `labels`, whose sizes it or `other` knows.
#[track_caller]
fn spread(named: &Named, other: &Named, labels: &[String]) -> Tensor {
    let aligned = align(named, labels);
    let mut shape: Vec<Dim> = Vec::with_capacity(labels.len());
    for l in labels {
        let find = |n: &Named| n.labels.iter().position(|m| m == l).and_then(|i| n.tensor.shape().get(i).cloned());
        shape.extend(find(named).or_else(|| find(other)));
    }
    let dims: Axes = (0..labels.len()).filter(|&i| named.labels.contains(&labels[i])).collect();
    if aligned.is_poisoned() || dims.len() == labels.len() {
        return aligned;
    }
    aligned.emit(GraphOp::Broadcast { shape, dims }, &[])
}

/// The axes in the order of `labels`, of those that it has.
#[track_caller]
fn align(named: &Named, labels: &[String]) -> Tensor {
    let position = |l: &String| named.labels.iter().position(|m| m == l);
    let perm: Vec<i64> = labels.iter().filter_map(position).map(|i| i as i64).collect();
    if named.tensor.is_poisoned() { named.tensor.clone() } else { named.tensor.permute(&perm) }
}

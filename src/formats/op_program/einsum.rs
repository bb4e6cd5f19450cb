//! einsum: operands are contracted from left to right, two at a time, each pair by one `dot`.

use super::attrs::wrong;
use super::builder::Builder;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::Value;
use tilewright_ir::op::{DotDims, ReduceKind, ScalarOp};

/// A value with a letter for each of its axes.
struct Term {
    value: Value,
    letters: Vec<char>,
}

/// The value of `equation`, such as `bij,bjk->bik`. Without an arrow the result has the letters that occur once, sorted.
pub(super) fn build(b: &mut Builder, equation: &str, args: &[Value]) -> Result<Value, Diagnostic> {
    let text: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
    let (inputs, output) = match text.split_once("->") {
        Some((i, o)) => (i, Some(o)),
        None => (text.as_str(), None),
    };
    let inputs: Vec<Vec<char>> = inputs.split(',').map(|t| t.chars().collect()).collect();
    if inputs.len() != args.len() {
        return Err(wrong(format!("`{equation}` has {} operands, found {}", inputs.len(), args.len())));
    }
    let all: Vec<char> = inputs.concat();
    let output: Vec<char> = match output {
        Some(o) => o.chars().collect(),
        None => {
            let mut once: Vec<char> = all.iter().copied().filter(|c| count(&all, *c) == 1).collect();
            once.sort_unstable();
            once
        }
    };
    if let Some(c) = all.iter().chain(&output).find(|c| !c.is_ascii_alphabetic()) {
        return Err(wrong(format!("`{equation}`: expected letters, found `{c}`")));
    }
    if let Some(c) = output.iter().find(|c| !all.contains(c) || count(&output, **c) > 1) {
        return Err(wrong(format!("`{equation}`: the result's `{c}` is not one axis of the operands")));
    }
    let mut terms = Vec::with_capacity(args.len());
    for (&value, letters) in args.iter().zip(inputs) {
        if b.rank(value) != letters.len() {
            return Err(wrong(format!("`{equation}` names {} axes of an operand of {}", letters.len(), b.rank(value))));
        }
        terms.push(diagonal(b, Term { value, letters })?);
    }
    let mut rest = terms.into_iter();
    let mut result = rest.next().ok_or_else(|| wrong("`einsum` needs an operand"))?;
    while let Some(next) = rest.next() {
        let later: Vec<char> = rest.as_slice().iter().flat_map(|t| t.letters.iter().copied()).collect();
        let keep: Vec<char> = output.iter().chain(&later).copied().collect();
        result = contract(b, result, next, &keep)?;
    }
    let result = sum_out(b, result, &output)?;
    let perm = output.iter().filter_map(|c| result.letters.iter().position(|l| l == c)).collect();
    b.transpose(result.value, perm)
}

fn count(letters: &[char], c: char) -> usize {
    letters.iter().filter(|l| **l == c).count()
}

/// One axis for every letter: of axes with the same letter, only elements with equal positions stay.
fn diagonal(b: &mut Builder, mut term: Term) -> Result<Term, Diagnostic> {
    while let Some(second) = (0..term.letters.len()).find(|&i| term.letters[..i].contains(&term.letters[i])) {
        let Some(first) = term.letters.iter().position(|c| *c == term.letters[second]) else { return Ok(term) };
        let shape = b.shape(term.value)?;
        if shape[first] != shape[second] {
            return Err(wrong(format!("the diagonal of axes of sizes {} and {}", shape[first], shape[second])));
        }
        let (i, j) = (b.iota(first, &shape)?, b.iota(second, &shape)?);
        let same = b.map(ScalarOp::Eq {}, &[i, j])?;
        let zero = b.like(term.value, 0.0)?;
        let only = b.map(ScalarOp::Select {}, &[same, term.value, zero])?;
        term.value = b.reduce(ReduceKind::Sum, only, &[second], false)?;
        term.letters.remove(second);
    }
    Ok(term)
}

/// Sums over the axes whose letters are not in `keep`.
fn sum_out(b: &mut Builder, term: Term, keep: &[char]) -> Result<Term, Diagnostic> {
    let axes: Vec<usize> = (0..term.letters.len()).filter(|&i| !keep.contains(&term.letters[i])).collect();
    if axes.is_empty() {
        return Ok(term);
    }
    let value = b.reduce(ReduceKind::Sum, term.value, &axes, false)?;
    Ok(Term { value, letters: term.letters.into_iter().filter(|c| keep.contains(c)).collect() })
}

/// The product of two terms, without the letters that neither `keep` nor the result needs.
fn contract(b: &mut Builder, x: Term, y: Term, keep: &[char]) -> Result<Term, Diagnostic> {
    let needed = |other: &Term| other.letters.iter().chain(keep).copied().collect::<Vec<char>>();
    let (for_x, for_y) = (needed(&y), needed(&x));
    let (x, y) = (sum_out(b, x, &for_x)?, sum_out(b, y, &for_y)?);
    let mut dims = DotDims::default();
    let mut batch = Vec::new();
    for (i, c) in x.letters.iter().enumerate() {
        let Some(j) = y.letters.iter().position(|l| l == c) else { continue };
        let pairs = if keep.contains(c) { &mut dims.batch } else { &mut dims.contract };
        pairs.0.push(i);
        pairs.1.push(j);
        if keep.contains(c) {
            batch.push(*c);
        }
    }
    let free = |a: &Term, o: &Term| a.letters.iter().copied().filter(|c| !o.letters.contains(c)).collect::<Vec<char>>();
    let letters = [batch, free(&x, &y), free(&y, &x)].concat();
    let value = b.dot(x.value, y.value, dims)?;
    Ok(Term { value, letters })
}

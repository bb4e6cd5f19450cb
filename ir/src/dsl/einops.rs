//! `rearrange`, `reduce` and `repeat` over named axes (after Rogozhnikov's einops).
//!
//! `"b s (h d) -> b h s d"`: a group in parentheses is one axis, the product of its members, major first; `...` stands
//! for any axes; `1` and `()` for an axis of size 1. Sizes that do not follow are given by name.

use super::Tensor;
use super::pattern::{Token, pattern_error, sides, tokens};
use crate::diag::Diagnostic;
use crate::op::{GraphOp, ReduceKind};
use crate::types::Dim;

/// A named axis with its place in the pattern.
#[derive(Clone, Debug)]
struct Name {
    text: String,
    at: usize,
    length: usize,
}

/// The axes of one side: each a list of names, the empty list for size 1.
type Side = Vec<Vec<Name>>;

/// Which of the three functions is asked for.
#[derive(Clone, Copy)]
enum Mode {
    Rearrange,
    Reduce(ReduceKind),
    Mean,
    Repeat,
}

/// What a pattern comes to for one tensor.
struct Plan {
    /// Sizes of the names on the left, in order.
    sizes: Vec<(Name, Dim)>,
    right: Side,
    given: Vec<(String, Dim)>,
}

impl Tensor {
    /// Splits, permutes and merges axes: `x.rearrange("b s (h d) -> b h s d", &[("h", 12)])`.
    ///
    /// Errors: `bad-pattern` with a caret into the pattern, `shape-mismatch`.
    #[track_caller]
    pub fn rearrange(&self, pattern: &str, sizes: &[(&str, i64)]) -> Tensor {
        self.einops(pattern, sizes, Mode::Rearrange)
    }

    /// Folds the axes that the right side does not have: `x.reduce("b (h two) -> b h", ReduceKind::Max, &[("two", 2)])`.
    /// Errors as for [`Tensor::rearrange`].
    #[track_caller]
    pub fn reduce(&self, pattern: &str, kind: ReduceKind, sizes: &[(&str, i64)]) -> Tensor {
        self.einops(pattern, sizes, Mode::Reduce(kind))
    }

    /// [`Tensor::reduce`] by the mean.
    #[track_caller]
    pub fn reduce_mean(&self, pattern: &str, sizes: &[(&str, i64)]) -> Tensor {
        self.einops(pattern, sizes, Mode::Mean)
    }

    /// Repeats along the axes that only the right side has, whose sizes are given. Errors as for [`Tensor::rearrange`].
    #[track_caller]
    pub fn repeat(&self, pattern: &str, sizes: &[(&str, i64)]) -> Tensor {
        self.einops(pattern, sizes, Mode::Repeat)
    }

    #[track_caller]
    fn einops(&self, pattern: &str, sizes: &[(&str, i64)], mode: Mode) -> Tensor {
        if self.is_poisoned() {
            return self.clone();
        }
        match plan(pattern, sizes, mode, self) {
            Ok(plan) => self.carry_out(&plan, mode),
            Err(error) => self.mistake(error, &[self]),
        }
    }

    #[track_caller]
    fn carry_out(&self, plan: &Plan, mode: Mode) -> Tensor {
        let split = self.reshape(plan.sizes.iter().map(|(_, d)| d.clone()).collect::<Vec<Dim>>());
        let order: Vec<&Name> = plan.right.iter().flatten().collect();
        let place = |name: &Name| plan.sizes.iter().position(|(n, _)| n.text == name.text);
        let gone: Vec<i64> = (0..plan.sizes.len())
            .filter(|&i| !order.iter().any(|n| n.text == plan.sizes[i].0.text))
            .map(|i| i as i64)
            .collect();
        let kept: Vec<i64> = order.iter().filter_map(|n| place(n)).map(|i| i as i64).collect();
        let folded = match mode {
            Mode::Reduce(kind) if !gone.is_empty() => split.fold(kind, &gone, false),
            Mode::Mean if !gone.is_empty() => split.mean(&gone),
            Mode::Rearrange | Mode::Repeat | Mode::Reduce(_) | Mode::Mean => split,
        };
        // Positions among the axes that are left.
        let perm: Vec<i64> = kept.iter().map(|k| k - gone.iter().filter(|g| *g < k).count() as i64).collect();
        let mut out = folded.permute(&perm);
        let size = |name: &Name| match place(name) {
            Some(i) => plan.sizes[i].1.clone(),
            None => plan.given.iter().find(|(n, _)| *n == name.text).map_or(Dim::constant(1), |(_, d)| d.clone()),
        };
        if kept.len() < order.len() && !out.is_poisoned() {
            let dims = (0..order.len()).filter(|&i| place(order[i]).is_some()).collect();
            out = out.emit(GraphOp::Broadcast { shape: order.iter().map(|n| size(n)).collect(), dims }, &[]);
        }
        let product = |names: &Vec<Name>| names.iter().try_fold(Dim::constant(1), |n, name| n.checked_mul(&size(name)));
        match plan.right.iter().map(product).collect::<Option<Vec<Dim>>>() {
            Some(shape) => out.reshape(shape),
            None => self.mistake(Diagnostic::new("dim-overflow", "a size does not fit in 64 bits"), &[self]),
        }
    }
}

#[track_caller]
fn plan(pattern: &str, given: &[(&str, i64)], mode: Mode, tensor: &Tensor) -> Result<Plan, Diagnostic> {
    let all = tokens(pattern)?;
    let whole = |message: String| pattern_error(pattern, 0, pattern.chars().count(), message);
    let (left, Some(right)) = sides(pattern, &all)? else { return Err(whole("there is no `->`".into())) };
    // Unbalanced groups first: axes cannot be counted before.
    side(pattern, left, 0, false)?;
    // How many axes `...` on the left stands for.
    let visible = axes_outside_groups(left);
    let hidden = if left.iter().any(|t| t.text == "...") {
        tensor.rank().checked_sub(visible)
    } else {
        Some(0).filter(|_| visible == tensor.rank())
    };
    let Some(hidden) = hidden else {
        let end = left.last().map_or(1, |t| t.at + t.text.len());
        let message = format!("{visible} axes for an operand of rank {}, {}", tensor.rank(), tensor.ty());
        return Err(pattern_error(pattern, 0, end, message));
    };
    let (left, right) = (side(pattern, left, hidden, false)?, side(pattern, right, hidden, true)?);
    let given: Vec<(String, Dim)> = given.iter().map(|(n, d)| (n.to_string(), Dim::constant(*d))).collect();
    if let Some((name, size)) = given.iter().find(|(_, d)| d.as_const().is_some_and(|d| d < 1)) {
        return Err(whole(format!("axis `{name}` cannot have size {size}")));
    }
    if let Some((name, _)) = given.iter().find(|(g, _)| !left.iter().chain(&right).flatten().any(|n| n.text == *g)) {
        return Err(whole(format!("axis `{name}` has a size but is not in the pattern")));
    }
    check_names(pattern, &left, &right, mode, &given)?;
    let mut sizes = Vec::new();
    for (names, size) in left.iter().zip(tensor.shape()) {
        group_sizes(pattern, names, size, &given, &mut sizes)?;
    }
    Ok(Plan { sizes, right, given })
}

fn axes_outside_groups(side: &[Token]) -> usize {
    let (mut depth, mut count) = (0usize, 0);
    for t in side {
        match t.text {
            "(" => (depth, count) = (depth + 1, count + usize::from(depth == 0)),
            ")" => depth = depth.saturating_sub(1),
            "..." => {}
            _ => count += usize::from(depth == 0),
        }
    }
    count
}

/// Axes of one side; on the right, `...` may stand in a group.
#[track_caller]
fn side(pattern: &str, tokens: &[Token], hidden: usize, right: bool) -> Result<Side, Diagnostic> {
    let mut out: Side = Vec::new();
    let mut group: Option<(usize, Vec<Name>)> = None;
    for t in tokens {
        let fail = |message: &str| Err(pattern_error(pattern, t.at, t.text.len(), message));
        let name = |text: String| Name { text, at: t.at, length: t.text.len() };
        match (t.text, &mut group) {
            (",", _) => return fail("one operand is rearranged, there is no `,`"),
            ("(", Some(_)) => return fail("a group inside a group"),
            ("(", None) => group = Some((t.at, Vec::new())),
            (")", _) => match group.take() {
                Some((_, names)) => out.push(names),
                None => return fail("no group is open"),
            },
            ("...", Some((_, names))) if right => names.extend((0..hidden).map(|i| name(format!(".{i}")))),
            ("...", Some(_)) => return fail("`...` cannot stand in a group on the left"),
            ("...", None) => out.extend((0..hidden).map(|i| vec![name(format!(".{i}"))])),
            ("1", None) => out.push(Vec::new()),
            ("1", Some(_)) => {}
            (text, _) if text.starts_with(|c: char| c.is_ascii_digit()) => {
                return fail("an axis needs a name; only 1 may stand as a number");
            }
            (text, Some((_, names))) => names.push(name(text.into())),
            (text, None) => out.push(vec![name(text.into())]),
        }
    }
    match group {
        Some((at, _)) => Err(pattern_error(pattern, at, 1, "this group is not closed")),
        None => Ok(out),
    }
}

#[track_caller]
fn check_names(
    pattern: &str,
    left: &Side,
    right: &Side,
    mode: Mode,
    given: &[(String, Dim)],
) -> Result<(), Diagnostic> {
    let has = |side: &Side, name: &Name| side.iter().flatten().any(|n| n.text == name.text);
    for side in [left, right] {
        let names: Vec<&Name> = side.iter().flatten().collect();
        for (i, n) in names.iter().enumerate() {
            if names[..i].iter().any(|m| m.text == n.text) {
                return Err(pattern_error(pattern, n.at, n.length, format!("axis `{}` twice on one side", shown(n))));
            }
        }
    }
    let reduces = matches!(mode, Mode::Reduce(_) | Mode::Mean);
    if let Some(n) = left.iter().flatten().find(|n| !has(right, n) && !reduces) {
        let message = format!("axis `{}` is missing on the right; `reduce` folds axes", shown(n));
        return Err(pattern_error(pattern, n.at, n.length, message));
    }
    for n in right.iter().flatten().filter(|n| !has(left, n)) {
        let fail = |message: String| Err(pattern_error(pattern, n.at, n.length, message));
        if !matches!(mode, Mode::Repeat) {
            return fail(format!("axis `{}` is missing on the left; `repeat` adds axes", shown(n)));
        }
        if !given.iter().any(|(g, _)| *g == n.text) {
            return fail(format!("the size of axis `{}` is not given", shown(n)));
        }
    }
    Ok(())
}

fn shown(name: &Name) -> &str {
    if name.text.starts_with('.') { "..." } else { &name.text }
}

/// Sizes of the members of one axis of size `size`; at most one of them may be unknown.
#[track_caller]
fn group_sizes(
    pattern: &str,
    names: &[Name],
    size: &Dim,
    given: &[(String, Dim)],
    sizes: &mut Vec<(Name, Dim)>,
) -> Result<(), Diagnostic> {
    let known = |n: &Name| given.iter().find(|(g, _)| *g == n.text).map(|(_, d)| d.clone());
    let mismatch = |at: usize, length: usize, message: String| {
        let mut error = pattern_error(pattern, at, length, message);
        error.code = "shape-mismatch";
        Err(error)
    };
    let mut product = Dim::constant(1);
    let mut unknown = None;
    for n in names {
        match (known(n), unknown) {
            (Some(d), _) => product = product.checked_mul(&d).unwrap_or(product),
            (None, None) => unknown = Some(n),
            (None, Some(_)) => {
                let message = format!("the size of axis `{}` does not follow, give it", shown(n));
                return Err(pattern_error(pattern, n.at, n.length, message));
            }
        }
    }
    let (at, end) = match (names.first(), names.last()) {
        (Some(a), Some(b)) => (a.at, b.at + b.length),
        (None, _) | (_, None) => (0, pattern.len()),
    };
    let rest = match unknown {
        None if product == *size => None,
        None => return mismatch(at, end - at, format!("the axis has size {size}, the pattern says {product}")),
        Some(_) => match size.div_exact(&product) {
            Some(rest) => Some(rest),
            None => {
                return mismatch(at, end - at, format!("the axis has size {size}, which {product} does not divide"));
            }
        },
    };
    for n in names {
        let size = known(n).or_else(|| rest.clone()).unwrap_or_else(|| size.clone());
        sizes.push((n.clone(), size));
    }
    Ok(())
}

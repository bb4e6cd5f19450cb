//! Which template computes a body: the form decides, never a name of a model or of a layer.

use super::super::lang::{Affine, Attr, AxisSet, Fold, Head, axis_bit};
use super::body::Written;
use super::problem::{Problem, Step, each};
use super::{Kind, Product};
use crate::schedule::is_half;
use tilewright_ir::op::ScalarOp;
use tilewright_ir::types::DType;

/// A sum of products in a body, as locals and sets of axes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sum {
    /// The outermost sum.
    pub fold: usize,
    /// All its sums, then the product.
    pub nest: Vec<usize>,
    /// The operand with the rows.
    pub left: usize,
    /// The operand with the columns.
    pub right: usize,
    /// Summed axes.
    pub depth: AxisSet,
    /// Axes of the left operand alone.
    pub rows: AxisSet,
    /// Axes of the right operand alone.
    pub columns: AxisSet,
    /// Axes of both.
    pub batch: AxisSet,
}

/// Products with the outputs that they are for, as locals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub sums: Vec<Sum>,
    pub outputs: Vec<usize>,
}

/// What a body is, in locals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// No folds.
    Pointwise,
    /// Matrix products on micro-kernels, and elementwise work on their results.
    Products(Vec<Sum>),
    /// Such products of the same rows with columns of their own, part by part: grids side by side.
    Beside(Vec<Part>),
    /// One-pass softmax folds over one axis whose key holds one product. Beside them maxima of the key and plain sums.
    Attention { folds: Vec<usize>, key: Sum },
    /// Folds in loops. The sums here are products that no micro-kernel computes.
    Loops(Vec<Sum>),
}

impl Form {
    /// Whether this is a product in plain loops only because its rows are computed: attention around it would compute it on
    /// micro-kernels.
    pub fn is_promising(&self, problem: &Problem<'_>, written: &Written<'_>) -> bool {
        let folds = (0..written.locals.len()).filter(|&at| matches!(written.step(at), Some(Step::Fold(..)))).count();
        let capable = &problem.device.capabilities;
        match self {
            Form::Loops(sums) if capable.attention && !capable.prologue => {
                let changed = |sum: &Sum| written.is_changed(sum.left) || written.is_changed(sum.right);
                matches!(&sums[..], [sum] if sum.nest.len() == folds + 1 && changed(sum))
            }
            Form::Loops(_) | Form::Pointwise | Form::Products(_) | Form::Beside(_) | Form::Attention { .. } => false,
        }
    }
}

/// Values that read each local.
fn readers(written: &Written<'_>) -> Vec<usize> {
    let mut count = vec![0; written.locals.len()];
    for kid in written.locals.iter().flat_map(|l| &l.kids) {
        count[*kid] += 1;
    }
    for &o in &written.outputs {
        count[o] += 1;
    }
    count
}

impl Written<'_> {
    pub fn step(&self, at: usize) -> Option<&Step> {
        self.locals.get(at).and_then(|l| l.choice).map(|c| &c.step)
    }

    fn head(&self, at: usize) -> Option<&Head> {
        self.locals.get(at).and_then(|l| l.choice).map(|c| &c.node.head)
    }

    /// The sums of products, outermost first.
    pub fn sums(&self) -> Vec<Sum> {
        let readers = readers(self);
        let mut inside = vec![false; self.locals.len()];
        let mut found = Vec::new();
        for fold in (0..self.locals.len()).rev().filter(|&at| matches!(self.step(at), Some(Step::Fold(Fold::Sum, _)))) {
            if inside[fold] {
                continue;
            }
            let (mut nest, mut depth, mut at) = (Vec::new(), 0, fold);
            while let Some(Step::Fold(Fold::Sum, axis)) = self.step(at) {
                nest.push(at);
                depth |= axis_bit(*axis);
                let Some(&kid) = self.locals[at].kids.first() else { break };
                at = kid;
                if readers[at] != 1 {
                    break;
                }
            }
            let (true, Some(Head::Scalar(ScalarOp::Mul {})), [left, right]) =
                (readers[at] == 1, self.head(at), self.locals[at].kids.as_slice())
            else {
                continue;
            };
            nest.push(at);
            let (a, b) = (self.locals[*left].free, self.locals[*right].free);
            if left == right || a & b & depth != depth {
                continue;
            }
            nest.iter().for_each(|&n| inside[n] = true);
            let (rows, columns, batch) = (a & !b, b & !a, a & b & !depth);
            found.push(Sum { fold, nest, left: *left, right: *right, depth, rows, columns, batch });
        }
        found
    }

    /// The dtype of what matrix instructions multiply in a product of these factors: both are values of one 16-bit dtype,
    /// converted to f32, and the device has a rate for it.
    pub fn narrow(&self, problem: &Problem<'_>, factors: [usize; 2]) -> Option<DType> {
        let of = |at: usize| {
            let cast = matches!(self.head(at), Some(Head::Scalar(ScalarOp::Cast { to: DType::F32 })));
            let below = self.locals[at].kids.first().filter(|_| cast)?;
            Some(problem.classes[self.locals[*below].class].dtype)
        };
        let [a, b] = factors.map(of);
        a.filter(|d| Some(*d) == b && matches!(d, DType::Bf16 | DType::F16) && problem.device.matrix.has(*d))
    }

    /// What the product of `at` reads: halves are converted on the way to it.
    pub fn operand(&self, problem: &Problem<'_>, at: usize) -> usize {
        let kid = self.locals[at].kids.first().copied();
        let cast = matches!(self.head(at), Some(Head::Scalar(ScalarOp::Cast { to: DType::F32 })));
        kid.filter(|&k| cast && is_half(problem.classes[self.locals[k].class].dtype)).unwrap_or(at)
    }

    /// Whether an online fold with the key `s` may weigh its terms with `w`: something read, a number, or something read times
    /// something that the key's axes suffice for.
    fn weighs(&self, problem: &Problem<'_>, w: usize, s: usize) -> bool {
        let plain = |w: usize| self.is_read(self.operand(problem, w)) || matches!(self.step(w), Some(Step::Number));
        let product = || match (self.head(w), self.locals[w].kids.as_slice()) {
            (Some(Head::Scalar(ScalarOp::Mul {})), &[a, b]) => {
                (plain(a) && self.beside(b, s, &[])) || (plain(b) && self.beside(a, s, &[]))
            }
            _other => false,
        };
        plain(w) || product()
    }

    /// Whether the axes of `s` suffice for `x`, which needs no folds but those of `known`.
    fn beside(&self, x: usize, s: usize, known: &[usize]) -> bool {
        let folds = |at: &usize| matches!(self.step(*at), Some(Step::Fold(..))) && !known.contains(at);
        self.locals[x].free & !self.locals[s].free == 0 && !(0..=x).filter(folds).any(|f| self.reaches(x, f))
    }

    /// Whether `x` is the key `s`, and nothing where the mask does not hold.
    fn is_key(&self, x: usize, s: usize, mask: Option<usize>) -> bool {
        let nothing = |at: usize| match self.head(at) {
            Some(Head::Attr(Attr::Const(n))) => n.value() == f64::NEG_INFINITY,
            _other => false,
        };
        match (mask, self.head(x), self.locals[x].kids.as_slice()) {
            (None, ..) => x == s,
            (Some(mask), Some(Head::Scalar(ScalarOp::Select {})), &[p, key, other]) => {
                (p, key) == (mask, s) && nothing(other)
            }
            _other => false,
        }
    }

    /// Whether a local is something read, changed by a few ops at its own place, as a scale or a bias does: any kernel can
    /// compute that where it puts it. A rotation reads two places for each, by masks of positions.
    fn is_changed(&self, at: usize) -> bool {
        const MOST: usize = 4;
        let (mut stack, mut ops) = (vec![at], 0);
        while let Some(at) = stack.pop() {
            match self.step(at) {
                Some(Step::Map { .. }) => {
                    ops += 1;
                    stack.extend(&self.locals[at].kids);
                }
                None | Some(Step::Load(..)) => {}
                Some(Step::Number) if self.locals[at].free == 0 => {}
                Some(Step::Number | Step::At(_) | Step::Gather(..) | Step::Fold(..)) => return false,
            }
            if ops > MOST {
                return false;
            }
        }
        ops > 0
    }

    /// Whether a local is read from memory as it lies there.
    fn is_read(&self, at: usize) -> bool {
        match self.step(at) {
            None => true,
            Some(Step::Load(..) | Step::At(_)) => true,
            Some(Step::Number | Step::Gather(..) | Step::Map { .. } | Step::Fold(..)) => false,
        }
    }
}

/// Whether an index only grows, from a fixed place on.
fn is_forward(e: &Affine) -> bool {
    e.constant >= 0 && e.terms.iter().all(|t| t.1 > 0)
}

/// Whether a micro-kernel can step through a map: forward, a dim or a part of one for each axis, beside dims of which one place is
/// read, or where the device can, any steps.
fn walks(problem: &Problem<'_>, map: &[Affine]) -> bool {
    let free = map.iter().fold(0, |set, e| set | e.free());
    let moving = map.iter().filter(|e| !e.terms.is_empty()).count();
    let parts = free.count_ones() as usize == moving && map.iter().all(|e| e.terms.len() <= 1);
    (parts || problem.device.capabilities.views) && map.iter().all(is_forward)
}

/// Where a set of axes is in a map: one after the other, each alone; the number of entries behind them. One axis may be a part of
/// a dim, several would not be one axis of a kernel then.
fn together(map: &[Affine], set: AxisSet) -> Option<usize> {
    let count = set.count_ones() as usize;
    let last = map.iter().rposition(|e| e.free() & set != 0)?;
    let first = (last + 1).checked_sub(count)?;
    let unit = |e: &Affine| is_forward(e) && matches!(e.terms[..], [(a, 1)] if set & axis_bit(a) != 0);
    let alone = |e: &Affine| unit(e) && (count == 1 || e.constant == 0);
    let found = map[first..=last].iter().fold(0, |s, e| s | e.free());
    (found == set && map[first..=last].iter().all(alone)).then(|| map.len() - 1 - last)
}

/// Whether a view of a stored class is one that a micro-kernel can step through.
fn renames(problem: &Problem<'_>, map: &[(u8, Affine)]) -> bool {
    let views = problem.device.capabilities.views;
    map.iter().all(|m| is_forward(&m.1) && (views || m.1.terms.len() <= 1))
}

/// How a micro-kernel comes to the rows of an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rows {
    /// As they lie, or as the device computes them.
    There,
    /// From a copy with the summed axes innermost.
    Copied,
}

/// How a micro-kernel can read the rows, if it can: a stored tensor with the summed axes innermost, or a copy that is such.
pub(super) fn left_fits(problem: &Problem<'_>, written: &Written<'_>, sum: &Sum) -> Option<Rows> {
    let fits = |yes: bool| yes.then_some(Rows::There);
    match written.step(written.operand(problem, sum.left)) {
        None => Some(Rows::There),
        Some(Step::Load(_, map)) if walks(problem, map) && together(map, sum.depth) == Some(0) => Some(Rows::There),
        // What computes its rows takes them from wherever they lie, as long as the summed axes are one.
        Some(Step::Load(_, map)) if problem.device.capabilities.prologue && walks(problem, map) => {
            fits(together(map, sum.depth).is_some())
        }
        Some(Step::Load(input, map)) => {
            // The order of the summed axes is that of the columns.
            let columns = match written.step(written.operand(problem, sum.right)) {
                Some(Step::Load(_, map)) => together(map, sum.depth).is_some(),
                Some(Step::At(_)) | None => sum.depth.count_ones() == 1,
                Some(Step::Number | Step::Gather(..) | Step::Map { .. } | Step::Fold(..)) => false,
            };
            let copies = !problem.device.capabilities.prologue && !problem.context.is_weight(*input);
            (copies && walks(problem, map) && columns).then_some(Rows::Copied)
        }
        Some(Step::At(map)) => fits(renames(problem, map)),
        Some(Step::Number | Step::Gather(..) | Step::Map { .. } | Step::Fold(..)) => {
            fits(problem.device.capabilities.prologue)
        }
    }
}

/// Whether the columns can be packed: a stored tensor, or blocks that the micro-kernel dequantises.
fn right_fits(problem: &Problem<'_>, written: &Written<'_>, sum: &Sum) -> bool {
    let outer = sum.columns | sum.batch;
    let right = written.operand(problem, sum.right);
    let dtype = problem.classes[written.locals[right].class].dtype;
    let left = problem.classes[written.locals[written.operand(problem, sum.left)].class].dtype;
    let matrix = &problem.device.matrix;
    match written.step(right) {
        None => left == dtype && matrix.has(dtype),
        Some(Step::Load(_, map)) => {
            let steps = problem.device.capabilities.views && together(map, sum.depth).is_some();
            let packs = together(map, sum.depth) == Some(0) || together(map, outer) == Some(0);
            // Packing takes any distances between rows, columns and matrices.
            let apart = problem.device.capabilities.batched && sum.depth.count_ones() == 1;
            left == dtype && matrix.has(dtype) && walks(problem, map) && (packs || steps || apart)
        }
        Some(Step::At(map)) => left == dtype && matrix.has(dtype) && renames(problem, map),
        Some(Step::Map { .. }) => {
            let Some(&blocks) = written.locals[right].kids.first() else { return false };
            let encoding = problem.classes[written.locals[blocks].class].dtype;
            let cast = matches!(written.head(right), Some(Head::Scalar(ScalarOp::Cast { to: DType::F32 })));
            let rows = match written.step(blocks) {
                Some(Step::Load(_, map)) => {
                    map.iter().all(|e| e.as_axis().is_some()) && together(map, sum.depth) == Some(0)
                }
                _computed => false,
            };
            let known = matrix.has(encoding) || problem.device.capabilities.prologue;
            cast && encoding.is_block() && known && rows && left == DType::F32
        }
        Some(Step::Number | Step::Gather(..) | Step::Fold(..)) => false,
    }
}

/// The sum with its sides so that a micro-kernel can compute it.
fn oriented(problem: &Problem<'_>, written: &Written<'_>, sum: &Sum) -> Option<Sum> {
    let capable = &problem.device.capabilities;
    let known = |axis: u8| problem.is_constant(axis);
    if (!capable.symbolic_depth && !each(sum.depth).all(known)) || (!capable.batched && sum.batch != 0) {
        return None;
    }
    let swapped = Sum { left: sum.right, right: sum.left, rows: sum.columns, columns: sum.rows, ..sum.clone() };
    // A weight is packed once, whatever side it is written on.
    let weight = |at: usize| match written.step(written.operand(problem, at)) {
        Some(Step::Load(input, _)) => problem.context.is_weight(*input),
        Some(Step::Map { .. }) => true,
        _computed => false,
    };
    let first = if weight(sum.left) && !weight(sum.right) { [swapped, sum.clone()] } else { [sum.clone(), swapped] };
    // What may be a half is one, where matrix units multiply halves.
    let converted = |at: usize| written.operand(problem, at) != at;
    let half = |at: usize| {
        let narrow = problem.classes[written.locals[at].class].narrow;
        converted(at) || narrow.is_some_and(|(_, h)| problem.device.matrix.has(problem.classes[h].dtype))
    };
    let sides = [sum.left, sum.right];
    if capable.prologue && sides.iter().all(|&at| half(at)) && !sides.iter().all(|&at| converted(at)) {
        return None;
    }
    let fits = |s: &&Sum, rows: Rows| {
        let instructions = problem.device.capabilities.prologue && written.narrow(problem, [s.left, s.right]).is_some();
        let products = || left_fits(problem, written, s) == Some(rows) && right_fits(problem, written, s);
        s.columns != 0 && (instructions || products())
    };
    // A copy only where neither side lies as it should.
    let found = [Rows::There, Rows::Copied].into_iter().find_map(|rows| first.iter().find(|s| fits(s, rows)));
    found.cloned()
}

/// The form of a body.
pub(super) fn form(problem: &Problem<'_>, written: &Written<'_>) -> Form {
    let folds: Vec<usize> =
        (0..written.locals.len()).filter(|&at| matches!(written.step(at), Some(Step::Fold(..)))).collect();
    if folds.is_empty() {
        return Form::Pointwise;
    }
    let sums = written.sums();
    products(problem, written, &folds, &sums)
        .or_else(|| attention(problem, written, &folds, &sums))
        .unwrap_or_else(|| Form::Loops(sums.into_iter().filter(|s| s.rows != 0 && s.columns != 0).collect()))
}

fn products(problem: &Problem<'_>, written: &Written<'_>, folds: &[usize], sums: &[Sum]) -> Option<Form> {
    if sums.iter().flat_map(|s| &s.nest).count() != folds.len() + sums.len() {
        return None;
    }
    let mut parts: Vec<Part> = Vec::new();
    for &output in &written.outputs {
        let free = |p: &Part| p.outputs.iter().all(|&o| written.locals[o].free == written.locals[output].free);
        match parts.iter_mut().find(|p| free(p)) {
            Some(part) => part.outputs.push(output),
            None => parts.push(Part { sums: Vec::new(), outputs: vec![output] }),
        }
    }
    if parts.len() < 2 {
        return alike(problem, written, sums, &written.outputs).map(Form::Products);
    }
    for part in &mut parts {
        let mine = sums.iter().filter(|s| part.outputs.iter().any(|&o| written.reaches(o, s.fold))).cloned();
        part.sums = alike(problem, written, &mine.collect::<Vec<_>>(), &part.outputs)?;
    }
    let first = parts.first()?.sums.first()?.clone();
    let same = |s: &Sum| (s.left, s.depth, s.rows, s.batch) == (first.left, first.depth, first.rows, first.batch);
    let once = parts.iter().map(|p| p.sums.len()).sum::<usize>() == sums.len();
    (once && parts.iter().flat_map(|p| &p.sums).all(same)).then_some(Form::Beside(parts))
}

/// The products as micro-kernels compute them, if they share rows, columns and loops, and are what the outputs are made of.
fn alike(problem: &Problem<'_>, written: &Written<'_>, sums: &[Sum], outputs: &[usize]) -> Option<Vec<Sum>> {
    if sums.is_empty() || sums.len() > problem.device.capabilities.products {
        return None;
    }
    let oriented: Vec<Sum> = sums.iter().map(|s| oriented(problem, written, s)).collect::<Option<_>>()?;
    let first = oriented.first()?;
    let alike = |s: &Sum| s.left == first.left && s.depth == first.depth && s.columns == first.columns;
    let whole = |o: &usize| written.locals[*o].free == first.rows | first.columns | first.batch;
    (oriented.iter().all(alike) && outputs.iter().all(whole)).then_some(oriented)
}

fn attention(problem: &Problem<'_>, written: &Written<'_>, folds: &[usize], sums: &[Sum]) -> Option<Form> {
    let [sum] = sums else { return None };
    if !problem.device.capabilities.attention {
        return None;
    }
    let parts = |at: usize| match (written.step(at), written.locals[at].kids.as_slice()) {
        (Some(Step::Fold(Fold::Esum, axis)), [s, w]) => Some((*axis, None, *s, *w)),
        (Some(Step::Fold(Fold::EsumIf, axis)), [p, s, w]) => Some((*axis, Some(*p), *s, *w)),
        _other => None,
    };
    let outer = folds.iter().copied().filter(|f| !sum.nest.contains(f));
    let (online, beside): (Vec<usize>, Vec<usize>) = outer.partition(|&f| parts(f).is_some());
    let first = parts(*online.first()?)?;
    for &fold in &online {
        let (axis, p, s, w) = parts(fold)?;
        if (axis, p, s) != (first.0, first.1, first.2) || !written.weighs(problem, w, s) {
            return None;
        }
    }
    let goes_along = |&f: &usize| match (written.step(f), written.locals[f].kids.as_slice()) {
        (Some(Step::Fold(kind, axis)), &[x]) if *axis == first.0 => match kind {
            Fold::Max => written.is_key(x, first.2, first.1),
            // A mask may leave tiles out that a plain sum would have to see.
            Fold::Sum => first.1.is_none() && written.beside(x, first.2, &sum.nest),
            _other => false,
        },
        _other => false,
    };
    if !beside.iter().all(goes_along) {
        return None;
    }
    let known = |axis: u8| problem.is_constant(axis);
    let below = written.locals[first.2].free & axis_bit(first.0) != 0 && written.reaches(first.2, sum.fold);
    let along = |at: usize| written.locals[at].free & axis_bit(first.0) != 0;
    let (query, column) = if along(sum.left) { (sum.right, sum.left) } else { (sum.left, sum.right) };
    let computed = (problem.device.capabilities.query || written.is_changed(query)) && !along(query);
    // Tiles of scores are f32: halves are converted on the way, and whether their products are better off on matrix
    // instructions, with the scores in memory, is for the price.
    let lies = |at: usize| written.is_read(written.operand(problem, at));
    let read = lies(column) && (lies(query) || computed);
    let held = problem.device.capabilities.symbolic_depth || each(sum.depth).all(known);
    let depth = sum.depth & axis_bit(first.0) == 0;
    let wide = online.iter().filter_map(|&f| written.locals[f].kids.last()).fold(0, |s, &w| s | written.locals[w].free);
    let axes = (written.locals[first.2].free | wide) & !axis_bit(first.0);
    // The axes of the weights are held whole, so a result without them is written once as well.
    let queries = written.locals[first.2].free & !axis_bit(first.0);
    let whole = written.outputs.iter().any(|&o| written.locals[o].free == axes)
        && written.outputs.iter().all(|&o| [axes, queries].contains(&written.locals[o].free));
    (below && read && held && depth && whole).then(|| Form::Attention { folds: online, key: sum.clone() })
}

impl Written<'_> {
    /// Whether a local needs another one.
    pub fn reaches(&self, from: usize, to: usize) -> bool {
        self.below(&[from])[to]
    }

    /// Which locals these need, with themselves.
    pub fn below(&self, from: &[usize]) -> Vec<bool> {
        let mut seen = vec![false; self.locals.len()];
        let mut stack = from.to_vec();
        while let Some(at) = stack.pop() {
            if !std::mem::replace(&mut seen[at], true) {
                stack.extend(&self.locals[at].kids);
            }
        }
        seen
    }
}

/// The form in classes, for those who write the kernel.
pub(super) fn kind(problem: &Problem<'_>, written: &Written<'_>, form: &Form) -> Kind {
    let id = |at: usize| problem.classes[written.locals[at].class].id;
    let product = |s: &Sum| Product {
        fold: id(s.fold),
        left: id(s.left),
        right: id(s.right),
        rows: each(s.rows).collect(),
        columns: each(s.columns).collect(),
        depth: each(s.depth).collect(),
        batch: each(s.batch).collect(),
    };
    match form {
        Form::Pointwise => {
            let moves = |at: &usize| match written.step(*at) {
                Some(Step::Load(..) | Step::At(_) | Step::Number) => true,
                Some(Step::Gather(..) | Step::Map { .. } | Step::Fold(..)) | None => false,
            };
            if written.outputs.iter().all(moves) { Kind::Copy } else { Kind::Pointwise }
        }
        Form::Products(sums) => Kind::Contraction(sums.iter().map(product).collect()),
        Form::Beside(parts) => Kind::Contraction(parts.iter().flat_map(|p| &p.sums).map(product).collect()),
        Form::Attention { folds, key } => {
            Kind::Attention { folds: folds.iter().map(|&f| id(f)).collect(), key: product(key) }
        }
        Form::Loops(sums) if sums.is_empty() => Kind::Row,
        Form::Loops(_) => Kind::Generic,
    }
}

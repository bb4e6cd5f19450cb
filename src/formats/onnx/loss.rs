//! Losses of classes along axis 1.

use super::call::Call;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::dsl::Tensor;
use tilewright_ir::types::DType;

type Built = Result<Tensor, Diagnostic>;

/// The weighted mean (or sum, or none) of minus the log-probabilities `x` `[n, classes, ..]` at the classes of
/// operand 1 `[n, ..]`; operand 2 has a weight for each class, and `ignore_index` a class without loss.
fn picked(c: &Call, x: &Tensor) -> Built {
    let target = c.tensor(1)?.cast(DType::I64);
    let (shape, places) = (c.shape(x)?, c.shape(&target)?);
    if shape.len() < 2 || places != [&shape[..1], &shape[2..]].concat() {
        return Err(c.misfit(format!("does not fit {} and targets {}", x.ty(), target.ty())));
    }
    let ignored = c.maybe_int("ignore_index")?.map(|class| target.eq(class));
    let safe = ignored.as_ref().map_or(target.clone(), |i| i.select(0i64, &target));
    let loss = -x.take_along(&safe.unsqueeze(1), 1).squeeze(1);
    let weight = match c.maybe(2) {
        Some(weight) => Some(weight.take(&safe, 0)),
        None => ignored.as_ref().map(|_| c.graph.full(x.dtype(), places.clone(), 1i64)),
    };
    // What is ignored counts for nothing, even if its loss is infinite.
    let without = |t: Tensor| ignored.as_ref().map_or(t.clone(), |i| i.select(0i64, &t));
    let loss = without(weight.as_ref().map_or(loss.clone(), |w| &loss * w));
    let all: Vec<i64> = (0..places.len() as i64).collect();
    Ok(match c.word("reduction", &["mean", "sum", "none"])? {
        "none" => loss,
        "sum" => loss.sum(&all),
        _mean => match weight {
            Some(weight) => loss.sum(&all) / without(weight).sum(&all),
            None => loss.mean(&all),
        },
    })
}

pub(super) fn nll(c: &Call) -> Built {
    picked(c, &c.tensor(0)?)
}

/// The loss, and the log-probabilities.
pub(super) fn softmax_cross_entropy(c: &Call) -> Result<Vec<Tensor>, Diagnostic> {
    let log = c.tensor(0)?.log_softmax(1);
    Ok(vec![picked(c, &log)?, log])
}

//! What a region costs: the operations of its scalar ops and folds, and the bytes of its inputs and outputs. Kernels say
//! so in the attributes `flops` and `bytes`.

use super::index::dim;
use crate::region::{AxisId, Region, Term};
use std::collections::BTreeSet;
use tilewright_ir::flops::{Cost, type_bytes};
use tilewright_ir::kernel::{Kernel, KernelAttr};
use tilewright_ir::op::Family;
use tilewright_ir::types::{Dim, Type};

/// The cost if every term is computed once for each point of its axes, every input is read once and whole, and every
/// output written once. `None` on overflow.
pub fn cost(region: &Region) -> Option<Cost> {
    let points =
        |axes: &BTreeSet<AxisId>| axes.iter().try_fold(Dim::constant(1), |n, &a| n.checked_mul(&region.axes.get(a)?.1));
    let mut flops = Dim::constant(0);
    for (id, (term, _)) in region.terms.iter().enumerate() {
        let count = match term {
            Term::Map(op, _) => match op.info().family {
                Family::Arithmetic | Family::Transcendental | Family::Comparison => points(&region.free[id])?,
                _moving => continue,
            },
            Term::Fold { arg, .. } | Term::ArgFold { arg, .. } => points(&region.free[*arg])?,
            // A difference, an exponential, a product and a sum.
            Term::Online { axis, key, weight, .. } => {
                let mut axes: BTreeSet<AxisId> = region.free[*key].union(&region.free[*weight]).copied().collect();
                axes.insert(*axis);
                points(&axes)?.checked_mul(&Dim::constant(4))?
            }
            Term::Moment { arg, .. } => points(&region.free[*arg])?.checked_mul(&Dim::constant(4))?,
            Term::Const(_) | Term::Iota(_) | Term::Size(_) | Term::Load { .. } | Term::Product => continue,
        };
        flops = flops.checked_add(&count)?;
    }
    let mut bytes = Dim::constant(0);
    for (_, ty) in &region.inputs {
        bytes = bytes.checked_add(&type_bytes(ty)?)?;
    }
    for output in &region.outputs {
        let shape: Vec<Dim> = output.axes.iter().map(|&a| region.axes[a].1.clone()).collect();
        bytes = bytes.checked_add(&type_bytes(&Type { dtype: region.terms[output.root].1, shape })?)?;
    }
    Some(Cost { flops, bytes })
}

/// Kernels of this cost say so; one that says so already stays as it is.
pub fn with_cost(kernels: &mut [Kernel], cost: Option<&Cost>) {
    let Some(cost) = cost else { return };
    for kernel in kernels.iter_mut().filter(|k| !k.attrs.iter().any(|a| &*a.name == "flops")) {
        for (name, n) in [("flops", &cost.flops), ("bytes", &cost.bytes)] {
            kernel.attrs.push(KernelAttr { name: name.into(), args: vec![dim(n)] });
        }
    }
}

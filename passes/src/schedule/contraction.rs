//! Contractions on the CPU: packed panels and a micro-kernel, with an epilogue.

use crate::region::{Region, TermId};

/// A matrix product inside a region that the micro-kernels compute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contraction {
    /// The fold term that is the product.
    pub fold: TermId,
}

/// The region's contraction, if it is a product that the micro-kernels compute.
pub fn contraction(_region: &Region) -> Option<Contraction> {
    None
}

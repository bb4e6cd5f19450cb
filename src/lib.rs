//! Tilewright: a tensor compiler for transformer models.

pub mod conformance;
pub mod formats;
pub mod models;

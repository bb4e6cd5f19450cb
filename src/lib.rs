//! Tilewright: a tensor compiler for transformer models.

pub mod formats;
pub mod models;

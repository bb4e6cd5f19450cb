//! Sentence embeddings by an encoder: texts x tokens; in "32x64 padded" the texts have 8 to 64 tokens.

use super::numpy::NumpyRandom;
use super::{More, Row, SECOND, Setup, mean_size, measure, rate, row};
use crate::embed::{EncoderFolder, SentenceEncoder};
use std::path::Path;
use tilewright_ir::array::Array;
use tilewright_ir::diag::Diagnostic;

const SHAPES: [(&str, usize, usize, bool); 4] =
    [("1x16", 1, 16, false), ("1x128", 1, 128, false), ("32x64", 32, 64, false), ("32x64 padded", 32, 64, true)];

/// Ids are drawn from these, special tokens left out.
const IDS: (i64, i64) = (1000, 30000);

/// Measures the model in `folder`, compiled once, at every shape, and hands each row over.
///
/// Errors: those of the folder, of the compiler and of `show`; an index outside for a vocabulary of less than 30000.
pub fn encoder(
    folder: &Path,
    setup: &Setup,
    mut show: impl FnMut(Row) -> Result<(), Diagnostic>,
) -> Result<(), Diagnostic> {
    let folder = EncoderFolder::open(folder)?;
    let model = SentenceEncoder::new(&folder, &setup.options)?;
    for (name, batch, seq, padded) in SHAPES {
        let (tokens, mask) = inputs(batch, seq, padded)?;
        let result = Array::from_f32(&[batch, model.width()], &model.run(&tokens, &mask)?)?;
        let times = measure(SECOND, || model.run(&tokens, &mask).map(drop))?;
        let more = More { sentences_s: rate(batch, times.median), check: mean_size(&result), ..More::default() };
        show(row("encoder", name.into(), &times, setup, more))?;
    }
    Ok(())
}

/// Tokens, 0 as padding, and mask.
fn inputs(batch: usize, seq: usize, padded: bool) -> Result<(Array, Array), Diagnostic> {
    let mut random = NumpyRandom::new(0);
    let ids = random.integers(IDS.0, IDS.1, batch * seq);
    let lengths = if padded { random.integers(8, seq as i64 + 1, batch) } else { vec![seq as i64; batch] };
    let mask: Vec<bool> = lengths.iter().flat_map(|&l| (0..seq as i64).map(move |i| i < l)).collect();
    let ids: Vec<i64> = ids.iter().zip(&mask).map(|(id, shown)| if *shown { *id } else { 0 }).collect();
    Ok((Array::from_i64(&[batch, seq], &ids)?, Array::from_bool(&[batch, seq], &mask)?))
}

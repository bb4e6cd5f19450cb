//! Random products of 16-bit floats: every order of axes, sizes and offsets that are multiples of what is copied at once or
//! not, batches, symbolic sizes, computed factors, and work on the result.

use crate::models::Case;
use crate::random::Random;
use tilewright_ir::dsl::{Graph, Tensor};
use tilewright_ir::types::{Bindings, DType, Dim};

/// Products of a case.
const COUNT: usize = 5;
/// Values of the symbols.
const N: i64 = 75;
const M: i64 = 40;

/// A size, symbolic or not, with its value.
fn size(g: &Graph, random: &mut Random) -> Dim {
    match random.below(5) {
        0 => g.symbol("n", 5..=4096),
        1 => g.symbol("m", 5..=4096),
        // Whole pieces of 16 bytes, whole tiles, and neither.
        2 => Dim::from(8 * (1 + random.below(14) as i64)),
        3 => Dim::from(random.of(&[16i64, 32, 64, 128])),
        _odd => Dim::from(5 + random.below(90) as i64),
    }
}

/// A matrix `[batch.., rows, columns]` that may lie across in memory, be a slice of a larger one, and be computed.
fn factor(
    g: &Graph,
    random: &mut Random,
    dtype: DType,
    name: &str,
    batch: &[Dim],
    rows: &Dim,
    columns: &Dim,
) -> Tensor {
    let across = random.below(2) == 0;
    let [outer, inner] = if across { [columns, rows] } else { [rows, columns] };
    let mut shape = batch.to_vec();
    // Offsets of no, some and all of the 16 bytes that are copied at once.
    let start = [0, 0, 1, 2, 4, 8][random.below(6)];
    let end = random.below(2) as i64 * 8;
    let more = inner.checked_add(&Dim::from(start + end)).unwrap();
    shape.extend([outer.clone(), more]);
    let rank = shape.len();
    let x = g.input(name, dtype, &shape);
    let mut x = if start + end > 0 { x.narrow(-1, start, inner.clone()) } else { x };
    if across {
        let mut perm: Vec<i64> = (0..rank as i64).collect();
        perm.swap(rank - 2, rank - 1);
        x = x.permute(&perm);
    }
    match random.below(4) {
        // Not 0 where the operand ends.
        0 => x.exp() * 0.25,
        _as_it_is => x,
    }
}

/// One case: several products of one dtype.
pub fn case(dtype: DType, seed: u64) -> Case {
    let mut random = Random(seed);
    let g = Graph::new("main");
    let mut results = Vec::new();
    for i in 0..COUNT {
        let batch: Vec<Dim> = (0..random.below(3)).map(|_| Dim::from(1 + random.below(3))).collect();
        let [rows, columns, depth] = [(); 3].map(|()| size(&g, &mut random));
        let a = factor(&g, &mut random, dtype, &format!("a{i}"), &batch, &rows, &depth);
        let b = factor(&g, &mut random, dtype, &format!("b{i}"), &batch, &depth, &columns);
        let product = a.matmul(&b);
        results.push(match random.below(3) {
            0 => product,
            1 => (product + g.input(&format!("bias{i}"), dtype, (&columns,))).silu(),
            _cast => (product.cast(DType::F32) * 0.5).cast(dtype),
        });
    }
    let module = g.finish(&results.iter().collect::<Vec<_>>()).unwrap();
    let used = |name: &str| module.entry().unwrap().symbols.iter().any(|s| &*s.name == name);
    let values = [("n", N), ("m", M)].into_iter().filter(|(name, _)| used(name));
    let bindings: Bindings = values.map(|(name, v)| (name.into(), v)).collect();
    Case::new(format!("products_{dtype}_{seed}"), module, bindings)
}

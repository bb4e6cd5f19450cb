//! Packing and dequantisation against the formats' definitions, element by element.

use super::*;
use crate::cpu::ukernel::UKERNELS;

#[test]
fn plain_panels_hold_every_element_once_and_zeros() {
    for (k, n, nr) in [(1, 1, 4), (3, 8, 4), (37, 9, 4), (20, 5, 16)] {
        for transposed in [false, true] {
            let (k_stride, n_stride) = if transposed { (1, k + 1) } else { (n + 1, 1) };
            let src: Vec<f32> = (0..(k + 1) * (n + 1)).map(|i| i as f32 + 1.0).collect();
            let mut dst = vec![f32::NAN; packed_bytes(DType::F32, k, n, nr).unwrap() / 4];
            pack_panels_f32(&src, k, n, k_stride, n_stride, nr, &mut dst).unwrap();
            for (at, &found) in dst.iter().enumerate() {
                let (panel, p, j) = (at / (k * nr), at / nr % k, at % nr);
                let column = panel * nr + j;
                let expected = if column < n { src[p * k_stride + column * n_stride] } else { 0.0 };
                assert_eq!(found, expected, "k {k} n {n} nr {nr} transposed {transposed} at {at}");
            }
        }
    }
}

#[test]
fn a_panel_of_one_column_is_a_transposed_copy() {
    for (k, n) in [(1, 1), (16, 16), (3, 40), (40, 3), (37, 33), (64, 50), (16, 31)] {
        let stride = n + 3;
        let src: Vec<f32> = (0..k * stride).map(|i| i as f32 + 1.0).collect();
        let bits: Vec<u16> = (0..k * stride).map(|i| i as u16 + 1).collect();
        let expected = |at: usize| at % k * stride + at / k + 1;
        let (mut packed, mut past, mut through) = (vec![0.0; n * k], vec![0.0; n * k], vec![0.0; n * k]);
        pack_panels_f32(&src, k, n, stride, 1, 1, &mut packed).unwrap();
        transpose_f32(&src, (k, n), stride, &mut past, true).unwrap();
        transpose_f32(&src, (k, n), stride, &mut through, false).unwrap();
        assert!((0..n * k).all(|at| packed[at] == expected(at) as f32), "k {k} n {n}");
        assert_eq!(past, packed, "k {k} n {n}, past the caches");
        assert_eq!(through, packed, "k {k} n {n}, through the caches");
        if k % 2 == 0 {
            let mut pairs = vec![0; n * k];
            pack_pairs(&bits, (k, n), (stride, 1), 1, &mut pairs).unwrap();
            assert!((0..n * k).all(|at| usize::from(pairs[at]) == expected(at)), "k {k} n {n}, halves");
        }
    }
}

#[test]
fn nibbles_lie_where_the_panel_says() {
    // Quant of step p is p % 16, scale 1.
    let block: Vec<u8> = [0x00, 0x3c].into_iter().chain((0..16u8).map(|i| i | i << 4)).collect();
    let mut panel = vec![0; packed_bytes(DType::Q4_0, 32, 3, NR).unwrap()];
    pack_panels_block(DType::Q4_0, &block.repeat(3), 32, 3, NR, &mut panel).unwrap();
    let word = |g: usize, j: usize| {
        let at = 2 * NR + 4 * (NR * g + j);
        u32::from_le_bytes([panel[at], panel[at + 1], panel[at + 2], panel[at + 3]])
    };
    for g in 0..4 {
        assert_eq!([word(g, 0), word(g, 2), word(g, 3)], [[0x7654_3210, 0xfedc_ba98][g % 2], word(g, 0), 0]);
    }
    assert_eq!(panel[4..8], [0x00, 0x3c, 0, 0]);
}

#[test]
fn wrong_sizes_are_refused() {
    assert_eq!(packed_bytes(DType::Q4_0, 33, 32, NR), None);
    assert_eq!(packed_bytes(DType::Q4_0, 32, 32, 16), None);
    assert_eq!(packed_bytes(DType::F32, usize::MAX / 2, usize::MAX / 2, 32), None);
    assert_eq!(packed_bytes(DType::F32, 4, usize::MAX, 32), None);
    assert_eq!(packed_bytes(DType::F32, 4, 4, 0), None);
    assert_eq!(packed_bytes(DType::I8, 4, 4, 4), None);
    let mut out = [0.0; 32];
    let code = |result: Result<(), Diagnostic>| result.unwrap_err().code;
    assert_eq!(code(pack_panels_f32(&[0.0; 15], 4, 4, 4, 1, 8, &mut out)), "pack-size");
    assert_eq!(code(pack_panels_f32(&[0.0; 16], 4, 4, 4, 1, 4, &mut out)), "pack-size");
    assert_eq!(code(pack_panels_f32(&[0.0; 16], 4, 4, usize::MAX, 1, 8, &mut out)), "pack-size");
    assert_eq!(code(pack_panels_block(DType::Q4_0, &[0; 17], 32, 1, NR, &mut [0; 576])), "pack-size");
    assert_eq!(code(pack_panels_block(DType::Q4_0, &[0; 18], 32, 1, NR, &mut [0; 575])), "pack-size");
    assert_eq!(code(pack_panels_block(DType::Q4K, &[0; 144], 256, 1, NR, &mut [0; 575])), "pack-size");
    assert_eq!(code(pack_panels_block(DType::I8, &[0; 32], 32, 1, NR, &mut [0; 1024])), "pack-dtype");
    assert!(pack_panels_f32(&[], 0, 4, 1, 1, 8, &mut []).is_ok());
    assert!(pack_panels_f32(&[], 4, 0, 1, 1, 8, &mut []).is_ok());
    assert!(UKERNELS.iter().all(|kernel| packed_bytes(kernel.b, 0, 5, kernel.nr) == Some(0)));
}

/// Element `(p, j)` of halves is in row `p` of a panel of f32, and beside its neighbour of a pair.
#[test]
fn panels_of_halves_hold_every_element_once_and_zeros() {
    for (k, n, nr) in [(2, 1, 4), (4, 8, 4), (38, 9, 4), (20, 5, 16)] {
        for (transposed, dtype) in [(false, DType::Bf16), (true, DType::Bf16), (false, DType::F16), (true, DType::F16)]
        {
            let strides = if transposed { (1, k + 1) } else { (n + 1, 1) };
            let src: Vec<u16> = (0..(k + 1) * (n + 1)).map(|i| 0x3c01 + i as u16).collect();
            let value = |bits: u16| match dtype {
                DType::F16 => f16::from_bits(bits).to_f32(),
                _ => bf16::from_bits(bits).to_f32(),
            };
            let size = packed_bytes(DType::Bf16, k, n, nr).unwrap() / 2;
            let (mut wide, mut pairs) = (vec![f32::NAN; size], vec![u16::MAX; size]);
            pack_halves(dtype, &src, (k, n), strides, nr, &mut wide).unwrap();
            pack_pairs(&src, (k, n), strides, nr, &mut pairs).unwrap();
            for (panel, p, j) in
                (0..n.div_ceil(nr)).flat_map(|panel| (0..k).flat_map(move |p| (0..nr).map(move |j| (panel, p, j))))
            {
                let column = panel * nr + j;
                let want = if column < n { src[p * strides.0 + column * strides.1] } else { 0 };
                assert_eq!(wide[panel * k * nr + p * nr + j], value(want), "{dtype} {k} {n} ({p}, {column})");
                assert_eq!(pairs[panel * k * nr + p / 2 * 2 * nr + 2 * j + p % 2], want, "{k} {n} ({p}, {column})");
            }
        }
    }
    let code = |result: Result<(), Diagnostic>| result.unwrap_err().code;
    assert_eq!(code(pack_pairs(&[0; 12], (3, 4), (4, 1), 4, &mut [0; 12])), "pack-size");
    assert_eq!(code(pack_halves(DType::F32, &[0; 16], (4, 4), (4, 1), 4, &mut [0.0; 16])), "pack-dtype");
}

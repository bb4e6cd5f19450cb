//! A matrix product through a pipe, and pipes that are used out of turn.

use super::{Tensor, run};
use crate::kernel::text::parse_kernel;
use crate::types::Bindings;

const TEXT: &str = include_str!("../../tests/kernels/05_gemm_sm80.kir");

/// The corpus' product at small sizes, with one change to its text.
fn product(from: &str, to: &str) -> Result<(Vec<f64>, Vec<f64>), String> {
    assert!(TEXT.contains(from), "{from}");
    let sizes = "N = 32, K = 48, BM = 16, BN = 16, BK = 16, KT = 3";
    let text = TEXT.replace("N = 3072, K = 768, BM = 128, BN = 128, BK = 32, KT = 24", sizes).replace(from, to);
    let kernel = parse_kernel("05", &text).map_err(|d| d.to_string())?;
    let (m, n, k) = (21, 32, 48);
    let numbers = |count: usize, seed: usize| (0..count).map(|i| ((i * 37 + seed) % 41) as f64 / 20.0 - 1.0).collect();
    let (x, w, bias): (Vec<f64>, Vec<f64>, Vec<f64>) = (numbers(m * k, 3), numbers(n * k, 5), numbers(n, 7));
    let mut want = Vec::new();
    for i in 0..m {
        for j in 0..n {
            let t = (0..k).map(|p| x[i * k + p] * w[j * k + p]).sum::<f64>() + bias[j];
            want.push(0.5 * t * (1.0 + libm::erf(std::f64::consts::FRAC_1_SQRT_2 * t)));
        }
    }
    let mut args = [
        Tensor::float(&[m, k], x),
        Tensor::float(&[n, k], w),
        Tensor::float(&[n], bias),
        Tensor::float(&[m, n], vec![0.0; m * n]),
    ];
    run(&kernel, &mut args, &Bindings::from([("M".into(), m as i64)])).map_err(|d| d.to_string())?;
    Ok((args[3].floats().ok_or("no floats")?.to_vec(), want))
}

fn close(found: &[f64], want: &[f64]) -> bool {
    found.iter().zip(want).all(|(f, w)| (f - w).abs() < 1e-7)
}

#[test]
fn a_product_through_a_pipe() {
    let (found, want) = product("", "").unwrap_or_else(|e| panic!("{e}"));
    assert!(close(&found, &want), "{found:?}\n{want:?}");
}

#[test]
fn pipes_out_of_turn_are_found() {
    for (from, to, message) in [
        ("wait ab\n      acquire ab", "acquire ab", "has no slot"),
        ("release ab\n    }\n    for s", "}\n    for s", "deadlock: `acquire ab`"),
        ("      commit ab\n      mma", "      mma", "deadlock: `acquire ab`"),
        ("acquire ab\n      copy", "copy", "has no slot"),
    ] {
        let e = product(from, to).map(|_| "no error").unwrap_or_else(|e| e.leak());
        assert!(e.contains(message), "{to}: {e}");
    }
    // A slot that nobody fills is poison.
    let (found, _) = product("copy ab.B <- w[nt*BN +: BN, s*BK +: BK] on ab\n      commit", "commit")
        .unwrap_or_else(|e| panic!("{e}"));
    assert!(found.iter().all(|x| x.is_nan()), "{found:?}");
}

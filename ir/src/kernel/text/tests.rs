//! Round trips of the kernels under `tests/kernels`, of printed trees, and errors with carets.

use super::{parse_kernel, parse_kernels, print_kernel};
use crate::kernel::expr::{BinaryOp, Expr};
use crate::op::ScalarOp;

fn corpus() -> Vec<(String, String)> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kernels");
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    files.iter().map(|p| (p.display().to_string(), std::fs::read_to_string(p).unwrap())).collect()
}

#[test]
fn the_corpus_survives_a_round_trip() {
    let files = corpus();
    assert!(files.len() >= 19);
    for (name, text) in files {
        let kernels = parse_kernels(&name, &text).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(kernels.len(), 1, "{name}");
        for k in kernels {
            let printed = print_kernel(&k);
            let again = parse_kernel("printed", &printed).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(again, k, "{name}\n{printed}");
            assert_eq!(print_kernel(&again), printed);
        }
    }
}

fn expression(text: &str) -> Expr {
    let k = parse_kernel("e", &format!("kernel k target cpu {{ set x = {text} }}")).unwrap_or_else(|e| panic!("{e}"));
    match k.body.into_iter().next().unwrap() {
        crate::kernel::Stmt::Set { value, .. } => value,
        other => panic!("{other:?}"),
    }
}

#[test]
fn parentheses_are_minimal() {
    for text in [
        "a - (b - c) - d*(e + f)",
        "a/(b*c)",
        "-x + -y",
        "-(a + b)*c",
        "where(a < b, max(c, 0.5), -inf)",
        "neg(1) + -1",
        "f32(a & 15) + f32(a >> 4)",
        "(a < b) & !(c == d)",
        "sum(a*b, k) + ceil(x) + ceil(n, 4) + floor(n, 4) + mod(n, 4) + argmax_of(t, c)",
        "iota(k, j*64, 64) <= i",
        "order(t, 4, n, grouped(8))",
        "a % b",
        "select_me + 1e-5",
    ] {
        assert_eq!(expression(text).to_string(), text);
    }
    assert_eq!(expression("((a))*((b))").to_string(), "a*b");
    assert_eq!(expression("a - b - c"), expression("(a - b) - c"));
    assert_ne!(expression("a - b - c"), expression("a - (b - c)"));
    let a = || Box::new(Expr::name("a"));
    assert_eq!(expression("ceil(a, a)"), Expr::Binary(BinaryOp::Ceil, a(), a()));
    assert_eq!(expression("-9223372036854775808"), Expr::Int(i64::MIN));
    assert_eq!(expression("-a"), Expr::scalar(ScalarOp::Neg {}, [Expr::name("a")]));
}

#[test]
fn every_statement_survives() {
    let text = "\
kernel every target sm_90a threads(128) resident {
  const A = 4, B = -1
  sym n in 1..=64 by 4
  in x: f32[r=n, c=A] align(16)
  out y: f32[r=n, c=A]
  view t[c=A, r=n] = x[r - 1?, c]
  shared s: bf16[]
  pipe ab[2] via tma from load to math over(cluster) one {
    A: bf16[m=A] sw128
  }
  queue q via wgmma
  par at grid {
    for i in 0 .. n step 2*A unroll {
      if i < 4 {
        let a = load t[:, i?] pad -inf on ab multicast hint(stream)
        let b = load ab@1.A[i +? 4 upto n]
        let c = load x[gather a, i +: 4] pad (1 + i)
        let d, e = order(i, 2, n, row)
      } else {
        set a = b
      }
    }
    roles {
      load warps 0..1 regs 24 {
        acquire ab
        commit ab
        skip ab n*2
      }
      math(g in 2) warps 1..3 {
        wait ab
        mma s[] += ab.A[:] * x[0, :], s * s via row init i == 0 on q
        release ab
        await q 1
        sync team async
        turn_wait y[0] == i + 1
        turn_next y[0]
        store y[i?, :] hint(keep) = a
        add y[i, :] += a
        copy y[i, :] <- x pad 0 on ab
      }
    }
    sync prior
  }
}
";
    assert_eq!(print_kernel(&parse_kernel("every", text).unwrap_or_else(|e| panic!("{e}"))), text);
}

#[test]
fn errors_show_a_caret() {
    for (text, message, caret) in [
        ("kernel k target cpu {\n  set x = = 1\n}", "expected an expression, found `=`", "2:11"),
        ("kernel k target cpu {\n  stor x = 1\n}", "expected a statement, found `stor`", "2:3"),
        ("kernel k target cpu {\n  in x: f31[]\n}", "unknown dtype `f31`", "2:9"),
        ("kernel k target cpu {\n  set x = gelu(1)\n}", "found `gelu` with 1 arguments", "2:11"),
        ("kernel k target cpu {\n  set x = #\n}", "unexpected character `#`", "2:11"),
        ("kernel k target cpu {", "expected a statement, found the end of the text", "1:22"),
    ] {
        let e = parse_kernel("f.kir", text).unwrap_err();
        assert!(e.message.contains(message), "{e}");
        assert!(e.to_string().contains(&format!("f.kir:{caret}")), "{e}");
        let shown = e.to_string();
        assert!(shown.contains("f.kir:") && shown.contains('^'), "{shown}");
    }
}

#[test]
fn hostile_texts_are_refused() {
    for text in [
        format!("kernel k target cpu {{ set x = {}", "(".repeat(100_000)),
        format!("kernel k target cpu {{ set x = {}", "-".repeat(100_000)),
        format!("kernel k target cpu {{ {}", "if 1 {".repeat(100_000)),
        "kernel k target cpu { set x = 99999999999999999999 }".into(),
        "kernel k target cpu { await q 4294967296 }".into(),
        "kernel \u{e9}".into(),
    ] {
        assert!(parse_kernel("h", &text).is_err());
    }
    let (_, text) = corpus().swap_remove(2);
    for n in (0..text.len()).step_by(11) {
        if let Some(part) = text.get(..n) {
            let _ = parse_kernels("cut", part);
        }
    }
}

//! One property of each term of the walk, on kernels by hand.

use super::*;
use tilewright_ir::kernel::text::parse_kernel;

/// Nanoseconds of a kernel on one of two cores with a second cache of so many bytes.
fn ns(text: &str, own: f64) -> f64 {
    let mut device = Device::named("cpu-avx512").unwrap_or_else(|d| panic!("{d}"));
    device.own_cache_bytes.0 = own;
    let kernel = parse_kernel("k", text).unwrap_or_else(|d| panic!("{d}"));
    1e9 * predict(&kernel, &Bindings::new(), &device, 1).unwrap_or(f64::NAN)
}

/// A product of `m` x `k` x 512 with so many rows and columns a point of the grid and steps a visit.
fn product((m, k): (i64, i64), rows: i64, columns: i64, deep: i64) -> String {
    let (points, across, panels) = ((m + rows - 1) / rows, 512 / columns, columns / 32);
    let visits = k / deep;
    format!(
        "kernel p target cpu {{
  in in0: f32[m={m}, k={k}]
  in in1: f32[nb=16, k={k}, n=32] packed
  out out: f32[m={m}, n=512]
  par nt in {across}, mt in {points} at grid {{
    cache acc: f32[m={rows}, n={columns}]
    for kb in 0 .. {visits} {{
      for j in 0 .. {panels} {{
        for i in 0 .. ceil(min({rows}, {m} + -{rows}*mt), 14) {{
          mma acc[i*14 +? 14, j*32 +: 32] += in0[mt*{rows} + i*14 +? 14, kb*{deep} +: {deep}] * in1[nt*{panels} + j, kb*{deep} +: {deep}, :] via avx512_f32 init kb == 0
        }}
      }}
    }}
    for r in 0 .. min({rows}, {m} + -{rows}*mt) {{
      let c1 = load acc[r, 0 +: {columns}]
      store out[mt*{rows} + r, nt*{columns} +: {columns}] = c1
    }}
  }}
}}"
    )
}

/// Sums of 512 x 1024 columns, so many at a time.
fn columns(tile: i64) -> String {
    let points = 1024 / tile;
    format!(
        "kernel s target cpu {{
  in in0: f32[k1=512, d0=1024]
  out out: f32[d0=1024]
  par t in {points} at grid {{
    reg s2: f32[d0={tile}]
    set s2 = f32(0)
    for j1 in 0 .. 512 {{
      let v3 = load in0[j1, t*{tile} +: {tile}]
      set s2 = s2 + v3
    }}
    store out[t*{tile} +: {tile}] = s2
  }}
}}"
    )
}

const OWN: f64 = 2e6;

#[test]
fn panels_that_stay_in_the_second_cache_come_once() {
    // 1.5 MB of panels a point: nine points of rows come back to them, from a cache of 1 or of 2 MB.
    let text = product((128, 768), 14, 512, 768);
    assert!(ns(&text, 1e6) > 1.02 * ns(&text, OWN));
    // A small panel stays in either.
    let text = product((128, 768), 14, 32, 768);
    assert!(ns(&text, 1e6) < 1.01 * ns(&text, OWN));
}

#[test]
fn a_corner_that_is_cut_twice_counts_once() {
    // 16 rows beyond 112 in two points by four: near the sum of a product of 112 rows and one of 16.
    let whole = ns(&product((128, 768), 112, 128, 768), OWN);
    let parts = ns(&product((112, 768), 112, 128, 768), OWN) + ns(&product((16, 768), 112, 128, 768), OWN);
    assert!((0.9..1.02).contains(&(whole / parts)), "{whole} of {parts}");
}

#[test]
fn visits_of_accumulators_and_changes_of_panels_cost() {
    // 12 visits instead of one, and of one row, whose time is that of its panels, changes of panels, too.
    assert!(ns(&product((128, 768), 56, 128, 64), OWN) > 1.05 * ns(&product((128, 768), 56, 128, 768), OWN));
    let own = 1e5;
    let (left, followed) = (product((1, 768), 4, 512, 64), product((1, 768), 4, 32, 64));
    assert!(ns(&left, own) > 1.1 * ns(&followed, own), "{} {}", ns(&left, own), ns(&followed, own));
}

#[test]
fn short_parts_of_rows_cost_by_the_part() {
    // A row at once, in quarters, and in pieces of a cache line.
    let times: Vec<f64> = [1024, 256, 16].map(|tile| ns(&columns(tile), OWN)).into();
    assert!(times[0] < times[1] && 1.5 * times[1] < times[2], "{times:?}");
    // What is written in short parts, too.
    assert!(ns(&product((512, 256), 14, 32, 256), OWN) > 1.03 * ns(&product((512, 256), 14, 128, 256), OWN));
}

#[test]
fn accumulators_beyond_the_first_cache_are_read_from_the_second() {
    // 112 rows of 512 columns are 229 KB, 14 are 29.
    assert!(ns(&product((448, 256), 112, 512, 256), OWN) > ns(&product((448, 256), 14, 512, 256), OWN));
}

#[test]
fn long_strips_of_functions_leave_the_first_cache() {
    let text = |tile: i64| {
        format!(
            "kernel t target cpu {{
  in in0: f32[d0=65536]
  out out: f32[d0=65536]
  par t in {} at grid {{
    let v1 = load in0[t*{tile} +: {tile}]
    let v2 = tanh(v1)
    store out[t*{tile} +: {tile}] = v2
  }}
}}",
            65536 / tile
        )
    };
    assert!(ns(&text(4096), OWN) > 1.05 * ns(&text(512), OWN));
    assert!(ns(&text(16), OWN) > 1.5 * ns(&text(512), OWN));
}

#[test]
fn a_view_of_rows_as_columns_is_read_as_what_it_is() {
    for tile in [16, 64, 256, 1024] {
        let plain = columns(tile);
        let view = plain.replace("  par t", "  view w0[d0=1024, k2=512] = in0[k2, d0]\n  par t");
        let view = view.replace(&format!("in0[j1, t*{tile} +: {tile}]"), &format!("w0[t*{tile} +: {tile}, j1]"));
        assert!(view.contains("load w0["), "{view}");
        assert_eq!(ns(&view, 1e6), ns(&plain, 1e6), "{tile} columns");
    }
    // Along the other axis neighbours are a row apart.
    let across = columns(256).replace("  par t", "  view w0[d0=1024, k2=512] = in0[d0, k2]\n  par t");
    let across = across.replace("in0: f32[k1=512, d0=1024]", "in0: f32[d0=1024, k1=512]");
    let across = across.replace("in0[j1, t*256 +: 256]", "w0[t*256 +: 256, j1]");
    assert!(ns(&across, 1e6) > 2.0 * ns(&columns(256), 1e6), "{across}");
}

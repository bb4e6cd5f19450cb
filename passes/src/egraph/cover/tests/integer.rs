//! Covers beside integer programs.

use super::super::super::Limits;
use super::super::*;
use super::choice::{blocks, random};
use super::meaning::stage;
use tilewright_ir::types::DType;

/// A solver that knows nothing of covers finds none that is cheaper.
#[test]
fn integer_programs_agree() {
    let (mut ended, device) = (0, Device::named("cpu-avx512").unwrap());
    let small = (1..=24).map(|seed| (random(seed), Vec::new()));
    let block = (blocks(1, DType::F32, 768, 12), vec![("b", 1), ("s", 128)]);
    for (module, likely) in small.chain([block]) {
        let stage = stage(&module, &likely, Limits::default());
        let roots = &stage.context.roots;
        let limits = CoverLimits::default();
        let found = integer(&stage.grown.graph, roots, &stage.context, &device, limits, 5_000).unwrap();
        assert!(found.chosen >= found.low - 1e-10 && found.nodes <= 5_000, "{found:?}");
        if let Some(best) = found.best.filter(|_| found.ended) {
            assert!((found.chosen - best).abs() < 1e-10, "{found:?}");
            ended += 1;
        }
        let none = integer(&stage.grown.graph, roots, &stage.context, &device, limits, 0).unwrap();
        assert!(none.nodes == 0 && none.low <= found.chosen + 1e-10, "{none:?}");
    }
    assert!(ended > 20, "{ended}");
}

//! The kernels of the block: whoever changes the model, or takes a new compiler, sees here what that does.

use example_snapshots::block;
use tilewright_snapshot::assert_kernel_snapshot;

#[test]
fn every_stage() {
    assert_kernel_snapshot!("block", block(64, 192));
}

//! Random graphs for a law. `TILEWRIGHT_CASES` says how many, `TILEWRIGHT_SEED` which.

use super::machine::{Built, Case, build, cases};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use tilewright_ir::text::print;

/// Asks `law` of random graphs, `usual` of them where the environment says nothing. Each `series` has graphs of its own. How many they
/// were; panics with the smallest graph of which it does not hold.
pub fn graphs(series: u8, usual: u32, law: impl Fn(&Built, &Case) -> Result<(), String>) -> u32 {
    let number = |name: &str| std::env::var(name).ok().map(|v| v.parse::<u64>().unwrap());
    let cases_wanted = number("TILEWRIGHT_CASES").map_or(usual, |n| n as u32);
    let mut seed = [series; 32];
    seed[..8].copy_from_slice(&number("TILEWRIGHT_SEED").unwrap_or(1).to_le_bytes());
    let config = Config { cases: cases_wanted, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let outcome = runner.run(&cases(), |case| {
        let built = build(&case).map_err(TestCaseError::fail)?;
        let shown = |d: String| TestCaseError::fail(format!("{d}\n{}{:?}", print(&built.module), built.bindings));
        law(&built, &case).map_err(shown)
    });
    outcome.unwrap_or_else(|e| panic!("{e}"));
    cases_wanted
}

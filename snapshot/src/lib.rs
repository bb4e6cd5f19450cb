//! Pins the kernels of a graph in a test: [`assert_kernel_snapshot!`] keeps them in files beside the test, under
//! [insta](https://insta.rs), and fails when one changes.
//!
//! ```no_run
//! use tilewright_ir::dsl::Graph;
//! use tilewright_ir::types::DType;
//! use tilewright_snapshot::assert_kernel_snapshot;
//!
//! // #[test]
//! fn softmax() {
//!     let g = Graph::new("main");
//!     let x = g.input("x", DType::F32, [64, 256]);
//!     assert_kernel_snapshot!("softmax", g.finish(&[&x.softmax(-1)]));
//! }
//! ```
//!
//! Each stage is a snapshot of its own, `NAME.STAGE`, whose header has what a reader asks first: FLOPs, bytes, launches,
//! shared memory, the rules that fired, and the schedule of each kernel. `tilewright diff OLD NEW` shows what changed in these
//! terms. The texts depend on the graph and the settings alone, so they are the same on every machine.

pub use tilewright::compile::Target;
pub use tilewright::emit::Stage;
pub use tilewright::snapshot::Settings;
pub use tilewright_codegen::cpu::ukernel::Isa;
pub use tilewright_passes::egraph::Numerics;

#[doc(hidden)]
pub use insta;

use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::Module;

/// What [`assert_kernel_snapshot!`] takes: a module, a reference to one, or what `Graph::finish` returns.
pub trait Source {
    /// The module. Errors: those of whoever made it.
    fn module(self) -> Result<Module, Diagnostic>;
}

impl Source for Module {
    fn module(self) -> Result<Module, Diagnostic> {
        Ok(self)
    }
}

impl Source for &Module {
    fn module(self) -> Result<Module, Diagnostic> {
        Ok(self.clone())
    }
}

impl Source for Result<Module, Diagnostic> {
    fn module(self) -> Result<Module, Diagnostic> {
        self
    }
}

/// Names and texts of the snapshots of a module.
///
/// Panics: where the module does not compile, with the diagnostic.
#[doc(hidden)]
#[track_caller]
#[allow(clippy::panic)] // A test has no other way to fail.
pub fn texts(name: &str, source: impl Source, settings: &Settings) -> Vec<(String, String)> {
    let taken = source.module().and_then(|module| tilewright::snapshot::take(&module, settings));
    match taken {
        Ok(all) => all.into_iter().map(|(stage, s)| (format!("{name}.{stage}"), s.to_string())).collect(),
        Err(diagnostic) => panic!("no snapshot of `{name}`:\n{diagnostic}"),
    }
}

/// Compares the stages of a module with the snapshots `NAME.STAGE` beside the test, as `insta::assert_snapshot!` does:
/// `cargo insta review` and `INSTA_UPDATE` work as for any other.
///
/// `assert_kernel_snapshot!(name, module)`, or with settings, in any order:
///
/// ```ignore
/// assert_kernel_snapshot!("mlp", &module, stages = [Kernel, Cuda], opt_level = 2, numerics = Exact);
/// assert_kernel_snapshot!("mlp_hopper", &module, stages = [Kernel, Cuda], target = Sm90a);
/// ```
///
/// `stages` are variants of [`Stage`]; left out: `Graph`, `Optimized`, `Kernel`, `Cuda`, `Plan`, as far as level and target
/// have them. `opt_level` is 0, 1 or 2 (left out: 2), `numerics` one of [`Numerics`], `target` one of [`Target`] (left out:
/// `Cpu`, and `Sm80` for CUDA text), `isa` one of [`Isa`] (left out: `Avx512`, whatever the machine has).
///
/// # Panics
/// Where a snapshot differs, and where the module does not compile, with the compiler's diagnostic.
#[macro_export]
macro_rules! assert_kernel_snapshot {
    ($name:expr, $module:expr $(, $key:ident = $value:tt)* $(,)?) => {{
        let settings = $crate::Settings::default()$(.$key($crate::__setting!($key $value)))*;
        let mut failed = None;
        for (name, text) in $crate::texts($name, $module, &settings) {
            let checked = ::std::panic::catch_unwind(|| {
                $crate::insta::with_settings!({ omit_expression => true }, {
                    $crate::insta::assert_snapshot!(name, text);
                });
            });
            if let Err(difference) = checked {
                failed.get_or_insert(difference);
            }
        }
        // Only now, so that every stage that differs can be reviewed.
        if let Some(difference) = failed {
            ::std::panic::resume_unwind(difference);
        }
    }};
}

/// The value of a setting: words are variants.
#[doc(hidden)]
#[macro_export]
macro_rules! __setting {
    (stages [$($stage:ident),* $(,)?]) => { [$($crate::Stage::$stage),*] };
    (numerics $word:ident) => { $crate::Numerics::$word };
    (target $word:ident) => { $crate::Target::$word };
    (isa $word:ident) => { $crate::Isa::$word };
    ($key:ident $value:tt) => { $value };
}

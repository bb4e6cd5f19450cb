//! Elementary functions of f64, called lane by lane through their addresses.
//!
//! f64 serves checks and references, so these are the `libm` crate's (below 1 ulp by its own claim; tests hold them to 2 ulp
//! of std's), which gives the same bits on every machine, where std's depend on the system's C library.

/// A function of one f64 with the C calling convention.
pub type Function = extern "C" fn(f64) -> f64;

/// Declares the functions and their table.
macro_rules! functions {
    ($( $(#[doc = $doc:literal])+ $name:ident $source:path; )+) => {
        $(
            $(#[doc = $doc])+
            pub extern "C" fn $name(x: f64) -> f64 {
                $source(x)
            }
        )+
        /// Every function by its name, which is that of its f32 sibling.
        pub const FUNCTIONS: &[(&str, Function)] = &[$( (stringify!($name), $name) ),+];
    };
}

functions! {
    /// e^x
    exp libm::exp;
    /// 2^x
    exp2 libm::exp2;
    /// e^x - 1
    expm1 libm::expm1;
    /// Natural logarithm.
    log libm::log;
    /// Logarithm to base 2.
    log2 libm::log2;
    /// log(1 + x)
    log1p libm::log1p;
    /// Hyperbolic tangent.
    tanh libm::tanh;
    /// Error function.
    erf libm::erf;
    /// Sine of x radians.
    sin libm::sin;
    /// Cosine of x radians.
    cos libm::cos;
}

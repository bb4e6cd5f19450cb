//! What is known of a value before it runs: its magnitude, whether it is exact, and how far any correct evaluation may be
//! from the exact result.
//!
//! Inputs are small multiples of a power of two, so most sums and products are exact in every order and are compared for
//! equality. Where a result may be rounded, the bound is the usual first-order analysis with every constant rounded up:
//! an operation on values with errors gives the errors times its largest slope, plus an ulp of the largest result.

use tilewright_ir::types::DType;

/// Facts about every element of a value.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// No finite element is larger.
    pub magnitude: f64,
    /// Every finite element is a multiple of two to this power.
    pub unit: Option<i32>,
    /// Distance from the exact result; 0 is equality.
    pub error: f64,
}

/// Bits of the significand.
fn bits(dtype: DType) -> i32 {
    match dtype {
        DType::F64 => 53,
        DType::F16 => 11,
        DType::Bf16 => 8,
        _f32 => 24,
    }
}

/// An ulp of 1: twice the error of rounding to nearest.
pub fn epsilon(dtype: DType) -> f64 {
    f64::from(1 - bits(dtype)).exp2()
}

/// The dtype that folds run in.
pub fn wide(dtype: DType) -> DType {
    if matches!(dtype, DType::F16 | DType::Bf16) { DType::F32 } else { dtype }
}

impl Bound {
    /// Multiples of `2^unit` up to `magnitude`.
    pub fn lattice(magnitude: f64, unit: i32) -> Bound {
        Bound { magnitude, unit: Some(unit), error: 0.0 }
    }

    /// Any numbers up to `magnitude`, known exactly.
    pub fn real(magnitude: f64) -> Bound {
        Bound { magnitude, unit: None, error: 0.0 }
    }

    /// Integers up to `magnitude`.
    pub fn integer(magnitude: f64) -> Bound {
        Bound::lattice(magnitude, 0)
    }

    /// A truth value.
    pub fn truth() -> Bound {
        Bound::integer(1.0)
    }

    /// Whether every correct evaluation gives the same numbers.
    pub fn is_exact(&self) -> bool {
        self.error == 0.0
    }

    /// Whether all multiples of the unit up to the magnitude are numbers of `dtype`.
    fn fits(&self, dtype: DType) -> bool {
        self.unit.is_some_and(|u| self.error == 0.0 && self.magnitude <= f64::from(bits(dtype) + u).exp2())
    }

    /// After an operation of `dtype` with this exact result: nothing happens to numbers that the dtype holds.
    pub fn rounded(self, dtype: DType) -> Bound {
        if self.fits(dtype) {
            return self;
        }
        Bound { unit: None, error: self.error + epsilon(dtype) * (self.magnitude + self.error), ..self }
    }

    /// `count` roundings on the way to this result, in the dtype that folds run in, then one to `dtype`.
    pub fn folded(self, dtype: DType, count: f64) -> Bound {
        if self.fits(wide(dtype)) {
            return self.rounded(dtype);
        }
        let error = self.error + count * epsilon(wide(dtype)) * (self.magnitude + self.error);
        Bound { unit: None, error, ..self }.rounded(dtype)
    }

    fn joint(self, other: Bound) -> Option<i32> {
        Some(self.unit?.min(other.unit?))
    }

    /// A value that is one of the two.
    pub fn either(self, other: Bound) -> Bound {
        let (magnitude, error) = (self.magnitude.max(other.magnitude), self.error.max(other.error));
        Bound { magnitude, unit: self.joint(other), error }
    }

    /// Sum or difference.
    pub fn plus(self, other: Bound) -> Bound {
        let (magnitude, error) = (self.magnitude + other.magnitude, self.error + other.error);
        Bound { magnitude, unit: self.joint(other), error }
    }

    /// Product.
    pub fn times(self, other: Bound) -> Bound {
        let unit = self.unit.zip(other.unit).map(|(a, b)| a + b);
        let error = self.magnitude * other.error + other.magnitude * self.error + self.error * other.error;
        Bound { magnitude: self.magnitude * other.magnitude, unit, error }
    }

    /// Sum of `n` such values.
    pub fn summed(self, n: f64) -> Bound {
        Bound { magnitude: self.magnitude * n, error: self.error * n, ..self }
    }

    /// An elementary function with this largest slope and result, of `ulps` ulps.
    pub fn through(self, slope: f64, magnitude: f64, ulps: f64, dtype: DType) -> Bound {
        Bound { magnitude, unit: None, error: slope * self.error + ulps * epsilon(dtype) * magnitude }
    }

    /// Whether the value is still worth computing with: far from overflow, and not all noise.
    pub fn is_useful(&self, dtype: DType) -> bool {
        let most = if dtype == DType::F16 { 1e4 } else { 1e7 };
        !dtype.is_float() || (self.magnitude <= most && self.error <= 0.05 * (1.0 + self.magnitude))
    }
}

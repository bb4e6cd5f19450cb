//! Random numbers as functions of a key and a counter, made of integer ops like any other composite: the same bits on every
//! device, whatever the threads, the fusion and the order of the elements, and again where a value is computed again. Normal
//! numbers go on from these bits through a logarithm and a root, and differ between devices by what these differ.
//!
//! The generator is Threefry-2x32 with 20 rounds (Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011). Keys, their
//! splits and bits are those of `jax.random` with `jax_threefry_partitionable`. A key gives the same numbers each time it is used:
//! [`Key::split`] and [`Key::fold_in`] make others. Under `vmap` examples share the numbers of a key that they share.

use super::{Graph, Shape, Tensor, Tensors, stack};
use crate::array::{Array, Bytes};
use crate::diag::Diagnostic;
use crate::types::{DType, Dim};
use std::f64::consts::SQRT_2;

/// A key of random numbers: two words, `u32[2]`.
#[derive(Clone, Debug)]
pub struct Key(Tensor);

impl Tensors for Key {
    fn map_tensors(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Key {
        Key(f(&self.0))
    }
}

/// Rotations of the rounds.
const ROTATIONS: [[i64; 4]; 2] = [[13, 15, 26, 6], [17, 29, 16, 24]];
/// What the third word of the key's schedule starts from.
const PARITY: i64 = 0x1bd1_1bda;

/// One block of Threefry-2x32: of the words of a key and of a counter, which broadcast.
#[track_caller]
fn threefry(key: [&Tensor; 2], counter: [&Tensor; 2]) -> [Tensor; 2] {
    let third = (key[0] ^ key[1]) ^ PARITY;
    let schedule = [key[0], key[1], &third];
    let (mut x, mut y) = (counter[0] + key[0], counter[1] + key[1]);
    for i in 0..5 {
        for bits in ROTATIONS[i % 2] {
            x = &x + &y;
            y = ((&y << bits) | (&y >> (32 - bits))) ^ &x;
        }
        x = x + schedule[(i + 1) % 3];
        y = y + (schedule[(i + 2) % 3] + (i as i64 + 1));
    }
    [x, y]
}

impl Graph {
    /// The key of a seed.
    #[track_caller]
    pub fn key(&self, seed: u64) -> Key {
        let words = [(seed >> 32) as u32, seed as u32];
        let bytes = Bytes::new(words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>());
        match Array::new(DType::U32, &[2], bytes) {
            Ok(array) => Key(self.constant(array)),
            Err(error) => Key(self.fail(error)),
        }
    }
}

impl Key {
    /// A key from its words, `u32[2]`. Errors: `random-key`.
    #[track_caller]
    pub fn of(words: &Tensor) -> Key {
        if words.is_poisoned() || (words.dtype() == DType::U32 && words.shape() == [Dim::constant(2)]) {
            return Key(words.clone());
        }
        let error = Diagnostic::new("random-key", format!("a key is u32[2], found {}", words.ty()));
        Key(words.mistake(error, &[words]))
    }

    /// Its words, `u32[2]`.
    pub fn words(&self) -> &Tensor {
        &self.0
    }

    fn each(&self) -> [Tensor; 2] {
        [0i64, 1].map(|i| self.0.slice(0, i, i + 1).squeeze(0))
    }

    #[track_caller]
    fn block(&self, counter: [&Tensor; 2]) -> [Tensor; 2] {
        let [a, b] = self.each();
        threefry([&a, &b], counter)
    }

    /// Another key for each value of the integer scalar `data`, such as the number of a step; its low 32 bits count.
    #[track_caller]
    pub fn fold_in(&self, data: &Tensor) -> Key {
        let zero = self.0.graph().scalar(DType::U32, 0i64);
        let [a, b] = self.block([&zero, &data.cast(DType::U32)]);
        Key(stack(&[&a, &b], 0).unwrap_or_else(|| self.0.poisoned()))
    }

    /// [`Key::fold_in`] of a number that is known.
    #[track_caller]
    pub fn numbered(&self, number: u32) -> Key {
        self.fold_in(&self.0.graph().scalar(DType::U32, i64::from(number)))
    }

    /// `N` keys whose numbers have nothing to do with each other nor with those of this one.
    #[track_caller]
    pub fn split<const N: usize>(&self) -> [Key; N] {
        std::array::from_fn(|i| self.numbered(i as u32))
    }

    /// 32 random bits in every element, u32. Errors: `random-size` for more than 2^32 elements.
    #[track_caller]
    pub fn bits(&self, shape: impl Shape) -> Tensor {
        let (g, shape) = (self.0.graph(), shape.dims());
        let zero = g.scalar(DType::U32, 0i64);
        let mut place = zero.broadcast_to(&shape);
        let mut stride = Some(Dim::constant(1));
        for (axis, dim) in shape.iter().enumerate().rev() {
            let Some(each) = stride else { break };
            let along = g.iota(DType::U32, &shape, axis);
            let factor = match each.as_const() {
                Some(n) => u32::try_from(n).ok().map(|n| g.scalar(DType::U32, i64::from(n))),
                None => Some(g.size(each.clone()).cast(DType::U32)),
            };
            stride = factor.and_then(|factor| {
                place = &place + along * factor;
                each.checked_mul(dim)
            });
        }
        // 2^32
        if stride.is_none_or(|n| n.as_const().is_some_and(|n| n > 1 << 32)) {
            let message = format!("a key has numbers for 2^32 elements, found the shape {shape:?}");
            return self.0.mistake(Diagnostic::new("random-size", message), &[&self.0]);
        }
        let [a, b] = self.block([&zero, &place]);
        a ^ b
    }

    /// Uniform numbers of at least 0 and less than 1: multiples of 2^-32 in f64, 2^-23 in f32, 2^-10 in f16, 2^-7 in bf16.
    #[track_caller]
    pub fn uniform(&self, dtype: DType, shape: impl Shape) -> Tensor {
        let digits = match dtype {
            DType::F64 => 32,
            DType::F16 => 10,
            DType::Bf16 => 7,
            _f32 => 23,
        };
        let bits = self.bits(shape);
        let bits = if digits < 32 { bits >> (32 - digits) } else { bits };
        bits.cast(dtype) * 2f64.powi(-(digits as i32))
    }

    /// Uniform numbers between `low` and `high`.
    #[track_caller]
    pub fn uniform_between(&self, dtype: DType, shape: impl Shape, low: f64, high: f64) -> Tensor {
        self.uniform(dtype, shape) * (high - low) + low
    }

    /// Uniform numbers of f32 inside -1..1 without the ends and 0, and as often above it as below.
    #[track_caller]
    fn symmetric(&self, shape: impl Shape) -> Tensor {
        (((self.bits(shape) >> 9i64) << 1i64) + 1i64).cast(DType::F32) * 2f64.powi(-23) - 1.0
    }

    /// Normal numbers of mean 0 and standard deviation 1, by the inverse of their distribution function, in f32 whatever the
    /// dtype; no larger than 5.2.
    #[track_caller]
    pub fn normal(&self, dtype: DType, shape: impl Shape) -> Tensor {
        (inverse_erf(&self.symmetric(shape)) * SQRT_2).cast(dtype)
    }

    /// Such numbers between `low` and `high` alone: others are drawn as if again.
    #[track_caller]
    pub fn truncated_normal(&self, dtype: DType, shape: impl Shape, low: f64, high: f64) -> Tensor {
        let [from, to] = [low, high].map(|x| libm::erf(x / SQRT_2));
        let (centre, half) = ((from + to) / 2.0, (to - from) / 2.0);
        let inside = inverse_erf(&(self.symmetric(shape) * half + centre)) * SQRT_2;
        inside.maximum(low).minimum(high).cast(dtype)
    }

    /// Whether something of `probability`, rounded to a multiple of 2^-24, happens: bools.
    #[track_caller]
    pub fn bernoulli(&self, probability: f64, shape: impl Shape) -> Tensor {
        let threshold = (probability.clamp(0.0, 1.0) * f64::from(1u32 << 24)).round() as i64;
        (self.bits(shape) >> 8i64).lt(threshold)
    }
}

/// The inverse of the error function, inside -1..1, in f32: Giles, Approximating the erfinv function, GPU Computing Gems Jade
/// Edition, 2011, table 5 (single precision).
#[track_caller]
fn inverse_erf(x: &Tensor) -> Tensor {
    const CENTRE: [f64; 9] = [
        2.81022636e-08,
        3.43273939e-07,
        -3.5233877e-06,
        -4.39150654e-06,
        0.00021858087,
        -0.00125372503,
        -0.00417768164,
        0.246640727,
        1.50140941,
    ];
    const TAIL: [f64; 9] = [
        -0.000200214257,
        0.000100950558,
        0.00134934322,
        -0.00367342844,
        0.00573950773,
        -0.0076224613,
        0.00943887047,
        1.00167406,
        2.83297682,
    ];
    let polynomial = |of: &Tensor, by: [f64; 9]| {
        let first = of * by[0] + by[1];
        by[2..].iter().fold(first, |sum, c| sum * of + *c)
    };
    let w = -(-(x * x)).log1p();
    let centre = polynomial(&(&w - 2.5), CENTRE);
    let tail = polynomial(&(w.sqrt() - 3.0), TAIL);
    w.lt(5.0).select(centre, tail) * x
}

impl Tensor {
    /// Zero with `probability`, at least 0 and less than 1, else divided by what is left of 1 (Srivastava et al. 2014).
    /// Derivatives have the same zeros. Errors: `random-probability`.
    #[track_caller]
    pub fn dropout(&self, probability: f64, key: &Key) -> Tensor {
        if self.is_poisoned() || probability == 0.0 {
            return self.clone();
        }
        if !(0.0..1.0).contains(&probability) {
            let message = format!("dropout: expected a probability of at least 0 and less than 1, found {probability}");
            return self.mistake(Diagnostic::new("random-probability", message), &[self]);
        }
        let stays = key.bernoulli(1.0 - probability, self.shape());
        stays.select(self * (1.0 / (1.0 - probability)), 0i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interp::{Mode, run};
    use crate::types::Bindings;

    /// The known answers of Random123 (`kat_vectors`, `threefry2x32 20`): counter, key, result.
    const KNOWN: [[u32; 6]; 3] = [
        [0, 0, 0, 0, 0x6b20_0159, 0x99ba_4efe],
        [u32::MAX, u32::MAX, u32::MAX, u32::MAX, 0x1cb9_96fc, 0xbb00_2be7],
        [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344, 0xc492_3a9c, 0x483d_f7a0],
    ];

    #[test]
    fn blocks_are_the_known_ones() {
        let g = Graph::new("main");
        let words = ["c0", "c1", "k0", "k1"].map(|name| g.input(name, DType::U32, [3]));
        let [a, b] = threefry([&words[2], &words[3]], [&words[0], &words[1]]);
        let module = g.finish(&[&a, &b]).unwrap();
        let column = |i: usize| -> Vec<u32> { KNOWN.iter().map(|row| row[i]).collect() };
        let array = |i: usize| {
            let bytes: Vec<u8> = column(i).iter().flat_map(|w| w.to_le_bytes()).collect();
            Array::new(DType::U32, &[3], Bytes::new(bytes)).unwrap()
        };
        let inputs: Vec<Array> = (0..4).map(array).collect();
        let found = run(&module, "main", &inputs, &Bindings::new(), Mode::Strict).unwrap();
        assert_eq!(found, [array(4), array(5)]);
    }

    #[test]
    fn the_inverse_of_erf_is_torchs() {
        let g = Graph::new("main");
        let module = g.finish(&[&(inverse_erf(&g.input("x", DType::F32, [7])) * SQRT_2)]).unwrap();
        let x = [-0.999_999_9, -0.9, -0.5, 0.1, 0.75, 0.99, 0.99999];
        let expected = [-5.294_705, -1.644_853_6, -0.674_489_75, 0.125_661_35, 1.150_349_4, 2.575_829_3, 4.417_173_4];
        let inputs = [Array::from_f32(&[7], &x).unwrap()];
        let found = run(&module, "main", &inputs, &Bindings::new(), Mode::Strict).unwrap()[0].to_f32().unwrap();
        for (x, y) in found.iter().zip(expected) {
            assert!((x - y).abs() < 3e-4 * f32::abs(y), "found {x}, expected {y}");
        }
    }
}

//! Random numbers as NumPy's `default_rng(seed)` draws them, so that peers written in Python and we compute on the same
//! inputs: `SeedSequence` and PCG64 (O'Neill 2014; XSL-RR 128/64), normal f32 numbers by the ziggurat of 256 layers
//! (Marsaglia and Tsang 2000), bounded integers by multiplication (Lemire 2019).

const MULTIPLIER: u128 = 0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645;
const POOL: usize = 4;

/// A generator at some point of its sequence.
pub struct NumpyRandom {
    state: u128,
    increment: u128,
    /// The upper half of the last 64 bits, if only the lower half was used.
    half: Option<u32>,
    ziggurat: Ziggurat,
}

impl NumpyRandom {
    /// `numpy.random.default_rng(seed)`.
    pub fn new(seed: u32) -> NumpyRandom {
        let words = seed_words(seed);
        let wide = |i: usize| (u128::from(words[i]) << 64) | u128::from(words[i + 1]);
        let (start, stream) = (wide(0), wide(2));
        let mut out = NumpyRandom { state: 0, increment: (stream << 1) | 1, half: None, ziggurat: Ziggurat::new() };
        out.step();
        out.state = out.state.wrapping_add(start);
        out.step();
        out
    }

    fn step(&mut self) {
        self.state = self.state.wrapping_mul(MULTIPLIER).wrapping_add(self.increment);
    }

    fn next_u64(&mut self) -> u64 {
        self.step();
        let folded = (self.state >> 64) as u64 ^ self.state as u64;
        folded.rotate_right((self.state >> 122) as u32)
    }

    fn next_u32(&mut self) -> u32 {
        if let Some(half) = self.half.take() {
            return half;
        }
        let both = self.next_u64();
        self.half = Some((both >> 32) as u32);
        both as u32
    }

    /// Uniform in 0..1, 24 bits.
    fn unit(&mut self) -> f32 {
        (self.next_u32() >> 8) as f32 / 16_777_216.0
    }

    /// `standard_normal(count, dtype=float32)`.
    pub fn normal(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.one_normal()).collect()
    }

    fn one_normal(&mut self) -> f32 {
        loop {
            let bits = self.next_u32();
            let (layer, negative, position) = ((bits & 0xff) as usize, bits & 0x100 != 0, bits >> 9);
            let size = position as f32 * self.ziggurat.width[layer];
            let x = if negative { -size } else { size };
            if position < self.ziggurat.inside[layer] {
                return x;
            }
            if layer == 0 {
                return self.tail(position);
            }
            let (high, low) = (self.ziggurat.density[layer - 1], self.ziggurat.density[layer]);
            if f64::from((high - low) * self.unit() + low) < (-0.5 * f64::from(x) * f64::from(x)).exp() {
                return x;
            }
        }
    }

    /// Beyond the last layer; the sign is one of the bits of `position`.
    fn tail(&mut self, position: u32) -> f32 {
        let edge = EDGE as f32;
        loop {
            let x = -(1.0 / edge) * (-self.unit()).ln_1p();
            let y = -(-self.unit()).ln_1p();
            if y + y > x * x {
                return if position & 0x100 != 0 { -(edge + x) } else { edge + x };
            }
        }
    }

    /// `integers(low, high, count)`: in `low..high`, which has at most 2^32 - 1 numbers and one at least.
    pub fn integers(&mut self, low: i64, high: i64, count: usize) -> Vec<i64> {
        let range = u32::try_from(high - low).unwrap_or(u32::MAX).max(1);
        let reject = (u32::MAX - (range - 1)) % range;
        let mut one = || loop {
            let product = u64::from(self.next_u32()) * u64::from(range);
            if product as u32 >= reject {
                return low + (product >> 32) as i64;
            }
        };
        (0..count).map(|_| one()).collect()
    }
}

/// Where the last layer of the ziggurat ends.
const EDGE: f64 = 3.654_152_885_361_009;
/// Area of each layer.
const AREA: f64 = 0.004_928_673_233_974_655;

struct Ziggurat {
    /// Width of a layer, per unit of a 23-bit position.
    width: [f32; 256],
    /// Positions below lie under the curve for sure.
    inside: [u32; 256],
    /// Density at the edge of a layer.
    density: [f32; 256],
}

impl Ziggurat {
    fn new() -> Ziggurat {
        let steps = f64::from(1u32 << 23);
        let density = |x: f64| (-0.5 * x * x).exp();
        let mut table = Ziggurat { width: [0.0; 256], inside: [0; 256], density: [0.0; 256] };
        // The base: its rectangle and the tail have one layer's area.
        let base = AREA / density(EDGE);
        table.width[0] = (base / steps) as f32;
        table.inside[0] = (EDGE / base * steps).round() as u32;
        table.density[0] = 1.0;
        let mut x = EDGE;
        for layer in (1..256).rev() {
            table.width[layer] = (x / steps) as f32;
            table.density[layer] = density(x) as f32;
            let above = (-2.0 * (AREA / x + density(x)).ln()).max(0.0).sqrt();
            table.inside[layer] = if layer == 1 { 0 } else { (above / x * steps).round() as u32 };
            x = above;
        }
        table
    }
}

/// `SeedSequence(seed).generate_state(4, uint64)`.
fn seed_words(seed: u32) -> [u64; 4] {
    let mut constant = 0x43b0_d7e5_u32;
    let mut hash = |value: u32| {
        let value = value ^ constant;
        constant = constant.wrapping_mul(0x931e_8875);
        let value = value.wrapping_mul(constant);
        value ^ (value >> 16)
    };
    let mut pool = [0u32; POOL];
    for (i, word) in pool.iter_mut().enumerate() {
        *word = hash(if i == 0 { seed } else { 0 });
    }
    for from in 0..POOL {
        for to in (0..POOL).filter(|to| *to != from) {
            let mixed = pool[to].wrapping_mul(0xca01_f9dd).wrapping_sub(hash(pool[from]).wrapping_mul(0x4973_f715));
            pool[to] = mixed ^ (mixed >> 16);
        }
    }
    let mut constant = 0x8b51_f9dd_u32;
    let mut word = |i: usize| {
        let value = pool[i % POOL] ^ constant;
        constant = constant.wrapping_mul(0x58f3_8ded);
        let value = value.wrapping_mul(constant);
        u64::from(value ^ (value >> 16))
    };
    std::array::from_fn(|i| word(2 * i) | (word(2 * i + 1) << 32))
}

#[cfg(test)]
mod tests {
    use super::NumpyRandom;

    /// NumPy 2's own numbers; the sums are over streams long enough to meet every branch.
    #[test]
    fn draws_what_numpy_draws() {
        let mut random = NumpyRandom::new(0);
        let first = random.normal(5);
        assert_eq!(first, [1.117_622, -1.387_124_9, -0.426_571_6, -0.803_587_26, 0.601_427_73]);
        assert_eq!(random.integers(0, 50257, 5), [2059, 3781, 830, 8808, 40872]);
        assert_eq!(NumpyRandom::new(1).integers(0, 50257, 5), [23781, 25722, 37952, 47767, 1751]);
    }
}

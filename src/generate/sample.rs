//! Choosing the next token from logits.

/// How to choose.
#[derive(Clone, Debug)]
pub struct Sampling {
    /// 0 takes the largest logit.
    pub temperature: f32,
    /// Smallest probability mass that is kept, in (0, 1].
    pub top_p: f32,
    /// State of the generator; the same seed gives the same text.
    pub seed: u64,
}

impl Sampling {
    /// Always the largest logit; the first of equals.
    pub fn greedy() -> Sampling {
        Sampling { temperature: 0.0, top_p: 1.0, seed: 0 }
    }

    /// The next token. NaN logits are never chosen unless all are NaN.
    pub fn choose(&mut self, logits: &[f32]) -> u32 {
        if self.temperature <= 0.0 {
            return argmax(logits);
        }
        let mut order: Vec<u32> = (0..logits.len() as u32).filter(|&i| !logits[i as usize].is_nan()).collect();
        order.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b)));
        let Some(&best) = order.first() else { return 0 };
        let top = f64::from(logits[best as usize]);
        let temperature = f64::from(self.temperature);
        let weight = |i: u32| ((f64::from(logits[i as usize]) - top) / temperature).exp();
        let total: f64 = order.iter().map(|&i| weight(i)).sum();
        let mut kept = 0.0;
        let count = order.iter().take_while(|&&i| {
            let before = kept;
            kept += weight(i) / total;
            before < f64::from(self.top_p)
        });
        let kept_tokens: Vec<u32> = count.copied().collect();
        let mass: f64 = kept_tokens.iter().map(|&i| weight(i)).sum();
        let mut left = self.uniform() * mass;
        for &i in &kept_tokens {
            left -= weight(i);
            if left <= 0.0 {
                return i;
            }
        }
        kept_tokens.last().copied().unwrap_or(best)
    }

    /// In [0, 1), by splitmix64.
    fn uniform(&mut self) -> f64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn argmax(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (i, x) in logits.iter().enumerate() {
        if *x > logits[best] || (logits[best].is_nan() && !x.is_nan()) {
            best = i;
        }
    }
    best as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greedy_takes_the_first_largest() {
        assert_eq!(Sampling::greedy().choose(&[f32::NAN, 1.0, 3.0, 3.0]), 2);
    }

    #[test]
    fn a_small_top_p_is_greedy_and_seeds_repeat() {
        let logits = [0.0, 2.0, 1.0, -5.0];
        let mut narrow = Sampling { temperature: 1.0, top_p: 1e-6, seed: 3 };
        assert!((0..50).all(|_| narrow.choose(&logits) == 1));
        let draw = |seed| {
            let mut s = Sampling { temperature: 2.0, top_p: 0.9, seed };
            (0..50).map(|_| s.choose(&logits)).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert!(draw(7).iter().all(|&t| t != 3));
    }
}

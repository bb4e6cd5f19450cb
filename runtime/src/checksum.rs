//! Whether bytes are those that were.

/// FNV-1a, eight bytes at a time.
pub(super) struct Checksum(u64);

impl Checksum {
    pub(super) fn new() -> Checksum {
        Checksum(0xcbf2_9ce4_8422_2325)
    }

    pub(super) fn add(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.0 = (self.0 ^ u64::from_le_bytes(*word)).wrapping_mul(PRIME);
            // The product moves bits up only.
            self.0 ^= self.0 >> 32;
        }
        rest.iter().for_each(|b| self.0 = (self.0 ^ u64::from(*b)).wrapping_mul(PRIME));
    }

    pub(super) fn finish(&self) -> String {
        format!("{:016x}", self.0)
    }

    pub(super) fn of(bytes: &[u8]) -> String {
        let mut sum = Checksum::new();
        sum.add(bytes);
        sum.finish()
    }
}

/// Of 64-bit FNV.
const PRIME: u64 = 0x100_0000_01b3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bit_and_the_order_matter() {
        let bytes: Vec<u8> = (0..37).collect();
        let mut found = std::collections::BTreeSet::from([Checksum::of(&bytes), Checksum::of(&bytes[..36])]);
        for bit in 0..8 * bytes.len() {
            let mut other = bytes.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            found.insert(Checksum::of(&other));
        }
        found.insert(Checksum::of(&bytes.iter().rev().copied().collect::<Vec<u8>>()));
        assert_eq!(found.len(), 3 + 8 * bytes.len());
    }
}

//! Whether bytes are those that were.

/// 64-bit FNV-1a (Fowler, Noll and Vo), eight bytes at a time. It finds accidents, not malice. Checkpoints of runs have it, so it stays as it is.
#[derive(Clone, Debug)]
pub struct Checksum(u64);

impl Default for Checksum {
    fn default() -> Checksum {
        Checksum::new()
    }
}

impl Checksum {
    /// Of no bytes.
    pub fn new() -> Checksum {
        Checksum(BASIS)
    }

    /// Another function of bytes, which begins with the complement.
    pub fn other() -> Checksum {
        Checksum(!BASIS)
    }

    /// Goes on with `bytes`. Bytes in pieces have another sum than in one, unless pieces are of whole words.
    pub fn add(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.0 = (self.0 ^ u64::from_le_bytes(*word)).wrapping_mul(PRIME);
            // The product moves bits up only.
            self.0 ^= self.0 >> 32;
        }
        rest.iter().for_each(|b| self.0 = (self.0 ^ u64::from(*b)).wrapping_mul(PRIME));
    }

    /// The sum as a number.
    pub fn value(&self) -> u64 {
        self.0
    }

    /// The sum in 16 hexadecimal digits.
    pub fn finish(&self) -> String {
        format!("{:016x}", self.0)
    }

    /// The sum of `bytes`.
    pub fn of(bytes: &[u8]) -> String {
        let mut sum = Checksum::new();
        sum.add(bytes);
        sum.finish()
    }
}

/// Those of 64-bit FNV.
const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
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
        let mut other = Checksum::other();
        other.add(&bytes);
        assert!(!found.contains(&other.finish()));
    }

    /// Checkpoints that were written stay readable.
    #[test]
    fn sums_are_what_they_were() {
        assert_eq!(Checksum::of(b""), "cbf29ce484222325");
        assert_eq!(Checksum::of(b"a"), "af63dc4c8601ec8c", "that of FNV-1a for less than a word");
        assert_eq!(Checksum::of(b"in the beginning"), "00336afdaa10a773");
    }
}

//! A fast keyed hash for the reader's tables.
//!
//! Words are folded by 128-bit multiplication, as wyhash does it. It is not cryptographic; the key, random for
//! each reader, keeps callers from choosing what collides, and whoever looks something up compares it whole.

use std::hash::{BuildHasher, RandomState};

const FOLD: u64 = 0xa076_1d64_78bd_642f; // wyhash's first constant; any odd number with balanced bits serves

/// The random key of one reader.
#[derive(Clone, Copy, Debug)]
pub struct HashKey(u64, u64);

impl HashKey {
    pub fn random() -> Self {
        let random = RandomState::new();
        HashKey(random.hash_one(0), random.hash_one(1))
    }

    pub fn hasher(self) -> Hash {
        Hash { key: self.1, state: self.0 }
    }
}

/// A hash in the making. What is added is told apart by its length and place.
#[derive(Clone, Copy, Debug)]
pub struct Hash {
    key: u64,
    state: u64,
}

impl Hash {
    #[inline]
    pub fn number(&mut self, number: u64) {
        self.state = fold(self.state ^ number, self.key);
    }

    #[inline]
    pub fn bytes(&mut self, bytes: &[u8]) {
        let mut state = fold(self.state ^ bytes.len() as u64, FOLD);
        let mut pairs = bytes.chunks_exact(16);
        for pair in &mut pairs {
            state = fold(word(pair) ^ state, word(&pair[8..]) ^ self.key);
        }
        let last = pairs.remainder();
        self.state = match last.len() {
            0 => state,
            1..=8 => fold(word(last) ^ state, self.key),
            _ => fold(word(last) ^ state, word(&last[8..]) ^ self.key),
        };
    }

    #[inline]
    pub fn finish(self) -> u64 {
        fold(self.state, FOLD)
    }
}

/// The first eight bytes as a number, or all where there are fewer.
#[inline]
fn word(bytes: &[u8]) -> u64 {
    match bytes.first_chunk() {
        Some(whole) => u64::from_le_bytes(*whole),
        None => bytes.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte)),
    }
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn hash(key: HashKey, pieces: &[&[u8]]) -> u64 {
        let mut hash = key.hasher();
        for piece in pieces {
            hash.bytes(piece);
        }
        hash.finish()
    }

    #[test]
    fn different_bytes_and_different_cuts_have_different_hashes() {
        let key = HashKey::random();
        let text = b"The quick brown fox jumps over the lazy dog";
        let mut hashes = HashSet::new();
        for end in 0..=text.len() {
            assert!(hashes.insert(hash(key, &[&text[..end]])));
            for bit in 0..8 * end {
                let mut changed = text[..end].to_vec();
                changed[bit / 8] ^= 1 << (bit % 8);
                assert!(hashes.insert(hash(key, &[&changed])));
            }
        }
        for cut in 0..=text.len() {
            assert!(hashes.insert(hash(key, &[&text[..cut], &text[cut..]])));
        }
        assert_eq!(hash(key, &[text]), hash(key, &[text]));
        assert_ne!(hash(key, &[text]), hash(HashKey::random(), &[text]));
    }
}

//! Hash maps keyed by identifiers.
//!
//! Invariants: keys are identifiers that this node chose or that are cut from a cryptographic hash,
//! or the table is small and belongs to one peer: the hash does not withstand chosen keys. It has
//! no random state, so equal runs iterate alike.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map keyed by an identifier, or by a tuple of them; see [`IdHasher`] for which.
pub type IdMap<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;

/// Hashes 64-bit identifiers with one multiplication.
///
/// For keys that this node chooses or that are cut from a cryptographic hash, and for tables so
/// small and so local to one peer that a peer who picks colliding keys slows only itself down.
#[derive(Clone, Copy, Debug, Default)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|b| self.write_u64(u64::from(*b)));
    }

    fn write_u64(&mut self, value: u64) {
        // The golden ratio's bits (Knuth 6.4); tables take their index from both ends of the hash.
        self.0 = (self.0 ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::hash::BuildHasher;

    use super::*;
    use crate::{SessionId, StreamId};

    #[test]
    fn ids_that_count_up_spread_over_both_ends_of_the_hash() {
        let build = BuildHasherDefault::<IdHasher>::default();
        let hashes: Vec<u64> =
            (0..1_024u64).map(|i| build.hash_one((SessionId(7), StreamId(16 + 2 * i)))).collect();
        for shift in [0, 54] {
            let buckets: BTreeSet<u64> = hashes.iter().map(|h| (h >> shift) & 1_023).collect();
            assert!(buckets.len() > 512, "{} of 1,024 buckets", buckets.len());
        }
    }
}

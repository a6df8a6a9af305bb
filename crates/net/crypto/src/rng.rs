//! The only random source of the cores: a generator that its caller seeds.
//!
//! A node seeds one from its operating system; a simulation seeds all of them from one number.
//!
//! Invariants: equal seeds give equal bytes on every platform, so a run of the protocol can be
//! replayed; the generator forgets how it made a [`Seeded::seed_32`], from which ephemeral keys
//! follow, so that its state reveals no key of a session that has ended.

use rand_chacha::ChaCha20Rng;
use rand_core::{CryptoRng, Error, RngCore, SeedableRng};
use zeroize::Zeroizing;

use crate::hash;

const FORK_DOMAIN: &[u8] = b"net-rng-fork-v1";

/// ChaCha20 as a generator of unpredictable (to those without the seed), repeatable bytes.
#[derive(Clone)]
pub struct Seeded(ChaCha20Rng);

impl Seeded {
    /// The generator of a 32-byte seed.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(ChaCha20Rng::from_seed(seed))
    }

    /// The generator of a small number, for tests and simulations; never for keys that matter.
    pub fn from_u64(seed: u64) -> Self {
        let mut wide = [0u8; 32];
        wide[..8].copy_from_slice(&seed.to_le_bytes());
        Self::from_seed(hash::digest(FORK_DOMAIN, &[&wide]))
    }

    /// An independent generator for the purpose `label`.
    ///
    /// Takes 32 bytes of this one, so two forks differ even under one label, and what the child
    /// draws does not change what this one gives.
    pub fn fork(&mut self, label: &str) -> Self {
        let key = self.seed_32();
        Self::from_seed(hash::prf(&key, FORK_DOMAIN, &[label.as_bytes()]))
    }

    /// Thirty-two fresh bytes: the seed of one handshake or cookie jar.
    ///
    /// The generator continues with a new key that was made beside them, from which they cannot be
    /// made again (fast key erasure, Bernstein 2017).
    pub fn seed_32(&mut self) -> [u8; 32] {
        let mut seed = [0u8; 32];
        let mut next = Zeroizing::new([0u8; 32]);
        self.fill_bytes(&mut seed);
        self.fill_bytes(&mut *next);
        self.0 = ChaCha20Rng::from_seed(*next);
        seed
    }
}

impl RngCore for Seeded {
    fn next_u32(&mut self) -> u32 {
        self.0.next_u32()
    }

    fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    fn fill_bytes(&mut self, dest: &mut [u8]) {
        self.0.fill_bytes(dest);
    }

    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), Error> {
        self.0.try_fill_bytes(dest)
    }
}

impl CryptoRng for Seeded {}

impl core::fmt::Debug for Seeded {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Seeded(state redacted)")
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;

    #[test]
    fn the_bytes_of_a_seed_never_change() {
        // First block of ChaCha20 (20 rounds, original 64-bit counter) under the zero key and nonce.
        assert_eq!(
            HEXLOWER.encode(&Seeded::from_seed([0; 32]).seed_32()),
            "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
        );
        assert_eq!(
            HEXLOWER.encode(&Seeded::from_u64(1).seed_32()),
            "83271c4101931fcf3ea3123ca3d4df112dcc0844fe2c5cf004f90d0c829a9a1d"
        );
        assert_eq!(
            HEXLOWER.encode(&Seeded::from_seed([0; 32]).fork("dial").seed_32()),
            "114e7787a5cfc16c932e8b63a56bcbd7c6b82b60a6310fb8a0b35cd47686a6c9"
        );
    }

    #[test]
    fn a_state_does_not_tell_the_seeds_before_it() {
        let mut rng = Seeded::from_u64(3);
        let seed = rng.seed_32();
        // Rewound as far as the state allows, it gives something else.
        let mut rewound = rng.0.clone();
        rewound.set_word_pos(0);
        let mut again = [0u8; 32];
        rewound.fill_bytes(&mut again);
        assert_ne!(again, seed);
        assert_eq!(again, rng.seed_32(), "only what is yet to come");
    }

    #[test]
    fn forks_are_independent_of_each_other_and_of_their_parent() {
        let mut a = Seeded::from_u64(9);
        let mut b = Seeded::from_u64(9);
        let mut child = a.fork("x");
        let other = b.fork("y");
        child.seed_32();
        assert_ne!(child.clone().seed_32(), other.clone().seed_32());
        assert_eq!(a.next_u64(), b.next_u64(), "children do not disturb the parent");
        assert_ne!(a.fork("x").seed_32(), b.fork("y").seed_32());
        assert_ne!(a.fork("x").seed_32(), a.fork("x").seed_32());
    }
}

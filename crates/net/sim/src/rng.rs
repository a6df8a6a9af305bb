//! The simulation's random numbers: ChaCha8.
//!
//! Invariants: one seed and purpose give equal numbers on every platform; two purposes under one
//! seed are independent; what is impossible or certain draws nothing, so switching a fault off
//! leaves other choices as they are.

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

use crate::link::PPM;

/// A generator of repeatable choices. Not for keys.
#[derive(Clone, Debug)]
pub struct SimRng(ChaCha8Rng);

impl SimRng {
    /// The generator of one seed and purpose; two purposes under one seed are independent.
    pub fn new(seed: u64, purpose: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes()).update(purpose.as_bytes());
        Self(ChaCha8Rng::from_seed(*hasher.finalize().as_bytes()))
    }

    /// A uniform number.
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A uniform number below `bound`; 0 when `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // The bias of a 64-bit multiply is below 2^-32 for every bound a simulation uses.
        ((u128::from(self.0.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// True with a probability of `ppm` parts per million. Draws nothing for 0 and for certainty.
    pub fn chance(&mut self, ppm: u32) -> bool {
        match ppm {
            0 => false,
            PPM.. => true,
            _ => self.below(u64::from(PPM)) < u64::from(ppm),
        }
    }

    /// Thirty-two uniform bytes, for seeding what runs in the world.
    pub fn seed_32(&mut self) -> [u8; 32] {
        let mut seed = [0u8; 32];
        self.0.fill_bytes(&mut seed);
        seed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purposes_and_seeds_are_independent_and_repeatable() {
        let first = |seed, purpose| SimRng::new(seed, purpose).next_u64();
        assert_eq!(first(1, "a"), first(1, "a"));
        assert_ne!(first(1, "a"), first(1, "b"));
        assert_ne!(first(1, "a"), first(2, "a"));
    }

    #[test]
    fn bounds_and_chances_hold() {
        let mut rng = SimRng::new(3, "test");
        assert_eq!(rng.below(0), 0);
        assert!((0..1_000).all(|_| rng.below(7) < 7));
        assert!((0..1_000).all(|_| !rng.chance(0) && rng.chance(PPM)));
        let hits = (0..100_000).filter(|_| rng.chance(200_000)).count();
        assert!((19_000..21_000).contains(&hits), "{hits} of 100,000 at 20 %");
    }
}

//! BLAKE2s (RFC 7693), plain and keyed, over a domain and parts.
//!
//! Invariants: each derivation of this crate starts its input with a domain of its own, so that no
//! output of one can be taken for an output of another; each key of [`tag`] has one purpose.

use blake2::digest::consts::U16;
use blake2::digest::{FixedOutput, KeyInit, Update};
use blake2::{Blake2s256, Blake2sMac, Blake2sMac256, Digest};

/// BLAKE2s-256 over `domain` followed by `parts`.
pub(crate) fn digest(domain: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Blake2s256::new();
    Update::update(&mut hasher, domain);
    for part in parts {
        Update::update(&mut hasher, part);
    }
    hasher.finalize().into()
}

/// Keyed BLAKE2s with 32 bytes of output: a pseudo-random function of `domain` and `parts`.
pub(crate) fn prf(key: &[u8; 32], domain: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = <Blake2sMac256 as KeyInit>::new(key.into());
    Update::update(&mut mac, domain);
    for part in parts {
        Update::update(&mut mac, part);
    }
    mac.finalize_fixed().into()
}

/// Keyed BLAKE2s with 16 bytes of output, for authenticators that travel.
pub(crate) fn tag(key: &[u8], bytes: &[u8]) -> [u8; 16] {
    let mut mac = Blake2sMac::<U16>::new_from_slice(key)
        .expect("BLAKE2s takes keys of up to 32 bytes and no caller has a longer one");
    Update::update(&mut mac, bytes);
    mac.finalize_fixed().into()
}

/// The first eight bytes, little-endian, with 0 (which means "none" on the wire) moved to 1.
pub(crate) fn first_u64_nonzero(bytes: &[u8; 32]) -> u64 {
    let mut first = [0u8; 8];
    first.copy_from_slice(&bytes[..8]);
    u64::from_le_bytes(first).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_never_returned_for_an_identifier() {
        assert_eq!(first_u64_nonzero(&[0; 32]), 1);
        assert_eq!(first_u64_nonzero(&[1; 32]), 0x0101_0101_0101_0101);
    }

    #[test]
    fn digest_matches_the_vector_of_rfc_7693() {
        // RFC 7693, appendix B: BLAKE2s-256 of "abc".
        let expected = [
            0x50, 0x8c, 0x5e, 0x8c, 0x32, 0x7c, 0x14, 0xe2, 0xe1, 0xa7, 0x2b, 0xa3, 0x4e, 0xeb,
            0x45, 0x2f, 0x37, 0x45, 0x8b, 0x20, 0x9e, 0xd6, 0x3a, 0x29, 0x4d, 0x99, 0x9b, 0x4c,
            0x86, 0x67, 0x59, 0x82,
        ];
        assert_eq!(digest(b"a", &[b"b", b"c"]), expected);
    }
}

//! Proof that a peer receives at an address (RFC 9000, 8.2): eight random bytes, echoed.
//!
//! Invariants: challenge and response have exactly eight bytes, and the response carries those of
//! the challenge.

use crate::{DecodeError, Reader};

/// Bytes of challenge and response.
pub const PATH_CHALLENGE_BYTES: usize = 8;

/// A challenge; the response carries the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathChallenge(pub [u8; PATH_CHALLENGE_BYTES]);

impl PathChallenge {
    /// Reads challenge or response.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Reader::whole(bytes, |r| r.array().map(Self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_eight_bytes_are_a_challenge() {
        assert_eq!(PathChallenge::decode(&[7; 8]), Ok(PathChallenge([7; 8])));
        assert!(PathChallenge::decode(&[7; 7]).is_err());
        assert!(PathChallenge::decode(&[7; 9]).is_err());
    }
}

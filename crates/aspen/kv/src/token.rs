//! Continuation tokens: where a page ended and which revision the scan shows.
//!
//! ```text
//! version u8 = 1 · revision LEB128 · last key to the end, less 8
//! · xxh3-64 of the scan's prefix length (u16), the prefix and all of the above, little-endian
//! ```
//!
//! The checksum finds damage and use with another prefix; it is no protection against forgery,
//! which would gain nothing: a token only says where to read on.

use aspen_api::codec::put_varint;
use aspen_api::{Key, Prefix, Revision};
use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use crate::layout::take_varint;

const VERSION: u8 = 1;

/// A token's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    /// The revision that all pages show.
    pub(crate) revision: Revision,
    /// The last key looked at.
    pub(crate) last_key: Key,
}

fn checksum(prefix: &Prefix, body: &[u8]) -> [u8; 8] {
    let mut hash = Xxh3::new();
    hash.update(&(prefix.as_bytes().len() as u16).to_le_bytes());
    hash.update(prefix.as_bytes());
    hash.update(body);
    hash.digest().to_le_bytes()
}

impl Token {
    pub(crate) fn encode(&self, prefix: &Prefix) -> Bytes {
        let mut out = vec![VERSION];
        put_varint(self.revision.0, &mut out);
        out.extend_from_slice(self.last_key.as_bytes());
        let checksum = checksum(prefix, &out);
        out.extend_from_slice(&checksum);
        out.into()
    }

    /// `None` if the token is damaged, of another version or of another scan.
    pub(crate) fn decode(token: &Bytes, prefix: &Prefix) -> Option<Self> {
        let (body, found) = token.split_last_chunk::<8>()?;
        if *found != checksum(prefix, body) {
            return None;
        }
        let (&VERSION, mut rest) = body.split_first()? else { return None };
        let revision = Revision(take_varint(&mut rest)?);
        let last_key = Key::new(token.slice_ref(rest)).ok()?;
        prefix.contains(&last_key).then_some(Self { revision, last_key })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (Token, Prefix) {
        let last_key = Key::new("app/k").unwrap();
        (Token { revision: Revision(300), last_key }, "app/".parse().unwrap())
    }

    #[test]
    fn bytes_are_pinned_and_round_trip() {
        let (token, prefix) = sample();
        let bytes = token.encode(&prefix);
        assert_eq!(bytes[..8], *b"\x01\xac\x02app/k");
        assert_eq!(bytes.len(), 16);
        assert_eq!(Token::decode(&bytes, &prefix), Some(token));
    }

    #[test]
    fn damage_and_other_prefixes_are_noticed() {
        let (token, prefix) = sample();
        let bytes = token.encode(&prefix);
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut bad = bytes.to_vec();
                bad[at] ^= 1 << bit;
                assert_eq!(Token::decode(&bad.into(), &prefix), None, "bit {bit} of byte {at}");
            }
            assert_eq!(Token::decode(&bytes.slice(..at), &prefix), None);
        }
        assert_eq!(Token::decode(&bytes, &"app".parse().unwrap()), None);
        assert_eq!(Token::decode(&bytes, &Prefix::ALL), None);
    }
}

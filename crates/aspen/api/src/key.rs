//! Keys, prefixes, revisions and lease ids: the values that requests are made of.

use core::fmt;
use core::str::FromStr;

use bytes::Bytes;
use net_types::limits::{GENERATED_LEASE_ID_BASE, MAX_KEY_BYTES};
use thiserror::Error;

use crate::codec::{Bounded, DecodeError, Input, Wire};

/// Why text is not a key or a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum KeyError {
    /// A key has at least one byte.
    #[error("the key is empty; keys have 1 to {MAX_KEY_BYTES} bytes")]
    Empty,
    /// It is longer than the limit.
    #[error("the key has {0} bytes; keys have 1 to {MAX_KEY_BYTES} bytes")]
    TooLong(usize),
    /// It is not UTF-8.
    #[error("the key is not UTF-8 text")]
    NotUtf8,
}

/// A key: 1 to 1,024 bytes of UTF-8, ordered by its bytes. Cloning shares the bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Bytes);

/// The start of keys: 0 to 1,024 bytes of UTF-8. The empty prefix names every key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Prefix(Bytes);

fn checked(bytes: Bytes) -> Result<Bytes, KeyError> {
    if bytes.len() > MAX_KEY_BYTES {
        return Err(KeyError::TooLong(bytes.len()));
    }
    core::str::from_utf8(&bytes).map_err(|_| KeyError::NotUtf8)?;
    Ok(bytes)
}

impl Key {
    /// Checks bytes to be a key.
    pub fn new(bytes: impl Into<Bytes>) -> Result<Self, KeyError> {
        let bytes = checked(bytes.into())?;
        if bytes.is_empty() {
            return Err(KeyError::Empty);
        }
        Ok(Self(bytes))
    }
}

impl Prefix {
    /// The prefix of every key.
    pub const ALL: Self = Self(Bytes::new());

    /// Checks bytes to be a prefix.
    pub fn new(bytes: impl Into<Bytes>) -> Result<Self, KeyError> {
        checked(bytes.into()).map(Self)
    }

    /// Whether `key` starts with this.
    pub fn contains(&self, key: &Key) -> bool {
        key.0.starts_with(&self.0)
    }
}

macro_rules! text_bytes {
    ($name:ident) => {
        impl $name {
            /// The bytes.
            pub fn as_bytes(&self) -> &[u8] {
                &self.0
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                core::str::from_utf8(&self.0).expect("checked on construction")
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.as_str(), f)
            }
        }

        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = KeyError;

            fn from_str(text: &str) -> Result<Self, KeyError> {
                Self::new(Bytes::copy_from_slice(text.as_bytes()))
            }
        }

        impl TryFrom<&str> for $name {
            type Error = KeyError;

            fn try_from(text: &str) -> Result<Self, KeyError> {
                text.parse()
            }
        }

        impl TryFrom<String> for $name {
            type Error = KeyError;

            fn try_from(text: String) -> Result<Self, KeyError> {
                Self::new(text)
            }
        }

        impl Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                self.0.put_bounded(out);
            }

            fn take(input: &mut Input) -> Result<Self, DecodeError> {
                let bytes = Bytes::take_bounded(input, "key", MAX_KEY_BYTES)?;
                Self::new(bytes).map_err(|_| DecodeError::BadValue("key"))
            }

            fn size_hint(&self) -> usize {
                self.0.len() + 2
            }
        }
    };
}

text_bytes!(Key);
text_bytes!(Prefix);

macro_rules! number {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = core::num::ParseIntError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }

        impl Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                self.0.put(out);
            }

            fn take(input: &mut Input) -> Result<Self, DecodeError> {
                u64::take(input).map(Self)
            }
        }
    };
}

number! {
    /// A point in the store's history: the index of a log entry. Revision 0 is the empty store.
    Revision
}
number! {
    /// A lease. Clients choose ids from 1 up to 2^52 - 1; generated ids follow, below 2^53, so that
    /// JSON readers keep them exact.
    LeaseId
}
number! {
    /// A member's number in the consensus group, chosen by the operator or derived by the node.
    MemberId
}

impl LeaseId {
    /// The id generated by the log entry at `revision`. Never one that a client may choose.
    pub fn generated(revision: Revision) -> Self {
        Self(GENERATED_LEASE_ID_BASE | (revision.0 & (GENERATED_LEASE_ID_BASE - 1)))
    }

    /// Whether a client may ask for this id.
    pub fn is_client_chosen(self) -> bool {
        (1..GENERATED_LEASE_ID_BASE).contains(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use net_types::limits::MAX_LEASE_ID;

    use super::*;

    #[test]
    fn keys_are_utf8_of_bounded_length_and_order_by_bytes() {
        assert_eq!(Key::new(""), Err(KeyError::Empty));
        assert_eq!(Key::new(vec![b'k'; MAX_KEY_BYTES + 1]), Err(KeyError::TooLong(1_025)));
        assert_eq!(Key::new(vec![0xff]), Err(KeyError::NotUtf8));
        assert_eq!(Key::new(vec![b'k'; MAX_KEY_BYTES]).unwrap().as_bytes().len(), MAX_KEY_BYTES);
        assert!(Key::new("a").unwrap() < Key::new("a\0").unwrap());
        assert!(Prefix::ALL.contains(&Key::new("x").unwrap()));
        assert!(!Prefix::new("xy").unwrap().contains(&Key::new("x").unwrap()));
    }

    #[test]
    fn generated_lease_ids_are_within_the_limit_and_never_client_chosen() {
        for revision in [0, 1, 7, u64::MAX] {
            let id = LeaseId::generated(Revision(revision));
            assert!((1..=MAX_LEASE_ID).contains(&id.0) && !id.is_client_chosen());
        }
        assert!(LeaseId(1).is_client_chosen() && !LeaseId(0).is_client_chosen());
    }
}

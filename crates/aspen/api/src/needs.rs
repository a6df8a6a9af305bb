//! What a caller must be allowed for a request, and the keys that are closed to generic ones.

use core::fmt;

use crate::{Key, LeaseId, Prefix};

/// Prefixes that belong to services: a generic request that reaches one needs cluster-admin
/// authority, since a plain write could otherwise install a plugin or forge a lock.
pub const RESERVED_PREFIXES: [&str; 17] = [
    "plugins/",
    "_system:",
    "_sys:",
    "__plugin:",
    "__coord:",
    "__service:",
    "__secrets:",
    "__hooks:",
    "__pubsub/",
    "__aspen_origin:",
    "forge:",
    "dns:",
    "automerge:",
    "snix:",
    "_ci:",
    "_cache:",
    "_deploy:",
];

/// What a caller must be allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Needs<'a> {
    /// Nothing.
    Open,
    /// Any valid token. A node that belongs to no cluster, and so knows no issuer, asks for none.
    AnyToken,
    /// All of these rights.
    Rights(Vec<Right<'a>>),
    /// To administer the cluster; the text completes "allowed to ..".
    Admin(&'static str),
}

impl<'a> Needs<'a> {
    /// One right.
    pub fn right(action: Action, over: Over<'a>) -> Self {
        Self::Rights(vec![Right { action, over }])
    }
}

/// A right to do something with keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Right<'a> {
    /// What is done.
    pub action: Action,
    /// With which keys.
    pub over: Over<'a>,
}

/// What is done with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Its value is read or compared.
    Read,
    /// It is set.
    Write,
    /// It is deleted.
    Delete,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Delete => "delete",
        })
    }
}

/// The keys of a right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over<'a> {
    /// One key.
    Key(&'a Key),
    /// All keys that start with a prefix.
    Prefix(&'a Prefix),
    /// The keys that live with a lease.
    LeaseKeys(LeaseId),
    /// At least one key, whichever.
    SomeKey,
    /// A name within a service that keeps its state under reserved keys: the rights over the key of
    /// that name decide.
    Name(&'a Key),
}

impl Over<'_> {
    /// The reserved prefix that a generic request reaches, if it reaches one. The keys of a lease are
    /// known to the store alone.
    pub fn reserved_prefix(&self) -> Option<&'static str> {
        let overlaps = |reserved: &&str| match self {
            Over::Key(key) => key.as_bytes().starts_with(reserved.as_bytes()),
            Over::Prefix(prefix) => {
                let (prefix, reserved) = (prefix.as_bytes(), reserved.as_bytes());
                prefix.starts_with(reserved) || reserved.starts_with(prefix)
            }
            Over::LeaseKeys(_) | Over::SomeKey | Over::Name(_) => false,
        };
        RESERVED_PREFIXES.into_iter().find(overlaps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_reserved_by_prefix_only() {
        let reserved = |text: &str| Over::Key(&text.parse().unwrap()).reserved_prefix();
        assert_eq!(reserved("dns:a"), Some("dns:"));
        assert_eq!(reserved("dns"), None);
        assert_eq!(reserved("my/plugins/"), None);
        let name: Key = "dns:a".parse().unwrap();
        assert_eq!(Over::Name(&name).reserved_prefix(), None, "a service has names of its own");
    }

    #[test]
    fn prefixes_are_reserved_by_overlap_in_both_directions() {
        let reserved = |text: &str| Over::Prefix(&text.parse().unwrap()).reserved_prefix();
        assert_eq!(reserved(""), Some("plugins/"));
        assert_eq!(reserved("_"), Some("_system:"));
        assert_eq!(reserved("__coord:lock:"), Some("__coord:"));
        assert_eq!(reserved("app/"), None);
    }
}

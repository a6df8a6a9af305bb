//! What a token allows, and which capability contains which.

use core::fmt;
use core::str::FromStr;

use aspen_api::{Action, Key, Prefix};
use thiserror::Error;

aspen_api::choice! {
    /// One thing that a token allows. Text: `read:PREFIX`, `write:PREFIX`, `delete:PREFIX`,
    /// `full:PREFIX`, `admin`, `delegate`.
    ///
    /// A prefix names the keys that start with it, but none under a reserved prefix of the cluster:
    /// those need [`Capability::ClusterAdmin`].
    pub enum Capability {
        /// Reads keys.
        Read {
            /// Their start.
            prefix: Prefix,
        } = 1,
        /// Sets keys.
        Write {
            /// Their start.
            prefix: Prefix,
        } = 2,
        /// Deletes keys.
        Delete {
            /// Their start.
            prefix: Prefix,
        } = 3,
        /// Reads, sets and deletes keys.
        Full {
            /// Their start.
            prefix: Prefix,
        } = 4,
        /// Everything but handing on tokens: all keys, the members, the history.
        ClusterAdmin {} = 6,
        /// Hands on narrower tokens.
        Delegate {} = 7,
    }
}

impl Capability {
    /// The start of the keys on which this allows an action.
    fn scope(&self, action: Action) -> Option<&[u8]> {
        let (prefix, only) = match self {
            Self::ClusterAdmin {} => return Some(b""),
            Self::Delegate {} => return None,
            Self::Full { prefix } => (prefix, action),
            Self::Read { prefix } => (prefix, Action::Read),
            Self::Write { prefix } => (prefix, Action::Write),
            Self::Delete { prefix } => (prefix, Action::Delete),
        };
        (action == only).then_some(prefix.as_bytes())
    }

    /// Whether this allows an action on a key that is not reserved.
    pub(crate) fn allows_key(&self, action: Action, key: &Key) -> bool {
        self.scope(action).is_some_and(|scope| key.as_bytes().starts_with(scope))
    }

    /// Whether this allows an action on all keys that start with `prefix`.
    pub(crate) fn allows_prefix(&self, action: Action, prefix: &Prefix) -> bool {
        self.scope(action).is_some_and(|scope| prefix.as_bytes().starts_with(scope))
    }

    /// Whether this allows the action anywhere.
    pub(crate) fn allows_some(&self, action: Action) -> bool {
        self.scope(action).is_some()
    }

    /// Whether a token with this may hand on `other`.
    pub fn contains(&self, other: &Self) -> bool {
        match other {
            Self::Delegate {} => *self == Self::Delegate {},
            Self::ClusterAdmin {} => *self == Self::ClusterAdmin {},
            Self::Read { prefix } => self.allows_prefix(Action::Read, prefix),
            Self::Write { prefix } => self.allows_prefix(Action::Write, prefix),
            Self::Delete { prefix } => self.allows_prefix(Action::Delete, prefix),
            Self::Full { prefix } => [Action::Read, Action::Write, Action::Delete]
                .into_iter()
                .all(|action| self.allows_prefix(action, prefix)),
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { prefix } => write!(f, "read:{prefix}"),
            Self::Write { prefix } => write!(f, "write:{prefix}"),
            Self::Delete { prefix } => write!(f, "delete:{prefix}"),
            Self::Full { prefix } => write!(f, "full:{prefix}"),
            Self::ClusterAdmin {} => f.write_str("admin"),
            Self::Delegate {} => f.write_str("delegate"),
        }
    }
}

/// Text is no capability.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "no capability: {0:?}; write read:PREFIX, write:PREFIX, delete:PREFIX, full:PREFIX, admin or \
     delegate"
)]
pub struct CapabilityError(String);

impl FromStr for Capability {
    type Err = CapabilityError;

    fn from_str(text: &str) -> Result<Self, CapabilityError> {
        let error = || CapabilityError(text.to_owned());
        let scoped = text.split_once(':').map(|(kind, prefix)| (kind, prefix.parse::<Prefix>()));
        match (text, scoped) {
            ("admin", _) => Ok(Self::ClusterAdmin {}),
            ("delegate", _) => Ok(Self::Delegate {}),
            (_, Some((kind, Ok(prefix)))) => match kind {
                "read" => Ok(Self::Read { prefix }),
                "write" => Ok(Self::Write { prefix }),
                "delete" => Ok(Self::Delete { prefix }),
                "full" => Ok(Self::Full { prefix }),
                _ => Err(error()),
            },
            _ => Err(error()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn capability(text: &str) -> Capability {
        text.parse().unwrap()
    }

    #[test]
    fn text_and_capability_are_each_others() {
        for text in ["read:", "write:app/", "delete:a", "full:a:b", "admin", "delegate"] {
            assert_eq!(capability(text).to_string(), text);
        }
        for text in ["", "read", "admin:", "watch:a", "Read:a"] {
            assert!(text.parse::<Capability>().is_err(), "{text}");
        }
    }

    #[test]
    fn capabilities_contain_what_is_narrower() {
        let contains = |outer: &str, inner: &str| capability(outer).contains(&capability(inner));
        assert!(contains("read:app/", "read:app/x"));
        assert!(contains("full:app/", "delete:app/"));
        assert!(contains("full:app/", "full:app/x"));
        assert!(contains("admin", "full:"));
        assert!(contains("admin", "admin"));
        assert!(contains("delegate", "delegate"));
        assert!(!contains("read:app/", "read:app"));
        assert!(!contains("read:app/", "write:app/"));
        assert!(!contains("full:", "admin"));
        assert!(!contains("admin", "delegate"));
        assert!(!contains("read:", "full:"));
    }
}

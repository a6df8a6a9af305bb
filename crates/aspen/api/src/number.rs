//! Numbers of requests and the families they belong to.
//!
//! A number is `family * 64 + n`, so each family has 64. Numbers never depend on build features and
//! are never reused.

use core::fmt;

use crate::codec::{DecodeError, Input, Wire};

/// Requests of one family.
pub(crate) const FAMILY_REQUESTS: u16 = 64;

/// The families of requests. Each belongs to one service.
pub mod family {
    /// The node itself and its consensus metrics.
    pub const NODE: u16 = 100;
    /// Key-value.
    pub const KV: u16 = 110;
    /// Membership.
    pub const CLUSTER: u16 = 120;
    /// Leases.
    pub const LEASE: u16 = 200;
    /// Coordination primitives.
    pub const COORDINATION: u16 = 220;
    /// The first family that is free for plugins.
    pub const FIRST_PLUGIN: u16 = 900;
    /// The last one.
    pub const LAST_PLUGIN: u16 = 999;

    /// What serves a family, for callers of a node that does not.
    pub fn provider(family: u16) -> &'static str {
        match family {
            NODE => "the node",
            KV => "the key-value service",
            CLUSTER => "the membership service",
            LEASE => "the lease service",
            210 => "the watch service",
            COORDINATION => "the coordination service",
            300 => "the service registry",
            500 => "the SQL service",
            510 => "the DNS service",
            520 => "the blob service",
            530 => "the document service",
            540 => "the forge",
            560 => "the job service",
            570 => "the hook service",
            580 => "the secrets service",
            590 => "the automerge service",
            600 => "the CI service",
            640 => "the worker service",
            650 => "the Nix store",
            660 => "the cache service",
            FIRST_PLUGIN..=LAST_PLUGIN => "a plugin",
            _ => "a newer version",
        }
    }
}

/// Names a request among all of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Number(u16);

impl Number {
    /// The `n`th request of a family.
    pub const fn new(family: u16, n: u16) -> Self {
        assert!(family <= family::LAST_PLUGIN && n < FAMILY_REQUESTS);
        Self(family * FAMILY_REQUESTS + n)
    }

    /// The family.
    pub const fn family(self) -> u16 {
        self.0 / FAMILY_REQUESTS
    }

    /// Its place within the family, below 64.
    pub const fn index(self) -> u16 {
        self.0 % FAMILY_REQUESTS
    }

    /// The number on the wire.
    pub const fn to_wire(self) -> u16 {
        self.0
    }

    /// A number from the wire; any value is one.
    pub const fn from_wire(number: u16) -> Self {
        Self(number)
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.family(), self.index())
    }
}

impl fmt::Debug for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Number({self})")
    }
}

/// A feature level: what a node, or a whole cluster, understands. Each level includes those below.
///
/// Every request, log entry and stored layout belongs to a level. A cluster works at the level of a
/// replicated record that rises only when all members understand the next one, so a member never
/// meets what it cannot read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Level(pub u32);

impl Level {
    /// The level of a new cluster.
    pub const FIRST: Self = Self(1);
    /// The highest level that this build understands.
    pub const TOP: Self = Self(1);
}

impl Default for Level {
    fn default() -> Self {
        Self::FIRST
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Wire for Level {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
    }

    fn take(input: &mut Input) -> Result<Self, DecodeError> {
        u32::take(input).map(Self)
    }

    fn size_hint(&self) -> usize {
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_its_family_and_its_place_in_it() {
        let number = Number::new(family::LEASE, 3);
        assert_eq!((number.family(), number.index(), number.to_wire()), (200, 3, 12_803));
        assert_eq!(number.to_string(), "200.3");
        let highest = Number::from_wire(u16::MAX);
        assert_eq!((highest.family(), highest.index()), (1_023, 63));
    }

    #[test]
    fn what_is_missing_has_a_name() {
        assert_eq!(family::provider(580), "the secrets service");
        assert_eq!(family::provider(942), "a plugin");
        assert_eq!(family::provider(1_000), "a newer version");
    }
}

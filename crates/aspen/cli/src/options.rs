//! Options that several commands take.

use aspen_api::Revision;
use aspen_api::kv::Consistency;
use clap::{Args, ValueEnum};

/// How fresh a read is.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum Freshness {
    /// The leader confirms that it leads.
    #[default]
    Linearizable,
    /// The leader answers within its lease.
    Lease,
    /// Any node answers from what it has.
    Stale,
}

impl From<Freshness> for Consistency {
    fn from(freshness: Freshness) -> Self {
        match freshness {
            Freshness::Linearizable => Self::Linearizable,
            Freshness::Lease => Self::Lease,
            Freshness::Stale => Self::Stale,
        }
    }
}

/// Options of reads.
#[derive(Debug, Args)]
pub(crate) struct ReadOptions {
    /// How fresh the answer must be.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) consistency: Freshness,
    /// Read an older revision instead of the newest.
    #[arg(long, value_name = "REVISION")]
    pub(crate) revision: Option<Revision>,
}

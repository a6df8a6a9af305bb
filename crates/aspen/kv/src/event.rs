//! What an entry changed, for those who watch.

use aspen_api::kv::Item;
use aspen_api::{Key, Revision};

/// One change of one key. Changes of an entry come in the order they were made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The entry that made it, or that removed what had expired.
    pub revision: Revision,
    /// The key.
    pub key: Key,
    /// What happened to it.
    pub change: Change,
}

/// What happened to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was set.
    Put(Item),
    /// It was deleted by a request.
    Deleted,
    /// Its deadline or its lease's passed.
    Expired,
    /// Its lease was revoked.
    Revoked,
}

//! The vocabulary of the mesh: identifiers, time, addresses and limits.
//!
//! Invariants: nothing here performs I/O, allocates on a hot path or depends on another crate.
//! Values that came from a network are still unchecked: [`EntityId`] only becomes a verified
//! identity once `net-crypto` has checked the point and a handshake has proved possession of the
//! key.

mod address;
mod id;
mod id_map;
pub mod limits;
mod lock;
mod time;

pub use address::PeerAddr;
pub use id::{CallId, ChannelHash, EntityId, HexError, NodeId, OriginHash, SessionId, StreamId};
pub use id_map::{IdHasher, IdMap};
pub use lock::lock;
pub use time::{Instant, UnixMillis};

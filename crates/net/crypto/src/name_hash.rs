//! 64-bit hashes of names, for headers and tables.
//!
//! Invariants: they are filters and map keys, never proofs: access, storage and accounting compare
//! the name or the 32-byte identity itself; no hash is 0, which means "none" on the wire.

use net_types::{ChannelHash, EntityId, OriginHash};

use crate::hash::{digest, first_u64_nonzero};

/// The hash of a channel or service name: the first 8 bytes, little-endian, of BLAKE2s-256 over
/// `"net-channel-v1"` and the name. Never 0, which is "none" on the wire.
pub fn channel_hash(name: &str) -> ChannelHash {
    ChannelHash(first_u64_nonzero(&digest(b"net-channel-v1", &[name.as_bytes()])))
}

/// The address of an entity that stays when it moves between nodes: the first 8 bytes,
/// little-endian, of BLAKE2s-256 over `"net-origin-v1"` and the entity id. Never 0.
pub fn origin_hash(entity: &EntityId) -> OriginHash {
    OriginHash(first_u64_nonzero(&digest(b"net-origin-v1", &[entity.as_bytes()])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_of_names_never_change() {
        assert_eq!(channel_hash("raft"), ChannelHash(0x3c03_5955_a47c_330f));
        assert_eq!(channel_hash(""), ChannelHash(0x6c0f_d774_a0c0_cd27));
        assert_eq!(origin_hash(&EntityId([5; 32])), OriginHash(0xc682_d88d_4d74_d95d));
    }

    #[test]
    fn a_name_and_an_entity_of_the_same_bytes_differ() {
        let text = "abcdefghijklmnopqrstuvwxyz012345";
        let id = EntityId(text.as_bytes().try_into().unwrap());
        assert_ne!(channel_hash(text).0, origin_hash(&id).0);
    }
}

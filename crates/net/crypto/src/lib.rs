//! Identity and cryptography of the mesh: who a node is, how two nodes agree on keys, and how
//! packets are sealed.
//!
//! Invariants: nothing here reads a clock, a socket or a random source: time, seeds and bytes are
//! arguments. Every derivation and signature starts with a domain of its own. Secrets are wiped on
//! drop, compared in constant time and never printed. The identity of a peer comes from the
//! handshake alone; hashes and macs only filter.

mod aead;
mod entity;
mod hash;
mod key_file;
mod mac;
mod name_hash;
mod noise;
mod replay;
mod rng;
mod secret;

pub use aead::{
    DirectionKeys, DirectionSecret, OpenError, OpenKey, SealError, SealKey, Suite, TAG_BYTES,
    has_hardware_aes,
};
pub use entity::{
    EntityIdError, EntityKeypair, SIGNATURE_BYTES, VerifyError, check_entity_id, verify,
    x25519_public,
};
pub use key_file::{KeyFile, KeyFileError, load_key_file, load_or_create};
pub use mac::{COOKIE_NONCE_BYTES, Cookie, CookieJar, MAC_BYTES, MacKeys, SEALED_COOKIE_BYTES};
pub use name_hash::{channel_hash, origin_hash};
pub use noise::{
    EPHEMERAL_BYTES, Established, INIT_OVERHEAD_BYTES, InitPayload, Initiator, NoiseError,
    RESPONSE_OVERHEAD_BYTES, Responder,
};
pub use rand_core::{CryptoRng, RngCore};
pub use replay::{ReplayError, ReplayWindow};
pub use rng::Seeded;
pub use secret::MeshSecret;

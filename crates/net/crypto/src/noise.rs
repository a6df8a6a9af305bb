//! The handshake: `Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s` (Noise Protocol Framework, revision 34).
//!
//! One round trip authenticates both sides and gives each direction a secret of its own. The
//! initiator knows whom it dials; the prologue binds the protocol's name and the responder's entity
//! id, the pre-shared key is the mesh secret. Equal seeds give equal messages.
//!
//! Invariants: a message that does not authenticate changes nothing, so a forged Response cannot
//! end an attempt; shared secrets of all zero bytes are refused (RFC 7748, section 6.1). That the
//! remote static key belongs to the entity named in the payload is for the caller to check, with
//! [`crate::x25519_public`].

use core::fmt;

use curve25519_dalek::montgomery::MontgomeryPoint;
use net_types::{EntityId, SessionId};
use rand_core::RngCore;
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, HandshakeState};
use zeroize::Zeroizing;

use crate::aead::{DirectionSecret, TAG_BYTES};
use crate::entity::{EntityKeypair, x25519_public};
use crate::hash;
use crate::rng::Seeded;
use crate::secret::MeshSecret;

const PROTOCOL: &str = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
const PROLOGUE_DOMAIN: &[u8] = b"net-hs-v1";
const SESSION_DOMAIN: &[u8] = b"net-session-v1";
const KEY_BYTES: usize = 32;

/// The Init's ephemeral key, its first field; a repeated Init repeats it.
pub const EPHEMERAL_BYTES: usize = KEY_BYTES;
/// Bytes of an Init message beside its payload: ephemeral, static and its tag, payload's tag.
pub const INIT_OVERHEAD_BYTES: usize = KEY_BYTES + (KEY_BYTES + TAG_BYTES) + TAG_BYTES;
/// Bytes of a Response message beside its payload: ephemeral, payload's tag.
pub const RESPONSE_OVERHEAD_BYTES: usize = KEY_BYTES + TAG_BYTES;

const _: () = assert!(INIT_OVERHEAD_BYTES == 96 && RESPONSE_OVERHEAD_BYTES == 48);

/// Why a handshake message could not be made or was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoiseError {
    /// The dialled entity id is not usable as a key: fix the address book.
    #[error("the responder's entity id is not a usable key")]
    ResponderKey,
    /// The message is shorter than its fixed fields: drop it.
    #[error("the handshake message is truncated")]
    Truncated,
    /// The message was made with other keys, another secret, for another node, or was changed: drop
    /// it; the attempt stays open.
    #[error("the handshake message does not authenticate")]
    Authentication,
    /// The payload does not fit a Noise message (65,535 bytes).
    #[error("the handshake payload is too long")]
    PayloadTooLong,
    /// This handshake already finished: drop the message.
    #[error("the handshake has already finished")]
    Finished,
}

impl From<snow::Error> for NoiseError {
    fn from(error: snow::Error) -> Self {
        match error {
            snow::Error::State(_) => Self::Finished,
            _ => Self::Authentication,
        }
    }
}

/// What a finished handshake leaves: a name for the session and a secret for each direction.
#[derive(Debug)]
pub struct Established {
    /// Derived from the handshake hash, equal on both sides, never 0.
    pub session_id: SessionId,
    /// Root of the keys for what this side sends.
    pub send: DirectionSecret,
    /// Root of the keys for what this side receives.
    pub receive: DirectionSecret,
    /// The peer's X25519 static key, proved by the handshake.
    pub remote_static: [u8; KEY_BYTES],
}

/// What the responder reads from an Init.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitPayload {
    /// The initiator's X25519 static key. The Init proves possession to this responder, but may be
    /// a replay; that it is not shows when the session's first packet opens.
    pub remote_static: [u8; KEY_BYTES],
    /// The decrypted payload. A replayed Init repeats it.
    pub payload: Vec<u8>,
}

/// The dialling side between its Init and the Response.
pub struct Initiator {
    state: HandshakeState,
}

impl Initiator {
    /// Starts a handshake with `responder`; returns the Init message,
    /// [`INIT_OVERHEAD_BYTES`] longer than `payload`.
    ///
    /// `seed` is fresh randomness: the ephemeral key follows from it.
    pub fn start(
        keys: &EntityKeypair,
        responder: &EntityId,
        secret: &MeshSecret,
        seed: [u8; 32],
        payload: &[u8],
    ) -> Result<(Self, Vec<u8>), NoiseError> {
        let remote = x25519_public(responder).map_err(|_| NoiseError::ResponderKey)?;
        let mut state = build(keys, responder, secret, seed, Some(&remote))?;
        let message = write(&mut state, payload, INIT_OVERHEAD_BYTES)?;
        Ok((Self { state }, message))
    }

    /// Reads a Response. After an error the attempt stands as before and a later, genuine Response
    /// still finishes it; after success every further message is [`NoiseError::Finished`].
    pub fn finish(&mut self, message: &[u8]) -> Result<(Established, Vec<u8>), NoiseError> {
        let payload = read(&mut self.state, message, RESPONSE_OVERHEAD_BYTES)?;
        Ok((established(&mut self.state)?, payload))
    }
}

impl fmt::Debug for Initiator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Initiator(redacted)")
    }
}

/// The answering side between an Init and its Response.
pub struct Responder {
    state: HandshakeState,
}

impl Responder {
    /// Reads an Init that was made for `keys` under `secret`.
    ///
    /// `seed` is fresh randomness: the Response's ephemeral key follows from it. Costs three curve
    /// multiplications (and two more for the Response); check mac1 and the pacer first.
    pub fn read_init(
        keys: &EntityKeypair,
        secret: &MeshSecret,
        seed: [u8; 32],
        message: &[u8],
    ) -> Result<(Self, InitPayload), NoiseError> {
        let mut state = build(keys, &keys.entity_id(), secret, seed, None)?;
        let payload = read(&mut state, message, INIT_OVERHEAD_BYTES)?;
        let remote_static = remote_static(&state)?;
        Ok((Self { state }, InitPayload { remote_static, payload }))
    }

    /// Makes the Response message, [`RESPONSE_OVERHEAD_BYTES`] longer than `payload`. The session
    /// is provisional until the initiator's first packet opens.
    pub fn finish(mut self, payload: &[u8]) -> Result<(Established, Vec<u8>), NoiseError> {
        let message = write(&mut self.state, payload, RESPONSE_OVERHEAD_BYTES)?;
        Ok((established(&mut self.state)?, message))
    }
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Responder(redacted)")
    }
}

fn build(
    keys: &EntityKeypair,
    responder: &EntityId,
    secret: &MeshSecret,
    seed: [u8; 32],
    remote: Option<&[u8; KEY_BYTES]>,
) -> Result<HandshakeState, NoiseError> {
    let params = PROTOCOL.parse().expect("snow knows this protocol name");
    let prologue = [PROLOGUE_DOMAIN, responder.as_bytes()].concat();
    let local = keys.x25519_secret();
    let builder =
        Builder::with_resolver(params, Box::new(Primitives { seed: Zeroizing::new(seed) }))
            .prologue(&prologue)?
            .local_private_key(&*local)?
            .psk(2, secret.as_bytes())?;
    Ok(match remote {
        Some(remote) => builder.remote_public_key(remote)?.build_initiator()?,
        None => builder.build_responder()?,
    })
}

fn write(
    state: &mut HandshakeState,
    payload: &[u8],
    overhead: usize,
) -> Result<Vec<u8>, NoiseError> {
    if payload.len() > usize::from(u16::MAX) - overhead {
        return Err(NoiseError::PayloadTooLong);
    }
    let mut message = vec![0u8; overhead + payload.len()];
    let written = state.write_message(payload, &mut message)?;
    debug_assert_eq!(written, message.len());
    Ok(message)
}

fn read(
    state: &mut HandshakeState,
    message: &[u8],
    overhead: usize,
) -> Result<Vec<u8>, NoiseError> {
    let payload_bytes = message.len().checked_sub(overhead).ok_or(NoiseError::Truncated)?;
    let mut payload = vec![0u8; payload_bytes];
    let read = state.read_message(message, &mut payload)?;
    debug_assert_eq!(read, payload_bytes);
    Ok(payload)
}

fn remote_static(state: &HandshakeState) -> Result<[u8; KEY_BYTES], NoiseError> {
    state.get_remote_static().and_then(|key| key.try_into().ok()).ok_or(NoiseError::Authentication)
}

fn established(state: &mut HandshakeState) -> Result<Established, NoiseError> {
    let id = hash::digest(SESSION_DOMAIN, &[state.get_handshake_hash()]);
    let (from_initiator, from_responder) = state.dangerously_get_raw_split();
    let (send, receive) = if state.is_initiator() {
        (from_initiator, from_responder)
    } else {
        (from_responder, from_initiator)
    };
    Ok(Established {
        session_id: SessionId(hash::first_u64_nonzero(&id)),
        send: DirectionSecret::new(send),
        receive: DirectionSecret::new(receive),
        remote_static: remote_static(state)?,
    })
}

/// snow's primitives, except that randomness comes from the caller, and that the curve refuses shared
/// secrets of zero and wipes its keys.
struct Primitives {
    seed: Zeroizing<[u8; 32]>,
}

impl CryptoResolver for Primitives {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(CallerRandom(Seeded::from_seed(*self.seed))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        match choice {
            DHChoice::Curve25519 => Some(Box::<X25519>::default()),
            _ => None,
        }
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

struct CallerRandom(Seeded);

impl Random for CallerRandom {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), snow::Error> {
        self.0.fill_bytes(dest);
        Ok(())
    }
}

#[derive(Default)]
struct X25519 {
    secret: Zeroizing<[u8; KEY_BYTES]>,
    public: [u8; KEY_BYTES],
}

impl Dh for X25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        KEY_BYTES
    }

    fn priv_len(&self) -> usize {
        KEY_BYTES
    }

    fn set(&mut self, privkey: &[u8]) {
        self.secret.copy_from_slice(privkey);
        self.public = MontgomeryPoint::mul_base_clamped(*self.secret).to_bytes();
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), snow::Error> {
        let mut secret = Zeroizing::new([0u8; KEY_BYTES]);
        rng.try_fill_bytes(&mut *secret)?;
        self.set(&*secret);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        &*self.secret
    }

    fn dh(&self, pubkey: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        let point: [u8; KEY_BYTES] =
            pubkey.get(..KEY_BYTES).and_then(|key| key.try_into().ok()).ok_or(snow::Error::Dh)?;
        let shared = Zeroizing::new(MontgomeryPoint(point).mul_clamped(*self.secret).to_bytes());
        if *shared == [0; KEY_BYTES] {
            return Err(snow::Error::Dh);
        }
        out.get_mut(..KEY_BYTES).ok_or(snow::Error::Dh)?.copy_from_slice(&*shared);
        Ok(())
    }
}

#[cfg(test)]
mod tests;

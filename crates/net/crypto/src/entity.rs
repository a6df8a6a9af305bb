//! Entities: the Ed25519 keys (RFC 8032) that name nodes, daemons, operators and groups.
//!
//! One key serves signatures and, in Montgomery form (RFC 7748), the handshake's static
//! Diffie-Hellman; "On using the same key pair for Ed25519 and an X25519 based KEM" (IACR 2021/509)
//! is the argument that this is sound.
//!
//! Invariants: an id is used as a key only if it is the canonical encoding of a point that is not
//! of small order; a signature covers a domain and a message; secrets are wiped on drop and never
//! printed.

use core::fmt;

use curve25519_dalek::edwards::CompressedEdwardsY;
use curve25519_dalek::scalar::clamp_integer;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use net_types::EntityId;
use rand_core::{CryptoRng, RngCore};
use zeroize::{Zeroize, Zeroizing};

/// Bytes of an Ed25519 signature.
pub const SIGNATURE_BYTES: usize = 64;

/// Why 32 bytes do not name an entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EntityIdError {
    /// No point of the curve has this encoding, or it is not the only one of its point.
    #[error("the entity id is not the canonical encoding of a curve point")]
    NotCanonical,
    /// The point has small order: its "signatures" verify for anything and its shared secrets are
    /// known to all.
    #[error("the entity id is a point of small order")]
    Weak,
}

/// Why a signature was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The signer's id is unusable.
    #[error(transparent)]
    Signer(#[from] EntityIdError),
    /// The signature does not belong to this signer, domain and message.
    #[error("the signature does not match its signer, domain and message")]
    Signature,
}

/// The secret half of an entity: signs, and proves the identity in handshakes.
#[derive(Clone)]
pub struct EntityKeypair {
    signing: SigningKey,
}

impl EntityKeypair {
    /// The keypair of a 32-byte seed (RFC 8032's private key).
    pub fn from_seed(mut seed: [u8; 32]) -> Self {
        let signing = SigningKey::from_bytes(&seed);
        seed.zeroize();
        Self { signing }
    }

    /// A new keypair; `rng` decides which.
    pub fn generate(rng: &mut (impl RngCore + CryptoRng)) -> Self {
        let mut seed = [0u8; 32];
        rng.fill_bytes(&mut seed);
        let keypair = Self::from_seed(seed);
        seed.zeroize();
        keypair
    }

    /// The public half.
    pub fn entity_id(&self) -> EntityId {
        EntityId(self.signing.verifying_key().to_bytes())
    }

    /// Signs `domain` followed by `message`.
    ///
    /// A domain names one kind of statement and its version (`"net-ticket-v1"`); no domain is a
    /// prefix of another, so a signature on one kind can never pass for another.
    pub fn sign(&self, domain: &'static [u8], message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        self.signing.sign(&[domain, message].concat()).to_bytes()
    }

    /// The X25519 secret that belongs to [`x25519_public`] of this entity: the clamped first half
    /// of SHA-512 of the seed.
    pub fn x25519_secret(&self) -> Zeroizing<[u8; 32]> {
        let mut half = self.signing.to_scalar_bytes();
        let secret = Zeroizing::new(clamp_integer(half));
        half.zeroize();
        secret
    }
}

impl fmt::Debug for EntityKeypair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EntityKeypair({:?}, secret redacted)", self.entity_id())
    }
}

fn verifying_key(bytes: &[u8; 32]) -> Result<VerifyingKey, EntityIdError> {
    let point = CompressedEdwardsY(*bytes).decompress().ok_or(EntityIdError::NotCanonical)?;
    if point.compress().as_bytes() != bytes {
        return Err(EntityIdError::NotCanonical);
    }
    if point.is_small_order() {
        return Err(EntityIdError::Weak);
    }
    Ok(VerifyingKey::from(point))
}

/// Accepts 32 bytes as an entity's name if they are the canonical encoding of a point that is not
/// of small order.
pub fn check_entity_id(bytes: &[u8; 32]) -> Result<EntityId, EntityIdError> {
    verifying_key(bytes).map(|_| EntityId(*bytes))
}

/// The entity's X25519 public key (RFC 7748): the Montgomery form of its point.
///
/// A point and its negation share this form; only the holder of the secret can use the alias.
pub fn x25519_public(entity: &EntityId) -> Result<[u8; 32], EntityIdError> {
    Ok(verifying_key(entity.as_bytes())?.to_montgomery().to_bytes())
}

/// Checks a signature of [`EntityKeypair::sign`] by the strict rules (no small-order components).
pub fn verify(
    entity: &EntityId,
    domain: &'static [u8],
    message: &[u8],
    signature: &[u8; SIGNATURE_BYTES],
) -> Result<(), VerifyError> {
    verifying_key(entity.as_bytes())?
        .verify_strict(&[domain, message].concat(), &Signature::from_bytes(signature))
        .map_err(|_| VerifyError::Signature)
}

#[cfg(test)]
mod tests {
    use curve25519_dalek::montgomery::MontgomeryPoint;
    use data_encoding::HEXLOWER;
    use proptest::prelude::*;

    use super::*;

    fn hex32(text: &str) -> [u8; 32] {
        HEXLOWER.decode(text.as_bytes()).unwrap().try_into().unwrap()
    }

    #[test]
    fn keys_and_signatures_match_rfc_8032() {
        // RFC 8032, section 7.1, test 2; the domain takes the place of the one-byte message.
        let keys = EntityKeypair::from_seed(hex32(
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        ));
        assert_eq!(
            keys.entity_id().to_string(),
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
        );
        assert_eq!(
            HEXLOWER.encode(&keys.sign(&[0x72], b"")),
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
             085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        );
        assert_eq!(keys.sign(&[], &[0x72]), keys.sign(&[0x72], b""));
    }

    #[test]
    fn x25519_halves_belong_together_and_do_not_change() {
        let keys = EntityKeypair::from_seed([7; 32]);
        let secret = keys.x25519_secret();
        let public = x25519_public(&keys.entity_id()).unwrap();
        assert_eq!(MontgomeryPoint::mul_base_clamped(*secret).to_bytes(), public);
        assert_eq!(*secret, clamp_integer(*secret), "the secret is stored clamped");
        assert_eq!(
            HEXLOWER.encode(&public),
            "761d88ec830413919dfe9d4d1d56f17e653c8c994082df5b137b90a0ae6edf74"
        );
    }

    #[test]
    fn weak_and_non_canonical_ids_are_refused() {
        let mut identity = [0u8; 32];
        identity[0] = 1;
        assert_eq!(check_entity_id(&identity), Err(EntityIdError::Weak));
        // y = p + 1 is the identity, encoded a second way.
        let mut doubled = [0xff; 32];
        doubled[0] = 0xee;
        doubled[31] = 0x7f;
        assert_eq!(check_entity_id(&doubled), Err(EntityIdError::NotCanonical));
        // The identity with the sign bit set: x = 0 has no negative.
        identity[31] |= 0x80;
        assert_eq!(check_entity_id(&identity), Err(EntityIdError::NotCanonical));
        // y = 2 is on no point of the curve.
        let mut off_curve = [0u8; 32];
        off_curve[0] = 2;
        assert_eq!(check_entity_id(&off_curve), Err(EntityIdError::NotCanonical));
        assert_eq!(
            verify(&EntityId(off_curve), b"d", b"m", &[0; 64]),
            Err(VerifyError::Signer(EntityIdError::NotCanonical))
        );
    }

    #[test]
    fn debug_does_not_print_the_secret() {
        let text = format!("{:?}", EntityKeypair::from_seed([0xab; 32]));
        assert!(text.contains("redacted") && !text.contains("abab") && !text.contains("171"));
    }

    proptest! {
        #[test]
        fn any_change_breaks_a_signature(
            seed: [u8; 32],
            message in proptest::collection::vec(any::<u8>(), 0..64),
            bit in 0usize..512,
        ) {
            let keys = EntityKeypair::from_seed(seed);
            let id = keys.entity_id();
            let good = keys.sign(b"net-test-v1", &message);
            prop_assert_eq!(verify(&id, b"net-test-v1", &message, &good), Ok(()));
            prop_assert_eq!(verify(&id, b"net-test-v2", &message, &good), Err(VerifyError::Signature));
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(verify(&id, b"net-test-v1", &message, &bad), Err(VerifyError::Signature));
            let mut longer = message.clone();
            longer.push(0);
            prop_assert_eq!(verify(&id, b"net-test-v1", &longer, &good), Err(VerifyError::Signature));
        }

        #[test]
        fn arbitrary_ids_never_panic(bytes: [u8; 32], signature: [u8; 32]) {
            let mut both = [0u8; 64];
            both[..32].copy_from_slice(&signature);
            both[32..].copy_from_slice(&signature);
            if check_entity_id(&bytes).is_err() {
                prop_assert!(x25519_public(&EntityId(bytes)).is_err());
            }
            prop_assert!(verify(&EntityId(bytes), b"d", b"m", &both).is_err());
        }
    }
}

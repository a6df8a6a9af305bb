//! Packet encryption: two suites behind one interface, in place and without allocation.
//!
//! ChaCha20-Poly1305 (RFC 8439) is always there; AES-256-GCM (NIST SP 800-38D) is for pairs of
//! nodes that both have hardware for it. Invariants: the nonce is a 4-byte prefix of the key's
//! direction and the packet counter, and no counter is used twice under one key; the counter
//! `u64::MAX` is never used. [`DirectionSecret::ratchet`] is one-way, so a node that gave up an
//! epoch's secret can no longer read that epoch.

use core::fmt;

use ring::aead::{AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::hash;

/// Bytes of an authentication tag, in both suites.
pub const TAG_BYTES: usize = net_types::limits::TAG_BYTES;

const KEY_DOMAIN: &[u8] = b"net-aead-key-v1";
const PREFIX_DOMAIN: &[u8] = b"net-aead-prefix-v1";
const RATCHET_DOMAIN: &[u8] = b"net-aead-ratchet-v1";

/// How a session's packets are encrypted. The numbers travel in handshakes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Suite {
    /// Mandatory; fast without special hardware.
    ChaCha20Poly1305 = 0,
    /// Used when both ends have [`has_hardware_aes`].
    Aes256Gcm = 1,
}

impl Suite {
    /// The suite of a number from the wire.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::ChaCha20Poly1305),
            1 => Some(Self::Aes256Gcm),
            _ => None,
        }
    }

    /// The suite's number on the wire.
    pub const fn number(self) -> u8 {
        self as u8
    }

    fn algorithm(self) -> &'static Algorithm {
        match self {
            Self::ChaCha20Poly1305 => &CHACHA20_POLY1305,
            Self::Aes256Gcm => &AES_256_GCM,
        }
    }
}

/// Whether this processor has instructions for AES and for GCM's multiplication.
pub fn has_hardware_aes() -> bool {
    #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
    {
        std::arch::is_x86_feature_detected!("aes")
            && std::arch::is_x86_feature_detected!("pclmulqdq")
    }
    #[cfg(target_arch = "aarch64")]
    {
        std::arch::is_aarch64_feature_detected!("aes")
            && std::arch::is_aarch64_feature_detected!("pmull")
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "x86", target_arch = "aarch64")))]
    {
        false
    }
}

/// The secret of one direction of a session in one key epoch. Wiped on drop.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct DirectionSecret([u8; 32]);

impl DirectionSecret {
    pub(crate) fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The secret of the next epoch. The previous one cannot be computed from it.
    #[must_use]
    pub fn ratchet(&self) -> Self {
        Self(hash::prf(&self.0, RATCHET_DOMAIN, &[]))
    }
}

impl fmt::Debug for DirectionSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DirectionSecret(redacted)")
    }
}

/// What one suite needs for one direction and epoch. Wiped on drop.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct DirectionKeys {
    key: [u8; 32],
    nonce_prefix: [u8; 4],
}

impl DirectionKeys {
    /// Key and nonce prefix, by keyed BLAKE2s of a domain and the suite's number.
    pub fn derive(secret: &DirectionSecret, suite: Suite) -> Self {
        let number = [suite.number()];
        let mut prefix = hash::prf(&secret.0, PREFIX_DOMAIN, &[&number]);
        let mut nonce_prefix = [0u8; 4];
        nonce_prefix.copy_from_slice(&prefix[..4]);
        prefix.zeroize();
        Self { key: hash::prf(&secret.0, KEY_DOMAIN, &[&number]), nonce_prefix }
    }
}

impl fmt::Debug for DirectionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DirectionKeys(redacted)")
    }
}

/// Why a packet could not be sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The counter reached `u64::MAX`: the direction needs a new session.
    #[error("the packet counter is exhausted")]
    CounterExhausted,
    /// The plaintext is longer than the cipher allows (64 GiB); no packet is.
    #[error("the plaintext is too long for the cipher")]
    TooLong,
}

/// Why a packet could not be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Shorter than a tag, or the counter is `u64::MAX`: no sender makes such a packet.
    #[error("the packet is too short or its counter is reserved")]
    Malformed,
    /// The tag does not match: another key, or changed bytes. The buffer's contents are undefined.
    #[error("the packet's tag does not match")]
    Tag,
}

/// The shared part of both directions: an expanded key and the nonce's fixed bytes.
struct PacketKey {
    cipher: LessSafeKey,
    nonce_prefix: [u8; 4],
}

impl PacketKey {
    fn new(suite: Suite, keys: &DirectionKeys) -> Self {
        let unbound =
            UnboundKey::new(suite.algorithm(), &keys.key).expect("both suites have 32-byte keys");
        Self { cipher: LessSafeKey::new(unbound), nonce_prefix: keys.nonce_prefix }
    }

    #[inline]
    fn nonce(&self, counter: u64) -> Nonce {
        let mut nonce = [0u8; 12];
        nonce[..4].copy_from_slice(&self.nonce_prefix);
        nonce[4..].copy_from_slice(&counter.to_le_bytes());
        Nonce::assume_unique_for_key(nonce)
    }
}

/// Encrypts the packets of one direction and epoch.
pub struct SealKey(PacketKey);

impl SealKey {
    /// Expands the key schedule once.
    pub fn new(suite: Suite, keys: &DirectionKeys) -> Self {
        Self(PacketKey::new(suite, keys))
    }

    /// Encrypts `plaintext` in place under `counter`, binding `aad`, and returns the tag.
    ///
    /// The caller never repeats a counter under one key.
    #[inline]
    pub fn seal_in_place(
        &self,
        counter: u64,
        aad: &[u8],
        plaintext: &mut [u8],
    ) -> Result<[u8; TAG_BYTES], SealError> {
        if counter == u64::MAX {
            return Err(SealError::CounterExhausted);
        }
        let nonce = self.0.nonce(counter);
        let tag = self
            .0
            .cipher
            .seal_in_place_separate_tag(nonce, Aad::from(aad), plaintext)
            .map_err(|_| SealError::TooLong)?;
        let mut bytes = [0u8; TAG_BYTES];
        bytes.copy_from_slice(tag.as_ref());
        Ok(bytes)
    }
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKey(redacted)")
    }
}

/// Decrypts the packets of one direction and epoch.
pub struct OpenKey(PacketKey);

impl OpenKey {
    /// Expands the key schedule once.
    pub fn new(suite: Suite, keys: &DirectionKeys) -> Self {
        Self(PacketKey::new(suite, keys))
    }

    /// Verifies and decrypts ciphertext followed by its tag, in place; returns the plaintext.
    #[inline]
    pub fn open_in_place<'a>(
        &self,
        counter: u64,
        aad: &[u8],
        ciphertext_and_tag: &'a mut [u8],
    ) -> Result<&'a mut [u8], OpenError> {
        if counter == u64::MAX || ciphertext_and_tag.len() < TAG_BYTES {
            return Err(OpenError::Malformed);
        }
        let nonce = self.0.nonce(counter);
        self.0
            .cipher
            .open_in_place(nonce, Aad::from(aad), ciphertext_and_tag)
            .map_err(|_| OpenError::Tag)
    }
}

impl fmt::Debug for OpenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OpenKey(redacted)")
    }
}

/// Encrypts the front of `bytes` with ChaCha20-Poly1305 and puts the tag in its last
/// [`TAG_BYTES`]; for single messages whose key and nonce are not a direction's.
pub(crate) fn seal_once(key: &[u8; 32], nonce: &[u8; 12], aad: &[u8], bytes: &mut [u8]) {
    let body_bytes = bytes.len() - TAG_BYTES;
    let (body, tag) = bytes.split_at_mut(body_bytes);
    let sealed = single(key)
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(*nonce), Aad::from(aad), body)
        .expect("a body of a few bytes is not too long");
    tag.copy_from_slice(sealed.as_ref());
}

/// Opens what [`seal_once`] made.
pub(crate) fn open_once<'a>(
    key: &[u8; 32],
    nonce: &[u8; 12],
    aad: &[u8],
    bytes: &'a mut [u8],
) -> Result<&'a mut [u8], OpenError> {
    single(key)
        .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(aad), bytes)
        .map_err(|_| OpenError::Tag)
}

fn single(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).expect("the suite has 32-byte keys"))
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;
    use proptest::prelude::*;

    use super::*;

    const SUITES: [Suite; 2] = [Suite::ChaCha20Poly1305, Suite::Aes256Gcm];

    fn pair(suite: Suite, secret: [u8; 32]) -> (SealKey, OpenKey) {
        let keys = DirectionKeys::derive(&DirectionSecret::new(secret), suite);
        (SealKey::new(suite, &keys), OpenKey::new(suite, &keys))
    }

    fn sealed(key: &SealKey, counter: u64, aad: &[u8], body: &[u8]) -> Vec<u8> {
        let mut bytes = body.to_vec();
        let tag = key.seal_in_place(counter, aad, &mut bytes).unwrap();
        bytes.extend_from_slice(&tag);
        bytes
    }

    #[test]
    fn derivations_never_change() {
        let secret = DirectionSecret::new([3; 32]);
        let text = |secret: &DirectionSecret, suite| {
            let keys = DirectionKeys::derive(secret, suite);
            format!("{} {}", HEXLOWER.encode(&keys.key), HEXLOWER.encode(&keys.nonce_prefix))
        };
        assert_eq!(
            text(&secret, Suite::ChaCha20Poly1305),
            "491c4a159a299701a953e74fb1d31e9b9784f8d627aa0e12a05285ac6525ad6e f859c63e"
        );
        assert_eq!(
            text(&secret, Suite::Aes256Gcm),
            "c6fa5e52f26f8bdee76ec6a70ce696aa2d95d9ba6241db6515361b7e1471b6a5 5215b42c"
        );
        assert_eq!(
            text(&secret.ratchet(), Suite::Aes256Gcm),
            "83edf765b53c6dc1125c22931656a89f872f1f4312998dea2417268a5169419b 01ffb4dc"
        );
    }

    #[test]
    fn sealed_bytes_never_change() {
        let (chacha, _) = pair(Suite::ChaCha20Poly1305, [3; 32]);
        let (aes, _) = pair(Suite::Aes256Gcm, [3; 32]);
        assert_eq!(
            HEXLOWER.encode(&sealed(&chacha, 258, b"header", b"body")),
            "c73d3f9133826dd7e25d94ec70b83341d4bd4833"
        );
        assert_eq!(
            HEXLOWER.encode(&sealed(&aes, 258, b"header", b"body")),
            "166fc5a84ba9def92fac9479f2ded7eeef9e6007"
        );
    }

    #[test]
    fn suites_match_their_standards() {
        // RFC 8439, 2.8.2.
        let prefix = [0x07, 0, 0, 0];
        let counter = u64::from_le_bytes([0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47]);
        let key = core::array::from_fn(|i| 0x80 + i as u8);
        let keys = DirectionKeys { key, nonce_prefix: prefix };
        let aad = HEXLOWER.decode(b"50515253c0c1c2c3c4c5c6c7").unwrap();
        let body = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip \
                     for the future, sunscreen would be it.";
        let out = sealed(&SealKey::new(Suite::ChaCha20Poly1305, &keys), counter, &aad, body);
        assert_eq!(HEXLOWER.encode(&out[114..]), "1ae10b594f09e26a7e902ecbd0600691");
        // The GCM specification's test case 14: zero key, zero nonce, one zero block.
        let keys = DirectionKeys { key: [0; 32], nonce_prefix: [0; 4] };
        let out = sealed(&SealKey::new(Suite::Aes256Gcm, &keys), 0, b"", &[0; 16]);
        assert_eq!(
            HEXLOWER.encode(&out),
            "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"
        );
    }

    #[test]
    fn the_reserved_counter_and_short_packets_are_refused() {
        for suite in SUITES {
            let (seal, open) = pair(suite, [1; 32]);
            assert_eq!(
                seal.seal_in_place(u64::MAX, b"", &mut []),
                Err(SealError::CounterExhausted)
            );
            let mut short = [0u8; TAG_BYTES - 1];
            assert_eq!(open.open_in_place(0, b"", &mut short), Err(OpenError::Malformed));
            let mut bytes = sealed(&seal, u64::MAX - 1, b"", b"");
            assert_eq!(open.open_in_place(u64::MAX, b"", &mut bytes), Err(OpenError::Malformed));
            assert!(open.open_in_place(u64::MAX - 1, b"", &mut bytes).is_ok());
        }
    }

    #[test]
    fn epochs_suites_and_directions_do_not_open_each_other() {
        let secret = DirectionSecret::new([1; 32]);
        let seal =
            SealKey::new(Suite::Aes256Gcm, &DirectionKeys::derive(&secret, Suite::Aes256Gcm));
        let later = DirectionKeys::derive(&secret.ratchet(), Suite::Aes256Gcm);
        let other = DirectionKeys::derive(&secret, Suite::ChaCha20Poly1305);
        for open in [
            OpenKey::new(Suite::Aes256Gcm, &later),
            OpenKey::new(Suite::ChaCha20Poly1305, &other),
            OpenKey::new(Suite::Aes256Gcm, &other),
        ] {
            let mut bytes = sealed(&seal, 1, b"", b"x");
            assert_eq!(open.open_in_place(1, b"", &mut bytes), Err(OpenError::Tag));
        }
    }

    #[test]
    fn suite_numbers_round_trip_and_unknown_ones_are_refused() {
        for suite in SUITES {
            assert_eq!(Suite::from_number(suite.number()), Some(suite));
        }
        assert!((2..=u8::MAX).all(|number| Suite::from_number(number).is_none()));
        assert_eq!((SUITES[0].number(), SUITES[1].number()), (0, 1));
    }

    proptest! {
        #[test]
        fn a_packet_opens_only_unchanged(
            aes: bool,
            secret: [u8; 32],
            counter in 0..u64::MAX - 1,
            aad in proptest::collection::vec(any::<u8>(), 1..80),
            body in proptest::collection::vec(any::<u8>(), 0..300),
            damage: prop::sample::Index,
            bit in 0u8..8,
        ) {
            let suite = SUITES[usize::from(aes)];
            let (seal, open) = pair(suite, secret);
            let good = sealed(&seal, counter, &aad, &body);
            let mut bytes = good.clone();
            prop_assert_eq!(&*open.open_in_place(counter, &aad, &mut bytes).unwrap(), &body[..]);

            let mut bytes = good.clone();
            prop_assert_eq!(open.open_in_place(counter + 1, &aad, &mut bytes), Err(OpenError::Tag));

            let mut bytes = good.clone();
            let at = damage.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(open.open_in_place(counter, &aad, &mut bytes), Err(OpenError::Tag));

            let mut bytes = good.clone();
            let mut changed = aad.clone();
            let at = damage.index(changed.len());
            changed[at] ^= 1 << bit;
            prop_assert_eq!(open.open_in_place(counter, &changed, &mut bytes), Err(OpenError::Tag));

            let mut bytes = good.clone();
            bytes.truncate(damage.index(good.len()));
            prop_assert!(open.open_in_place(counter, &aad, &mut bytes).is_err());
        }
    }
}

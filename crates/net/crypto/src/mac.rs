//! The outer authenticators of handshake packets: mac1 and, under load, cookies and mac2.
//!
//! mac1 shows that the sender knows the mesh secret and meant this node, at the price of one hash:
//! strangers cause no curve arithmetic. A cookie shows that the sender receives at its source
//! address. After the construction of WireGuard (Donenfeld, NDSS 2017, section 5.4.7), with a
//! 12-byte nonce.
//!
//! Invariants: comparisons take constant time; nothing is kept per sender; a cookie works for the
//! source that it was made for, and for one to two [`COOKIE_SECRET_LIFETIME`].

use core::fmt;

use net_types::limits::COOKIE_SECRET_LIFETIME;
use net_types::{EntityId, Instant};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::aead::{self, OpenError, TAG_BYTES};
use crate::hash;
use crate::secret::MeshSecret;

/// Bytes of mac1, mac2 and of a cookie.
pub const MAC_BYTES: usize = 16;
/// Bytes of a cookie as it travels: the cookie and its tag.
pub const SEALED_COOKIE_BYTES: usize = MAC_BYTES + TAG_BYTES;
/// Bytes of the nonce that travels beside a sealed cookie.
pub const COOKIE_NONCE_BYTES: usize = 12;

const MAC1_DOMAIN: &[u8] = b"net-mac1-v1";
const SEAL_DOMAIN: &[u8] = b"net-cookie-seal-v1";
const PERIOD_DOMAIN: &[u8] = b"net-cookie-period-v1";

fn equal(a: &[u8; MAC_BYTES], b: &[u8; MAC_BYTES]) -> bool {
    a.ct_eq(b).into()
}

/// The keys under which handshake packets to one responder are authenticated.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct MacKeys {
    mac1: [u8; 32],
    seal: [u8; 32],
}

impl MacKeys {
    /// The keys of a mesh secret and the responder that the packets are for (or from).
    pub fn new(secret: &MeshSecret, responder: &EntityId) -> Self {
        let of = |domain| hash::prf(secret.as_bytes(), domain, &[responder.as_bytes()]);
        Self { mac1: of(MAC1_DOMAIN), seal: of(SEAL_DOMAIN) }
    }

    /// mac1 over everything that precedes it in the packet.
    pub fn mac1(&self, bytes: &[u8]) -> [u8; MAC_BYTES] {
        hash::tag(&self.mac1, bytes)
    }

    /// Whether `mac` is the mac1 of `bytes`.
    pub fn verify_mac1(&self, bytes: &[u8], mac: &[u8; MAC_BYTES]) -> bool {
        equal(&self.mac1(bytes), mac)
    }

    /// Seals a cookie for the sender of the Init whose mac1 is `init_mac1`, so that only someone
    /// who saw that Init and holds the mesh secret can use it.
    ///
    /// `nonce` is random; 96 bits make a repetition under one key improbable before 2^48 replies.
    pub fn seal_cookie(
        &self,
        cookie: &Cookie,
        nonce: &[u8; COOKIE_NONCE_BYTES],
        init_mac1: &[u8; MAC_BYTES],
    ) -> [u8; SEALED_COOKIE_BYTES] {
        let mut sealed = [0u8; SEALED_COOKIE_BYTES];
        sealed[..MAC_BYTES].copy_from_slice(&cookie.0);
        aead::seal_once(&self.seal, nonce, init_mac1, &mut sealed);
        sealed
    }

    /// Opens a sealed cookie that answers the Init whose mac1 is `init_mac1`.
    pub fn open_cookie(
        &self,
        nonce: &[u8; COOKIE_NONCE_BYTES],
        init_mac1: &[u8; MAC_BYTES],
        sealed: &[u8; SEALED_COOKIE_BYTES],
    ) -> Result<Cookie, OpenError> {
        let mut bytes = *sealed;
        let plain = aead::open_once(&self.seal, nonce, init_mac1, &mut bytes)?;
        let mut cookie = [0u8; MAC_BYTES];
        cookie.copy_from_slice(plain);
        Ok(Cookie(cookie))
    }
}

impl fmt::Debug for MacKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MacKeys(redacted)")
    }
}

/// What a sender got back from its address; keys mac2.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Cookie([u8; MAC_BYTES]);

impl Cookie {
    /// mac2 over everything that precedes it in the packet, mac1 included.
    pub fn mac2(&self, bytes: &[u8]) -> [u8; MAC_BYTES] {
        hash::tag(&self.0, bytes)
    }
}

impl fmt::Debug for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cookie(redacted)")
    }
}

/// Gives and recognises cookies without remembering whom it gave them to.
///
/// The key under the cookies changes every [`COOKIE_SECRET_LIFETIME`] and the previous one is still
/// accepted, so a cookie works for one to two lifetimes. Keys follow from the seed and the number
/// of the period; the jar holds nothing per sender.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct CookieJar {
    seed: [u8; 32],
    #[zeroize(skip)]
    opened: Instant,
}

impl CookieJar {
    /// A jar whose first period starts at `now`; `seed` is fresh randomness.
    pub fn new(seed: [u8; 32], now: Instant) -> Self {
        Self { seed, opened: now }
    }

    fn period(&self, now: Instant) -> u64 {
        let lifetime = u64::try_from(COOKIE_SECRET_LIFETIME.as_nanos()).unwrap_or(u64::MAX);
        now.as_nanos().saturating_sub(self.opened.as_nanos()) / lifetime
    }

    fn cookie_of(&self, period: u64, source: &[u8]) -> Cookie {
        let mut key = hash::prf(&self.seed, PERIOD_DOMAIN, &[&period.to_le_bytes()]);
        let cookie = Cookie(hash::tag(&key, source));
        key.zeroize();
        cookie
    }

    /// The cookie of a sender at `source`, an unambiguous encoding of its address.
    pub fn cookie_for(&self, now: Instant, source: &[u8]) -> Cookie {
        self.cookie_of(self.period(now), source)
    }

    /// Whether `mac2` over `bytes` was made with this or the previous period's cookie of `source`.
    pub fn verify_mac2(
        &self,
        now: Instant,
        source: &[u8],
        bytes: &[u8],
        mac2: &[u8; MAC_BYTES],
    ) -> bool {
        let period = self.period(now);
        let made_in = |period| equal(&self.cookie_of(period, source).mac2(bytes), mac2);
        made_in(period) || period.checked_sub(1).is_some_and(made_in)
    }
}

impl fmt::Debug for CookieJar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CookieJar(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use data_encoding::HEXLOWER;
    use proptest::prelude::*;

    use super::*;

    fn keys() -> MacKeys {
        MacKeys::new(&MeshSecret::new([1; 32]), &EntityId([2; 32]))
    }

    #[test]
    fn macs_and_cookies_never_change() {
        let keys = keys();
        let jar = CookieJar::new([4; 32], Instant::ZERO);
        let cookie = jar.cookie_for(Instant::ZERO, b"10.0.0.1:1");
        assert_eq!(HEXLOWER.encode(&keys.mac1(b"packet")), "c7a0a42dd80e211164e1af5867764341");
        assert_eq!(HEXLOWER.encode(&cookie.0), "7ab06016fef7c6ef234cd32eae1e9b73");
        assert_eq!(HEXLOWER.encode(&cookie.mac2(b"packet")), "a1b2f948d26533087d902b4e2e9a3261");
        assert_eq!(
            HEXLOWER.encode(&keys.seal_cookie(&cookie, &[5; 12], &[6; 16])),
            "750dbc919177a16d8c8d8c58439dfde2098b5d7581b7489424e5e78b654b7d79"
        );
    }

    #[test]
    fn mac1_binds_secret_and_responder() {
        let mac = keys().mac1(b"packet");
        assert!(keys().verify_mac1(b"packet", &mac));
        assert!(!keys().verify_mac1(b"Packet", &mac));
        let stranger = MacKeys::new(&MeshSecret::new([9; 32]), &EntityId([2; 32]));
        let elsewhere = MacKeys::new(&MeshSecret::new([1; 32]), &EntityId([3; 32]));
        assert!(!stranger.verify_mac1(b"packet", &mac));
        assert!(!elsewhere.verify_mac1(b"packet", &mac));
    }

    #[test]
    fn a_cookie_works_in_its_period_and_the_next_from_its_address_only() {
        let start = Instant::from_nanos(77);
        let jar = CookieJar::new([4; 32], start);
        let last = start + COOKIE_SECRET_LIFETIME.saturating_sub(Duration::from_nanos(1));
        let mac2 = jar.cookie_for(last, b"a").mac2(b"packet");
        assert!(jar.verify_mac2(last, b"a", b"packet", &mac2));
        assert!(jar.verify_mac2(last + COOKIE_SECRET_LIFETIME, b"a", b"packet", &mac2));
        let expired = start + COOKIE_SECRET_LIFETIME * 2;
        assert!(!jar.verify_mac2(expired, b"a", b"packet", &mac2));
        assert!(!jar.verify_mac2(last, b"b", b"packet", &mac2));
        assert!(!jar.verify_mac2(last, b"a", b"packets", &mac2));
        let other = CookieJar::new([5; 32], start);
        assert!(!other.verify_mac2(last, b"a", b"packet", &mac2));
    }

    proptest! {
        #[test]
        fn a_sealed_cookie_opens_only_unchanged_and_for_its_init(
            bit in 0usize..(SEALED_COOKIE_BYTES * 8),
            nonce: [u8; 12],
            mac1: [u8; 16],
        ) {
            let keys = keys();
            let cookie = CookieJar::new([4; 32], Instant::ZERO).cookie_for(Instant::ZERO, b"a");
            let sealed = keys.seal_cookie(&cookie, &nonce, &mac1);
            prop_assert_eq!(keys.open_cookie(&nonce, &mac1, &sealed).unwrap().0, cookie.0);
            let mut damaged = sealed;
            damaged[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(keys.open_cookie(&nonce, &mac1, &damaged).is_err());
            let mut other = mac1;
            other[bit / 8 % 16] ^= 1 << (bit % 8);
            prop_assert!(keys.open_cookie(&nonce, &other, &sealed).is_err());
        }
    }
}

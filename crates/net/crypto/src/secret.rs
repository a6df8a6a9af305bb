//! The mesh secret: 32 bytes that every member holds and no stranger does.
//!
//! It is the pre-shared key of the handshake and the key of mac1, so that packets of strangers are
//! dropped before any curve arithmetic.
//!
//! Invariants: it admits to the mesh and never proves who someone is; it compares in constant time,
//! is wiped on drop and never printed.

use core::fmt;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::hash;

const COOKIE_DOMAIN: &[u8] = b"net-mesh-secret-v1";

/// The shared secret of one mesh. Compares in constant time, is wiped on drop and never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct MeshSecret([u8; 32]);

impl MeshSecret {
    /// A secret from its bytes; all zero is the open mesh.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The secret of a cluster's cookie text: BLAKE2s-256 of a domain and the text.
    ///
    /// The text is not stretched: a cookie is to be random, not a password.
    pub fn from_cookie(cookie: &str) -> Self {
        Self(hash::digest(COOKIE_DOMAIN, &[cookie.as_bytes()]))
    }

    /// Whether this is the all-zero secret, which is public.
    pub fn is_open(&self) -> bool {
        self.0.ct_eq(&[0; 32]).into()
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl PartialEq for MeshSecret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for MeshSecret {}

impl fmt::Debug for MeshSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_open() { "MeshSecret(open)" } else { "MeshSecret(redacted)" })
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;

    #[test]
    fn a_cookie_always_gives_the_same_secret() {
        let secret = MeshSecret::from_cookie("grove");
        assert_eq!(
            HEXLOWER.encode(secret.as_bytes()),
            "2c193a21a7a53ade70f9a84aa23f39e295bc0bdebfedf149566cfecae522d418"
        );
        assert_ne!(secret, MeshSecret::from_cookie("grove "));
        assert!(!MeshSecret::from_cookie("").is_open());
    }

    #[test]
    fn only_the_zero_secret_is_open_and_none_is_printed() {
        assert!(MeshSecret::new([0; 32]).is_open());
        let mut almost = [0; 32];
        almost[31] = 1;
        assert!(!MeshSecret::new(almost).is_open());
        assert_eq!(format!("{:?}", MeshSecret::new([0x41; 32])), "MeshSecret(redacted)");
        assert_eq!(format!("{:?}", MeshSecret::new([0; 32])), "MeshSecret(open)");
    }
}

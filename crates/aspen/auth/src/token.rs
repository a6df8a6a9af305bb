//! The token: its record, its text and its signature.
//!
//! Record: [`Claims`] in the encoding of `aspen_api::codec`, then the Ed25519 signature (RFC 8032)
//! of the issuer over `aspen-token-v1` and everything before it. Text: `aspentoken` and lower-case
//! base32 of the record. A token for a bearer is a secret.

use core::fmt;
use core::str::FromStr;

use aspen_api::codec::{DecodeError, Input, Wire};
use aspen_api::{Key, SecretText};
use bytes::Bytes;
use data_encoding::BASE32_NOPAD;
use net_crypto::{EntityKeypair, SIGNATURE_BYTES, verify};
use net_types::EntityId;
use net_types::limits::{
    MAX_FACT_NAME_BYTES, MAX_FACT_VALUE_BYTES, MAX_TOKEN_BYTES, MAX_TOKEN_CAPABILITIES,
    MAX_TOKEN_FACTS,
};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::Capability;

const PREFIX: &str = "aspentoken";
const DOMAIN: &[u8] = b"aspen-token-v1";
const VERSION: u8 = 1;
const NONCE_BYTES: usize = 16;

/// Why something is not a token, or cannot become one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TokenError {
    /// It does not start with `aspentoken`, or is longer than any token.
    #[error("not a token: it should start with \"aspentoken\"")]
    Foreign,
    /// A character is not base32, or the signature is not the issuer's.
    #[error("the token is damaged or forged; copy it again, whole")]
    Damaged,
    /// It is malformed or newer than this build.
    #[error("unreadable token: {0}")]
    Malformed(#[from] DecodeError),
    /// It would be longer than a request may carry.
    #[error("the token would have {0} bytes; at most {MAX_TOKEN_BYTES} are allowed")]
    TooLong(usize),
}

aspen_api::choice! {
    /// Who may use a token.
    pub enum Audience {
        /// One identity, in sessions of its own.
        Key {
            /// The identity.
            key: EntityId,
        } = 1,
        /// Any bearer.
        Bearer {} = 2,
    }
}

aspen_api::record! {
    /// Something that a token says beside what it allows, for programs that know the name.
    pub struct Fact {
        /// Its name.
        pub name: String [MAX_FACT_NAME_BYTES],
        /// Its value.
        pub value: Bytes [MAX_FACT_VALUE_BYTES],
    }

    /// What a token says.
    pub struct Claims {
        /// Format; 1.
        pub version: u8,
        /// Who signed it.
        pub issuer: EntityId,
        /// Who may use it.
        pub audience: Audience,
        /// What it allows, at most 32.
        pub capabilities: Vec<Capability> [MAX_TOKEN_CAPABILITIES],
        /// When it was issued, Unix seconds.
        pub issued_at: u64,
        /// From when on it is worthless, Unix seconds.
        pub expires_at: u64,
        /// 16 random bytes that tell equal tokens apart.
        pub nonce: Option<Bytes> [NONCE_BYTES],
        /// The token that allowed the issuer to hand this on; none if the issuer is a root.
        pub proof: Option<Bytes> [MAX_TOKEN_BYTES],
        /// Tokens in the chain before this one.
        pub delegation_depth: u8,
        /// What it says beside, at most 16.
        pub facts: Vec<Fact> [MAX_TOKEN_FACTS],
    }
}

impl Claims {
    /// Claims of a root for a time that begins at `issued_at`, Unix seconds.
    pub fn root(
        issuer: EntityId,
        audience: Audience,
        capabilities: Vec<Capability>,
        issued_at: u64,
        expires_at: u64,
    ) -> Self {
        Self {
            version: VERSION,
            issuer,
            audience,
            capabilities,
            issued_at,
            expires_at,
            nonce: None,
            proof: None,
            delegation_depth: 0,
            facts: Vec::new(),
        }
    }
}

/// Names a token: BLAKE3 of its record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(pub [u8; 32]);

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenId({self})")
    }
}

impl TokenId {
    /// The name of the token with this record.
    pub fn of(record: &[u8]) -> Self {
        Self(*blake3::hash(record).as_bytes())
    }
}

/// The key of the store whose presence says that a token was revoked. It is to live as long as the
/// token would, so that nothing is kept of tokens that have expired.
pub fn revocation_key(token: &TokenId) -> Key {
    Key::new(format!("_sys:revoked-token/{token}")).expect("shorter than any limit, and ASCII")
}

/// A token whose signature is its issuer's. Whether the issuer may say so is for a verifier.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    claims: Claims,
    record: Bytes,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}, signature redacted)", self.id())
    }
}

impl Token {
    /// Signs claims; `issuer` becomes theirs.
    pub fn sign(issuer: &EntityKeypair, claims: Claims) -> Result<Self, TokenError> {
        let claims = Claims { issuer: issuer.entity_id(), ..claims };
        claims.check()?;
        let mut record = Vec::new();
        claims.put(&mut record);
        let signature = issuer.sign(DOMAIN, &record);
        record.extend_from_slice(&signature);
        match record.len() {
            len if len > MAX_TOKEN_BYTES => Err(TokenError::TooLong(len)),
            _ => Ok(Self { claims, record: record.into() }),
        }
    }

    /// Hands on: a token of `holder` that `self` allows, as far as [`crate::Verifier`] agrees.
    pub fn delegate(&self, holder: &EntityKeypair, claims: Claims) -> Result<Self, TokenError> {
        let claims = Claims {
            proof: Some(self.record.clone()),
            delegation_depth: self.claims.delegation_depth.saturating_add(1),
            ..claims
        };
        Self::sign(holder, claims)
    }

    /// Reads a record and checks its own signature.
    pub fn decode(record: Bytes) -> Result<Self, TokenError> {
        let token = Self::unchecked(record)?;
        token.check_signature()?;
        Ok(token)
    }

    /// Reads a record whose signature is to be checked before anything that it says is believed.
    pub(crate) fn unchecked(record: Bytes) -> Result<Self, TokenError> {
        if record.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::TooLong(record.len()));
        }
        let Some(at) = record.len().checked_sub(SIGNATURE_BYTES) else {
            let need = SIGNATURE_BYTES;
            return Err(DecodeError::Truncated { need, have: record.len() }.into());
        };
        if record[0] != VERSION {
            return Err(DecodeError::UnknownVersion(record[0]).into());
        }
        let claims = Claims::from_bytes(record.slice(..at))?;
        Ok(Self { claims, record })
    }

    pub(crate) fn check_signature(&self) -> Result<(), TokenError> {
        let (signed, signature) = self.record.split_at(self.record.len() - SIGNATURE_BYTES);
        let signature = Input::new(Bytes::copy_from_slice(signature)).array()?;
        verify(&self.claims.issuer, DOMAIN, signed, &signature).map_err(|_| TokenError::Damaged)
    }

    /// What it says.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// The record, for a request.
    pub fn record(&self) -> &Bytes {
        &self.record
    }

    /// Its name.
    pub fn id(&self) -> TokenId {
        TokenId::of(&self.record)
    }

    /// Its text.
    pub fn to_text(&self) -> SecretText {
        let upper = Zeroizing::new(BASE32_NOPAD.encode(&self.record));
        SecretText::new(format!("{PREFIX}{}", upper.to_ascii_lowercase()))
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let body = text.strip_prefix(PREFIX).ok_or(TokenError::Foreign)?;
        if body.len() > 2 * MAX_TOKEN_BYTES {
            return Err(TokenError::Foreign);
        }
        let upper = Zeroizing::new(body.to_ascii_uppercase());
        let record = BASE32_NOPAD.decode(upper.as_bytes()).map_err(|_| TokenError::Damaged)?;
        Self::decode(record.into())
    }
}

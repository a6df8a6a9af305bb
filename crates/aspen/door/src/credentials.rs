//! Credentials of foreign protocols and the capability tokens that they stand for.
//!
//! A door picks the mapping of its protocol. A credential that cannot be mapped is an error and never
//! counts as none.

use core::str::FromStr;

use aspen_api::{ApiError, ErrorCode};
use aspen_auth::{Token, TokenError};
use bytes::Bytes;
use thiserror::Error;

/// The capability token of a caller, or none.
#[derive(Clone)]
pub struct Credentials(Option<Bytes>);

/// Why credentials stand for no token.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CredentialsError {
    /// The scheme is not `Bearer`, or the text is not ASCII.
    #[error("credentials must have the form \"Bearer TOKEN\"")]
    Scheme,
    /// There is more than one.
    #[error("the request has more than one set of credentials")]
    Several,
    /// The text is not a capability token.
    #[error(transparent)]
    Token(#[from] TokenError),
}

impl From<CredentialsError> for ApiError {
    fn from(error: CredentialsError) -> Self {
        Self::new(ErrorCode::Unauthorized, error.to_string())
    }
}

impl Credentials {
    /// The mapping of HTTP's `Authorization: Bearer TOKEN` (RFC 6750). `headers` are the values of all
    /// `Authorization` headers of a request.
    pub fn bearer<'h>(
        headers: impl IntoIterator<Item = &'h [u8]>,
    ) -> Result<Self, CredentialsError> {
        let mut headers = headers.into_iter();
        let Some(header) = headers.next() else { return Ok(Self(None)) };
        if headers.next().is_some() {
            return Err(CredentialsError::Several);
        }
        let text = str::from_utf8(header).map_err(|_| CredentialsError::Scheme)?;
        match text.trim().split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.parse(),
            _ => Err(CredentialsError::Scheme),
        }
    }

    /// The record to pass to [`Services::call`](aspen_api::service::Services::call).
    pub fn token(&self) -> Option<&Bytes> {
        self.0.as_ref()
    }
}

impl FromStr for Credentials {
    type Err = CredentialsError;

    /// Reads the text of a capability token.
    fn from_str(text: &str) -> Result<Self, CredentialsError> {
        let token: Token = text.trim().parse()?;
        Ok(Self(Some(token.record().clone())))
    }
}

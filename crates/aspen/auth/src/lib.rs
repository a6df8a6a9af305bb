//! Capability tokens: who may do what, without asking anybody.
//!
//! A token ([`Token`]) is a list of [`Capability`] that an identity has signed, for one identity or
//! for any bearer. Its holder may hand on a narrower one; the chain ends at an issuer that the
//! verifier trusts as a root ([`Verifier`]). What a request needs stands at its declaration, and
//! [`Grant::permits`] compares the two. Nothing here performs I/O, reads a clock or remembers anything.
//!
//! The design follows macaroons and biscuits in that a token is verified offline and delegated by
//! its holder, with signatures in place of shared keys.

mod access;
mod capability;
mod token;
mod verify;

pub use access::{Denied, Grant};
pub use capability::{Capability, CapabilityError};
pub use token::{Audience, Claims, Fact, Token, TokenError, TokenId, revocation_key};
pub use verify::{Rejection, Verified, Verifier};

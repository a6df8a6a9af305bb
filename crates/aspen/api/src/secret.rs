//! Text that must not appear in logs.

use core::fmt;

use net_types::limits::MAX_TEXT_ANSWER_BYTES;
use zeroize::Zeroizing;

use crate::codec::{Bounded, DecodeError, Input, Wire};

/// Text that `Debug` does not show and that is overwritten when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(Zeroizing<String>);

impl SecretText {
    /// Takes ownership of `text`.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text, for the one place that must show or store it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} secret bytes>", self.0.len())
    }
}

impl Wire for SecretText {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put_bounded(out);
    }

    fn take(input: &mut Input) -> Result<Self, DecodeError> {
        String::take_bounded(input, "secret text", MAX_TEXT_ANSWER_BYTES).map(Self::new)
    }

    fn check(&self) -> Result<(), DecodeError> {
        self.0.check_bounded("secret text", MAX_TEXT_ANSWER_BYTES)
    }

    fn size_hint(&self) -> usize {
        self.0.len() + 5
    }
}

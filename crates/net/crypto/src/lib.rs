//! Identity and cryptography.

//! Bounds-checked reading. Writing is appending to a `Vec<u8>`.

use thiserror::Error;

/// Why bytes are not the frame they were taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The frame ends early; both counts are bytes from the start of the frame.
    #[error("truncated: {need} bytes needed, {have} present")]
    Truncated {
        /// Bytes the frame needs at least.
        need: usize,
        /// Bytes present.
        have: usize,
    },
    /// Bytes follow the end of the frame.
    #[error("{0} bytes follow the end of the frame")]
    TrailingBytes(usize),
    /// A number is not in the registry.
    #[error("unknown {what} {value}")]
    UnknownTag {
        /// What the number stands for.
        what: &'static str,
        /// The number.
        value: u64,
    },
    /// The frame has a version this build does not read.
    #[error("unknown version {0}")]
    UnknownVersion(u8),
    /// A count or length is outside its limit.
    #[error("bad length of {what}: {found}, limit {limit}")]
    BadLength {
        /// What was counted.
        what: &'static str,
        /// The count or length found.
        found: usize,
        /// The largest one allowed.
        limit: usize,
    },
    /// A field holds a value that no sender produces.
    #[error("bad {0}")]
    BadValue(&'static str),
}

/// A cursor over a frame.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// A cursor at the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next `n` bytes.
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], DecodeError> {
        let need = self.at.saturating_add(n);
        let out = self
            .bytes
            .get(self.at..need)
            .ok_or(DecodeError::Truncated { need, have: self.bytes.len() })?;
        self.at = need;
        Ok(out)
    }

    /// The next `N` bytes as an array.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut out = [0u8; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|b| b[0])
    }

    /// A little-endian u16.
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_le_bytes)
    }

    /// A little-endian u32.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_le_bytes)
    }

    /// A little-endian u64.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_le_bytes)
    }

    /// A count that must not exceed `limit`, already read as `value`.
    pub fn bounded(
        &self,
        what: &'static str,
        value: usize,
        limit: usize,
    ) -> Result<usize, DecodeError> {
        if value > limit {
            return Err(DecodeError::BadLength { what, found: value, limit });
        }
        Ok(value)
    }

    /// Bytes read so far.
    pub fn position(&self) -> usize {
        self.at
    }

    /// All bytes not read yet; the cursor moves to the end.
    pub fn rest(&mut self) -> &'a [u8] {
        let out = &self.bytes[self.at..];
        self.at = self.bytes.len();
        out
    }

    /// Succeeds only at the end of the frame.
    pub fn finish(self) -> Result<(), DecodeError> {
        match self.bytes.len() - self.at {
            0 => Ok(()),
            n => Err(DecodeError::TrailingBytes(n)),
        }
    }
}

#[cfg(test)]
pub(crate) mod golden {
    //! Shared by the golden tests: hexadecimal in, hexadecimal out.

    pub(crate) fn hex(bytes: &[u8]) -> String {
        data_encoding::HEXLOWER.encode(bytes)
    }
}

//! Bounds-checked reading. Writing is appending to a `Vec<u8>`.
//!
//! A cursor never passes the end of its buffer.

use bytes::Bytes;
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

/// Bytes that a [`Cursor`] reads.
pub trait Buffer: AsRef<[u8]> {
    /// The `n` bytes from `at`, which the buffer has; nothing is copied.
    fn part(&self, at: usize, n: usize) -> Self;
}

impl Buffer for &[u8] {
    fn part(&self, at: usize, n: usize) -> Self {
        &self[at..][..n]
    }
}

impl Buffer for Bytes {
    fn part(&self, at: usize, n: usize) -> Self {
        self.slice(at..at + n)
    }
}

/// The next byte to read of a buffer. What it hands out are parts of the buffer.
#[derive(Clone, Debug)]
pub struct Cursor<B> {
    bytes: B,
    at: usize,
}

/// A cursor over a borrowed frame.
pub type Reader<'a> = Cursor<&'a [u8]>;

impl<B: Buffer> Cursor<B> {
    /// A cursor at the start of `bytes`.
    pub fn new(bytes: B) -> Self {
        Self { bytes, at: 0 }
    }

    /// What `read` makes of `bytes`, which it must read to their end.
    pub(crate) fn whole<T>(
        bytes: B,
        read: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<T, DecodeError> {
        let mut cursor = Self::new(bytes);
        let value = read(&mut cursor)?;
        cursor.finish()?;
        Ok(value)
    }

    /// The next `n` bytes.
    #[inline]
    pub fn take(&mut self, n: usize) -> Result<B, DecodeError> {
        if n > self.remaining() {
            return Err(self.truncated(n));
        }
        let out = self.bytes.part(self.at, n);
        self.at += n;
        Ok(out)
    }

    /// The next `N` bytes as an array.
    #[inline]
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let unread = &self.bytes.as_ref()[self.at..];
        let out = *unread.first_chunk().ok_or_else(|| self.truncated(N))?;
        self.at += N;
        Ok(out)
    }

    /// One byte.
    #[inline]
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

    /// A LEB128 integer of at most 64 bits in its shortest form.
    #[inline]
    pub fn varint(&mut self) -> Result<u64, DecodeError> {
        // Counts and numbers of variants have one byte nearly always.
        match self.bytes.as_ref().get(self.at) {
            Some(&byte) if byte < 0x80 => {
                self.at += 1;
                Ok(byte.into())
            }
            Some(_) | None => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let low = u64::from(byte & 0x7f);
            if (shift == 63 && low > 1) || (byte == 0 && shift > 0) {
                return Err(DecodeError::BadValue("integer"));
            }
            value |= low << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::BadValue("integer"))
    }

    /// A LEB128 count of at most `limit`.
    #[inline]
    pub fn count(&mut self, what: &'static str, limit: usize) -> Result<usize, DecodeError> {
        let found = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
        self.bounded(what, found, limit)
    }

    /// A count that must not exceed `limit`, already read as `value`.
    #[inline]
    pub fn bounded(
        &self,
        what: &'static str,
        value: usize,
        limit: usize,
    ) -> Result<usize, DecodeError> {
        within(what, value, limit).map(|()| value)
    }

    /// Bytes read so far.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.bytes.as_ref().len() - self.at
    }

    /// All bytes not read yet; the cursor moves to the end.
    pub fn rest(&mut self) -> B {
        let n = self.remaining();
        let out = self.bytes.part(self.at, n);
        self.at += n;
        out
    }

    /// Succeeds only at the end of the buffer.
    pub fn finish(self) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => Ok(()),
            n => Err(DecodeError::TrailingBytes(n)),
        }
    }

    fn truncated(&self, n: usize) -> DecodeError {
        let have = self.bytes.as_ref().len();
        DecodeError::Truncated { need: self.at.saturating_add(n), have }
    }
}

/// Whether a count is within its limit.
#[inline]
pub fn within(what: &'static str, found: usize, limit: usize) -> Result<(), DecodeError> {
    if found > limit {
        return Err(DecodeError::BadLength { what, found, limit });
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod golden {
    //! Shared by the golden tests: hexadecimal in, hexadecimal out.

    pub(crate) fn hex(bytes: &[u8]) -> String {
        data_encoding::HEXLOWER.encode(bytes)
    }
}

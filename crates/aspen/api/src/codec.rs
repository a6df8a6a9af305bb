//! The encoding of request and response bodies, log commands and stored rows.
//!
//! Structs have postcard's layout: fields in order, unsigned integers wider than a byte as LEB128,
//! `u8` and `bool` as one byte, byte strings and lists behind their count, an option behind 0 or 1.
//! Unlike postcard's derive, an enum carries an explicit number, so that reordering variants cannot
//! change the format, and every count has a limit that is checked before anything is allocated.
//! Byte strings are slices of the input: decoding a value copies nothing.
//!
//! [`record!`](crate::record), [`choice!`](crate::choice) and [`numbers!`](crate::numbers) declare
//! a type and its encoding together.

use bytes::Bytes;
use net_types::{EntityId, NodeId, PeerAddr};
use net_wire::{Cursor, decode_peer_addr, encode_peer_addr};

pub use net_wire::{DecodeError, within};

/// Elements of a list that are reserved for before they have been read.
const MAX_RESERVED_ELEMENTS: usize = 128;

/// A cursor over encoded bytes that hands out slices of them.
pub type Input = Cursor<Bytes>;

/// Appends `value` as LEB128.
pub fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A type with one encoding.
///
/// `take(put(x)) == x` for every `x` that passes [`Wire::check`], and no input makes `take` panic
/// or allocate more than the limits of its fields.
pub trait Wire: Sized {
    /// Appends the encoding.
    fn put(&self, out: &mut Vec<u8>);

    /// Reads one value. Counts above their limit are [`DecodeError::BadLength`].
    fn take(input: &mut Input) -> Result<Self, DecodeError>;

    /// The limits that [`Wire::take`] enforces, for a value that was built in memory.
    fn check(&self) -> Result<(), DecodeError> {
        Ok(())
    }

    /// About how many bytes [`Wire::put`] appends; a reservation, not a promise.
    fn size_hint(&self) -> usize {
        8
    }

    /// The encoding alone.
    fn to_bytes(&self) -> Bytes {
        let mut out = Vec::with_capacity(self.size_hint());
        self.put(&mut out);
        out.into()
    }

    /// Reads a value that fills `bytes` exactly.
    fn from_bytes(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut input = Input::new(bytes);
        let value = Self::take(&mut input)?;
        input.finish()?;
        Ok(value)
    }
}

/// A type whose length must be limited where it is used.
pub trait Bounded: Sized {
    /// Appends the encoding.
    fn put_bounded(&self, out: &mut Vec<u8>);
    /// Reads a value of at most `limit` elements or bytes.
    fn take_bounded(
        input: &mut Input,
        what: &'static str,
        limit: usize,
    ) -> Result<Self, DecodeError>;
    /// Whether a value built in memory has at most `limit` elements or bytes.
    fn check_bounded(&self, what: &'static str, limit: usize) -> Result<(), DecodeError>;
    /// See [`Wire::size_hint`].
    fn bounded_hint(&self) -> usize;
}

impl Bounded for Bytes {
    fn put_bounded(&self, out: &mut Vec<u8>) {
        put_varint(self.len() as u64, out);
        out.extend_from_slice(self);
    }

    fn take_bounded(
        input: &mut Input,
        what: &'static str,
        limit: usize,
    ) -> Result<Self, DecodeError> {
        let len = input.count(what, limit)?;
        input.take(len)
    }

    fn check_bounded(&self, what: &'static str, limit: usize) -> Result<(), DecodeError> {
        within(what, self.len(), limit)
    }

    fn bounded_hint(&self) -> usize {
        self.len() + 5
    }
}

impl Bounded for String {
    fn put_bounded(&self, out: &mut Vec<u8>) {
        put_varint(self.len() as u64, out);
        out.extend_from_slice(self.as_bytes());
    }

    fn take_bounded(
        input: &mut Input,
        what: &'static str,
        limit: usize,
    ) -> Result<Self, DecodeError> {
        let bytes = Bytes::take_bounded(input, what, limit)?;
        String::from_utf8(bytes.into()).map_err(|_| DecodeError::BadValue(what))
    }

    fn check_bounded(&self, what: &'static str, limit: usize) -> Result<(), DecodeError> {
        within(what, self.len(), limit)
    }

    fn bounded_hint(&self) -> usize {
        self.len() + 5
    }
}

impl<T: Wire> Bounded for Vec<T> {
    fn put_bounded(&self, out: &mut Vec<u8>) {
        put_varint(self.len() as u64, out);
        self.iter().for_each(|element| element.put(out));
    }

    fn take_bounded(
        input: &mut Input,
        what: &'static str,
        limit: usize,
    ) -> Result<Self, DecodeError> {
        let count = input.count(what, limit)?;
        let mut out = Vec::with_capacity(count.min(MAX_RESERVED_ELEMENTS));
        for _ in 0..count {
            out.push(T::take(input)?);
        }
        Ok(out)
    }

    fn check_bounded(&self, what: &'static str, limit: usize) -> Result<(), DecodeError> {
        within(what, self.len(), limit)?;
        self.iter().try_for_each(Wire::check)
    }

    fn bounded_hint(&self) -> usize {
        5 + self.iter().map(Wire::size_hint).sum::<usize>()
    }
}

impl<T: Bounded> Bounded for Option<T> {
    fn put_bounded(&self, out: &mut Vec<u8>) {
        out.push(self.is_some().into());
        if let Some(value) = self {
            value.put_bounded(out);
        }
    }

    fn take_bounded(
        input: &mut Input,
        what: &'static str,
        limit: usize,
    ) -> Result<Self, DecodeError> {
        bool::take(input)?.then(|| T::take_bounded(input, what, limit)).transpose()
    }

    fn check_bounded(&self, what: &'static str, limit: usize) -> Result<(), DecodeError> {
        self.as_ref().map_or(Ok(()), |value| value.check_bounded(what, limit))
    }

    fn bounded_hint(&self) -> usize {
        1 + self.as_ref().map_or(0, Bounded::bounded_hint)
    }
}

impl<T: Wire> Wire for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(self.is_some().into());
        if let Some(value) = self {
            value.put(out);
        }
    }

    fn take(input: &mut Input) -> Result<Self, DecodeError> {
        bool::take(input)?.then(|| T::take(input)).transpose()
    }

    fn check(&self) -> Result<(), DecodeError> {
        self.as_ref().map_or(Ok(()), Wire::check)
    }

    fn size_hint(&self) -> usize {
        1 + self.as_ref().map_or(0, Wire::size_hint)
    }
}

impl Wire for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push((*self).into());
    }

    fn take(input: &mut Input) -> Result<Self, DecodeError> {
        match input.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::BadValue("flag")),
        }
    }
}

impl Wire for u8 {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(*self);
    }

    fn take(input: &mut Input) -> Result<Self, DecodeError> {
        input.u8()
    }
}

impl Wire for u32 {
    fn put(&self, out: &mut Vec<u8>) {
        put_varint((*self).into(), out);
    }

    fn take(input: &mut Input) -> Result<Self, DecodeError> {
        u32::try_from(input.varint()?).map_err(|_| DecodeError::BadValue("integer"))
    }
}

impl Wire for u64 {
    fn put(&self, out: &mut Vec<u8>) {
        put_varint(*self, out);
    }

    fn take(input: &mut Input) -> Result<Self, DecodeError> {
        input.varint()
    }
}

impl Wire for EntityId {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }

    fn take(input: &mut Input) -> Result<Self, DecodeError> {
        input.array().map(EntityId)
    }

    fn size_hint(&self) -> usize {
        32
    }
}

impl Wire for NodeId {
    fn put(&self, out: &mut Vec<u8>) {
        put_varint(self.0, out);
    }

    fn take(input: &mut Input) -> Result<Self, DecodeError> {
        input.varint().map(NodeId)
    }
}

impl Wire for PeerAddr {
    fn put(&self, out: &mut Vec<u8>) {
        encode_peer_addr(self, out);
    }

    fn take(input: &mut Input) -> Result<Self, DecodeError> {
        decode_peer_addr(input)
    }

    fn check(&self) -> Result<(), DecodeError> {
        within("addresses", self.addrs.len(), net_types::limits::MAX_PEER_ADDRS)?;
        within("relays", self.relays.len(), net_types::limits::MAX_PEER_RELAYS)
    }

    fn size_hint(&self) -> usize {
        34 + 19 * self.addrs.len() + 32 * self.relays.len()
    }
}

/// Picks the limited or the plain form of a field's codec.
#[doc(hidden)]
#[macro_export]
macro_rules! field {
    (put $value:expr, $out:expr,) => {
        $crate::codec::Wire::put($value, $out)
    };
    (put $value:expr, $out:expr, $max:expr) => {
        $crate::codec::Bounded::put_bounded($value, $out)
    };
    (take $name:ident, $input:expr,) => {
        $crate::codec::Wire::take($input)
    };
    (take $name:ident, $input:expr, $max:expr) => {
        $crate::codec::Bounded::take_bounded($input, stringify!($name), $max)
    };
    (check $name:ident, $value:expr,) => {
        $crate::codec::Wire::check($value)
    };
    (check $name:ident, $value:expr, $max:expr) => {
        $crate::codec::Bounded::check_bounded($value, stringify!($name), $max)
    };
    (hint $value:expr,) => {
        $crate::codec::Wire::size_hint($value)
    };
    (hint $value:expr, $max:expr) => {
        $crate::codec::Bounded::bounded_hint($value)
    };
}

/// Declares structs with their encoding: the fields in order.
///
/// A field written `name: Type [limit]` is a byte string, text or list of at most `limit` bytes or
/// elements.
#[macro_export]
macro_rules! record {
    ($(
        $(#[$meta:meta])*
        pub struct $name:ident {
            $( $(#[$field_meta:meta])* pub $field:ident : $ty:ty $([$max:expr])? , )*
        }
    )*) => { $(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name {
            $( $(#[$field_meta])* pub $field: $ty, )*
        }

        impl $crate::codec::Wire for $name {
            #[allow(unused_variables)]
            fn put(&self, out: &mut Vec<u8>) {
                $( $crate::field!(put &self.$field, out, $($max)?); )*
            }

            #[allow(unused_variables)]
            fn take(input: &mut $crate::codec::Input) -> Result<Self, $crate::codec::DecodeError> {
                Ok(Self { $( $field: $crate::field!(take $field, input, $($max)?)?, )* })
            }

            fn check(&self) -> Result<(), $crate::codec::DecodeError> {
                $( $crate::field!(check $field, &self.$field, $($max)?)?; )*
                Ok(())
            }

            fn size_hint(&self) -> usize {
                0 $( + $crate::field!(hint &self.$field, $($max)?) )*
            }
        }
    )* };
}

/// Declares enums whose variants carry an explicit number, encoded as one byte, and named fields.
#[macro_export]
macro_rules! choice {
    ($(
        $(#[$meta:meta])*
        pub enum $name:ident {
            $(
                $(#[$variant_meta:meta])*
                $variant:ident {
                    $( $(#[$field_meta:meta])* $field:ident : $ty:ty $([$max:expr])? , )*
                } = $number:literal,
            )*
        }
    )*) => { $(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum $name {
            $( $(#[$variant_meta])* $variant { $( $(#[$field_meta])* $field: $ty, )* }, )*
        }

        impl $crate::codec::Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                match self {
                    $( Self::$variant { $($field),* } => {
                        out.push($number);
                        $( $crate::field!(put $field, out, $($max)?); )*
                    } )*
                }
            }

            fn take(input: &mut $crate::codec::Input) -> Result<Self, $crate::codec::DecodeError> {
                match input.u8()? {
                    $( $number => Ok(Self::$variant {
                        $( $field: $crate::field!(take $field, input, $($max)?)?, )*
                    }), )*
                    other => Err($crate::codec::DecodeError::UnknownTag {
                        what: stringify!($name),
                        value: other.into(),
                    }),
                }
            }

            fn check(&self) -> Result<(), $crate::codec::DecodeError> {
                match self {
                    $( Self::$variant { $($field),* } => {
                        $( $crate::field!(check $field, $field, $($max)?)?; )*
                    } )*
                }
                Ok(())
            }

            fn size_hint(&self) -> usize {
                match self {
                    $( Self::$variant { $($field),* } => {
                        1 $( + $crate::field!(hint $field, $($max)?) )*
                    } )*
                }
            }
        }
    )* };
}

/// Declares enums that are nothing but a number, encoded as one byte. Where texts call a variant
/// otherwise than the source does, it is written `Variant = 1 as "name"`.
#[macro_export]
macro_rules! numbers {
    (@name $variant:ident) => { stringify!($variant) };
    (@name $variant:ident $label:literal) => { $label };
    ($(
        $(#[$meta:meta])*
        pub enum $name:ident {
            $( $(#[$variant_meta:meta])* $variant:ident = $number:literal $(as $label:literal)?, )*
        }
    )*) => { $(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum $name {
            $( $(#[$variant_meta])* $variant = $number, )*
        }

        impl $name {
            /// Every variant, by number.
            pub const ALL: &'static [Self] = &[ $( Self::$variant, )* ];

            /// The variant's name in texts.
            pub fn name(self) -> &'static str {
                match self {
                    $( Self::$variant => $crate::numbers!(@name $variant $($label)?), )*
                }
            }
        }

        impl $crate::codec::Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                out.push(*self as u8);
            }

            fn take(input: &mut $crate::codec::Input) -> Result<Self, $crate::codec::DecodeError> {
                match input.u8()? {
                    $( $number => Ok(Self::$variant), )*
                    other => Err($crate::codec::DecodeError::UnknownTag {
                        what: stringify!($name),
                        value: other.into(),
                    }),
                }
            }

            fn size_hint(&self) -> usize {
                1
            }
        }
    )* };
}

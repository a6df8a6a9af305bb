//! Arbitrary bytes as messages between members.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    aspen_cluster::decode_anything(Bytes::copy_from_slice(input));
});

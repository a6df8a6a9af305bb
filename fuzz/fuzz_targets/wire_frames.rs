//! Arbitrary bytes as every frame of the wire; what decodes encodes to the same bytes again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use net_types::limits::HEADER_BYTES;
use net_wire::Header;

fuzz_target!(|input: &[u8]| {
    net_wire::decode_anything(input);
    if let Ok(header) = Header::decode(input) {
        assert_eq!(header.encode()[..], input[..HEADER_BYTES]);
    }
});

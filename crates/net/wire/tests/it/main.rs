//! Damage to any frame is an error or another valid frame, never a panic.

use net_wire::decode_anything;
use proptest::prelude::*;

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        decode_anything(&bytes);
    }

    #[test]
    fn damaged_headers_never_panic(
        mut bytes in Just(sample_header()),
        flips in proptest::collection::vec((0usize..64, any::<u8>()), 1..6),
        cut in 0usize..65,
    ) {
        for (at, value) in flips {
            bytes[at] ^= value;
        }
        decode_anything(&bytes[..cut]);
    }
}

fn sample_header() -> Vec<u8> {
    let header = net_wire::Header::new(net_wire::Kind::Data, net_types::SessionId(1), 2);
    header.encode().to_vec()
}

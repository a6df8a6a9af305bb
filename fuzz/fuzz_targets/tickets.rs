//! Arbitrary text, and arbitrary records with a correct checksum, as tickets of meshes and
//! clusters; a ticket that parses prints as a text that parses to the same ticket.

#![no_main]

use aspen_api::ClusterTicket;
use data_encoding::BASE32_NOPAD;
use libfuzzer_sys::fuzz_target;
use net_wire::MeshTicket;
use xxhash_rust::xxh3::xxh3_64;

fuzz_target!(|input: &[u8]| {
    if let Ok(text) = str::from_utf8(input) {
        parse(text);
    }
    let checksum = (xxh3_64(input) as u32).to_le_bytes();
    let record = BASE32_NOPAD.encode(&[input, &checksum].concat()).to_ascii_lowercase();
    parse(&format!("net1{record}"));
    parse(&format!("aspen{record}"));
});

fn parse(text: &str) {
    if let Ok(ticket) = text.parse::<MeshTicket>() {
        assert_eq!(ticket.to_string().parse(), Ok(ticket));
    }
    if let Ok(ticket) = text.parse::<ClusterTicket>() {
        assert_eq!(ticket.to_text().expose().parse(), Ok(ticket));
    }
}

//! Arbitrary text, and arbitrary records with a correct checksum or signature, as tickets of
//! clusters and as capability tokens; what parses prints as a text that parses to the same.

#![no_main]

use aspen_api::ClusterTicket;
use aspen_auth::{Token, Verifier};
use data_encoding::BASE32_NOPAD;
use libfuzzer_sys::fuzz_target;
use net_crypto::EntityKeypair;
use xxhash_rust::xxh3::xxh3_64;

fuzz_target!(|input: &[u8]| {
    if let Ok(text) = str::from_utf8(input) {
        parse(text);
    }
    let checksum = (xxh3_64(input) as u32).to_le_bytes();
    let record = BASE32_NOPAD.encode(&[input, &checksum].concat()).to_ascii_lowercase();
    parse(&format!("aspen{record}"));
    token(&EntityKeypair::from_seed([1; 32]), input);
});

fn parse(text: &str) {
    if let Ok(token) = text.parse::<Token>() {
        assert_eq!(token.to_text().expose().parse(), Ok(token));
    }
    if let Ok(ticket) = text.parse::<ClusterTicket>() {
        assert_eq!(ticket.to_text().expose().parse(), Ok(ticket));
    }
}

/// Arbitrary claims behind the right issuer, rightly signed, and what a verifier makes of them.
fn token(key: &EntityKeypair, claims: &[u8]) {
    let issuer = key.entity_id();
    let record = [&[1], &issuer.as_bytes()[..], claims].concat();
    let signature = key.sign(b"aspen-token-v1", &record);
    if let Ok(token) = Token::decode([&record[..], &signature].concat().into()) {
        assert_eq!(token.to_text().expose().parse().as_ref(), Ok(&token));
        let _ = Verifier { roots: &[issuer], caller: Some(issuer), now: 0 }
            .verify(token.record().clone());
    }
}

//! Arbitrary handshake messages for a node that dials and one that answers; the genuine Response
//! still finishes the attempt afterwards.

#![no_main]

use aspen_fuzz::Choices;
use libfuzzer_sys::fuzz_target;
use net_crypto::{
    EntityKeypair, Initiator, MacKeys, MeshSecret, Responder, SEALED_COOKIE_BYTES, check_entity_id,
    x25519_public,
};
use net_types::EntityId;

fuzz_target!(|input: &[u8]| {
    let mut choices = Choices::new(input);
    let (client, server) = (EntityKeypair::from_seed([1; 32]), EntityKeypair::from_seed([2; 32]));
    let secret = MeshSecret::new([3; 32]);
    let id = server.entity_id();

    let (mut initiator, init) =
        Initiator::start(&client, &id, &secret, [4; 32], b"hello").expect("usable keys");
    // The genuine Init with some of its bytes replaced.
    let mut changed = init.clone();
    for _ in 0..choices.byte() % 4 {
        let at = usize::from(choices.byte()) % changed.len();
        changed[at] = choices.byte();
    }
    let read = Responder::read_init(&server, &secret, [5; 32], &changed);
    assert_eq!(read.is_ok(), changed == init);
    let _ = Responder::read_init(&server, &secret, [5; 32], choices.block());

    let (responder, _) = Responder::read_init(&server, &secret, [5; 32], &init).expect("genuine");
    let (answered, response) = responder.finish(b"welcome").expect("a short payload");
    assert!(initiator.finish(choices.block()).is_err());
    let mut changed = response.clone();
    let at = usize::from(choices.byte()) % changed.len();
    changed[at] ^= choices.byte();
    if changed != response {
        assert!(initiator.finish(&changed).is_err());
    }
    let (dialled, _) = initiator.finish(&response).expect("the genuine Response");
    assert_eq!(dialled.session_id, answered.session_id);

    let mut key = [0u8; 32];
    let rest = choices.bytes(32);
    key[..rest.len()].copy_from_slice(rest);
    assert_eq!(check_entity_id(&key).is_ok(), x25519_public(&EntityId(key)).is_ok());
    let mut sealed = [0u8; SEALED_COOKIE_BYTES];
    let rest = choices.bytes(SEALED_COOKIE_BYTES);
    sealed[..rest.len()].copy_from_slice(rest);
    assert!(MacKeys::new(&secret, &id).open_cookie(&[0; 12], &[0; 16], &sealed).is_err());
});

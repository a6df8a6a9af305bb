//! The handshake between honest ends, and what each kind of wrong message does to it.

use data_encoding::HEXLOWER;
use proptest::prelude::*;

use super::*;
use crate::aead::{DirectionKeys, OpenKey, SealKey, Suite};
use crate::entity::x25519_public;

struct Pair {
    client: EntityKeypair,
    server: EntityKeypair,
    secret: MeshSecret,
}

fn pair() -> Pair {
    Pair {
        client: EntityKeypair::from_seed([1; 32]),
        server: EntityKeypair::from_seed([2; 32]),
        secret: MeshSecret::new([3; 32]),
    }
}

impl Pair {
    fn dial(&self, payload: &[u8]) -> (Initiator, Vec<u8>) {
        Initiator::start(&self.client, &self.server.entity_id(), &self.secret, [4; 32], payload)
            .unwrap()
    }

    fn answer(&self, init: &[u8]) -> Result<(Responder, InitPayload), NoiseError> {
        Responder::read_init(&self.server, &self.secret, [5; 32], init)
    }
}

fn opens(from: &DirectionSecret, to: &DirectionSecret) -> bool {
    let suite = Suite::ChaCha20Poly1305;
    let mut bytes = *b"body0123456789abcdef";
    let seal = SealKey::new(suite, &DirectionKeys::derive(from, suite));
    let tag = seal.seal_in_place(0, b"", &mut bytes[..4]).unwrap();
    bytes[4..].copy_from_slice(&tag);
    OpenKey::new(suite, &DirectionKeys::derive(to, suite)).open_in_place(0, b"", &mut bytes).is_ok()
}

#[test]
fn both_sides_end_with_the_same_session_and_mirrored_directions() {
    let p = pair();
    let (mut initiator, init) = p.dial(b"hello");
    assert_eq!(init.len(), INIT_OVERHEAD_BYTES + 5);
    let (responder, read) = p.answer(&init).unwrap();
    assert_eq!(read.payload, b"hello");
    assert_eq!(read.remote_static, x25519_public(&p.client.entity_id()).unwrap());

    let (server, response) = responder.finish(b"welcome!").unwrap();
    assert_eq!(response.len(), RESPONSE_OVERHEAD_BYTES + 8);
    let (client, payload) = initiator.finish(&response).unwrap();
    assert_eq!(payload, b"welcome!");
    assert_eq!(client.session_id, server.session_id);
    assert_ne!(client.session_id.0, 0);
    assert_eq!(client.remote_static, x25519_public(&p.server.entity_id()).unwrap());
    assert_eq!(server.remote_static, read.remote_static);
    assert!(opens(&client.send, &server.receive) && opens(&server.send, &client.receive));
    assert!(!opens(&client.send, &client.receive), "directions have keys of their own");
}

#[test]
fn the_bytes_of_a_handshake_never_change() {
    let p = pair();
    let (mut initiator, init) = p.dial(b"a");
    let (responder, _) = p.answer(&init).unwrap();
    let (server, response) = responder.finish(b"b").unwrap();
    let (client, _) = initiator.finish(&response).unwrap();
    assert_eq!(
        HEXLOWER.encode(&init),
        "325420fcc13cc3a0f84d673c85f59c6c2764afa49e256068c04025fb1855ef17006ad74cbb4c012ce68898203014f3f448b633d7edb5e484ced0d4d83edae1bbc76f6e0d804e482c08911c12c903c07a294ad66cdb1be78e88afddaa225f9ef964"
    );
    assert_eq!(
        HEXLOWER.encode(&response),
        "e2f7ef50c811d6e64b901eed154ec2436e5a2a1eb9a2f82a40ccd1ea11ea114441a9b0cec7b43d5a0dd8374e42f38dbccc"
    );
    assert_eq!(client.session_id.to_string(), "274d9548ca23328c");
    let keys = DirectionKeys::derive(&server.send, Suite::Aes256Gcm);
    let mut body = [0u8; 4];
    let tag = SealKey::new(Suite::Aes256Gcm, &keys).seal_in_place(1, b"", &mut body).unwrap();
    assert_eq!(HEXLOWER.encode(&tag), "d5d90c1cc05fac85f9a5706c8b27d1f4");
}

#[test]
fn another_seed_gives_another_session() {
    let p = pair();
    let (_, init) = p.dial(b"");
    let id = |seed| {
        let (responder, _) = Responder::read_init(&p.server, &p.secret, seed, &init).unwrap();
        responder.finish(b"").unwrap().0.session_id
    };
    assert_ne!(id([5; 32]), id([6; 32]));
    assert_eq!(id([5; 32]), id([5; 32]));
    let other = Initiator::start(&p.client, &p.server.entity_id(), &p.secret, [9; 32], b"");
    assert_ne!(other.unwrap().1[..EPHEMERAL_BYTES], init[..EPHEMERAL_BYTES]);
}

#[test]
fn a_node_other_than_the_dialled_one_cannot_read_the_init() {
    let p = pair();
    let (_, init) = p.dial(b"hello");
    let stranger = EntityKeypair::from_seed([9; 32]);
    let read = Responder::read_init(&stranger, &p.secret, [5; 32], &init);
    assert_eq!(read.err(), Some(NoiseError::Authentication));
}

#[test]
fn a_wrong_secret_is_noticed_by_the_initiator() {
    // psk2 enters with the second message: the responder, whose packets mac1 already filters, can
    // read the Init, but its Response proves that it lacks the secret.
    let p = pair();
    let (mut initiator, init) = p.dial(b"");
    let wrong = MeshSecret::new([8; 32]);
    let (responder, _) = Responder::read_init(&p.server, &wrong, [5; 32], &init).unwrap();
    let (_, response) = responder.finish(b"").unwrap();
    assert_eq!(initiator.finish(&response).err(), Some(NoiseError::Authentication));
}

#[test]
fn forged_responses_do_not_end_the_attempt() {
    let p = pair();
    let (mut initiator, init) = p.dial(b"");
    let (responder, _) = p.answer(&init).unwrap();
    let (server, response) = responder.finish(b"genuine").unwrap();

    assert_eq!(initiator.finish(&[]).err(), Some(NoiseError::Truncated));
    assert_eq!(initiator.finish(&response[..47]).err(), Some(NoiseError::Truncated));
    // A response under an ephemeral key of the forger, one with a zero (low-order) key, and
    // damaged ones.
    let other = EntityKeypair::from_seed([7; 32]);
    let (_, other_init) =
        Initiator::start(&p.client, &other.entity_id(), &p.secret, [6; 32], b"").unwrap();
    let (forger, _) = Responder::read_init(&other, &p.secret, [7; 32], &other_init).unwrap();
    let (_, forged) = forger.finish(b"genuine").unwrap();
    assert_eq!(initiator.finish(&forged).err(), Some(NoiseError::Authentication));
    assert_eq!(initiator.finish(&[0; 55]).err(), Some(NoiseError::Authentication));
    for at in 0..response.len() {
        let mut damaged = response.clone();
        damaged[at] ^= 1;
        assert_eq!(initiator.finish(&damaged).err(), Some(NoiseError::Authentication), "byte {at}");
    }

    let (client, payload) = initiator.finish(&response).unwrap();
    assert_eq!((client.session_id, &payload[..]), (server.session_id, &b"genuine"[..]));
    assert!(opens(&client.send, &server.receive) && opens(&server.send, &client.receive));
    assert_eq!(initiator.finish(&response).err(), Some(NoiseError::Finished));
}

#[test]
fn unusable_ids_and_payloads_are_refused_before_anything_is_sent() {
    let p = pair();
    let weak = EntityId([0; 32]);
    let start = |id: &EntityId, payload: &[u8]| {
        Initiator::start(&p.client, id, &p.secret, [4; 32], payload).err()
    };
    assert_eq!(start(&weak, b""), Some(NoiseError::ResponderKey));
    let id = p.server.entity_id();
    assert_eq!(start(&id, &vec![0; 65_535 - 95]), Some(NoiseError::PayloadTooLong));
    assert_eq!(start(&id, &vec![0; 65_535 - 96]), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_damaged_init_is_refused(
        payload in proptest::collection::vec(any::<u8>(), 0..100),
        damage: prop::sample::Index,
        bit in 0u8..8,
        cut: prop::sample::Index,
    ) {
        let p = pair();
        let (_, init) = p.dial(&payload);
        prop_assert_eq!(p.answer(&init).unwrap().1.payload, payload);
        let mut damaged = init.clone();
        damaged[damage.index(init.len())] ^= 1 << bit;
        // The top bit of a Montgomery coordinate is ignored by the curve (RFC 7748) but hashed.
        prop_assert_eq!(p.answer(&damaged).err(), Some(NoiseError::Authentication));
        prop_assert!(p.answer(&init[..cut.index(init.len())]).is_err());
    }

    #[test]
    fn arbitrary_messages_never_panic(
        message in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let p = pair();
        prop_assert!(p.answer(&message).is_err());
        prop_assert!(p.dial(b"").0.finish(&message).is_err());
    }
}

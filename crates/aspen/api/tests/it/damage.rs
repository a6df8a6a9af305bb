//! What is not a message is refused by name, never with a panic or a large allocation.

use aspen_api::codec::{DecodeError, Wire};
use aspen_api::kv::{BatchRead, Consistency, WriteKey};
use aspen_api::{
    ApiError, AuthenticatedRequest, ClusterTicket, EnvelopeError, ErrorCode, Key, Prefix, Request,
    RequestId, Response,
};
use bytes::Bytes;
use proptest::prelude::*;

use crate::samples::{requests, responses};

fn frame(request: impl Into<Request>) -> Vec<u8> {
    AuthenticatedRequest::new(request, RequestId::UNNAMED).encode().to_vec()
}

fn refusal(frame: Vec<u8>) -> ErrorCode {
    ApiError::from(AuthenticatedRequest::decode(frame.into()).unwrap_err()).code
}

#[test]
fn truncated_and_prolonged_frames_are_refused() {
    for request in requests() {
        let frame = frame(request);
        for end in 0..frame.len() {
            let cut = Bytes::copy_from_slice(&frame[..end]);
            assert!(AuthenticatedRequest::decode(cut).is_err());
        }
        let mut longer = frame;
        longer.push(0);
        let error = AuthenticatedRequest::decode(longer.into()).unwrap_err();
        assert_eq!(error, EnvelopeError::Malformed(DecodeError::TrailingBytes(1)));
    }
    for response in responses() {
        let frame = response.encode();
        for end in 0..frame.len() {
            assert!(Response::decode(frame.slice(..end)).is_err());
        }
    }
}

#[test]
fn an_unknown_number_is_unsupported_whatever_its_body() {
    let mut frame = frame(aspen_api::cluster::Ping {});
    let at = frame.len() - 2;
    frame[at..].copy_from_slice(&u16::MAX.to_le_bytes());
    frame.extend_from_slice(b"whatever a newer client sends");
    let error = AuthenticatedRequest::decode(frame.clone().into()).unwrap_err();
    assert_eq!(error, EnvelopeError::Unsupported(u16::MAX));
    assert_eq!(refusal(frame), ErrorCode::Unsupported);
    let response = Bytes::from_static(&[1, 0xff, 0xff, 9]);
    assert_eq!(Response::decode(response), Err(EnvelopeError::Unsupported(u16::MAX)));
}

#[test]
fn other_versions_and_too_many_hops_are_refused() {
    let good = frame(aspen_api::cluster::Ping {});
    for (at, value) in [(0, 2), (1, 4)] {
        let mut bad = good.clone();
        bad[at] = value;
        assert_eq!(refusal(bad), ErrorCode::InvalidRequest);
    }
}

#[test]
fn limits_are_named_and_checked_before_and_after_the_wire() {
    let key: Key = "k".parse().unwrap();
    let large = WriteKey { key: key.clone(), value: vec![0; (1 << 20) + 1].into() };
    assert!(large.check().is_err());
    assert_eq!(refusal(frame(large)), ErrorCode::TooLarge);
    let largest = WriteKey { key: key.clone(), value: vec![0; 1 << 20].into() };
    largest.check().unwrap();
    AuthenticatedRequest::decode(frame(largest).into()).unwrap();

    let keys = |count| BatchRead {
        keys: vec![key.clone(); count],
        consistency: Consistency::Stale,
        revision: None,
    };
    assert!(keys(101).check().is_err() && keys(100).check().is_ok());
    assert_eq!(refusal(frame(keys(101))), ErrorCode::TooLarge);
}

#[test]
fn a_count_beyond_the_input_allocates_nothing_and_fails() {
    // A batch read of a hundred keys of which none follows.
    let mut bytes =
        frame(BatchRead { keys: vec![], consistency: Consistency::Stale, revision: None });
    let at = bytes.len() - 3;
    bytes[at] = 100;
    assert_eq!(refusal(bytes), ErrorCode::InvalidRequest);
}

#[test]
fn keys_on_the_wire_are_checked() {
    let empty = Bytes::from_static(&[0]);
    assert_eq!(Key::from_bytes(empty.clone()), Err(DecodeError::BadValue("key")));
    assert_eq!(Prefix::from_bytes(empty), Ok(Prefix::ALL));
    let not_utf8 = Bytes::from_static(&[1, 0xff]);
    assert_eq!(Key::from_bytes(not_utf8), Err(DecodeError::BadValue("key")));
}

#[test]
fn integers_have_one_form() {
    let decode = |bytes: &'static [u8]| u64::from_bytes(Bytes::from_static(bytes));
    assert_eq!(decode(&[0x80, 0x00]), Err(DecodeError::BadValue("integer")), "padded");
    let max = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
    assert_eq!(u64::from_bytes(Bytes::copy_from_slice(&max)), Ok(u64::MAX));
    let over = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2];
    let over = u64::from_bytes(Bytes::copy_from_slice(&over));
    assert_eq!(over, Err(DecodeError::BadValue("integer")));
    assert!(u32::from_bytes(u64::MAX.to_bytes()).is_err());
}

proptest! {
    #[test]
    fn flipped_bytes_give_another_message_or_an_error(
        pick in any::<usize>(),
        at in any::<usize>(),
        mask in 1u8..,
    ) {
        let requests = requests();
        let mut bad = frame(requests[pick % requests.len()].clone());
        let at = at % bad.len();
        bad[at] ^= mask;
        if let Ok(decoded) = AuthenticatedRequest::decode(bad.clone().into()) {
            prop_assert_eq!(decoded.encode(), bad, "one encoding for each message");
        }
        let responses = responses();
        let mut bad = responses[pick % responses.len()].encode().to_vec();
        let at = at % bad.len();
        bad[at] ^= mask;
        if let Ok(decoded) = Response::decode(bad.clone().into()) {
            prop_assert_eq!(decoded.encode(), bad);
        }
    }

    #[test]
    fn arbitrary_bytes_and_text_never_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        text in "aspen[a-z2-7]{0,200}",
    ) {
        let bytes = Bytes::from(bytes);
        let _ = AuthenticatedRequest::decode(bytes.clone());
        let _ = Response::decode(bytes);
        let _ = text.parse::<ClusterTicket>();
    }
}

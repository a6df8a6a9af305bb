//! What is not a message is refused by name, never with a panic or a large allocation.

use aspen_api::cluster::{Done, Ping};
use aspen_api::codec::{DecodeError, Wire};
use aspen_api::kv::{BatchRead, Consistency, Transact, WriteOperation};
use aspen_api::{
    ApiError, ClientId, ClusterTicket, EncodedReply, ErrorCode, Key, Prefix, Request, RequestFrame,
    RequestId, Response, Revision,
};
use bytes::Bytes;
use proptest::prelude::*;

use crate::samples::samples;

#[test]
fn truncated_and_prolonged_messages_are_refused() {
    for sample in samples() {
        for end in 0..sample.request.len() {
            assert_eq!((sample.reread_request)(sample.request.slice(..end)), None);
        }
        let longer = [&sample.request[..], &[0]].concat();
        assert_eq!((sample.reread_request)(longer.into()), None);
        for end in 0..sample.reply.len() {
            assert_eq!((sample.reread_reply)(sample.reply.slice(..end)), None);
        }
        let frame = sample.frame();
        for end in 0..frame.len() - sample.request.len() {
            assert!(RequestFrame::decode(frame.slice(..end)).is_err());
        }
    }
    for end in 0..3 {
        assert!(Response::<Done>::decode(Bytes::from_static(&[1, 7, 0]).slice(..end)).is_err());
    }
}

#[test]
fn no_id_has_one_form() {
    let id = RequestId { client: ClientId([7; 16]), counter: 1, since: Revision(0) };
    let mut frame = RequestFrame::of(&Ping {}, id, None).to_vec();
    // The counter, behind the version, the mark of an id and the client.
    assert_eq!(std::mem::replace(&mut frame[18], 0), 1);
    let refused = Err(DecodeError::BadValue("request id"));
    assert_eq!(RequestFrame::decode(frame.into()), refused);
}

#[test]
fn other_versions_are_refused() {
    let mut frame = RequestFrame::of(&Ping {}, RequestId::NONE, None).to_vec();
    frame[0] = 2;
    assert_eq!(RequestFrame::decode(frame.into()), Err(DecodeError::UnknownVersion(2)));
    let response = Response::<Done>::decode(Bytes::from_static(&[2, 0, 0]));
    assert_eq!(response, Err(DecodeError::UnknownVersion(2)));
    assert!(Response::<Done>::decode(Bytes::from_static(&[1, 0, 2])).is_err());
}

fn refusal<R: Request>(request: &R) -> ErrorCode {
    ApiError::from(R::from_bytes(request.to_bytes()).unwrap_err()).code
}

#[test]
fn limits_are_named_and_checked_before_and_after_the_wire() {
    let key: Key = "k".parse().unwrap();
    let set = |bytes| Transact::always([WriteOperation::set(key.clone(), vec![0; bytes])]);
    let large = set((1 << 20) + 1);
    assert!(large.check().is_err());
    assert_eq!(refusal(&large), ErrorCode::TooLarge);
    let largest = set(1 << 20);
    largest.check().unwrap();
    Transact::from_bytes(largest.to_bytes()).unwrap();

    let keys = |count| BatchRead {
        keys: vec![key.clone(); count],
        consistency: Consistency::Stale,
        revision: None,
    };
    assert!(keys(101).check().is_err() && keys(100).check().is_ok());
    assert_eq!(refusal(&keys(101)), ErrorCode::TooLarge);
}

#[test]
fn a_count_beyond_the_input_allocates_nothing_and_fails() {
    // A batch read of a hundred keys of which none follows.
    let read = BatchRead { keys: vec![], consistency: Consistency::Stale, revision: None };
    let mut bytes = read.to_bytes().to_vec();
    bytes[0] = 100;
    let error = BatchRead::from_bytes(bytes.into()).unwrap_err();
    assert_eq!(ApiError::from(error).code, ErrorCode::InvalidRequest);
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
        let samples = samples();
        let sample = &samples[pick % samples.len()];
        let flipped = |bytes: &Bytes| {
            let mut bad = bytes.to_vec();
            if !bad.is_empty() {
                let at = at % bad.len();
                bad[at] ^= mask;
            }
            Bytes::from(bad)
        };
        let request = flipped(&sample.request);
        if let Some(again) = (sample.reread_request)(request.clone()) {
            prop_assert_eq!(again, request, "one encoding for each message");
        }
        let reply = flipped(&sample.reply);
        if let Some(again) = (sample.reread_reply)(reply.clone()) {
            prop_assert_eq!(again, reply);
        }
        let frame = flipped(&sample.frame());
        if let Ok(decoded) = RequestFrame::decode(frame.clone()) {
            prop_assert_eq!(decoded.encode(), frame);
        }
        let response = flipped(&sample.response());
        if let Ok(decoded) = Response::<EncodedReply>::decode(response.clone()) {
            prop_assert_eq!(decoded.encode(), response);
        }
    }

    #[test]
    fn arbitrary_bytes_and_text_never_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        text in "aspen[a-z2-7]{0,200}",
    ) {
        let bytes = Bytes::from(bytes);
        let _ = RequestFrame::decode(bytes.clone());
        let _ = Response::<EncodedReply>::decode(bytes.clone());
        for sample in samples() {
            let _ = (sample.reread_request)(bytes.clone());
            let _ = (sample.reread_reply)(bytes.clone());
        }
        let _ = text.parse::<ClusterTicket>();
    }
}

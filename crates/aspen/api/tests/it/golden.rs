//! Every request has one number, and it and its reply have one encoding, for good.

use aspen_api::cluster::{Done, Ping};
use aspen_api::{
    ApiError, ClientId, ErrorCode, Request, RequestFrame, RequestId, RequestVisitor, Response,
    Revision, cluster, kv, lease,
};
use bytes::Bytes;
use net_types::{EntityId, PeerAddr};

use crate::samples::samples;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn requests_and_replies_are_pinned() {
    let samples = samples();
    let found: Vec<_> = samples
        .iter()
        .map(|sample| {
            let (request, reply) = (hex(&sample.request), hex(&sample.reply));
            format!("{} {} {request} > {reply}", sample.number, sample.name)
        })
        .collect();
    let pinned: Vec<_> = include_str!("golden_requests.txt").lines().collect();
    assert_eq!(found, pinned, "\n{}\n", found.join("\n"));
    assert!(samples.is_sorted_by_key(|sample| sample.number), "numbers are unique and in order");
    assert!(samples.windows(2).all(|pair| pair[0].number != pair[1].number));
}

/// The names of requests.
#[derive(Default)]
struct Declared(Vec<&'static str>);

impl RequestVisitor for Declared {
    fn visit<R: Request>(&mut self) {
        self.0.push(R::NAME);
    }
}

#[test]
fn every_request_that_is_declared_is_pinned() {
    let mut declared = Declared::default();
    kv::each_request(&mut declared);
    lease::each_request(&mut declared);
    cluster::each_request(&mut declared);
    let pinned: Vec<_> = samples().iter().map(|sample| sample.name).collect();
    let missing: Vec<_> = declared.0.iter().filter(|name| !pinned.contains(name)).collect();
    assert!(missing.is_empty(), "no sample of {missing:?}");
    assert_eq!(declared.0.len(), pinned.len());
}

#[test]
fn what_is_read_is_what_was_written() {
    for sample in samples() {
        let name = sample.name;
        assert_eq!((sample.reread_request)(sample.request.clone()), Some(sample.request), "{name}");
        assert_eq!((sample.reread_reply)(sample.reply.clone()), Some(sample.reply), "{name}");
    }
}

#[test]
fn the_frame_of_a_request_is_pinned() {
    let request_id = RequestId { client: ClientId([0xcc; 16]), counter: 300, since: Revision(200) };
    let token = Bytes::from_static(b"tok");
    let frame = RequestFrame::of(&Ping {}, request_id, Some(&token));
    let expected = [
        &[1][..],          // version
        &[1],              // an id
        &[0xcc; 16],       // client
        &[0xac, 2],        // counter
        &[0xc8, 1],        // since
        &[1, 3],           // token present, its length
        b"tok",            //
        &[0x00, 0x19][..], // 100.0
    ]
    .concat();
    assert_eq!(frame, expected);
    let (number, body) = (Ping::NUMBER, Bytes::new());
    let read = RequestFrame { request_id, token: Some(token), number, body };
    assert_eq!(RequestFrame::decode(frame.clone()).as_ref(), Ok(&read));
    assert_eq!(read.encode(), frame);
}

#[test]
fn the_frames_of_responses_are_pinned() {
    let done = Response { applied: Revision(300), result: Ok(Done {}) };
    assert_eq!(hex(&done.encode()), "01ac0200");
    assert_eq!(Response::decode(done.encode()), Ok(done));
    let addr = PeerAddr::direct(EntityId([0xee; 32]), "127.0.0.1:80".parse().unwrap());
    for (error, pinned) in [
        (ApiError::new(ErrorCode::InternalError, "no"), "0100011302 6e6f 00".to_owned()),
        (
            ApiError { message: "no".into(), ..ApiError::not_leader(Some(addr)) },
            format!("0100010102 6e6f 01 {} 01 04 7f000001 5000 00", "ee".repeat(32)),
        ),
    ] {
        let failed = Response::<Done> { applied: Revision(0), result: Err(error) };
        assert_eq!(hex(&failed.encode()), pinned.replace(' ', ""));
        assert_eq!(Response::decode(failed.encode()), Ok(failed));
    }
}

#[test]
fn the_debug_text_of_a_request_holds_no_token() {
    let token = Bytes::from_static(b"bearer's secret");
    let frame = RequestFrame::of(&Ping {}, RequestId::NONE, Some(&token));
    let text = format!("{:?}", RequestFrame::decode(frame).unwrap());
    assert!(text.contains("100.0") && text.contains("redacted"), "{text}");
    assert!(!text.contains("secret"), "{text}");
}

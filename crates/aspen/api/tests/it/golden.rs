//! Every request and response has one number and one encoding, for good.

use std::collections::BTreeSet;

use aspen_api::{AuthenticatedRequest, ClientId, Request, RequestId, Response, Revision};

use crate::samples::{requests, responses};

fn line(number: u16, name: &str, frame: &[u8]) -> String {
    let hex: String = frame.iter().map(|b| format!("{b:02x}")).collect();
    format!("{}.{} {name} {hex}", number / 64, number % 64)
}

fn check(found: &[String], pinned: &str) {
    let pinned: Vec<_> = pinned.lines().collect();
    assert_eq!(found, pinned, "\n{}\n", found.join("\n"));
}

#[test]
fn requests_are_pinned() {
    let mut seen = BTreeSet::new();
    let found: Vec<_> = requests()
        .into_iter()
        .map(|request| {
            seen.insert(request.number());
            let framed = AuthenticatedRequest::new(request, RequestId::UNNAMED);
            let frame = framed.encode();
            assert_eq!(AuthenticatedRequest::decode(frame.clone()).as_ref(), Ok(&framed));
            line(framed.request.number(), framed.request.name(), &frame[21..])
        })
        .collect();
    let all: BTreeSet<_> = Request::NUMBERS.iter().map(|(number, _)| *number).collect();
    assert_eq!(seen, all, "every request has a sample");
    assert_eq!(all.len(), Request::NUMBERS.len(), "numbers are unique");
    check(&found, include_str!("golden_requests.txt"));
}

#[test]
fn responses_are_pinned() {
    let mut seen = BTreeSet::new();
    let found: Vec<_> = responses()
        .into_iter()
        .map(|response| {
            seen.insert(response.number());
            let frame = response.encode();
            assert_eq!(Response::decode(frame.clone()).as_ref(), Ok(&response));
            line(response.number(), response.name(), &frame)
        })
        .collect();
    let all: BTreeSet<_> = Response::NUMBERS.iter().map(|(number, _)| *number).collect();
    assert_eq!(seen, all, "every response has a sample");
    assert_eq!(all.len(), Response::NUMBERS.len(), "numbers are unique");
    check(&found, include_str!("golden_responses.txt"));
}

#[test]
fn the_frame_of_a_request_is_pinned() {
    let framed = AuthenticatedRequest {
        token: Some("tok".into()),
        proxy_hops: 2,
        ..AuthenticatedRequest::new(
            aspen_api::cluster::Ping {},
            RequestId { client: ClientId([0xcc; 16]), counter: 300, since: Revision(200) },
        )
    };
    let frame = framed.encode();
    let expected = [
        &[1, 2][..],       // version, hops
        &[0xcc; 16],       // client
        &[0xac, 2],        // counter
        &[0xc8, 1],        // since
        &[1, 3],           // token present, its length
        b"tok",            //
        &[0x00, 0x19][..], // 100.0
    ]
    .concat();
    assert_eq!(frame, expected);
    assert_eq!(AuthenticatedRequest::decode(frame), Ok(framed));
}

#[test]
fn the_debug_text_of_a_request_holds_no_token() {
    let request = AuthenticatedRequest::new(aspen_api::cluster::Ping {}, RequestId::UNNAMED);
    let token = Some("bearer's secret".into());
    let text = format!("{:?}", AuthenticatedRequest { token, ..request });
    assert!(text.contains("Ping") && text.contains("redacted"), "{text}");
    assert!(!text.contains("secret"), "{text}");
}

//! Arbitrary bytes as requests to a node and as its responses; every message has one encoding.

#![no_main]

use aspen_api::{Needs, Request, RequestFrame, RequestVisitor, Response, cluster, kv, lease};
use aspen_coordination::counter;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

/// Checks one input as every request.
struct Check<'a> {
    frame: Option<&'a RequestFrame>,
    bytes: &'a Bytes,
}

impl RequestVisitor for Check<'_> {
    fn visit<R: Request>(&mut self) {
        check::<R>(self.frame, self.bytes);
    }
}

fuzz_target!(|input: &[u8]| {
    let bytes = Bytes::copy_from_slice(input);
    let frame = RequestFrame::decode(bytes.clone()).ok();
    if let Some(frame) = &frame {
        assert_eq!(frame.encode(), bytes);
    }
    let mut check = Check { frame: frame.as_ref(), bytes: &bytes };
    kv::each_request(&mut check);
    lease::each_request(&mut check);
    cluster::each_request(&mut check);
    counter::each_request(&mut check);
});

fn check<R: Request>(frame: Option<&RequestFrame>, bytes: &Bytes) {
    if let Some(frame) = frame.filter(|frame| frame.number == R::NUMBER)
        && let Ok(request) = R::from_bytes(frame.body.clone())
    {
        assert_eq!(request.to_bytes(), frame.body);
        if let Needs::Rights(rights) = request.needs() {
            for right in rights {
                let _ = right.over.reserved_prefix();
            }
        }
    }
    if let Ok(response) = Response::<R::Reply>::decode(bytes.clone()) {
        assert_eq!(response.encode(), *bytes);
    }
}

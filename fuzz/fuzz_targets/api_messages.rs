//! Arbitrary bytes as requests to a cluster and as its responses; every message has one encoding.

#![no_main]

use aspen_api::{AuthenticatedRequest, Response, touches};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let bytes = Bytes::copy_from_slice(input);
    if let Ok(request) = AuthenticatedRequest::decode(bytes.clone()) {
        touches(&request.request, |touch| {
            let _ = touch.overlaps("_sys");
            true
        });
        assert_eq!(request.encode(), bytes);
    }
    if let Ok(response) = Response::decode(bytes.clone()) {
        assert_eq!(response.encode(), bytes);
    }
});

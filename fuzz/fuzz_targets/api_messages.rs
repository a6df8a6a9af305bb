//! Arbitrary bytes as requests to a node and as its responses; every message has one encoding.

#![no_main]

use aspen_api::{Needs, Request, RequestFrame, Response, cluster, kv, lease};
use aspen_coordination::counter;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

macro_rules! check_every {
    ($frame:expr, $bytes:expr; $($request:ty),* $(,)?) => {
        $(check::<$request>($frame, $bytes);)*
    };
}

fuzz_target!(|input: &[u8]| {
    let bytes = Bytes::copy_from_slice(input);
    let frame = RequestFrame::decode(bytes.clone()).ok();
    if let Some(frame) = &frame {
        assert_eq!(frame.encode(), bytes);
    }
    check_every! {
        frame.as_ref(), &bytes;
        kv::ReadKey, kv::ScanKeys, kv::BatchRead, kv::Transact, kv::Compact, kv::CountKeys,
        lease::LeaseGrant, lease::LeaseRevoke, lease::LeaseKeepalive, lease::LeaseTimeToLive,
        lease::LeaseList,
        cluster::GetHealth, cluster::GetRaftMetrics, cluster::GetNodeInfo, cluster::GetLeader,
        cluster::GetClusterState, cluster::AddLearner, cluster::ChangeMembership,
        cluster::AddPeer, cluster::ExpungeNode, cluster::RemoveLearner, cluster::TransferLeader,
        counter::CounterCompareAndSet, counter::SignedCounterAdd,
    }
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

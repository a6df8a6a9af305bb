//! The node's state between endpoints that exchange datagrams by hand.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use net_mesh_core::EndpointConfig;
use net_rpc::{HandlerFuture, RpcContext, ServiceName};
use net_types::PeerAddr;
use net_types::limits::{MAX_SESSION_QUEUE_BYTES, REFUSE_CALLS_ABOVE_REPLY_BYTES};

use super::*;
use crate::{EntityKeypair, MeshSecret};

const NOW: Instant = Instant::ZERO;
const MIB: usize = 1 << 20;

fn endpoint(i: u8) -> Endpoint {
    let identity = EntityKeypair::from_seed([i; 32]);
    let config = EndpointConfig::new(identity, MeshSecret::from_cookie("mesh"));
    Endpoint::new(NOW, config, [i; 32]).unwrap()
}

fn addr(i: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, i], 1))
}

/// Moves datagrams between `core`, which is node 0, and node `i` until both are silent.
fn exchange(core: &mut Core, i: u8, other: &mut Endpoint) {
    exchange_at(NOW, core, i, other);
}

fn exchange_at(now: Instant, core: &mut Core, i: u8, other: &mut Endpoint) {
    let mut buffer = Vec::new();
    loop {
        let mut is_silent = true;
        while let Some(sent) = core.endpoint.poll_transmit(now, &mut buffer, 1) {
            is_silent = false;
            let at = buffer.len() - sent.len;
            if sent.to == addr(i) {
                other.handle_datagram(now, addr(0), &mut buffer[at..]);
            }
            buffer.clear();
        }
        while let Some(sent) = other.poll_transmit(now, &mut buffer, 1) {
            is_silent = false;
            let at = buffer.len() - sent.len;
            core.endpoint.handle_datagram(now, addr(i), &mut buffer[at..]);
            buffer.clear();
        }
        core.process_events(now);
        if is_silent {
            return;
        }
    }
}

/// Node 0 and a session with each of the other nodes.
fn served_by<const N: usize>(others: &mut [Endpoint; N]) -> (Core, [SessionId; N]) {
    let mut core = Core::new(endpoint(0), Seeded::from_u64(0));
    let me = PeerAddr::direct(core.endpoint.entity_id(), addr(0));
    let mut i = 0;
    let sessions = others.each_mut().map(|other| {
        i += 1;
        other.dial(NOW, &me).unwrap();
        exchange(&mut core, i, other);
        core.endpoint.live_session(other.node_id()).unwrap()
    });
    (core, sessions)
}

fn reply_to(session: SessionId, call: u64) -> ReplyTo {
    ReplyTo { session, call: CallId(call), class: Class::Foreground }
}

#[test]
fn a_peer_that_takes_no_replies_holds_up_nobody_else() {
    let mut others = [endpoint(1), endpoint(2)];
    let (mut core, [lazy, eager]) = served_by(&mut others);
    let body = Bytes::from(vec![0; MIB]);
    // Nothing of this ever reaches the first node.
    for call in 0..(MAX_SESSION_QUEUE_BYTES / MIB + 8) as u64 {
        core.reply(NOW, reply_to(lazy, call), Ok(body.clone()));
    }
    assert!(core.replies.bytes() > 7 * MIB);
    core.reply(NOW, reply_to(eager, 1), Ok(Bytes::from_static(b"yours")));
    assert!(!core.replies.is_waiting(eager, rpc_stream(Class::Foreground, false)));
    exchange(&mut core, 2, &mut others[1]);
    let mut heard = Vec::new();
    while let Some(event) = others[1].poll_event() {
        if let Event::Session { event: SessionEvent::Message { message, .. }, .. } = event {
            heard.push(message);
        }
    }
    assert!(matches!(&heard[..], [m] if m.ends_with(b"yours")));
}

#[test]
fn a_peer_that_takes_no_replies_is_refused_more_and_gets_them_when_it_does() {
    let mut others = [endpoint(1)];
    let (mut core, [session]) = served_by(&mut others);
    let name = ServiceName::new("large").unwrap();
    let handler = |_: RpcContext, body: Bytes| HandlerFuture::ready(Ok(body));
    assert!(core.services.add(name.clone(), Arc::new(handler)));
    let body = Bytes::from(vec![0; MIB]);
    let enough = (MAX_SESSION_QUEUE_BYTES + REFUSE_CALLS_ABOVE_REPLY_BYTES) / MIB + 1;
    for call in 0..enough as u64 {
        core.reply(NOW, reply_to(session, call), Ok(body.clone()));
    }
    let request = |call| {
        let (service, codec) = (name.hash(), net_rpc::Codec::Raw);
        let info = net_rpc::RequestInfo { service, budget_ms: 1_000, response_window: 0, codec };
        let mut out = Vec::new();
        FrameWriter { origin: OriginHash(1), call_id: CallId(call) }.request(
            &info,
            &[],
            b"",
            &mut out,
        );
        Bytes::from(out)
    };
    let peer = others[0].node_id();
    core.on_frame(NOW, peer, session, Class::Foreground, request(1_000));
    assert!(core.inbox.is_empty(), "the call was not refused");
    let mut messages = 0;
    for _ in 0..100 {
        exchange(&mut core, 1, &mut others[0]);
        let of_peer = others[0].live_session(core.endpoint.node_id()).unwrap();
        while let Some(event) = others[0].poll_event() {
            let Event::Session { event: SessionEvent::Message { stream_id, credit, .. }, .. } =
                event
            else {
                continue;
            };
            messages += 1;
            others[0].consume(NOW, of_peer, stream_id, credit);
        }
    }
    // All replies and the refusal.
    assert_eq!((messages, core.replies.bytes()), (enough + 1, 0));
    core.on_frame(NOW, peer, session, Class::Foreground, request(1_001));
    assert_eq!(core.inbox.len(), 1);
}

#[test]
fn a_late_reply_arrives_on_a_session_that_was_replaced() {
    let mut others = [endpoint(1)];
    let (mut core, [old]) = served_by(&mut others);
    let [other] = &mut others;
    // A handler works on a call when the caller makes a new session.
    let begun = core.services.begin(old, CallId(1), net_types::ChannelHash(1));
    assert!(matches!(begun, Admission::Run(())));
    let me = PeerAddr::direct(core.endpoint.entity_id(), addr(0));
    other.dial(NOW, &me).unwrap();
    exchange(&mut core, 1, other);
    assert_ne!(core.endpoint.live_session(other.node_id()), Some(old));
    while other.poll_event().is_some() {}
    assert!(core.services.finish(old, CallId(1)));
    core.reply(NOW, reply_to(old, 1), Ok(Bytes::from_static(b"late")));
    exchange(&mut core, 1, other);
    let events: Vec<Event> = core::iter::from_fn(|| other.poll_event()).collect();
    let is_reply = |event: &Event| match event {
        Event::Session { session, event: SessionEvent::Message { message, .. }, .. } => {
            *session == old && message.ends_with(b"late")
        }
        _ => false,
    };
    assert!(events.iter().any(is_reply), "{events:?}");
    // Now that nothing is waited for, the session ends once the reply is acknowledged.
    for ms in [30, 60, 90] {
        let now = NOW + Duration::from_millis(ms);
        core.endpoint.handle_timeout(now);
        other.handle_timeout(now);
        exchange_at(now, &mut core, 1, other);
    }
    assert_eq!(core.endpoint.is_initiator(old), None);
    assert!(core.draining.is_empty());
}

//! A member of the mesh that sends whatever it likes: well-sealed packets with arbitrary headers and
//! payloads, between timers and sends of the other end. Nothing panics, nothing grows without bound.

#![no_main]

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::VecDeque;
use std::sync::OnceLock;

use aspen_fuzz::{Choices, established};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use net_crypto::{DirectionKeys, Established, SealKey, Seeded, Suite};
use net_session::{Context, Counters, Event, Path, Session, SessionParams, StreamConfig};
use net_types::limits::{HEADER_BYTES, MAX_PAYLOAD_BYTES, MAX_SESSION_EVENTS};
use net_types::{EntityId, Instant, StreamId};
use net_wire::{Class, Flags, Header, Kind, Subprotocol};

static ENDS: OnceLock<(Established, Established)> = OnceLock::new();

fuzz_target!(|input: &[u8]| {
    let mut choices = Choices::new(input);
    let (attacker, victim) = ENDS.get_or_init(established);
    let suite = Suite::ChaCha20Poly1305;
    let seal = SealKey::new(suite, &DirectionKeys::derive(&attacker.send, suite));
    let addr = SocketAddr::from(([10, 0, 0, 1], 1));
    let params = SessionParams {
        id: victim.session_id,
        own: EntityId([2; 32]),
        peer: EntityId([1; 32]),
        is_initiator: false,
        suite,
        send: victim.send.clone(),
        receive: victim.receive.clone(),
        path: Path::direct(addr),
        peer_max_datagram_bytes: 8_210,
        first_rtt: Duration::from_millis(1),
        heartbeat_interval: Duration::from_millis(500),
    };
    let mut now = Instant::ZERO;
    let mut session = Session::established(now, params);
    let (mut rng, mut counters) = (Seeded::from_u64(1), Counters::default());
    let mut events = VecDeque::new();
    let mut counter = 0;
    let mut out = Vec::new();
    while !choices.is_empty() {
        let mut ctx = Context { now, rng: &mut rng, counters: &mut counters, events: &mut events };
        match choices.byte() % 8 {
            0 => {
                now += Duration::from_micros(choices.number());
                if session.next_timeout().is_some_and(|at| at <= now) {
                    ctx.now = now;
                    session.handle_timeout(&mut ctx);
                }
            }
            1 => {
                if let Ok(stream) = session.open_stream(StreamConfig::default()) {
                    let _ = session.send(stream, Bytes::copy_from_slice(choices.block()));
                }
            }
            2 => drain_events(&mut session, now, ctx.events),
            _ => {
                let header = arbitrary_header(&mut choices, &mut counter, attacker.session_id);
                let mut payload = choices.block().to_vec();
                payload.truncate(MAX_PAYLOAD_BYTES);
                let header = Header { payload_len: payload.len() as u16, ..header };
                let encoded = header.encode();
                // Only what the header's own decoder lets through reaches a session.
                let Ok(header) = Header::decode(&encoded) else { continue };
                let mut packet = encoded.to_vec();
                let tag = seal.seal_in_place(header.counter, &encoded, &mut payload);
                packet.extend_from_slice(&payload);
                packet.extend_from_slice(&tag.expect("the counter is far from its end"));
                debug_assert!(packet.len() > HEADER_BYTES);
                let from = SocketAddr::from(([10, 0, 0, choices.byte() % 3], 1));
                session.handle_packet(&mut ctx, &header, Path::direct(from), &mut packet);
            }
        }
        out.clear();
        let mut ctx = Context { now, rng: &mut rng, counters: &mut counters, events: &mut events };
        while session.poll_packet(&mut ctx, &mut out).is_some() {
            assert!(out.len() < 256 << 20, "a session that never falls silent");
        }
        assert!(events.len() <= MAX_SESSION_EVENTS + 64, "events without a bound");
    }
});

fn drain_events(session: &mut Session, now: Instant, events: &mut VecDeque<Event>) {
    for event in events.drain(..) {
        if let Event::Message { stream_id, credit, .. } = event {
            session.consume(now, stream_id, credit);
        }
    }
}

/// A header that is mostly plausible: known kinds, few streams, sequences near the start.
fn arbitrary_header(
    choices: &mut Choices<'_>,
    counter: &mut u64,
    id: net_types::SessionId,
) -> Header {
    let kind = match choices.byte() {
        9.. => Kind::Data,
        byte => Kind::from_wire(byte).unwrap_or(Kind::Data),
    };
    *counter += 1;
    let mut header = Header::new(kind, id, *counter);
    header.origin_low = net_crypto::origin_hash(&EntityId([1; 32])).0 as u32;
    header.flags = Flags(choices.u16());
    header.subprotocol = Subprotocol(choices.u16());
    header.stream_id = StreamId(choices.number());
    header.sequence = choices.number();
    header.event_count = choices.u16() % 16;
    if choices.byte() % 2 == 1 {
        header.frag_index = choices.u16() % 64;
        header.frag_count = choices.u16() % 64;
    }
    header.class = Class::from_wire(choices.byte() % 3).unwrap_or(Class::Foreground);
    header
}

//! A peer that sends arbitrary call messages to a node that calls and serves: the tables stay
//! consistent, within their bounds, and empty once every session is over.

#![no_main]

use core::time::Duration;
use std::collections::BTreeMap;

use aspen_fuzz::Choices;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use net_rpc::{Admission, Calls, Class, Incoming, ServiceName, Services, classify};
use net_types::limits::MAX_IN_FLIGHT_PER_CALLER;
use net_types::{CallId, ChannelHash, Instant, SessionId};

const SESSIONS: u64 = 3;

fuzz_target!(|input: &[u8]| {
    let mut choices = Choices::new(input);
    let (mut calls, mut services) = (Calls::<u64>::new(), Services::<u8>::new());
    let name = ServiceName::new("echo").expect("a valid name");
    services.add(name.clone(), 0);
    let mut now = Instant::ZERO;
    // What was said with each call that was opened, by its id.
    let mut opened = BTreeMap::new();
    while !choices.is_empty() {
        let session = SessionId(u64::from(choices.byte()) % SESSIONS);
        let number = choices.number();
        // An id that was given out, or any.
        let known = opened.range(number..).next().map(|(id, _)| *id);
        let call = CallId(known.filter(|_| choices.byte() & 1 == 0).unwrap_or(number));
        match choices.byte() % 8 {
            0 => {
                let deadline = now + Duration::from_millis(u64::from(choices.u16()));
                let class = Class::Foreground;
                if let Ok(id) = calls.open(number, session, class, deadline, number) {
                    opened.insert(id.0, number);
                }
            }
            1 => {
                now += Duration::from_millis(choices.number().min(100_000));
                while calls.pop_expired(now).is_some() {}
            }
            2 => drop(calls.cancel(call)),
            3 => {
                services.finish(session, call);
            }
            4 => request(&mut services, session, call, name.hash(), choices.number() as u32),
            5 => end(&mut calls, &opened, session, call),
            _ => message(&mut calls, &mut services, &opened, session, choices.block()),
        }
        calls.check_invariants();
        services.check_invariants();
        let bound = SESSIONS as usize * MAX_IN_FLIGHT_PER_CALLER;
        assert!(services.in_flight() <= bound, "{} calls", services.in_flight());
    }
    for session in 0..SESSIONS {
        calls.fail_session(SessionId(session));
        services.fail_session(SessionId(session));
    }
    assert!(calls.is_empty() && calls.next_deadline().is_none());
    assert_eq!(services.in_flight(), 0);
});

fn end(calls: &mut Calls<u64>, opened: &BTreeMap<u64, u64>, session: SessionId, call: CallId) {
    if let Some(user) = calls.complete(session, call) {
        assert_eq!(Some(&user), opened.get(&call.0), "a reply ends the call that it names");
    }
}

fn message(
    calls: &mut Calls<u64>,
    services: &mut Services<u8>,
    opened: &BTreeMap<u64, u64>,
    session: SessionId,
    bytes: &[u8],
) {
    match classify(Bytes::copy_from_slice(bytes)) {
        Ok(Incoming::Request(call, r)) => request(services, session, call, r.service, r.budget_ms),
        Ok(Incoming::Reply(call, _)) => end(calls, opened, session, call),
        Ok(Incoming::Cancel(call)) => services.cancel(session, call),
        Ok(Incoming::Part(_)) | Err(_) => {}
    }
}

fn request(
    services: &mut Services<u8>,
    session: SessionId,
    call: CallId,
    service: ChannelHash,
    budget_ms: u32,
) {
    if let Admission::Run(_) = services.admit(session, call, service, budget_ms)
        && let Admission::Run(()) = services.begin(session, call)
    {
        services.set_stop(session, call, || {});
    }
}

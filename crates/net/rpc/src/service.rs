//! The services of a node and how many calls each works on.
//!
//! Invariants: a call is in the table from [`Services::admit`] to its answer or its cancel, so that
//! a cancel finds it however early it comes; the counts of its caller and of its service include it
//! from [`Services::begin`].

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;
use std::sync::Arc;

use net_types::limits::{
    MAX_IN_FLIGHT_PER_CALLER, MAX_IN_FLIGHT_PER_SERVICE, MAX_SERVICE_NAME_BYTES, MAX_SERVICES,
};
use net_types::{CallId, ChannelHash, IdMap, SessionId};
use net_wire::rpc::Status;
use thiserror::Error;

use crate::RpcFailure;

/// A name is not a service's.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{name:?} is not a service name: 1 to {MAX_SERVICE_NAME_BYTES} of a-z 0-9 _ - . are allowed, no leading, trailing or repeated dot"
)]
pub struct ServiceNameError {
    /// The refused name.
    pub name: String,
}

/// The name of a service and the hash under which it travels.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServiceName {
    name: Arc<str>,
    hash: ChannelHash,
}

impl ServiceName {
    /// Checks a name; letters must be lower-case.
    pub fn new(name: &str) -> Result<Self, ServiceNameError> {
        let is_allowed = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.');
        let is_valid = !name.is_empty()
            && name.len() <= MAX_SERVICE_NAME_BYTES
            && name.bytes().all(is_allowed)
            && !name.split('.').any(str::is_empty);
        if !is_valid {
            return Err(ServiceNameError { name: name.to_owned() });
        }
        let hash = net_crypto::channel_hash(&format!("{name}.requests"));
        Ok(Self { name: name.into(), hash })
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// Hash of the service's request channel.
    pub fn hash(&self) -> ChannelHash {
        self.hash
    }
}

struct Service<H> {
    name: ServiceName,
    handler: H,
    in_flight: usize,
}

/// What stops a handler.
type Stop = Box<dyn FnOnce() + Send>;

/// A call that is not answered yet.
struct OpenCall {
    service: ChannelHash,
    /// Whether its handler did not answer at once, so that the counts include it.
    is_begun: bool,
    stop: Option<Stop>,
}

/// The services of a node, each with a handler `H`, and the calls that are not answered yet.
pub struct Services<H> {
    by_hash: IdMap<ChannelHash, Service<H>>,
    /// By ids that callers choose.
    open: BTreeMap<(SessionId, CallId), OpenCall>,
    per_caller: IdMap<SessionId, usize>,
}

/// What to do with a request.
pub enum Admission<H> {
    /// Run this handler and report [`Services::finish`].
    Run(H),
    /// Answer with this failure.
    Refuse(RpcFailure),
    /// Say nothing: the same call is being worked on.
    Ignore,
}

fn full(service: &str) -> RpcFailure {
    let detail = format!("{service} has too many calls in flight");
    RpcFailure::new(Status::BACKPRESSURE, "full", detail)
}

impl<H: Clone> Services<H> {
    /// No services.
    pub fn new() -> Self {
        Self { by_hash: IdMap::default(), open: BTreeMap::new(), per_caller: IdMap::default() }
    }

    /// Adds a service; false when the name is taken or the table full.
    pub fn add(&mut self, name: ServiceName, handler: H) -> bool {
        if self.by_hash.len() >= MAX_SERVICES || self.by_hash.contains_key(&name.hash) {
            return false;
        }
        self.by_hash.insert(name.hash, Service { name, handler, in_flight: 0 });
        true
    }

    /// Stops dispatch to a service; calls under way finish.
    pub fn remove(&mut self, name: &ServiceName) {
        self.by_hash.remove(&name.hash);
    }

    /// Decides on a request, in the order: service known, call not open yet, room, budget left.
    /// Calls that are answered at once take no room.
    pub fn admit(
        &mut self,
        session: SessionId,
        call: CallId,
        service: ChannelHash,
        budget_ms: u32,
    ) -> Admission<H> {
        let Some(entry) = self.by_hash.get(&service) else {
            let detail = "the node does not serve this service";
            return Admission::Refuse(RpcFailure::new(Status::NOT_FOUND, "not_found", detail));
        };
        let Slot::Vacant(slot) = self.open.entry((session, call)) else {
            return Admission::Ignore;
        };
        let of_caller = self.per_caller.get(&session).copied().unwrap_or(0);
        if entry.in_flight >= MAX_IN_FLIGHT_PER_SERVICE || of_caller >= MAX_IN_FLIGHT_PER_CALLER {
            return Admission::Refuse(full(entry.name.as_str()));
        }
        if budget_ms == 0 {
            let detail = "the call arrived after its deadline";
            return Admission::Refuse(RpcFailure::new(Status::TIMEOUT, "timeout", detail));
        }
        slot.insert(OpenCall { service, is_begun: false, stop: None });
        Admission::Run(entry.handler.clone())
    }

    /// Counts a call that was admitted and not answered at once, unless it was cancelled meanwhile.
    ///
    /// Requests of one batch are admitted before any of them begins, so whether there is room is
    /// decided here again.
    #[must_use = "a call that did not begin must not continue"]
    pub fn begin(&mut self, session: SessionId, call: CallId) -> Admission<()> {
        let Some(open) = self.open.get_mut(&(session, call)) else { return Admission::Ignore };
        let of_caller = self.per_caller.get(&session).copied().unwrap_or(0);
        // A service that was removed meanwhile still answers.
        let entry = self.by_hash.get_mut(&open.service);
        let of_service = entry.as_ref().map_or(0, |e| e.in_flight);
        if of_service >= MAX_IN_FLIGHT_PER_SERVICE || of_caller >= MAX_IN_FLIGHT_PER_CALLER {
            let failure = full(entry.map_or("the service", |e| e.name.as_str()));
            self.open.remove(&(session, call));
            return Admission::Refuse(failure);
        }
        open.is_begun = true;
        self.per_caller.insert(session, of_caller + 1);
        if let Some(entry) = entry {
            entry.in_flight += 1;
        }
        Admission::Run(())
    }

    /// Says how to stop an open call; one that is gone already is stopped now.
    pub fn set_stop(
        &mut self,
        session: SessionId,
        call: CallId,
        stop: impl FnOnce() + Send + 'static,
    ) {
        match self.open.get_mut(&(session, call)) {
            Some(open) => open.stop = Some(Box::new(stop)),
            None => stop(),
        }
    }

    /// The call was answered; false when it was cancelled and no answer is wanted.
    pub fn finish(&mut self, session: SessionId, call: CallId) -> bool {
        self.take(session, call).is_some()
    }

    /// The caller cancelled: stops the handler.
    pub fn cancel(&mut self, session: SessionId, call: CallId) {
        if let Some(OpenCall { stop: Some(stop), .. }) = self.take(session, call) {
            stop();
        }
    }

    fn take(&mut self, session: SessionId, call: CallId) -> Option<OpenCall> {
        let open = self.open.remove(&(session, call))?;
        if !open.is_begun {
            return Some(open);
        }
        if let Some(count) = self.per_caller.get_mut(&session) {
            *count -= 1;
            if *count == 0 {
                self.per_caller.remove(&session);
            }
        }
        if let Some(entry) = self.by_hash.get_mut(&open.service) {
            entry.in_flight = entry.in_flight.saturating_sub(1);
        }
        Some(open)
    }

    /// The session ended: stops all its handlers.
    pub fn fail_session(&mut self, session: SessionId) {
        let calls: Vec<CallId> = self.of_session(session).collect();
        calls.into_iter().for_each(|call| self.cancel(session, call));
    }

    fn of_session(&self, session: SessionId) -> impl Iterator<Item = CallId> {
        let all = (session, CallId(0))..=(session, CallId(u64::MAX));
        self.open.range(all).map(|((_, call), _)| *call)
    }

    /// Whether a session has calls that are not answered yet.
    pub fn has_session(&self, session: SessionId) -> bool {
        self.of_session(session).next().is_some()
    }

    /// Calls that are not answered yet.
    pub fn in_flight(&self) -> usize {
        self.open.len()
    }

    /// Asserts that the counts are those of the open calls.
    pub fn check_invariants(&self) {
        let begun = self.open.values().filter(|call| call.is_begun).count();
        assert_eq!(self.per_caller.values().sum::<usize>(), begun, "counts of callers");
        assert!(self.per_caller.values().all(|count| *count > 0));
        // A service that was removed and added again counts only what it began itself.
        let of_services: usize = self.by_hash.values().map(|service| service.in_flight).sum();
        assert!(of_services <= begun, "counts of services");
    }
}

impl<H: Clone> Default for Services<H> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const SESSION: SessionId = SessionId(1);

    fn one() -> (Services<u8>, ServiceName) {
        let name = ServiceName::new("echo").unwrap();
        let mut services = Services::new();
        assert!(services.add(name.clone(), 7));
        assert!(!services.add(name.clone(), 8));
        (services, name)
    }

    /// What an admission says: the handler, the status of a refusal, or none if it is ignored.
    fn outcome<T>(admission: Admission<T>) -> Result<T, Option<Status>> {
        match admission {
            Admission::Run(handler) => Ok(handler),
            Admission::Refuse(failure) => Err(Some(failure.status)),
            Admission::Ignore => Err(None),
        }
    }

    fn admit(services: &mut Services<u8>, call: u64, name: &ServiceName) -> bool {
        outcome(services.admit(SESSION, CallId(call), name.hash(), 1)) == Ok(7)
    }

    fn begin(services: &mut Services<u8>, call: u64) -> Result<(), Option<Status>> {
        outcome(services.begin(SESSION, CallId(call)))
    }

    #[test]
    fn a_batch_of_calls_that_take_time_does_not_exceed_the_limit() {
        let (mut services, name) = one();
        // All are admitted before the first of them begins.
        for call in 0..=MAX_IN_FLIGHT_PER_CALLER as u64 {
            assert!(admit(&mut services, call, &name));
        }
        for call in 0..MAX_IN_FLIGHT_PER_CALLER as u64 {
            assert_eq!(begin(&mut services, call), Ok(()));
        }
        let one_more = begin(&mut services, MAX_IN_FLIGHT_PER_CALLER as u64);
        assert_eq!(one_more, Err(Some(Status::BACKPRESSURE)));
        assert_eq!(services.in_flight(), MAX_IN_FLIGHT_PER_CALLER);
        assert!(services.has_session(SESSION) && !services.has_session(SessionId(2)));
        services.fail_session(SESSION);
        assert_eq!((services.in_flight(), services.per_caller.len()), (0, 0));
    }

    #[test]
    fn a_call_that_was_cancelled_before_its_handler_ran_does_not_begin() {
        let (mut services, name) = one();
        assert!(admit(&mut services, 1, &name));
        services.cancel(SESSION, CallId(1));
        assert_eq!(begin(&mut services, 1), Err(None));
        assert!(!services.finish(SESSION, CallId(1)));
        services.check_invariants();
    }

    #[test]
    fn names_are_checked() {
        for good in ["a", "kv.v1", "a-b_c.9"] {
            assert!(ServiceName::new(good).is_ok(), "{good}");
        }
        for bad in ["", ".a", "a.", "a..b", "A", "a/b", &"x".repeat(97)] {
            assert!(ServiceName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn requests_are_admitted_in_order_of_the_checks() {
        let (mut services, name) = one();
        let admit = |s: &mut Services<u8>, call, hash, budget| {
            outcome(s.admit(SESSION, CallId(call), hash, budget))
        };
        assert_eq!(admit(&mut services, 1, ChannelHash(9), 0), Err(Some(Status::NOT_FOUND)));
        assert_eq!(admit(&mut services, 1, name.hash(), 0), Err(Some(Status::TIMEOUT)));
        for call in 1..=MAX_IN_FLIGHT_PER_CALLER as u64 {
            assert_eq!(admit(&mut services, call, name.hash(), 1), Ok(7));
            assert_eq!(admit(&mut services, call, name.hash(), 1), Err(None));
            assert_eq!(begin(&mut services, call), Ok(()));
        }
        assert_eq!(admit(&mut services, 0, name.hash(), 1), Err(Some(Status::BACKPRESSURE)));
        assert!(services.finish(SESSION, CallId(2)));
        assert_eq!(admit(&mut services, 0, name.hash(), 1), Ok(7));
        services.check_invariants();
    }

    #[test]
    fn a_lost_session_stops_its_handlers_and_no_others() {
        let (mut services, name) = one();
        let stopped = Arc::new(AtomicUsize::new(0));
        for (session, call) in [(1, 1), (1, 2), (2, 1)] {
            let (session, call) = (SessionId(session), CallId(call));
            assert_eq!(outcome(services.admit(session, call, name.hash(), 1)), Ok(7));
            assert_eq!(outcome(services.begin(session, call)), Ok(()));
            let stopped = stopped.clone();
            services.set_stop(session, call, move || {
                stopped.fetch_add(1, Ordering::Relaxed);
            });
        }
        services.fail_session(SessionId(1));
        assert_eq!((stopped.load(Ordering::Relaxed), services.in_flight()), (2, 1));
        assert!(!services.finish(SessionId(1), CallId(1)));
    }
}

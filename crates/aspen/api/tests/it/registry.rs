//! The frame that the registry puts around every request, with services and a guard made for it.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use aspen_api::cluster::{Done, Ping, Pong};
use aspen_api::service::{
    BoxFuture, Caller, Family, Guard, Origin, Registry, RegistryError, Routes, Service, Services,
    Tier,
};
use aspen_api::{
    ApiError, ClientId, ErrorCode, Kind, Level, Needs, Number, Request, RequestFrame, RequestId,
    Response, Revision, family, request,
};
use bytes::Bytes;

request! {
    /// Doubles a number.
    pub struct Double {
        /// The number.
        pub number: u64,
    }
    number: 910, 3;
    reply: Doubled;
    kind: |_| Kind::Write;
    needs: |_| Needs::Admin("double");

    /// A request of a level that the cluster may not have reached.
    pub struct Later {}
    number: 910, 4;
    since: 2;
    reply: Doubled;
    kind: |_| Kind::Local;
    needs: |_| Needs::Open;
}

aspen_api::record! {
    /// The reply.
    pub struct Doubled {
        /// Twice the number.
        pub number: u64,
    }
}

/// Doubles, and remembers who asked and when it started and stopped.
struct Doubler {
    family: Family,
    log: Arc<Mutex<Vec<String>>>,
}

impl Doubler {
    fn new(number: u16, name: &'static str, tier: Tier, log: &Arc<Mutex<Vec<String>>>) -> Self {
        Self { family: Family { number, name, tier, advertises: &[] }, log: log.clone() }
    }

    fn note(&self, text: String) {
        self.log.lock().unwrap().push(text);
    }

    async fn double(self: Arc<Self>, caller: Caller, request: Double) -> Result<Doubled, ApiError> {
        self.note(format!("{:?} {}", caller.origin, caller.request_id.map_or(0, |id| id.counter)));
        match request.number.checked_mul(2) {
            Some(number) => Ok(Doubled { number }),
            None => Err(ApiError::new(ErrorCode::InvalidRequest, "too large")),
        }
    }

    async fn later(self: Arc<Self>, _: Caller, _: Later) -> Result<Doubled, ApiError> {
        Ok(Doubled { number: 0 })
    }
}

impl Service for Doubler {
    fn family(&self) -> Family {
        self.family
    }

    fn routes(self: Arc<Self>) -> Routes {
        match self.family.number {
            910 => Routes::default().on(&self, Self::double).on(&self, Self::later),
            _ => Routes::default(),
        }
    }

    fn start(&self) -> BoxFuture<'_, Result<(), ApiError>> {
        self.note(format!("start {}", self.family.name));
        Box::pin(std::future::ready(Ok(())))
    }

    fn stop(&self, _: Duration) -> BoxFuture<'_, ()> {
        self.note(format!("stop {}", self.family.name));
        Box::pin(std::future::ready(()))
    }

    fn complaints(&self) -> Vec<String> {
        vec!["slow".to_owned()]
    }
}

/// A guard that lets pass what it is told to.
#[derive(Default)]
struct Gate {
    level: AtomicU64,
    is_leader: bool,
    may_administer: bool,
}

impl Guard for Gate {
    fn authorize<'r>(
        &self,
        _: Origin,
        _: Option<&Bytes>,
        needs: &dyn Fn() -> Needs<'r>,
    ) -> Result<(), ApiError> {
        match needs() {
            Needs::Admin(what) if !self.may_administer => {
                Err(ApiError::new(ErrorCode::Forbidden, what))
            }
            _ => Ok(()),
        }
    }

    fn admit(&self, kind: Kind) -> Result<(), ApiError> {
        match kind.is_for_leader() && !self.is_leader {
            true => Err(ApiError::not_leader(None)),
            false => Ok(()),
        }
    }

    fn level(&self) -> Level {
        Level(self.level.load(Ordering::Relaxed) as u32)
    }

    fn applied(&self) -> Revision {
        Revision(7)
    }

    fn explain(&self, error: ApiError) -> ApiError {
        ApiError { message: format!("{}!", error.message), ..error }
    }
}

/// Nothing here waits, so one poll is enough.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it waits"),
    }
}

fn open_gate() -> Gate {
    Gate { level: AtomicU64::new(1), is_leader: true, may_administer: true }
}

fn registry(gate: Gate, log: &Arc<Mutex<Vec<String>>>) -> Registry {
    let plugin = Doubler::new(910, "doubler", Tier::Plugin, log);
    Registry::new(Arc::new(gate)).with(plugin).unwrap()
}

fn ask<R: Request>(registry: &Registry, request: &R, counter: u64) -> Response<R::Reply> {
    let id = RequestId { client: ClientId([1; 16]), counter, since: Revision(0) };
    let frame = RequestFrame::of(request, id, None);
    Response::decode(now(registry.dispatch(Origin::Door("test"), frame))).unwrap()
}

#[test]
fn a_request_reaches_its_meaning_and_the_reply_comes_with_the_applied_revision() {
    let log = Arc::default();
    let registry = registry(open_gate(), &log);
    let response = ask(&registry, &Double { number: 21 }, 5);
    assert_eq!(response, Response { applied: Revision(7), result: Ok(Doubled { number: 42 }) });
    ask(&registry, &Double { number: 1 }, 0).result.unwrap();
    assert_eq!(*log.lock().unwrap(), ["Door(\"test\") 5", "Door(\"test\") 0"]);
    let error = ask(&registry, &Double { number: u64::MAX }, 0).result.unwrap_err();
    assert_eq!((error.code, &error.message[..]), (ErrorCode::InvalidRequest, "too large!"));
    let counts: Vec<_> = registry.counts().map(|c| (c.name, c.requests(), c.errors())).collect();
    assert_eq!(counts, [("Double", 3, 1), ("Later", 0, 0)]);
}

#[test]
fn the_guard_decides_before_the_service_sees_anything() {
    for (gate, code) in [
        (Gate { may_administer: false, ..open_gate() }, ErrorCode::Forbidden),
        (Gate { is_leader: false, ..open_gate() }, ErrorCode::NotLeader),
    ] {
        let log = Arc::default();
        let registry = registry(gate, &log);
        let error = ask(&registry, &Double { number: 1 }, 1).result.unwrap_err();
        assert_eq!(error.code, code);
        assert!(log.lock().unwrap().is_empty());
        assert_eq!(registry.counts().next().unwrap().errors(), 1);
    }
}

#[test]
fn a_request_above_the_level_waits_for_the_members() {
    let log = Arc::default();
    let error = ask(&registry(open_gate(), &log), &Later {}, 0).result.unwrap_err();
    assert_eq!(error.code, ErrorCode::Unsupported);
    assert!(error.message.contains("Later needs feature level 2"), "{error}");
    assert!(error.message.contains("at level 1"), "{error}");
    let gate = Gate { level: AtomicU64::new(2), ..open_gate() };
    assert!(ask(&registry(gate, &log), &Later {}, 0).result.is_ok());
}

#[test]
fn what_is_not_served_is_unsupported_and_says_what_would_serve_it() {
    let registry = registry(open_gate(), &Arc::default());
    let refused = |number: Number| {
        let body = Bytes::from_static(b"whatever a newer client sends");
        let frame = RequestFrame { request_id: RequestId::NONE, token: None, number, body };
        let answer = now(registry.dispatch(Origin::Process, frame.encode()));
        let error = Response::<Done>::decode(answer).unwrap().result.unwrap_err();
        assert_eq!(error.code, ErrorCode::Unsupported);
        error.message
    };
    assert!(refused(Number::new(family::FIRST_PLUGIN, 0)).contains("as a plugin does"));
    assert!(refused(Number::new(580, 1)).contains("as the secrets service does"));
    assert!(refused(Number::new(910, 60)).contains("a plugin of this version does not know"));
    assert!(refused(Number::from_wire(u16::MAX)).contains("a newer version"));
    let answer = now(registry.dispatch(Origin::Process, Bytes::from_static(&[9])));
    let error = Response::<Done>::decode(answer).unwrap().result.unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidRequest);
}

#[test]
fn numbers_names_and_families_belong_to_one_service() {
    let log = Arc::default();
    let with = |number, name, tier| {
        registry(open_gate(), &log).with(Doubler::new(number, name, tier, &log)).err()
    };
    assert_eq!(with(911, "other", Tier::Plugin), None);
    let taken = with(910, "other", Tier::Plugin).unwrap();
    assert_eq!(taken.to_string(), "family 910 belongs to doubler and to other");
    assert_eq!(with(911, "doubler", Tier::Plugin), Some(RegistryError::NameTaken("doubler")));
    for (number, tier) in [(911, Tier::Native), (500, Tier::Plugin), (1_000, Tier::Native)] {
        let wrong = Some(RegistryError::WrongTier { name: "other", number });
        assert_eq!(with(number, "other", tier), wrong);
    }
}

#[test]
fn services_start_tier_by_tier_and_stop_in_reverse() {
    let log = Arc::default();
    let registry = registry(open_gate(), &log)
        .with(Doubler::new(500, "second", Tier::Native, &log))
        .unwrap()
        .with(Doubler::new(510, "third", Tier::Native, &log))
        .unwrap()
        .with(Doubler::new(110, "first", Tier::Core, &log))
        .unwrap();
    now(registry.start()).unwrap();
    now(registry.stop(Duration::ZERO));
    let order = ["first", "second", "third", "doubler"];
    let started = order.iter().map(|name| format!("start {name}"));
    let stopped = order.iter().rev().map(|name| format!("stop {name}"));
    assert_eq!(*log.lock().unwrap(), started.chain(stopped).collect::<Vec<_>>());
    assert_eq!(registry.complaints()[0], "first: slow");
}

#[test]
fn a_door_calls_services_by_type() {
    let registry = Arc::new(registry(open_gate(), &Arc::default()));
    let services = Services::new(registry, Origin::Door("http"));
    let doubled = now(services.call(None, Double { number: 4 })).unwrap();
    assert_eq!(doubled.number, 8);
    let missing: Result<Pong, _> = now(services.call(None, Ping {}));
    assert_eq!(missing.unwrap_err().code, ErrorCode::Unsupported);
}

//! Counters, asked as a client asks them: through a registry.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use aspen_api::service::{Origin, Registry};
use aspen_api::testing::OpenGuard;
use aspen_api::{
    ApiError, ClientId, ErrorCode, Key, KeyValueStore, Request, RequestFrame, RequestId,
    RequestVisitor, Response, Revision,
};
use aspen_coordination::CoordinationService;
use aspen_coordination::counter::{
    CounterAdd, CounterCompareAndSet, CounterCompared, CounterDelete, CounterGet, CounterSet,
    CounterSubtract, SignedCounterAdd, SignedCounterGet,
};
use aspen_kv::{MemoryStore, Store};

/// The store in memory never waits, so that one poll is enough.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("the store in memory waits for nothing"),
    }
}

struct Node {
    store: Store<Arc<MemoryStore>>,
    registry: Registry,
}

impl Node {
    fn start() -> Self {
        let store = Store(Arc::new(MemoryStore::new()));
        let service = CoordinationService(store.clone());
        Self { store, registry: Registry::new(Arc::new(OpenGuard)).with(service).unwrap() }
    }

    fn ask<R: Request>(&self, request: R) -> Result<R::Reply, ApiError> {
        self.ask_once(request, 0)
    }

    fn ask_once<R: Request>(&self, request: R, counter: u64) -> Result<R::Reply, ApiError> {
        let id = RequestId { client: ClientId([1; 16]), counter, since: Revision(0) };
        let answer = self.registry.dispatch(Origin::Process, RequestFrame::of(&request, id, None));
        Response::decode(now(answer)).unwrap().result
    }

    fn value(&self) -> u64 {
        self.ask(CounterGet { name: name() }).unwrap().value
    }
}

fn name() -> Key {
    "visits".parse().unwrap()
}

fn add(amount: u64) -> CounterAdd {
    CounterAdd { name: name(), amount }
}

fn compare(expected: u64, new_value: u64) -> CounterCompareAndSet {
    CounterCompareAndSet { name: name(), expected, new_value }
}

#[test]
fn a_counter_starts_at_zero_and_stops_at_its_ends() {
    let node = Node::start();
    assert_eq!(node.value(), 0);
    assert_eq!(node.ask(add(5)).unwrap().value, 5);
    let subtract = |amount| node.ask(CounterSubtract { name: name(), amount }).unwrap().value;
    assert_eq!(subtract(2), 3);
    assert_eq!(subtract(9), 0, "a decrement at 0 succeeds with 0");
    assert_eq!(node.ask(add(u64::MAX)).unwrap().value, u64::MAX);
    assert_eq!(node.ask(add(1)).unwrap().value, u64::MAX);
    assert_eq!(node.value(), u64::MAX);
}

#[test]
fn absent_and_zero_are_the_same() {
    let node = Node::start();
    let swapped = node.ask(compare(0, 7)).unwrap();
    assert_eq!(swapped, CounterCompared { is_success: true, value: 7 });
    assert_eq!(node.ask(CounterSet { name: name(), value: 0 }).unwrap().value, 0);
    assert_eq!(node.value(), 0);
    let missed = node.ask(compare(7, 8)).unwrap();
    assert_eq!(missed, CounterCompared { is_success: false, value: 0 });
    assert!(node.ask(compare(0, 1)).unwrap().is_success);
}

#[test]
fn a_repeated_addition_counts_once_and_tells_the_first_sum() {
    let node = Node::start();
    assert_eq!(node.ask_once(add(1), 1).unwrap().value, 1);
    assert_eq!(node.ask_once(add(1), 2).unwrap().value, 2);
    assert_eq!(node.ask_once(add(1), 1).unwrap().value, 1);
    assert_eq!(node.value(), 2);
    assert!(node.ask_once(compare(2, 9), 3).unwrap().is_success);
    node.ask(add(1)).unwrap();
    assert!(node.ask_once(compare(2, 9), 3).unwrap().is_success, "the first answer");
    assert_eq!(node.value(), 10);
}

#[test]
fn signed_counters_go_below_zero_and_have_names_of_their_own() {
    let node = Node::start();
    let add = |amount: i64| {
        let (amount, is_subtraction) = (amount.unsigned_abs(), amount < 0);
        let add = SignedCounterAdd { name: name(), amount, is_subtraction };
        node.ask(add).unwrap().value()
    };
    assert_eq!((add(2), add(-5)), (2, -3));
    assert_eq!(add(i64::MIN), i64::MIN);
    assert_eq!(add(i64::MAX), -1);
    assert_eq!(node.ask(SignedCounterGet { name: name() }).unwrap().value(), -1);
    assert_eq!(node.value(), 0);
}

#[test]
fn state_that_is_no_number_is_refused_and_left_alone() {
    let node = Node::start();
    let key: Key = "__coord:counter:visits".parse().unwrap();
    now(node.store.set(key, "text")).unwrap();
    for code in [
        node.ask(CounterGet { name: name() }).unwrap_err().code,
        node.ask(add(1)).unwrap_err().code,
        node.ask(compare(0, 1)).unwrap_err().code,
    ] {
        assert_eq!(code, ErrorCode::Conflict);
    }
    node.ask(CounterSet { name: name(), value: 1 }).unwrap();
    assert_eq!(node.value(), 1);
}

#[test]
fn a_name_leaves_room_for_its_prefix() {
    let node = Node::start();
    let name = Key::new("n".repeat(1_024)).unwrap();
    let error = node.ask(CounterGet { name }).unwrap_err();
    assert_eq!(error.code, ErrorCode::TooLarge, "{error}");
}

#[test]
fn requests_are_pinned() {
    fn line<R: Request>(request: &R) -> String {
        let hex: String = request.to_bytes().iter().map(|b| format!("{b:02x}")).collect();
        format!("{} {} {hex}", R::NUMBER, R::NAME)
    }
    let name = || Key::new("n").unwrap();
    let compare = CounterCompareAndSet { name: name(), expected: 300, new_value: 1 };
    let signed = SignedCounterAdd { name: name(), amount: 300, is_subtraction: true };
    let found = [
        line(&CounterGet { name: name() }),
        line(&CounterAdd { name: name(), amount: 300 }),
        line(&CounterSubtract { name: name(), amount: 300 }),
        line(&CounterSet { name: name(), value: 300 }),
        line(&compare),
        line(&SignedCounterGet { name: name() }),
        line(&signed),
        line(&CounterDelete { name: name(), is_signed: true }),
    ];
    let pinned = [
        "220.0 CounterGet 016e",
        "220.1 CounterAdd 016eac02",
        "220.2 CounterSubtract 016eac02",
        "220.3 CounterSet 016eac02",
        "220.4 CounterCompareAndSet 016eac0201",
        "220.5 SignedCounterGet 016e",
        "220.6 SignedCounterAdd 016eac0201",
        "220.7 CounterDelete 016e01",
    ];
    assert_eq!(found, pinned);
    let mut declared = Declared::default();
    aspen_coordination::counter::each_request(&mut declared);
    assert_eq!(declared.0.len(), pinned.len(), "a request is not pinned");
    let routes: Vec<_> = Node::start().registry.counts().map(|route| route.name).collect();
    let missing: Vec<_> = declared.0.iter().filter(|name| !routes.contains(name)).collect();
    assert!(missing.is_empty(), "the service does not answer {missing:?}");
}

/// The names of requests.
#[derive(Default)]
struct Declared(Vec<&'static str>);

impl RequestVisitor for Declared {
    fn visit<R: Request>(&mut self) {
        self.0.push(R::NAME);
    }
}

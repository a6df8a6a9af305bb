//! Clients: each does one operation after another on a few shared keys, asks any node, and repeats
//! a request under its id until it is answered or its patience ends.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aspen_api::cluster::GetRaftMetrics;
use aspen_api::kv::{Consistency, Lifetime, ReadKey, Transact, TransactionOutcome, WriteOperation};
use aspen_api::{
    ApiError, ClientId, ErrorCode, Request, RequestFrame, RequestId, Response, Revision, service,
};
use bytes::Bytes;
use net_sim::SimRng;
use tokio::time::Instant;

use super::history::{Action, History, Outcome, Value};
use super::network::{HostId, SimNet};
use super::world::NODES;
use crate::client::{key, set, swap};

/// Keys that all clients share; few, so that operations meet.
const SHARED_KEYS: [&str; 4] = ["w", "x", "y", "z"];
/// Patience for one answer, and for one operation.
const ATTEMPT_DEADLINE: Duration = Duration::from_millis(1_500);
const PATIENCE: Duration = Duration::from_secs(6);

fn bytes_of(value: Value) -> Bytes {
    value.to_string().into()
}

fn value_of(bytes: &Bytes) -> Value {
    std::str::from_utf8(bytes).unwrap().parse().unwrap()
}

/// Why an attempt has no outcome.
enum Failure {
    NoAnswer,
    Error(ApiError),
}

impl Failure {
    /// Whether what was asked may have been carried out, or may yet be.
    fn is_open(&self) -> bool {
        match self {
            Self::NoAnswer => true,
            Self::Error(error) => {
                matches!(error.code, ErrorCode::Timeout | ErrorCode::InternalError)
            }
        }
    }

    fn is_code(&self, code: ErrorCode) -> bool {
        matches!(self, Self::Error(error) if error.code == code)
    }
}

pub(crate) struct Client {
    number: usize,
    net: SimNet,
    history: Arc<Mutex<History>>,
    rng: SimRng,
    consistency: Consistency,
    requests: u64,
    /// The newest revision seen in an answer.
    revision: Revision,
    values: u64,
    target: HostId,
    /// What it last saw of each shared key.
    seen: [Option<Value>; SHARED_KEYS.len()],
}

impl Client {
    pub(crate) fn new(
        seed: u64,
        number: usize,
        net: SimNet,
        history: Arc<Mutex<History>>,
        consistency: Consistency,
    ) -> Self {
        Self {
            number,
            net,
            history,
            rng: SimRng::new(seed, &format!("client {number}")),
            consistency,
            requests: 0,
            revision: Revision(0),
            values: 0,
            target: NODES[number % NODES.len()],
            seen: [None; SHARED_KEYS.len()],
        }
    }

    pub(crate) fn new_value(&mut self) -> Value {
        self.values += 1;
        (self.number as u64 + 1) * 1_000_000 + self.values
    }

    /// Operates until `end`.
    pub(crate) async fn run_until(&mut self, end: Instant) {
        while Instant::now() < end {
            self.operate().await;
            let pause = 5 + self.rng.below(120);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    /// Does one operation; whether it was answered.
    pub(crate) async fn operate(&mut self) -> bool {
        if self.rng.chance(100_000) {
            // A key of its own, written once: nothing may ever take it back.
            let value = self.new_value();
            return self.perform(&format!("once/{value}"), Action::Write(value)).await.is_some();
        }
        let shared = self.rng.below(SHARED_KEYS.len() as u64) as usize;
        let action = match self.rng.below(20) {
            0..9 => Action::Read,
            9..14 => Action::Write(self.new_value()),
            14..18 => Action::Cas { expected: self.seen[shared], new: self.new_value() },
            _ => Action::Delete,
        };
        let outcome = self.perform(SHARED_KEYS[shared], action).await;
        self.seen[shared] = match (action, outcome) {
            (_, Some(Outcome::Read(value) | Outcome::Mismatch(value))) => value,
            (Action::Write(new) | Action::Cas { new, .. }, _) => Some(new),
            (_, _) => None,
        };
        outcome.is_some()
    }

    /// Performs `action` until it is answered or patience ends.
    pub(crate) async fn perform(&mut self, name: &str, action: Action) -> Option<Outcome> {
        let mut id = match action {
            Action::Read => RequestId::NONE,
            _ => self.new_id(),
        };
        let mut is_open = false;
        let invocation = self.history.lock().unwrap().invoke(self.number, name, action);
        let end = Instant::now() + PATIENCE;
        if action == Action::Read && self.consistency == Consistency::Lease {
            // Who still takes itself for the leader is seldom asked otherwise.
            self.target = self.any_node();
        }
        while Instant::now() < end {
            match self.attempt(name, action, id).await {
                Ok(outcome) => {
                    self.history.lock().unwrap().answer(&invocation, outcome);
                    self.net.record(format_args!("{} {action:?} {outcome:?}", self.number));
                    return Some(outcome);
                }
                Err(failure) if failure.is_code(ErrorCode::SessionExpired) => {
                    if is_open {
                        return None;
                    }
                    id = self.newer_id().await;
                }
                Err(failure) => {
                    is_open |= failure.is_open();
                    self.turn_elsewhere(&failure).await;
                }
            }
        }
        None
    }

    fn new_id(&mut self) -> RequestId {
        self.requests += 1;
        RequestId { client: self.id(), counter: self.requests, since: self.revision }
    }

    /// An id for a request that was refused for the age of the one it had.
    async fn newer_id(&mut self) -> RequestId {
        if let Ok(metrics) = self.ask(GetRaftMetrics {}, RequestId::NONE).await {
            self.revision = self.revision.max(Revision(metrics.last_applied_index.unwrap_or(0)));
        }
        self.new_id()
    }

    /// Sends a request until it is answered with a reply or, about what it names, with an error; or
    /// until patience ends.
    pub(crate) async fn request<R: Request>(
        &mut self,
        request: R,
    ) -> Option<Result<R::Reply, ErrorCode>> {
        let mut id = self.new_id();
        let mut is_open = false;
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            match self.ask(request.clone(), id).await {
                Ok(reply) => return Some(Ok(reply)),
                Err(Failure::Error(error))
                    if matches!(error.code, ErrorCode::NotFound | ErrorCode::Conflict) =>
                {
                    return Some(Err(error.code));
                }
                Err(failure) if failure.is_code(ErrorCode::SessionExpired) => {
                    if is_open {
                        return None;
                    }
                    id = self.newer_id().await;
                }
                Err(failure) => {
                    is_open |= failure.is_open();
                    self.turn_elsewhere(&failure).await;
                }
            }
        }
        None
    }

    fn id(&self) -> ClientId {
        ClientId([self.number as u8 + 1; 16])
    }

    /// Waits a little and chooses whom to ask next.
    async fn turn_elsewhere(&mut self, failure: &Failure) {
        self.target = match failure {
            Failure::Error(ApiError {
                code: ErrorCode::NotLeader,
                leader_hint: Some(leader),
                ..
            }) => HostId::from(leader.entity_id.as_bytes()[0]),
            _ => self.any_node(),
        };
        let pause = 5 + self.rng.below(60);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }

    /// A random number below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.rng.below(limit)
    }

    fn any_node(&mut self) -> HostId {
        let nodes = self.net.nodes();
        nodes[self.rng.below(nodes.len() as u64) as usize]
    }

    async fn attempt(
        &mut self,
        name: &str,
        action: Action,
        id: RequestId,
    ) -> Result<Outcome, Failure> {
        let key = key(name);
        Ok(match action {
            Action::Read => {
                let consistency = self.consistency;
                let read = ReadKey { key, consistency, revision: None };
                let item = self.ask(read, id).await?.item;
                Outcome::Read(item.map(|item| value_of(&item.value)))
            }
            Action::Write(value) => {
                self.ask(set(key, bytes_of(value), Lifetime::Forever {}), id).await?;
                Outcome::Written
            }
            Action::Cas { expected, new } => {
                let swap = swap(key, expected.map(bytes_of), bytes_of(new));
                match &self.ask(swap, id).await?.outcomes[..] {
                    [TransactionOutcome::Set {}] => Outcome::Swapped,
                    [TransactionOutcome::Read { item }] => {
                        Outcome::Mismatch(item.as_ref().map(|item| value_of(&item.value)))
                    }
                    other => panic!("outcomes of a swap: {other:?}"),
                }
            }
            Action::Delete => {
                let delete = Transact::always([WriteOperation::Delete { key }]);
                match self.ask(delete, id).await?.outcomes[..] {
                    [TransactionOutcome::Deleted { was_deleted }] => Outcome::Deleted(was_deleted),
                    ref other => panic!("outcomes of a deletion: {other:?}"),
                }
            }
        })
    }

    async fn ask<R: Request>(&mut self, request: R, id: RequestId) -> Result<R::Reply, Failure> {
        let body = RequestFrame::of(&request, id, None);
        if self.consistency == Consistency::Stale {
            // The leader alone would hardly ever be found out.
            self.target = self.any_node();
        }
        let own = 100 + self.number as HostId;
        let call = self.net.call(own, self.target, service::CLIENT, body, ATTEMPT_DEADLINE);
        let answer = call.await.map_err(|_| Failure::NoAnswer)?;
        let response = Response::<R::Reply>::decode(answer).unwrap();
        self.revision = self.revision.max(response.applied);
        response.result.map_err(Failure::Error)
    }
}

//! How many clients a node serves, and how many requests of each at the same time.
//!
//! A client is who the transport has authenticated. It has a place from its first request until its
//! session has ended and another client needs the place. Members of the cluster pass always: they
//! forward what they were asked.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aspen_api::{ApiError, ErrorCode};
use net_types::limits::MAX_REQUESTS_PER_CLIENT;
use net_types::{EntityId, Instant};

use super::ClusterNode;

/// Time between two looks for places of clients that have gone.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// The clients that have a place, with their requests under way.
pub(crate) struct Admission {
    max_clients: usize,
    clients: Mutex<Clients>,
    /// Requests refused because too many clients have a place.
    pub(super) refused_clients: AtomicU64,
    /// Requests refused because too many of the same client are under way.
    pub(super) refused_requests: AtomicU64,
}

#[derive(Default)]
struct Clients {
    under_way: HashMap<EntityId, usize>,
    look_after: Option<Instant>,
}

impl Clients {
    fn count(&mut self, client: EntityId) -> Result<(), Refusal> {
        let under_way = self.under_way.entry(client).or_default();
        if *under_way >= MAX_REQUESTS_PER_CLIENT {
            return Err(Refusal::Requests);
        }
        *under_way += 1;
        Ok(())
    }
}

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    Clients,
    Requests,
}

impl Admission {
    /// Places for `max_clients`.
    pub(crate) fn new(max_clients: usize) -> Self {
        Self {
            max_clients,
            clients: Mutex::default(),
            refused_clients: AtomicU64::new(0),
            refused_requests: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Clients that have a place.
    pub(super) fn clients(&self) -> usize {
        self.lock().under_way.len()
    }

    /// Counts a request in. `connected` tells who has a session; it is asked when all places are
    /// taken, and not often.
    fn enter(
        &self,
        client: EntityId,
        now: Instant,
        connected: impl FnOnce() -> HashSet<EntityId>,
    ) -> Result<(), Refusal> {
        let mut clients = self.lock();
        if clients.under_way.contains_key(&client) || clients.under_way.len() < self.max_clients {
            return clients.count(client);
        }
        if clients.look_after.is_some_and(|at| now < at) {
            return Err(Refusal::Clients);
        }
        clients.look_after = Some(now + LOOK_INTERVAL);
        // The transport may hold a lock of its own while it drops a request, which comes here.
        drop(clients);
        let connected = connected();
        let mut clients = self.lock();
        clients.under_way.retain(|client, n| *n > 0 || connected.contains(client));
        match clients.under_way.len() < self.max_clients {
            true => clients.count(client),
            false => Err(Refusal::Clients),
        }
    }

    fn leave(&self, client: EntityId) {
        if let Some(under_way) = self.lock().under_way.get_mut(&client) {
            *under_way = under_way.saturating_sub(1);
        }
    }

    fn refuse(&self, refusal: Refusal) -> ApiError {
        let (counter, text) = match refusal {
            Refusal::Clients => {
                let max = self.max_clients;
                (&self.refused_clients, format!("this node serves {max} clients already"))
            }
            Refusal::Requests => {
                let max = MAX_REQUESTS_PER_CLIENT;
                (&self.refused_requests, format!("{max} requests of this client are under way"))
            }
        };
        counter.fetch_add(1, Ordering::Relaxed);
        ApiError::new(ErrorCode::ServiceUnavailable, text)
    }
}

/// Leave to carry out one request of a client; given back when dropped.
pub(crate) struct Admitted {
    node: ClusterNode,
    client: Option<EntityId>,
}

impl Admitted {
    /// The node that carries it out.
    pub(crate) fn node(&self) -> &ClusterNode {
        &self.node
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if let Some(client) = self.client {
            self.node.0.admission.leave(client);
        }
    }
}

impl ClusterNode {
    /// Lets a request of a client in. `connected` tells who has a session with this node.
    ///
    /// `SERVICE_UNAVAILABLE` beyond [`super::ClusterConfig::max_clients`] and beyond
    /// [`MAX_REQUESTS_PER_CLIENT`].
    pub(crate) fn admit(
        &self,
        client: EntityId,
        connected: impl FnOnce() -> HashSet<EntityId>,
    ) -> Result<Admitted, ApiError> {
        let now = self.0.config.clock.now();
        match self.0.admission.enter(client, now, connected) {
            Ok(()) => Ok(Admitted { node: self.clone(), client: Some(client) }),
            Err(_) if self.is_member(client) => Ok(Admitted { node: self.clone(), client: None }),
            Err(refusal) => {
                self.0.counters.requests.fetch_add(1, Ordering::Relaxed);
                self.0.counters.errors.fetch_add(1, Ordering::Relaxed);
                Err(self.0.admission.refuse(refusal))
            }
        }
    }

    pub(super) fn is_member(&self, entity: EntityId) -> bool {
        self.with_membership(|members| members.nodes().any(|(_, m)| m.0.entity_id == entity))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(n: u8) -> EntityId {
        EntityId([n; 32])
    }

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    fn nobody() -> HashSet<EntityId> {
        HashSet::new()
    }

    #[test]
    fn a_client_has_so_many_requests_under_way_and_no_more() {
        let admission = Admission::new(2);
        for _ in 0..MAX_REQUESTS_PER_CLIENT {
            assert_eq!(admission.enter(client(1), at(0), nobody), Ok(()));
        }
        assert_eq!(admission.enter(client(1), at(0), nobody), Err(Refusal::Requests));
        assert_eq!(admission.enter(client(2), at(0), nobody), Ok(()), "others are not concerned");
        admission.leave(client(1));
        assert_eq!(admission.enter(client(1), at(0), nobody), Ok(()));
        let error = admission.refuse(Refusal::Requests);
        assert_eq!(error.code, ErrorCode::ServiceUnavailable);
        assert_eq!(admission.refused_requests.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn places_are_kept_while_a_session_or_a_request_lasts() {
        let admission = Admission::new(2);
        let both = || HashSet::from([client(1), client(2)]);
        for n in [1, 2] {
            admission.enter(client(n), at(0), nobody).unwrap();
        }
        // Both still have a request under way, sessions or not.
        assert_eq!(admission.enter(client(3), at(0), nobody), Err(Refusal::Clients));
        admission.leave(client(1));
        admission.leave(client(2));
        assert_eq!(admission.enter(client(3), at(100), both), Err(Refusal::Clients));
        // It is not looked again at once.
        let unasked = || panic!("asked too often");
        assert_eq!(admission.enter(client(3), at(199), unasked), Err(Refusal::Clients));
        let second = || HashSet::from([client(2)]);
        assert_eq!(admission.enter(client(3), at(200), second), Ok(()));
        assert_eq!(admission.enter(client(2), at(200), nobody), Ok(()), "its place was kept");
        assert_eq!(admission.clients(), 2);
        assert_eq!(admission.enter(client(1), at(300), nobody), Err(Refusal::Clients));
    }
}

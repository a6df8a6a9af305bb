//! How many clients a node serves, how many requests of each at the same time, and how much memory
//! all requests take.
//!
//! A client is an identity that the transport has authenticated. It has a place from its first request
//! until its session has ended and another client needs the place. Members of the cluster need none
//! and pass the limits of a client, since they forward what they were asked; of the memory they get no
//! more than others. Invariant: what is counted in is counted out once.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::time::Duration;

use aspen_api::{ApiError, ErrorCode};
use net_types::limits::{MAX_REQUEST_BYTES, MAX_REQUEST_BYTES_PER_CLIENT, MAX_REQUESTS_PER_CLIENT};
use net_types::{EntityId, Instant, lock};

/// Time between two looks for places of clients that have gone.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// The clients that have a place, with their requests under way.
pub(super) struct Admission {
    max_clients: usize,
    clients: Mutex<Clients>,
}

#[derive(Default)]
struct Clients {
    places: HashMap<EntityId, Place>,
    /// Bytes of all requests under way, those of members included.
    bytes: usize,
    look_after: Option<Instant>,
    /// Requests that were refused, by [`Refusal`].
    refused: [u64; 3],
}

/// What a client has under way.
#[derive(Default)]
struct Place {
    requests: usize,
    bytes: usize,
}

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Too many clients have a place.
    Clients,
    /// Too many requests of the same client are under way.
    Requests,
    /// The requests under way are too large together.
    Bytes,
}

impl Clients {
    /// Counts a request in, if its client has a place or gets one of `max_clients`.
    fn count(&mut self, client: EntityId, bytes: usize, max_clients: usize) -> Result<(), Refusal> {
        let is_full = self.places.len() >= max_clients;
        let place = match self.places.get_mut(&client) {
            Some(place) => place,
            None if is_full => return Err(Refusal::Clients),
            None => self.places.entry(client).or_default(),
        };
        if place.requests >= MAX_REQUESTS_PER_CLIENT {
            return Err(Refusal::Requests);
        }
        if place.bytes + bytes > MAX_REQUEST_BYTES_PER_CLIENT
            || self.bytes + bytes > MAX_REQUEST_BYTES
        {
            return Err(Refusal::Bytes);
        }
        self.bytes += bytes;
        place.requests += 1;
        place.bytes += bytes;
        Ok(())
    }
}

impl Admission {
    /// Places for `max_clients`.
    pub(super) fn new(max_clients: usize) -> Self {
        Self { max_clients, clients: Mutex::default() }
    }

    /// Clients that have a place, and requests that were refused, by [`Refusal`].
    pub(super) fn counts(&self) -> (usize, [u64; 3]) {
        let clients = lock(&self.clients);
        (clients.places.len(), clients.refused)
    }

    /// Counts a request in. `connected` tells which clients have a session; it is called when all
    /// places are taken, and not often.
    pub(super) fn enter(
        &self,
        client: EntityId,
        bytes: usize,
        now: Instant,
        connected: impl FnOnce() -> HashSet<EntityId>,
    ) -> Result<(), Refusal> {
        let mut clients = lock(&self.clients);
        let counted = clients.count(client, bytes, self.max_clients);
        if counted != Err(Refusal::Clients) || clients.look_after.is_some_and(|at| now < at) {
            return counted;
        }
        clients.look_after = Some(now + LOOK_INTERVAL);
        // The transport may hold a lock of its own while it drops a request, which comes here.
        drop(clients);
        let connected = connected();
        let mut clients = lock(&self.clients);
        clients.places.retain(|client, place| place.requests > 0 || connected.contains(client));
        clients.count(client, bytes, self.max_clients)
    }

    /// Counts a request of a member in, which needs no place.
    pub(super) fn enter_member(&self, bytes: usize) -> Result<(), Refusal> {
        let mut clients = lock(&self.clients);
        if clients.bytes + bytes > MAX_REQUEST_BYTES {
            return Err(Refusal::Bytes);
        }
        clients.bytes += bytes;
        Ok(())
    }

    /// Counts a request out; `client` is `None` for one that had no place.
    pub(super) fn leave(&self, client: Option<EntityId>, bytes: usize) {
        let mut clients = lock(&self.clients);
        clients.bytes = clients.bytes.saturating_sub(bytes);
        if let Some(place) = client.and_then(|client| clients.places.get_mut(&client)) {
            place.requests = place.requests.saturating_sub(1);
            place.bytes = place.bytes.saturating_sub(bytes);
        }
    }

    /// Counts a refusal, and says what it is.
    pub(super) fn refuse(&self, refusal: Refusal) -> ApiError {
        lock(&self.clients).refused[refusal as usize] += 1;
        let text = match refusal {
            Refusal::Clients => format!("this node serves {} clients already", self.max_clients),
            Refusal::Requests => {
                format!("{MAX_REQUESTS_PER_CLIENT} requests of this client are under way")
            }
            Refusal::Bytes => "the requests under way are too large together".to_owned(),
        };
        ApiError::new(ErrorCode::ServiceUnavailable, text)
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

    fn none() -> HashSet<EntityId> {
        HashSet::new()
    }

    #[test]
    fn a_client_has_so_many_requests_under_way_and_no_more() {
        let admission = Admission::new(2);
        for _ in 0..MAX_REQUESTS_PER_CLIENT {
            assert_eq!(admission.enter(client(1), 9, at(0), none), Ok(()));
        }
        assert_eq!(admission.enter(client(1), 9, at(0), none), Err(Refusal::Requests));
        assert_eq!(admission.enter(client(2), 9, at(0), none), Ok(()), "others are not concerned");
        admission.leave(Some(client(1)), 9);
        assert_eq!(admission.enter(client(1), 9, at(0), none), Ok(()));
        let error = admission.refuse(Refusal::Requests);
        assert_eq!(error.code, ErrorCode::ServiceUnavailable);
        assert_eq!(admission.counts(), (2, [0, 1, 0]));
    }

    #[test]
    fn places_are_kept_while_a_session_or_a_request_lasts() {
        let admission = Admission::new(2);
        let both = || HashSet::from([client(1), client(2)]);
        for n in [1, 2] {
            admission.enter(client(n), 9, at(0), none).unwrap();
        }
        // Both still have a request under way, sessions or not.
        assert_eq!(admission.enter(client(3), 9, at(0), none), Err(Refusal::Clients));
        admission.leave(Some(client(1)), 9);
        admission.leave(Some(client(2)), 9);
        assert_eq!(admission.enter(client(3), 9, at(100), both), Err(Refusal::Clients));
        // It is not looked again at once.
        let unasked = || panic!("asked too often");
        assert_eq!(admission.enter(client(3), 9, at(199), unasked), Err(Refusal::Clients));
        let second = || HashSet::from([client(2)]);
        assert_eq!(admission.enter(client(3), 9, at(200), second), Ok(()));
        assert_eq!(admission.enter(client(2), 9, at(200), none), Ok(()), "its place was kept");
        assert_eq!(admission.counts().0, 2);
        assert_eq!(admission.enter(client(1), 9, at(300), none), Err(Refusal::Clients));
    }

    #[test]
    fn all_requests_together_take_so_much_memory_and_one_client_not_all_of_it() {
        let admission = Admission::new(4);
        let large = MAX_REQUEST_BYTES_PER_CLIENT / 4;
        let enter = |n| admission.enter(client(n), large, at(0), none);
        for _ in 0..4 {
            assert_eq!(enter(1), Ok(()));
        }
        assert_eq!(enter(1), Err(Refusal::Bytes));
        while enter(2).is_ok() {}
        assert_eq!(enter(3), Err(Refusal::Bytes), "two have taken all");
        assert_eq!(admission.enter_member(large), Err(Refusal::Bytes));
        admission.leave(Some(client(1)), large);
        assert_eq!(admission.enter_member(large), Ok(()));
        admission.leave(None, large);
        assert_eq!(enter(3), Ok(()));
        let error = admission.refuse(Refusal::Bytes);
        assert_eq!(error.code, ErrorCode::ServiceUnavailable);
    }
}

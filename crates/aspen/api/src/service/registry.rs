//! The table of all services of a node.

use core::future::ready;
use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

use super::routes::Route;
use super::{BoxFuture, Family, Guard, Origin, RouteCounts, Service, Tier};
use crate::cluster::Done;
use crate::frame::unreadable_answer;
use crate::number::{FAMILY_REQUESTS, family};
use crate::{ApiError, ErrorCode, Number, Request, RequestFrame, RequestId, Response};

/// Why services cannot be together on one node: a defect of the program.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RegistryError {
    /// Two services claim one family.
    #[error("family {number} belongs to {first} and to {second}")]
    FamilyTaken {
        /// The family.
        number: u16,
        /// The service that has it.
        first: &'static str,
        /// The service that wants it.
        second: &'static str,
    },
    /// Two services have one name.
    #[error("two services are called {0}")]
    NameTaken(&'static str),
    /// A service's family is not one of its tier.
    #[error("{name} cannot have family {number}: 900 to 999 are for plugins, and for them alone")]
    WrongTier {
        /// The service.
        name: &'static str,
        /// The family.
        number: u16,
    },
    /// A service has a route outside its family, or two for one number.
    #[error("{name} cannot serve request {number}: it is another's, or served twice")]
    WrongRoute {
        /// The service.
        name: &'static str,
        /// The request.
        number: Number,
    },
}

struct Entry {
    family: Family,
    service: Arc<dyn Service>,
    /// By place in the family.
    routes: [Option<Route>; FAMILY_REQUESTS as usize],
}

/// The services of a node by family. It does not change once it is built.
pub struct Registry {
    guard: Arc<dyn Guard>,
    by_family: BTreeMap<u16, Entry>,
    /// Families in the order of start.
    order: Vec<u16>,
}

impl Registry {
    /// No services yet; `guard` decides about every request.
    pub fn new(guard: Arc<dyn Guard>) -> Self {
        Self { guard, by_family: BTreeMap::new(), order: Vec::new() }
    }

    /// Adds a service. Services of one tier start in the order in which they are added.
    pub fn with(mut self, service: impl Service) -> Result<Self, RegistryError> {
        let service: Arc<dyn Service> = Arc::new(service);
        let family = service.family();
        let Family { number, name, tier, .. } = family;
        let is_for_plugins = (family::FIRST_PLUGIN..=family::LAST_PLUGIN).contains(&number);
        if is_for_plugins != (tier == Tier::Plugin) || number > family::LAST_PLUGIN {
            return Err(RegistryError::WrongTier { name, number });
        }
        if let Some(taken) = self.by_family.get(&number) {
            let first = taken.family.name;
            return Err(RegistryError::FamilyTaken { number, first, second: name });
        }
        if self.by_family.values().any(|other| other.family.name == name) {
            return Err(RegistryError::NameTaken(name));
        }
        let mut routes = [const { None }; FAMILY_REQUESTS as usize];
        for route in service.clone().routes().all {
            let number = route.number;
            let slot = &mut routes[usize::from(number.index())];
            if number.family() != family.number || slot.is_some() {
                return Err(RegistryError::WrongRoute { name, number });
            }
            *slot = Some(route);
        }
        self.by_family.insert(number, Entry { family, service, routes });
        let at = self.order.partition_point(|other| self.by_family[other].family.tier <= tier);
        self.order.insert(at, number);
        Ok(self)
    }

    /// The services, in the order of start.
    pub fn families(&self) -> impl Iterator<Item = Family> {
        self.in_order().map(|entry| entry.family)
    }

    fn in_order(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.order.iter().map(|number| &self.by_family[number])
    }

    /// Starts every service. After an error those that run are to be stopped.
    pub async fn start(&self) -> Result<(), ApiError> {
        for entry in self.in_order() {
            entry.service.start().await?;
        }
        Ok(())
    }

    /// Stops every service, the last one first, each within a time.
    pub async fn stop(&self, within: Duration) {
        for entry in self.in_order().rev() {
            entry.service.stop(within).await;
        }
    }

    /// What keeps services from working well, with the service's name.
    pub fn complaints(&self) -> Vec<String> {
        let named = |entry: &Entry| {
            let name = entry.family.name;
            entry.service.complaints().into_iter().map(move |text| format!("{name}: {text}"))
        };
        self.in_order().flat_map(named).collect()
    }

    /// What services measure themselves.
    pub fn collectors(&self) -> Vec<Box<dyn prometheus::core::Collector>> {
        self.in_order().flat_map(|entry| entry.service.collectors()).collect()
    }

    /// How often each request was asked.
    pub fn counts(&self) -> impl Iterator<Item = &RouteCounts> {
        self.in_order().flat_map(|entry| entry.routes.iter().flatten()).map(|route| &*route.counts)
    }

    /// Carries out the request in a frame and gives the frame of its response.
    pub fn dispatch(&self, origin: Origin, body: Bytes) -> BoxFuture<'static, Bytes> {
        let frame = match RequestFrame::decode(body) {
            Ok(frame) => frame,
            Err(error) => return self.refuse(error.into()),
        };
        match self.route(frame.number) {
            Ok(route) => (route.run)(&self.guard, origin, frame),
            Err(error) => self.refuse(error),
        }
    }

    fn route(&self, number: Number) -> Result<&Route, ApiError> {
        let missing = || family::provider(number.family());
        let text = match self.by_family.get(&number.family()) {
            None => format!("this node does not serve request {number}, as {} does", missing()),
            Some(entry) => match &entry.routes[usize::from(number.index())] {
                Some(route) => return Ok(route),
                None => format!("{} of this version does not know request {number}", missing()),
            },
        };
        Err(ApiError::new(ErrorCode::Unsupported, text))
    }

    fn refuse(&self, error: ApiError) -> BoxFuture<'static, Bytes> {
        let response = Response::<Done> { applied: self.guard.applied(), result: Err(error) };
        Box::pin(ready(response.encode()))
    }
}

/// The services of a node as a door sees them.
#[derive(Clone)]
pub struct Services {
    registry: Arc<Registry>,
    origin: Origin,
}

impl Services {
    /// The services for callers of one origin.
    pub fn new(registry: Arc<Registry>, origin: Origin) -> Self {
        Self { registry, origin }
    }

    /// Carries out one request. `token` is the capability token that the foreign credentials of the
    /// caller stand for.
    pub async fn call<R: Request>(
        &self,
        token: Option<&Bytes>,
        request: R,
    ) -> Result<R::Reply, ApiError> {
        request.check()?;
        let frame = RequestFrame::of(&request, RequestId::NONE, token);
        let answer = self.registry.dispatch(self.origin, frame).await;
        Response::<R::Reply>::decode(answer).map_err(|error| unreadable_answer(&error))?.result
    }
}

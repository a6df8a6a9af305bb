//! The coordination service.

use std::sync::Arc;

use aspen_api::service::{Family, Routes, Service, Tier};
use aspen_api::{KeyValueStore, family};

use crate::counter;

/// Coordination primitives over a store.
#[derive(Clone, Debug)]
pub struct CoordinationService<S>(pub S);

impl<S: KeyValueStore + Clone> Service for CoordinationService<S> {
    fn family(&self) -> Family {
        Family {
            number: family::COORDINATION,
            name: "coordination",
            tier: Tier::Native,
            advertises: &["coordination"],
        }
    }

    fn routes(self: Arc<Self>) -> Routes {
        let store = Arc::new(self.0.clone());
        Routes::default()
            .on(&store, counter::get)
            .on(&store, counter::add)
            .on(&store, counter::subtract)
            .on(&store, counter::set)
            .on(&store, counter::compare_and_set)
            .on(&store, counter::get_signed)
            .on(&store, counter::add_signed)
            .on(&store, counter::delete)
    }
}

//! The coordination service.

use std::sync::Arc;

use aspen_api::service::{Caller, Family, Routes, Service, Tier};
use aspen_api::{ApiError, KeyValueStore, family};

use crate::counter::{
    self, Counted, CounterAdd, CounterCompareAndSet, CounterCompared, CounterDelete,
    CounterDeleted, CounterGet, CounterSet, CounterSubtract, SignedCounted, SignedCounterAdd,
    SignedCounterGet,
};

/// Coordination primitives over a store.
#[derive(Clone, Debug)]
pub struct CoordinationService<S>(pub S);

impl<S: KeyValueStore> CoordinationService<S> {
    async fn get(self: Arc<Self>, _: Caller, request: CounterGet) -> Result<Counted, ApiError> {
        counter::get(&self.0, &request).await
    }

    async fn add(
        self: Arc<Self>,
        caller: Caller,
        request: CounterAdd,
    ) -> Result<Counted, ApiError> {
        let CounterAdd { name, amount } = request;
        counter::add_unsigned(&self.0, caller.request_id, &name, amount, false).await
    }

    async fn subtract(
        self: Arc<Self>,
        caller: Caller,
        request: CounterSubtract,
    ) -> Result<Counted, ApiError> {
        let CounterSubtract { name, amount } = request;
        counter::add_unsigned(&self.0, caller.request_id, &name, amount, true).await
    }

    async fn set(
        self: Arc<Self>,
        caller: Caller,
        request: CounterSet,
    ) -> Result<Counted, ApiError> {
        counter::set(&self.0, caller.request_id, &request).await
    }

    async fn compare_and_set(
        self: Arc<Self>,
        caller: Caller,
        request: CounterCompareAndSet,
    ) -> Result<CounterCompared, ApiError> {
        counter::compare_and_set(&self.0, caller.request_id, &request).await
    }

    async fn get_signed(
        self: Arc<Self>,
        _: Caller,
        request: SignedCounterGet,
    ) -> Result<SignedCounted, ApiError> {
        counter::get_signed(&self.0, &request).await
    }

    async fn add_signed(
        self: Arc<Self>,
        caller: Caller,
        request: SignedCounterAdd,
    ) -> Result<SignedCounted, ApiError> {
        counter::add_signed(&self.0, caller.request_id, &request).await
    }

    async fn delete(
        self: Arc<Self>,
        caller: Caller,
        request: CounterDelete,
    ) -> Result<CounterDeleted, ApiError> {
        counter::delete(&self.0, caller.request_id, &request).await
    }
}

impl<S: KeyValueStore> Service for CoordinationService<S> {
    fn family(&self) -> Family {
        Family {
            number: family::COORDINATION,
            name: "coordination",
            tier: Tier::Native,
            advertises: &["coordination"],
        }
    }

    fn routes(self: Arc<Self>) -> Routes {
        Routes::default()
            .on(&self, Self::get)
            .on(&self, Self::add)
            .on(&self, Self::subtract)
            .on(&self, Self::set)
            .on(&self, Self::compare_and_set)
            .on(&self, Self::get_signed)
            .on(&self, Self::add_signed)
            .on(&self, Self::delete)
    }
}

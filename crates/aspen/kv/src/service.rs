//! The key-value and lease services.

use std::sync::Arc;

use aspen_api::kv::{Compact, Transact};
use aspen_api::lease::{LeaseGrant, LeaseKeepalive, LeaseRevoke};
use aspen_api::service::{Caller, Family, Routes, Service, Tier};
use aspen_api::{ApiError, family};

use crate::view::{QueryVisitor, key_queries, lease_queries};
use crate::{Consensus, Mutation, Query};

/// Reads and transactions.
#[derive(Clone, Debug)]
pub struct KvService<C>(pub C);

/// Leases.
#[derive(Clone, Debug)]
pub struct LeaseService<C>(pub C);

/// Routes of what a view answers.
struct Reads<'c, C>(&'c Arc<C>, Routes);

impl<C: Consensus> QueryVisitor for Reads<'_, C> {
    fn visit<Q: Query>(self) -> Self {
        Self(self.0, self.1.on(self.0, read::<C, Q>))
    }
}

async fn read<C: Consensus, Q: Query>(
    consensus: Arc<C>,
    _: Caller,
    query: Q,
) -> Result<Q::Reply, ApiError> {
    consensus.read(query).await
}

async fn write<C: Consensus, M: Mutation>(
    consensus: Arc<C>,
    caller: Caller,
    request: M,
) -> Result<M::Reply, ApiError> {
    consensus.mutate(caller.request_id, request).await
}

impl<C: Consensus> Service for KvService<C> {
    fn family(&self) -> Family {
        Family { number: family::KV, name: "kv", tier: Tier::Core, advertises: &[] }
    }

    fn routes(self: Arc<Self>) -> Routes {
        let consensus = Arc::new(self.0.clone());
        let Reads(_, reads) = key_queries(Reads(&consensus, Routes::default()));
        reads.on(&consensus, write::<C, Transact>).on(&consensus, write::<C, Compact>)
    }
}

impl<C: Consensus> Service for LeaseService<C> {
    fn family(&self) -> Family {
        Family { number: family::LEASE, name: "leases", tier: Tier::Core, advertises: &[] }
    }

    fn routes(self: Arc<Self>) -> Routes {
        let consensus = Arc::new(self.0.clone());
        let Reads(_, reads) = lease_queries(Reads(&consensus, Routes::default()));
        reads
            .on(&consensus, write::<C, LeaseGrant>)
            .on(&consensus, write::<C, LeaseRevoke>)
            .on(&consensus, write::<C, LeaseKeepalive>)
    }
}

//! Coordination primitives over the replicated store.
//!
//! A primitive keeps its state under `__coord:{kind}:{name}` and carries out each operation as one
//! transaction, so an operation costs one round of consensus and is applied once however often its
//! request is repeated.

pub mod counter;
mod service;

pub use service::CoordinationService;

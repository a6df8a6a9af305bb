//! A member of the cluster: log, state, consensus and the answers to clients.
//!
//! [`ClusterNode`] is the handle of parts with one matter each. What is decided is decided by functions
//! of values (`membership`, `level`, `health`, `checkpoint`, `log_time`); the parts that use them ask,
//! wait and call openraft. A part names only parts that are listed before it in `Parts`.

mod applied;
mod auth;
mod barrier;
mod checkpoint;
mod config;
mod consensus;
mod errors;
mod gate;
mod handle;
mod health;
mod level;
mod log_time;
mod members;
mod membership;
mod propose;
mod read;
mod replica;
mod report;
mod start;
#[cfg(test)]
mod tests;
mod upkeep;

pub use auth::{AuthContext, Authorizer, CheckTokens, TrustMesh};
pub use config::{CheckpointPolicy, ClusterConfig, Timing};
pub use consensus::MembersWatch;
pub use errors::StartError;
pub use handle::ClusterNode;
pub use replica::{Forwarding, NodeStore};

//! The services of a node on the mesh: consensus, and the requests of clients and other nodes.

mod admission;
mod requests;

pub use requests::{ClusterServices, RequestServer};

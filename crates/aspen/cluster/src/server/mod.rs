//! The services of a node on the mesh: consensus, and the requests of clients and other nodes.

mod admission;
mod requests;
mod serve;

pub use requests::RequestServer;
pub use serve::ClusterServices;

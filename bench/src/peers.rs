//! Clusters that a measurement starts: ours and etcd's, three members each on this machine.

mod aspen;
mod etcd;
mod process;

pub(crate) use aspen::{AspenCluster, node_program};
pub(crate) use etcd::EtcdCluster;
pub(crate) use process::{Usage, kill};

use bytes::Bytes;

/// What a load generator needs of a store.
pub(crate) trait Session: Send + Sync + 'static {
    /// Writes a key, durable on a majority.
    fn put(&self, key: Bytes, value: Bytes) -> impl Future<Output = ()> + Send;
    /// Reads a key linearizably; whether it is there.
    fn get(&self, key: Bytes) -> impl Future<Output = bool> + Send;
}

//! Three etcd members (Debian package `etcd-server`) and the two gRPC calls that a measurement
//! makes of them.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use tonic::client::Grpc;
use tonic::codec::ProstCodec;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;

use super::{Session, Usage};

#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RangeRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Header {
    #[prost(uint64, tag = "2")]
    member_id: u64,
}

/// The parts of Put, Range and Status answers that are looked at.
#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RangeResponse {
    #[prost(int64, tag = "4")]
    count: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StatusRequest {}

#[derive(Clone, PartialEq, prost::Message)]
struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
    #[prost(uint64, tag = "4")]
    leader: u64,
}

async fn unary<Q, A>(channel: &Channel, path: &'static str, request: Q) -> Option<A>
where
    Q: prost::Message + 'static,
    A: prost::Message + Default + 'static,
{
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.ok()?;
    let codec: ProstCodec<Q, A> = ProstCodec::default();
    let path = PathAndQuery::from_static(path);
    let answer = grpc.unary(tonic::Request::new(request), path, codec).await;
    answer.ok().map(tonic::Response::into_inner)
}

/// A connection to the leader.
pub(crate) struct EtcdSession(Channel);

impl Session for EtcdSession {
    async fn put(&self, key: Bytes, value: Bytes) {
        let request = PutRequest { key, value };
        let answer: Option<PutResponse> = unary(&self.0, "/etcdserverpb.KV/Put", request).await;
        answer.expect("etcd refused a write");
    }

    async fn get(&self, key: Bytes) -> bool {
        let request = RangeRequest { key };
        let answer: Option<RangeResponse> = unary(&self.0, "/etcdserverpb.KV/Range", request).await;
        answer.expect("etcd refused a read").count == 1
    }
}

/// Three members with default settings.
pub(crate) struct EtcdCluster {
    members: Vec<Child>,
    leader_url: String,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl EtcdCluster {
    /// Starts the members with their data below `folder` and waits for a leader.
    pub(crate) async fn start(folder: &Path) -> Self {
        let ports: Vec<(u16, u16)> = (0..3).map(|_| (free_port(), free_port())).collect();
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let initial: Vec<String> =
            ports.iter().enumerate().map(|(i, p)| format!("m{i}={}", url(p.1))).collect();
        let members = ports
            .iter()
            .enumerate()
            .map(|(i, (client, peer))| {
                Command::new("etcd")
                    .args(["--name", &format!("m{i}")])
                    .arg("--data-dir")
                    .arg(folder.join(format!("etcd-{i}")))
                    .args(["--listen-client-urls", &url(*client)])
                    .args(["--advertise-client-urls", &url(*client)])
                    .args(["--listen-peer-urls", &url(*peer)])
                    .args(["--initial-advertise-peer-urls", &url(*peer)])
                    .args(["--initial-cluster", &initial.join(",")])
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn()
                    .expect("etcd is missing; install the package etcd-server")
            })
            .collect();
        let urls: Vec<String> = ports.iter().map(|p| url(p.0)).collect();
        let leader_url = find_leader(&urls).await;
        Self { members, leader_url }
    }

    pub(crate) async fn connect(&self) -> EtcdSession {
        let channel = Channel::from_shared(self.leader_url.clone()).unwrap();
        EtcdSession(channel.connect().await.unwrap())
    }

    pub(crate) fn usage(&self) -> Usage {
        Usage::of(&self.members.iter().map(Child::id).collect::<Vec<_>>())
    }
}

async fn find_leader(urls: &[String]) -> String {
    loop {
        for url in urls {
            let Ok(channel) = Channel::from_shared(url.clone()).unwrap().connect().await else {
                continue;
            };
            let path = "/etcdserverpb.Maintenance/Status";
            let status: Option<StatusResponse> = unary(&channel, path, StatusRequest {}).await;
            if let Some(status) = status
                && status.leader != 0
                && status.header.is_some_and(|h| h.member_id == status.leader)
            {
                return url.clone();
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

impl Drop for EtcdCluster {
    fn drop(&mut self) {
        for member in &mut self.members {
            let _ = member.kill();
            let _ = member.wait();
        }
    }
}

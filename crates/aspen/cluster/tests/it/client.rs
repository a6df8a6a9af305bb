//! Requests as a client sends them.

use aspen_api::kv::{
    Compare, Consistency, Lifetime, ReadKey, ReadResult, ScanKeys, Transact, TransactionOperation,
    WriteOperation,
};
use aspen_api::{
    ApiError, ClientId, Key, Prefix, Request, RequestFrame, RequestId, RequestVisitor, Response,
    Revision, cluster, kv, lease,
};
use aspen_cluster::{ClusterNode, RequestServer, core_services};
use bytes::Bytes;
use net_types::EntityId;
use net_types::limits::DEFAULT_MAX_CLIENTS;

use crate::mesh::{TestCluster, entity};

pub(crate) fn key(text: &str) -> Key {
    Key::new(text.to_owned()).unwrap()
}

/// What answers requests to a node. Its core services hold no state of their own.
pub(crate) fn server(node: &ClusterNode) -> RequestServer {
    let services = core_services(node, &prometheus::Registry::new()).unwrap();
    RequestServer::new(node.clone(), services, DEFAULT_MAX_CLIENTS)
}

/// The names of requests.
#[derive(Default)]
struct Declared(Vec<&'static str>);

impl RequestVisitor for Declared {
    fn visit<R: Request>(&mut self) {
        self.0.push(R::NAME);
    }
}

#[tokio::test(start_paused = true)]
async fn every_request_that_is_declared_has_a_route() {
    let cluster = TestCluster::formed(1).await;
    let services = core_services(&cluster.nodes[&1], &prometheus::Registry::new()).unwrap();
    let mut declared = Declared::default();
    kv::each_request(&mut declared);
    lease::each_request(&mut declared);
    cluster::each_request(&mut declared);
    let routes: Vec<_> = services.counts().map(|route| route.name).collect();
    let missing: Vec<_> = declared.0.iter().filter(|name| !routes.contains(name)).collect();
    assert!(missing.is_empty(), "no service answers {missing:?}");
}

/// Answers the bytes of a request as a node does.
pub(crate) async fn answer(node: &ClusterNode, from: EntityId, body: Bytes) -> Bytes {
    server(node).handle(from, body).await
}

/// What a node measures, as text.
pub(crate) fn metrics(node: &ClusterNode) -> String {
    prometheus::TextEncoder::new().encode_to_string(&node.collector().collect()).unwrap()
}

/// Sends a request as the bytes that arrive from the network.
pub(crate) async fn send<R: Request>(node: &ClusterNode, request: R) -> Result<R::Reply, ApiError> {
    send_once(node, request, RequestId::NONE).await
}

pub(crate) async fn send_once<R: Request>(
    node: &ClusterNode,
    request: R,
    id: RequestId,
) -> Result<R::Reply, ApiError> {
    let body = RequestFrame::of(&request, id, None);
    let answer = answer(node, entity(99), body).await;
    Response::<R::Reply>::decode(answer).unwrap().result
}

/// A transaction that sets a key.
pub(crate) fn set(key: Key, value: Bytes, lifetime: Lifetime) -> Transact {
    Transact::always([WriteOperation::Set { key, value, lifetime }])
}

/// A transaction that replaces a value if it is the expected one, and reads it if it is not.
pub(crate) fn swap(key: Key, expected: Option<Bytes>, new: Bytes) -> Transact {
    Transact {
        compares: vec![Compare::value(key.clone(), expected)],
        then: vec![WriteOperation::set(key.clone(), new).into()],
        otherwise: vec![TransactionOperation::Read { key }],
    }
}

pub(crate) async fn put(node: &ClusterNode, name: &str, value: &str) -> Result<u64, ApiError> {
    let write = set(key(name), Bytes::from(value.to_owned()), Lifetime::Forever {});
    send(node, write).await.map(|written| written.revision.0)
}

pub(crate) async fn put_for(node: &ClusterNode, name: &str, ttl_ms: u64) -> Result<u64, ApiError> {
    let write = set(key(name), Bytes::from_static(b"x"), Lifetime::Ttl { ttl_ms });
    send(node, write).await.map(|written| written.revision.0)
}

pub(crate) async fn get_at(
    node: &ClusterNode,
    name: &str,
    consistency: Consistency,
) -> Result<Option<String>, ApiError> {
    let read = ReadKey { key: key(name), consistency, revision: None };
    let ReadResult { item, .. } = send(node, read).await?;
    Ok(item.map(|item| String::from_utf8(item.value.to_vec()).unwrap()))
}

pub(crate) async fn get(node: &ClusterNode, name: &str) -> Result<Option<String>, ApiError> {
    get_at(node, name, Consistency::Linearizable).await
}

pub(crate) async fn cas(
    node: &ClusterNode,
    name: &str,
    expected: Option<&str>,
    new: &str,
    id: RequestId,
) -> Result<bool, ApiError> {
    let expected = expected.map(|text| Bytes::from(text.to_owned()));
    let swap = swap(key(name), expected, Bytes::from(new.to_owned()));
    send_once(node, swap, id).await.map(|swapped| swapped.is_success())
}

pub(crate) async fn keys(node: &ClusterNode, consistency: Consistency) -> Vec<String> {
    let mut found = Vec::new();
    let mut continuation_token = None;
    loop {
        let prefix = Prefix::new("").unwrap();
        let scan =
            ScanKeys { prefix, limit: None, continuation_token, consistency, revision: None };
        let page = send(node, scan).await.unwrap();
        found.extend(page.entries.iter().map(|e| e.key.as_str().to_owned()));
        match page.continuation_token {
            Some(token) => continuation_token = Some(token),
            None => return found,
        }
    }
}

pub(crate) fn request_id(counter: u64) -> RequestId {
    RequestId { client: ClientId([3; 16]), counter, since: Revision(0) }
}

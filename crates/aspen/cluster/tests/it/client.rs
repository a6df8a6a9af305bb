//! Requests as a client sends them.

use aspen_api::kv::{
    CompareAndSwapKey, Consistency, ReadKey, ReadResult, ScanKeys, WriteKey, WriteKeyWithTtl,
};
use aspen_api::{
    ApiError, AuthenticatedRequest, ClientId, Exchange, Key, Prefix, RequestId, Response, Revision,
};
use aspen_cluster::ClusterNode;
use bytes::Bytes;

use crate::mesh::entity;

pub(crate) fn key(text: &str) -> Key {
    Key::new(text.to_owned()).unwrap()
}

/// Sends a request as the bytes that arrive from the network.
pub(crate) async fn send<R: Exchange>(
    node: &ClusterNode,
    request: R,
) -> Result<R::Reply, ApiError> {
    send_named(node, request, RequestId::UNNAMED).await
}

pub(crate) async fn send_named<R: Exchange>(
    node: &ClusterNode,
    request: R,
    id: RequestId,
) -> Result<R::Reply, ApiError> {
    let body = AuthenticatedRequest::new(request, id).encode();
    let answer = node.handle_client(entity(99), body).await;
    R::reply(Response::decode(answer).unwrap())
}

pub(crate) async fn put(node: &ClusterNode, name: &str, value: &str) -> Result<u64, ApiError> {
    let write = WriteKey { key: key(name), value: Bytes::from(value.to_owned()) };
    send(node, write).await.map(|written| written.revision.0)
}

pub(crate) async fn put_for(node: &ClusterNode, name: &str, ttl_ms: u64) -> Result<u64, ApiError> {
    let write = WriteKeyWithTtl { key: key(name), value: Bytes::from_static(b"x"), ttl_ms };
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
    let swap = CompareAndSwapKey {
        key: key(name),
        expected: expected.map(|text| Bytes::from(text.to_owned())),
        new_value: Bytes::from(new.to_owned()),
    };
    send_named(node, swap, id).await.map(|swapped| swapped.is_success)
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

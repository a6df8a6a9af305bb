//! Questions and orders to one member, named by its number.

use std::time::Duration;

use aspen_api::cluster::{GetClusterState, Ping};
use aspen_api::{MemberId, Request};
use aspen_client::Client;

use crate::outcome::{Exit, Failure};

/// Time for a member to give a sign of life; less than a whole command's, as it may be gone.
pub(super) const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

/// Asks the member that is named, or whom the client chooses if none is.
pub(super) async fn ask<R: Request>(
    client: &Client,
    node: Option<MemberId>,
    request: R,
) -> Result<R::Reply, Failure> {
    let Some(node) = node else { return Ok(client.send(request).await?) };
    let nodes = client.send(GetClusterState {}).await?.nodes;
    let Some(found) = nodes.iter().find(|found| found.node_id == node) else {
        let known: Vec<_> = nodes.iter().map(|node| node.node_id.to_string()).collect();
        let message = format!("node {node} is no member; the members are {}", known.join(", "));
        return Err(Failure { exit: Exit::NotFound, code: "NOT_FOUND", message });
    };
    let sign = tokio::time::timeout(SIGN_OF_LIFE, client.send_to(&found.addr, Ping {})).await;
    if !sign.is_ok_and(|sign| sign.is_ok()) {
        let addrs: Vec<_> = found.addr.addrs.iter().map(ToString::to_string).collect();
        let message = format!("node {node} does not answer at {}", addrs.join(", "));
        return Err(Failure::not_connected(message));
    }
    Ok(client.send_to(&found.addr, request).await?)
}

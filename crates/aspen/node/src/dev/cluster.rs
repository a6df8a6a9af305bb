//! The processes of a development cluster and the client that forms it.
//!
//! Invariants: node `n` stands at index `n - 1` and keeps its port and folder over restarts; no
//! process outlives the cluster.

use std::path::Path;

use aspen_api::cluster::{
    AddLearner, ChangeMembership, GetClusterTicket, GetLeader, PromoteLearner,
};
use aspen_api::{ApiError, ClusterTicket, MemberId};
use aspen_client::{Client, ClientOptions, read_ticket_file};
use rand_core::{OsRng, RngCore};
use tempfile::TempDir;

use super::DevError;
use super::process::NodeProcess;
use super::ticket_place::TicketPlace;

/// A cluster of processes. Dropping it kills them.
pub(crate) struct DevCluster {
    nodes: Vec<NodeProcess>,
    client: Client,
    ticket: ClusterTicket,
    place: Option<TicketPlace>,
    flags: Vec<String>,
    // Last, so that the data goes after the processes.
    folder: TempDir,
}

impl DevCluster {
    /// Starts `count` nodes, makes them the voters of one cluster and leaves its ticket in `place`, if there is one.
    pub(crate) async fn start(
        count: u8,
        flags: Vec<String>,
        place: Option<TicketPlace>,
    ) -> Result<Self, DevError> {
        let folder = tempfile::Builder::new()
            .prefix("aspen-dev-")
            .tempdir()
            .map_err(DevError::io("cannot make a temporary folder"))?;
        let mut secret = [0u8; 32];
        OsRng.fill_bytes(&mut secret);
        let cookie: String = secret.iter().map(|b| format!("{b:02x}")).collect();
        let environment = vec![("ASPEN_COOKIE", cookie)];
        let mut first = NodeProcess::new(1, folder.path(), flags.clone(), environment)?;
        first.start().await?;
        let ticket = read_ticket_file(&first.ticket_path())
            .ok()
            .flatten()
            .ok_or_else(|| first.failed("wrote no usable ticket"))?;
        let client = Client::connect(&ticket, ClientOptions::default())?;
        let nodes = vec![first];
        let mut cluster = Self { nodes, client, ticket, place, flags, folder };
        for _ in 1..count {
            cluster.add_learner().await?;
        }
        if count > 1 {
            let members = (1..=u64::from(count)).map(MemberId).collect();
            let change = ChangeMembership { members };
            cluster.client.send(change).await.map_err(DevError::request("change of voters"))?;
        }
        cluster.publish_ticket().await?;
        Ok(cluster)
    }

    /// Starts one more node and adds it as a learner; returns its number.
    pub(crate) async fn add_learner(&mut self) -> Result<u64, DevError> {
        let number = self.nodes.len() as u64 + 1;
        // The ticket brings the mesh secret.
        let environment = vec![("ASPEN_JOIN_TICKET", self.ticket.to_text().expose().to_owned())];
        let mut node =
            NodeProcess::new(number, self.folder.path(), self.flags.clone(), environment)?;
        node.start().await?;
        let request = AddLearner { node_id: MemberId(number), addr: node.addr()? };
        self.nodes.push(node);
        let what = format!("adding node {number}");
        self.client.send(request).await.map_err(DevError::request(what))?;
        Ok(number)
    }

    /// Makes a learner a voter at once.
    pub(crate) async fn promote(&self, number: u64) -> Result<(), DevError> {
        let request =
            PromoteLearner { learner_id: MemberId(number), replace_node: None, is_force: true };
        let what = format!("promoting node {number}");
        self.client.send(request).await.map_err(DevError::request(what)).map(drop)
    }

    /// Takes a ticket with all members, and leaves it in its place.
    async fn publish_ticket(&mut self) -> Result<(), DevError> {
        let request = GetClusterTicket {};
        let result = self.client.send(request).await.map_err(DevError::request("ticket"))?;
        let parsed: Result<ClusterTicket, _> = result.ticket.expose().parse();
        self.ticket =
            parsed.map_err(|error| DevError::Check(format!("unreadable ticket: {error}")))?;
        if let Some(place) = &mut self.place {
            let what = format!("cannot write {}", place.path().display());
            place.publish(result.ticket.expose()).map_err(DevError::io(what))?;
        }
        self.client = self.new_client()?;
        Ok(())
    }

    /// A client with an identity and a socket of its own.
    pub(crate) fn new_client(&self) -> Result<Client, DevError> {
        Ok(Client::connect(&self.ticket, ClientOptions::default())?)
    }

    /// The client that formed the cluster.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where the ticket is.
    pub(crate) fn place(&self) -> Option<&TicketPlace> {
        self.place.as_ref()
    }

    /// Node `number`, from 1.
    pub(crate) fn node(&mut self, number: u64) -> Result<&mut NodeProcess, DevError> {
        let index = usize::try_from(number).unwrap_or(0).wrapping_sub(1);
        self.nodes.get_mut(index).ok_or_else(|| DevError::Check(format!("no node {number}")))
    }

    pub(crate) fn nodes(&mut self) -> impl Iterator<Item = &mut NodeProcess> {
        self.nodes.iter_mut()
    }

    /// The number of the node that leads now.
    pub(crate) async fn leader(&self) -> Result<u64, DevError> {
        let result =
            self.client.send(GetLeader {}).await.map_err(DevError::request("who leads"))?;
        let leader = result.leader.ok_or_else(|| {
            DevError::request("who leads")(ApiError::new(
                aspen_api::ErrorCode::ServiceUnavailable,
                "there is no leader",
            ))
        })?;
        Ok(leader.node_id.0)
    }

    /// Stops the nodes, all at once. Data and ticket go with the cluster.
    pub(crate) async fn stop(&mut self) {
        self.client.shutdown().await;
        self.nodes.iter().for_each(NodeProcess::ask_to_stop);
        for node in &mut self.nodes {
            node.stopped().await;
        }
    }
}

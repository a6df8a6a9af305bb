//! A door for tests, which sends back what it receives.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use aspen_api::service::{Origin, Registry, Services};
use aspen_api::testing::OpenGuard;
use aspen_door::{Connection, Door, DoorConfig, DoorLimits, Doors, Listener, Stop, Tls};
use prometheus::core::Collector;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy, split};
use tokio::task::JoinSet;

/// Sends back what it receives, until the client has nothing more to say.
pub(crate) struct Echo;

async fn echo(connection: Connection) -> io::Result<()> {
    let (mut from, mut to) = split(connection);
    copy(&mut from, &mut to).await?;
    to.shutdown().await
}

impl Door for Echo {
    const NAME: &'static str = "echo";

    async fn serve(self, mut listener: Listener, _: Services, mut stop: Stop) -> io::Result<()> {
        let mut open = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.requested() => break,
                connection = listener.accept() => drop(open.spawn(echo(connection))),
            }
        }
        drop(listener);
        while open.join_next().await.is_some() {}
        Ok(())
    }
}

/// An open echo door.
pub(crate) struct Opened {
    pub(crate) doors: Doors,
    pub(crate) addr: SocketAddr,
    metrics: Box<dyn Collector>,
}

/// Opens it on a free port of loopback.
pub(crate) async fn open(limits: DoorLimits, tls: Option<Tls>) -> Opened {
    let mut doors = Doors::new();
    let services = Services::new(Arc::new(Registry::new(Arc::new(OpenGuard))), Origin::Process);
    let config = DoorConfig { addr: "127.0.0.1:0".parse().unwrap(), tls, limits };
    let addr = doors.open(Echo, config, services).await.unwrap();
    let metrics = doors.collector();
    Opened { doors, addr, metrics }
}

impl Opened {
    /// The value of a metric of the door.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let families = self.metrics.collect();
        let values: HashMap<_, _> = families
            .iter()
            .map(|family| {
                let metric = &family.get_metric()[0];
                let gauge = metric.get_gauge().get_value();
                (family.name(), metric.get_counter().get_value().max(gauge))
            })
            .collect();
        values[format!("aspen_door_{name}").as_str()] as u64
    }

    /// Waits until a metric of the door has a value.
    pub(crate) async fn reaches(&self, name: &str, value: u64) {
        while self.metric(name) != value {
            tokio::task::yield_now().await;
        }
    }
}

/// Whether a door sends back what a client sends it.
pub(crate) async fn is_echoed(client: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> bool {
    let mut answer = [0; 5];
    let sent = client.write_all(b"hello").await;
    sent.is_ok() && client.read_exact(&mut answer).await.is_ok() && &answer == b"hello"
}

/// Whether a door has ended a connection.
pub(crate) async fn is_ended(client: &mut (impl AsyncRead + Unpin)) -> bool {
    matches!(client.read(&mut [0; 1]).await, Ok(0) | Err(_))
}

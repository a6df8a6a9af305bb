//! Where a door accepts connections.
//!
//! Invariants: no more connections are open than the limit, unfinished handshakes included; a
//! handshake never holds up another connection; no error of the system ends accepting.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use net_types::limits::{
    DOOR_ACCEPT_PAUSE, DOOR_HANDSHAKE_TIMEOUT, DOOR_IDLE_TIMEOUT, MAX_DOOR_CONNECTIONS,
    MAX_DOOR_HANDSHAKES,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::connection::{Connection, SlotPermit};
use crate::metrics::Meter;
use crate::stop::Stop;
use crate::tls::Tls;

/// How much a door takes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DoorLimits {
    /// Open connections, unfinished handshakes included.
    pub connections: usize,
    /// Unfinished TLS handshakes.
    pub handshakes: usize,
    /// Time without a byte after which a connection is cut. A door whose calls may wait longer than
    /// that has none.
    pub idle: Option<Duration>,
}

impl Default for DoorLimits {
    fn default() -> Self {
        Self {
            connections: MAX_DOOR_CONNECTIONS,
            handshakes: MAX_DOOR_HANDSHAKES,
            idle: Some(DOOR_IDLE_TIMEOUT),
        }
    }
}

/// Where a door listens and how.
#[derive(Clone)]
pub struct DoorConfig {
    /// The address; port 0 is any free one.
    pub addr: SocketAddr,
    /// TLS for every connection, or none.
    pub tls: Option<Tls>,
    /// What it takes on.
    pub limits: DoorLimits,
}

/// A listening socket that outlives a lack of descriptors.
struct Socket {
    name: &'static str,
    tcp: TcpListener,
    /// Set while the system refuses to accept: when to try again.
    retry_at: Option<Instant>,
}

impl Socket {
    /// The next connection. Cancelling it loses none and does not shorten a pause.
    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            if let Some(at) = self.retry_at {
                sleep_until(at).await;
            }
            match self.tcp.accept().await {
                Ok(accepted) => {
                    if self.retry_at.take().is_some() {
                        tracing::info!(door = self.name, "accepts connections again");
                    }
                    return accepted;
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    if self.retry_at.is_none() {
                        tracing::warn!(door = self.name, %error, "cannot accept connections");
                    }
                    self.retry_at = Some(Instant::now() + DOOR_ACCEPT_PAUSE);
                }
            }
        }
    }
}

/// Whether an error of `accept` concerns a connection that ended in the queue, so that the next one can
/// be accepted at once. Linux passes errors of the network on too (accept(2)).
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionRefused
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::Interrupted
    )
}

/// Accepts the connections of one door.
pub struct Listener {
    socket: Socket,
    tls: Option<Tls>,
    limits: DoorLimits,
    slots: Arc<Semaphore>,
    /// Ends with `None` where a handshake failed.
    handshakes: JoinSet<Option<Connection>>,
    meter: Meter,
    stop: Stop,
}

impl Listener {
    pub(crate) async fn bind(
        name: &'static str,
        config: DoorConfig,
        meter: Meter,
        stop: Stop,
    ) -> io::Result<Self> {
        let tcp = TcpListener::bind(config.addr).await?;
        Ok(Self {
            socket: Socket { name, tcp, retry_at: None },
            tls: config.tls,
            limits: config.limits,
            slots: Arc::new(Semaphore::new(config.limits.connections)),
            handshakes: JoinSet::new(),
            meter,
            stop,
        })
    }

    /// The address that it listens on.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.tcp.local_addr()
    }

    /// The next connection that is ready for the protocol, its TLS handshake done. Connections beyond
    /// the limits are closed and counted meanwhile. Cancelling it loses no connection.
    pub async fn accept(&mut self) -> Connection {
        loop {
            tokio::select! {
                Some(ended) = self.handshakes.join_next() => {
                    if let Ok(Some(connection)) = ended {
                        return connection;
                    }
                }
                (tcp, peer) = self.socket.accept() => {
                    if let Some(connection) = self.admit(tcp, peer) {
                        return connection;
                    }
                }
            }
            self.check_invariants();
        }
    }

    /// Gives a connection a slot, and begins its handshake if there is one.
    fn admit(&mut self, tcp: TcpStream, peer: SocketAddr) -> Option<Connection> {
        if self.handshakes.len() >= self.limits.handshakes {
            self.meter.refused.inc();
            return None;
        }
        let slot = SlotPermit::acquire(&self.slots, &self.meter)?;
        if let Err(error) = tcp.set_nodelay(true) {
            tracing::debug!(door = self.socket.name, %peer, %error, "TCP_NODELAY is not set");
        }
        let (idle, stop) = (self.limits.idle, self.stop.clone());
        let Some(Tls(acceptor)) = &self.tls else {
            return Some(Connection::new(tcp, peer, slot, idle, stop));
        };
        let (handshake, meter) = (acceptor.accept(tcp), self.meter.clone());
        let name = self.socket.name;
        self.handshakes.spawn(async move {
            let error = match timeout(DOOR_HANDSHAKE_TIMEOUT, handshake).await {
                Ok(Ok(stream)) => return Some(Connection::new(stream, peer, slot, idle, stop)),
                Ok(Err(error)) => error,
                Err(_) => ErrorKind::TimedOut.into(),
            };
            meter.tls_failures.inc();
            tracing::debug!(door = name, %peer, %error, "the TLS handshake failed");
            None
        });
        None
    }

    /// Checks the limits in debug builds.
    fn check_invariants(&self) {
        debug_assert!(self.slots.available_permits() <= self.limits.connections);
        debug_assert!(self.handshakes.len() <= self.limits.handshakes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lack_of_descriptors_pauses_and_a_lost_connection_does_not() {
        // ECONNABORTED and EHOSTUNREACH; EMFILE, ENFILE, ENOBUFS and ENOMEM.
        for (code, is_of_one) in
            [(103, true), (113, true), (24, false), (23, false), (105, false), (12, false)]
        {
            assert_eq!(
                is_of_one_connection(&io::Error::from_raw_os_error(code)),
                is_of_one,
                "{code}"
            );
        }
    }
}

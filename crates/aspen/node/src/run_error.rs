//! Why a node does not run, and what its operator can do about it.

use std::error::Error;
use std::io::{self, ErrorKind};

use aspen_api::service::RegistryError;
use aspen_cluster::StartError;
use aspen_cluster::disk::LockError;
use aspen_cluster::log::LogError;
use aspen_door::OpenError;
use net_node::{BindError, ServeError};
use thiserror::Error;

use crate::identity::IdentityError;

/// Why a node does not run.
#[derive(Debug, Error)]
pub(crate) enum RunError {
    /// The data folder cannot be used.
    #[error("data folder {path}: {source}")]
    Folder { path: String, source: io::Error },
    /// Another process has it, or that cannot be found out.
    #[error("data folder {path}: {source}")]
    Locked { path: String, source: LockError },
    /// The identity cannot be used.
    #[error("data folder: {0}")]
    Identity(#[from] IdentityError),
    /// The mesh did not start.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The port by which other members know the node is taken.
    #[error(
        "{0}; it is the port by which the other members know this node: stop what has it, above all \
         if it is a copy of this node, or name another with --bind-port, which the members are told"
    )]
    KnownPort(BindError),
    /// Log or state cannot be used.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A service name is taken.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The program's services do not fit together.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Two parts measure under one name.
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
    /// A service did not start.
    #[error("a service did not start: {0}")]
    Service(aspen_api::ApiError),
    /// A door cannot listen on its address.
    #[error(transparent)]
    Door(#[from] OpenError),
    /// The new cluster did not form.
    #[error("the new cluster did not form: {0}")]
    Init(aspen_api::ApiError),
    /// The ticket cannot be written.
    #[error("cannot write the ticket file: {0}")]
    Ticket(#[source] io::Error),
    /// The root token cannot be written.
    #[error("--output-root-token: {0}")]
    RootToken(io::Error),
    /// The node cannot go on.
    #[error(
        "consensus has ended: {0}; nothing that was acknowledged is lost: if the data disk is full \
         or failing, see to that, then start again"
    )]
    Ended(String),
    /// Signals cannot be caught.
    #[error("cannot catch signals: {0}")]
    Signal(io::Error),
}

impl RunError {
    /// What can be done about a reason of the system, which says only what happened.
    pub(crate) fn advice(&self) -> &'static str {
        match self {
            Self::Start(StartError::Log(LogError::Foreign)) => {
                "; node_key or node_id changed: restore them, or begin with an empty folder"
            }
            Self::Locked { source: LockError::Held, .. } => {
                "; stop it, or name another folder with --data-dir"
            }
            // These say it themselves.
            Self::Identity(IdentityError::Key(_)) => "",
            Self::Bind(_) => self.reason().map_or("", about_udp),
            Self::Door(_) => self.reason().map_or("", about_http),
            Self::Folder { .. }
            | Self::Locked { .. }
            | Self::Identity(_)
            | Self::Start(_)
            | Self::Ticket(_)
            | Self::RootToken(_) => self.reason().map_or("", about_a_folder),
            // These name what is wrong with something other than a file.
            Self::KnownPort(_)
            | Self::Serve(_)
            | Self::Registry(_)
            | Self::Metrics(_)
            | Self::Service(_)
            | Self::Init(_)
            | Self::Ended(_)
            | Self::Signal(_) => "",
        }
    }

    /// What the system refused.
    fn reason(&self) -> Option<ErrorKind> {
        let mut reason: Option<&dyn Error> = Some(self);
        while let Some(error) = reason {
            if let Some(refusal) = error.downcast_ref::<io::Error>() {
                return Some(refusal.kind());
            }
            reason = error.source();
        }
        None
    }
}

fn about_udp(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::AddrInUse => {
            "; another process has the port: stop it, or name another with --bind-port"
        }
        ErrorKind::AddrNotAvailable => {
            "; this machine does not have the address: give one that it has with --host, or 0.0.0.0 \
             for all"
        }
        ErrorKind::PermissionDenied => "; name a port from 1024 on with --bind-port",
        _ => "",
    }
}

fn about_http(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::AddrNotAvailable => {
            "; this machine does not have the address: give one that it has with --http-host"
        }
        _ => "; name another with --http-port",
    }
}

fn about_a_folder(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::StorageFull => {
            "; nothing that was acknowledged is lost: free some space, then start again"
        }
        ErrorKind::PermissionDenied => {
            "; run the node as the folder's owner, or name another with --data-dir"
        }
        ErrorKind::ReadOnlyFilesystem => {
            "; a node writes there: mount it for writing, or name another with --data-dir"
        }
        ErrorKind::AlreadyExists | ErrorKind::NotADirectory => {
            "; it is not a folder: name another with --data-dir"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_fits_what_was_refused() {
        let path = || "d".to_owned();
        let io = |kind| io::Error::from(kind);
        let addr = "10.0.0.1:7000".parse().unwrap();
        let bind = |kind| RunError::Bind(BindError::Socket { addr, source: io(kind) });
        let folder = |kind| RunError::Folder { path: path(), source: io(kind) };
        let door = |kind| RunError::Door(OpenError { name: "http", addr, source: io(kind) });
        let lock = |source| RunError::Locked { path: path(), source };
        for (error, advice) in [
            (bind(ErrorKind::AddrInUse), "another process has the port"),
            (bind(ErrorKind::AddrNotAvailable), "--host"),
            (bind(ErrorKind::PermissionDenied), "--bind-port"),
            (folder(ErrorKind::ReadOnlyFilesystem), "mount it for writing"),
            (folder(ErrorKind::PermissionDenied), "as the folder's owner"),
            (RunError::Ticket(io(ErrorKind::PermissionDenied)), "as the folder's owner"),
            (lock(LockError::Held), "stop it"),
            (lock(LockError::Io(io(ErrorKind::PermissionDenied))), "as the folder's owner"),
            (door(ErrorKind::AddrInUse), "--http-port"),
            (door(ErrorKind::AddrNotAvailable), "--http-host"),
        ] {
            assert!(error.advice().contains(advice), "{error}{}", error.advice());
        }
    }
}

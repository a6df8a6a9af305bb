//! Which cluster is meant.

use aspen_api::ClusterTicket;
use aspen_client::{TicketFileError, dev_ticket_path, read_ticket_file, ticket_from};

use crate::outcome::{Exit, Failure};

/// What named the ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TicketSource {
    /// `--ticket`.
    Flag,
    /// `ASPEN_TICKET`.
    Environment,
}

/// The ticket that was given, as text or as a file, or else that of the local development cluster.
pub(crate) fn find(given: Option<&str>, source: TicketSource) -> Result<ClusterTicket, Failure> {
    if let Some(given) = given.filter(|given| !given.trim().is_empty()) {
        return ticket_from(given).map_err(|error| unusable(&error, source));
    }
    let path = dev_ticket_path();
    let found = read_ticket_file(&path).map_err(|error| unusable(&error, source))?;
    found.ok_or_else(|| {
        Failure::not_connected(format!(
            "no cluster to talk to: there is no local development cluster ({} does not exist). \
             Start one with \"aspen-node dev\", or name a cluster with --ticket or ASPEN_TICKET",
            path.display()
        ))
    })
}

fn unusable(error: &TicketFileError, source: TicketSource) -> Failure {
    let name = match source {
        TicketSource::Flag => "--ticket",
        TicketSource::Environment => "ASPEN_TICKET",
    };
    match error {
        TicketFileError::Text(_) | TicketFileError::Neither { .. } => {
            Failure::usage(format!("{name}: {error}"))
        }
        TicketFileError::Io { .. }
        | TicketFileError::Unsafe { .. }
        | TicketFileError::Malformed { .. } => {
            Failure { exit: Exit::Usage, code: "BAD_TICKET_FILE", message: error.to_string() }
        }
    }
}

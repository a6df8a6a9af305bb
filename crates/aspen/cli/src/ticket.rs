//! Which cluster is meant.

use std::path::Path;

use aspen_api::ClusterTicket;
use aspen_client::{dev_ticket_path, read_ticket_file};

use crate::outcome::{Exit, Failure};

/// The ticket that was given, as text or as a file, or else that of the local development cluster.
pub(crate) fn find(given: Option<&str>) -> Result<ClusterTicket, Failure> {
    let Some(given) = given.map(str::trim).filter(|given| !given.is_empty()) else {
        let path = dev_ticket_path();
        return read(&path)?.ok_or_else(|| {
            Failure::not_connected(format!(
                "no cluster to talk to: there is no local development cluster ({} does not exist). \
                 Start one with \"aspen-node dev\", or name a cluster with --ticket or ASPEN_TICKET",
                path.display()
            ))
        });
    };
    match given.parse() {
        Ok(ticket) => Ok(ticket),
        Err(error) => match read(Path::new(given)) {
            Ok(Some(ticket)) => Ok(ticket),
            Ok(None) => Err(Failure::usage(format!("--ticket: {error}"))),
            // What looks like a ticket is not shown as if it were the name of a file.
            Err(_) if given.starts_with("aspen") => {
                Err(Failure::usage(format!("--ticket: {error}")))
            }
            Err(failure) => Err(failure),
        },
    }
}

fn read(path: &Path) -> Result<Option<ClusterTicket>, Failure> {
    read_ticket_file(path).map_err(|error| Failure {
        exit: Exit::Usage,
        code: "BAD_TICKET_FILE",
        message: error.to_string(),
    })
}

//! The ticket file of a data folder: what a client on this machine reads to reach the node.

use std::path::{Path, PathBuf};

use aspen_cluster::ClusterNode;

use crate::private_file::write_private;

const NAME: &str = "cluster-ticket.txt";

/// Keeps `cluster-ticket.txt` equal to the node's ticket.
pub(crate) struct TicketFile {
    folder: PathBuf,
    written: String,
}

impl TicketFile {
    /// The ticket file in `folder`, not written yet.
    pub(crate) fn new(folder: &Path) -> Self {
        // Absolute, as it is shown to people who may stand in another folder.
        let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        Self { folder, written: String::new() }
    }

    /// Where the file is.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.join(NAME)
    }

    /// Writes the ticket if it differs from the last one written. Call it only once the node's
    /// socket is bound, so that a waiting script never reads an old address.
    pub(crate) fn update(&mut self, node: &ClusterNode) -> std::io::Result<()> {
        let Ok(ticket) = node.ticket_text() else { return Ok(()) };
        let text = ticket.ticket.expose();
        if text != self.written {
            write_private(&self.path(), &format!("{text}\n"))?;
            self.written = text.to_owned();
        }
        Ok(())
    }
}

//! Where the ticket of a development cluster lies, and who may put it there.
//!
//! The place where clients look by themselves belongs to one running cluster: its folder is locked
//! for as long as the process lives, however it ends. What was written goes with the cluster.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use aspen_client::dev_ticket_path;

use super::DevError;
use crate::private_file::write_private;

/// Tells who holds the place; beside the ticket.
const OWNER_FILE: &str = "pid";

/// A place for a ticket, held until it is dropped.
pub(crate) struct TicketPlace {
    path: PathBuf,
    is_found_by_clients: bool,
    /// What is removed at the end.
    written: Vec<PathBuf>,
    _lock: Option<File>,
}

impl TicketPlace {
    /// The place where clients of this user look; refused while another cluster has it.
    pub(crate) fn well_known() -> Result<Self, DevError> {
        Self::claim(dev_ticket_path())
    }

    fn claim(path: PathBuf) -> Result<Self, DevError> {
        let io = |source| DevError::Io { what: format!("cannot use {}", path.display()), source };
        let folder = path.parent().unwrap_or(Path::new(".")).to_owned();
        make_private_folder(&folder).map_err(io)?;
        let lock = File::open(&folder).map_err(io)?;
        let owner = folder.join(OWNER_FILE);
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let process = fs::read_to_string(owner).unwrap_or_default();
                return Err(DevError::Running { process: process.trim().to_owned(), path });
            }
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        write_private(&owner, &format!("{}\n", std::process::id())).map_err(io)?;
        Ok(Self { path, is_found_by_clients: true, written: vec![owner], _lock: Some(lock) })
    }

    /// A file that does not exist yet, which clients must be told.
    pub(crate) fn file(path: PathBuf) -> Result<Self, DevError> {
        if path.symlink_metadata().is_ok() {
            return Err(DevError::TicketFileExists(path));
        }
        let path = std::path::absolute(&path).unwrap_or(path);
        Ok(Self { path, is_found_by_clients: false, written: vec![], _lock: None })
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether clients find the ticket by themselves.
    pub(crate) fn is_found_by_clients(&self) -> bool {
        self.is_found_by_clients
    }

    /// Puts a ticket there, in place of the one before.
    pub(crate) fn publish(&mut self, ticket: &str) -> io::Result<()> {
        write_private(&self.path, &format!("{ticket}\n"))?;
        if !self.written.contains(&self.path) {
            self.written.push(self.path.clone());
        }
        Ok(())
    }
}

impl Drop for TicketPlace {
    fn drop(&mut self) {
        for path in &self.written {
            // It is gone already, which is what was wanted.
            let _ = fs::remove_file(path);
        }
    }
}

fn make_private_folder(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_cluster_has_the_place_and_leaves_it_empty() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dev/cluster-ticket.txt");
        let mut first = TicketPlace::claim(path.clone()).unwrap();
        first.publish("one").unwrap();
        let Err(DevError::Running { process, .. }) = TicketPlace::claim(path.clone()) else {
            panic!("two clusters have one place");
        };
        assert_eq!(process, std::process::id().to_string());
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\n", "it is not disturbed");
        drop(first);
        assert_eq!(fs::read_dir(folder.path().join("dev")).unwrap().count(), 0);

        // What a cluster that was killed has left is taken over.
        fs::write(&path, "old").unwrap();
        let mut next = TicketPlace::claim(path.clone()).unwrap();
        next.publish("new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new\n");
    }

    #[test]
    fn a_file_of_somebody_else_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ticket");
        fs::write(&path, "mine").unwrap();
        assert!(matches!(TicketPlace::file(path.clone()), Err(DevError::TicketFileExists(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }
}

//! Tickets as programs are given them: as text, in a private file, or where a development cluster
//! leaves its own, so that tools find it by themselves.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use aspen_api::{ClusterTicket, ClusterTicketError, SecretText};
use thiserror::Error;

/// No ticket is longer.
const MAX_FILE_BYTES: u64 = 32 << 10;

/// Why what was given is no ticket, or a ticket file cannot be used.
#[derive(Debug, Error)]
pub enum TicketFileError {
    /// It cannot be read.
    #[error("cannot read the ticket file {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Another user owns it or could read or write it; its ticket may be known or planted.
    #[error(
        "{} is not a file that only you can read (chmod 600, owned by you)",
        path.display()
    )]
    Unsafe {
        /// The file.
        path: PathBuf,
    },
    /// It does not hold a ticket.
    #[error("the ticket file {} holds no ticket: {source}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ClusterTicketError,
    },
    /// It is the text of a ticket, which is not repeated here, but not a whole one.
    #[error(transparent)]
    Text(ClusterTicketError),
    /// It is neither.
    #[error("{given:?} is neither a ticket (these start with \"aspen\") nor a file that exists")]
    Neither {
        /// What was given.
        given: String,
    },
}

/// The ticket file of this user's development cluster.
///
/// `$XDG_RUNTIME_DIR/aspen/dev/cluster-ticket.txt`; without that variable,
/// `$TMPDIR/aspen-dev-UID/cluster-ticket.txt`; without that one, the same under `/tmp`. The writer
/// creates the folder with mode 0700 and the file with mode 0600.
pub fn dev_ticket_path() -> PathBuf {
    let path = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let uid = rustix::process::getuid().as_raw();
    path_from(path("XDG_RUNTIME_DIR"), path("TMPDIR"), uid)
}

fn path_from(runtime: Option<PathBuf>, temporary: Option<PathBuf>, uid: u32) -> PathBuf {
    let folder = match runtime {
        Some(runtime) => runtime.join("aspen/dev"),
        None => temporary.unwrap_or_else(|| "/tmp".into()).join(format!("aspen-dev-{uid}")),
    };
    folder.join("cluster-ticket.txt")
}

/// The ticket that a setting gives, as its text or as the name of a file that only this user can
/// read.
pub fn ticket_from(given: &str) -> Result<ClusterTicket, TicketFileError> {
    let given = given.trim();
    let unread = match given.parse() {
        Ok(ticket) => return Ok(ticket),
        Err(unread) => unread,
    };
    // A damaged ticket is a secret all the same: it is not shown as if it were a file's name.
    let is_text = given.starts_with("aspen") && !given.contains(['/', '.']);
    match read_ticket_file(Path::new(given)) {
        Ok(Some(ticket)) => Ok(ticket),
        Ok(None) | Err(TicketFileError::Io { .. }) if is_text => Err(TicketFileError::Text(unread)),
        Ok(None) => Err(TicketFileError::Neither { given: given.to_owned() }),
        Err(error) => Err(error),
    }
}

/// Reads a ticket from a file that only this user can read; `None` if there is no file.
pub fn read_ticket_file(path: &Path) -> Result<Option<ClusterTicket>, TicketFileError> {
    let malformed = |source| TicketFileError::Malformed { path: path.to_owned(), source };
    let text = read_secret_file(path)?;
    text.map(|text| text.expose().trim().parse().map_err(malformed)).transpose()
}

/// Reads a text from a file that only this user can read; `None` if there is no file.
pub fn read_secret_file(path: &Path) -> Result<Option<SecretText>, TicketFileError> {
    let io = |source| TicketFileError::Io { path: path.to_owned(), source };
    let unsafe_file = || TicketFileError::Unsafe { path: path.to_owned() };
    // Not following a link: in a shared folder it could be another user's.
    let no_follow = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
    let file: File = match OpenOptions::new().read(true).custom_flags(no_follow).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            return Err(unsafe_file());
        }
        Err(error) => return Err(io(error)),
    };
    let found = file.metadata().map_err(io)?;
    let is_mine = found.uid() == rustix::process::getuid().as_raw();
    if !found.is_file() || !is_mine || found.mode() & 0o077 != 0 {
        return Err(unsafe_file());
    }
    let mut text = String::new();
    file.take(MAX_FILE_BYTES).read_to_string(&mut text).map_err(io)?;
    Ok(Some(SecretText::new(text)))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use aspen_api::{ClusterId, MeshKey, MeshTicket};
    use net_types::{EntityId, PeerAddr};

    use super::*;

    #[test]
    fn the_path_follows_the_environment() {
        let path = |runtime: Option<&str>, temporary: Option<&str>| {
            path_from(runtime.map(PathBuf::from), temporary.map(PathBuf::from), 7)
        };
        let runtime = path(Some("/run/user/7"), Some("/var/tmp"));
        assert_eq!(runtime, Path::new("/run/user/7/aspen/dev/cluster-ticket.txt"));
        let temporary = path(None, Some("/var/tmp"));
        assert_eq!(temporary, Path::new("/var/tmp/aspen-dev-7/cluster-ticket.txt"));
        assert_eq!(path(None, None), Path::new("/tmp/aspen-dev-7/cluster-ticket.txt"));
    }

    #[test]
    fn only_a_private_regular_file_with_a_ticket_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cluster-ticket.txt");
        assert!(read_ticket_file(&path).unwrap().is_none());

        let peer = PeerAddr::direct(EntityId([3; 32]), "127.0.0.1:4433".parse().unwrap());
        let ticket = ClusterTicket {
            cluster_id: ClusterId([1; 32]),
            mesh_key: MeshKey([2; 32]),
            mesh: MeshTicket { label: String::new(), peers: vec![peer] },
        };
        fs::write(&path, format!("{}\n", ticket.to_text().expose())).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(read_ticket_file(&path), Err(TicketFileError::Unsafe { .. })));
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        assert_eq!(read_ticket_file(&path).unwrap(), Some(ticket.clone()));

        assert!(ticket_from(&format!(" {}\n", path.display())).is_ok());
        assert!(ticket_from(ticket.to_text().expose()).is_ok());
        let cut = &ticket.to_text().expose()[..60].to_owned();
        let error = ticket_from(cut).unwrap_err();
        assert!(matches!(error, TicketFileError::Text(_)) && !error.to_string().contains(cut));
        let missing = ticket_from("aspen/ticket.txt").unwrap_err();
        assert!(matches!(missing, TicketFileError::Neither { .. }), "{missing}");

        let link = folder.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(matches!(read_ticket_file(&link), Err(TicketFileError::Unsafe { .. })));
        fs::write(&path, "aspenrubbish").unwrap();
        assert!(matches!(read_ticket_file(&path), Err(TicketFileError::Malformed { .. })));
    }
}

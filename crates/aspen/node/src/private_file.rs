//! Files that only their owner reads.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Writes a file that only its owner reads, whole or not at all.
pub(crate) fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut name = path.file_name().ok_or(ErrorKind::InvalidInput)?.to_owned();
    name.push(".tmp");
    let unfinished = path.with_file_name(name);
    // Left by a crash or, in a folder that others write to, planted: it would keep its own mode.
    match std::fs::remove_file(&unfinished) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(&unfinished)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&unfinished, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_secret_is_not_written_to_a_file_that_others_have_prepared() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let mode = |name: &str| std::fs::metadata(at(name)).unwrap().permissions().mode() & 0o777;
        std::fs::write(at("token.tmp"), "").unwrap();
        std::fs::set_permissions(at("token.tmp"), PermissionsExt::from_mode(0o666)).unwrap();
        write_private(&at("token"), "secret").unwrap();
        assert_eq!(mode("token"), 0o600);

        std::fs::write(at("elsewhere"), "").unwrap();
        symlink(at("elsewhere"), at("other.tmp")).unwrap();
        write_private(&at("other"), "secret").unwrap();
        assert_eq!(std::fs::read_to_string(at("elsewhere")).unwrap(), "");
        assert_eq!(
            (std::fs::read_to_string(at("other")).unwrap(), mode("other")),
            ("secret".into(), 0o600)
        );
    }
}

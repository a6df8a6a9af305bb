//! Where a node keeps its identity: a file of 64 hexadecimal digits and a newline, mode 0600.
//!
//! Invariants: a key file is complete or absent, whatever instant the machine dies at; an existing
//! file is never overwritten, not even by a second process that creates it at the same time.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use zeroize::{Zeroize, Zeroizing};

use crate::entity::EntityKeypair;

/// Digits and newline.
const FILE_BYTES: usize = 65;

/// An identity and how it was found.
#[derive(Debug)]
pub struct KeyFile {
    /// The identity.
    pub keypair: EntityKeypair,
    /// Whether this call created the file.
    pub was_created: bool,
    /// Whether users other than the owner may read the file; worth a warning.
    pub is_readable_by_others: bool,
}

/// Why a key file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file exists and could not be read.
    #[error("cannot read the key file {path}: {source}; make it readable for this user")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not 64 hexadecimal digits.
    #[error(
        "the key file {path} is damaged ({found} bytes, expected 64 hexadecimal digits and a \
         newline); restore it from a backup, or move it away to start with a new identity"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Bytes it holds; at most one more than a key file has.
        found: usize,
    },
    /// No file existed and none could be created.
    #[error(
        "cannot create the key file {path}: {source}; check that its folder exists and is writable"
    )]
    Create {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Reads the identity at `path`, or creates one of `seed()` there if no file exists.
pub fn load_or_create(
    path: &Path,
    seed: impl FnOnce() -> [u8; 32],
) -> Result<KeyFile, KeyFileError> {
    if let Some(found) = load_key_file(path)? {
        return Ok(found);
    }
    let mut bytes = seed();
    let created = create(path, &bytes);
    let keypair = EntityKeypair::from_seed(bytes);
    bytes.zeroize();
    match created {
        Ok(()) => Ok(KeyFile { keypair, was_created: true, is_readable_by_others: false }),
        // Another process was faster: its identity is this folder's.
        Err(source) if source.kind() == ErrorKind::AlreadyExists => load_key_file(path)?
            .ok_or_else(|| KeyFileError::Create { path: path.to_owned(), source }),
        Err(source) => Err(KeyFileError::Create { path: path.to_owned(), source }),
    }
}

/// Reads the identity at `path`; `None` if no file exists.
pub fn load_key_file(path: &Path) -> Result<Option<KeyFile>, KeyFileError> {
    let read = |source| KeyFileError::Read { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(read(error)),
    };
    let is_readable_by_others = is_readable_by_others(&file.metadata().map_err(read)?);
    let mut text = Zeroizing::new(Vec::with_capacity(FILE_BYTES + 1));
    file.take(FILE_BYTES as u64 + 1).read_to_end(&mut text).map_err(read)?;
    let mut seed = parse(&text)
        .ok_or_else(|| KeyFileError::Damaged { path: path.to_owned(), found: text.len() })?;
    let keypair = EntityKeypair::from_seed(seed);
    seed.zeroize();
    Ok(Some(KeyFile { keypair, was_created: false, is_readable_by_others }))
}

/// The seed of a file's text; the newline may be missing, nothing else may differ.
fn parse(text: &[u8]) -> Option<[u8; 32]> {
    let digits: &[u8; 64] = text.strip_suffix(b"\n").unwrap_or(text).try_into().ok()?;
    let mut seed = [0u8; 32];
    HEXLOWER_PERMISSIVE.decode_mut(digits, &mut seed).ok()?;
    Some(seed)
}

fn format(seed: &[u8; 32]) -> Zeroizing<Vec<u8>> {
    let mut text = Zeroizing::new(vec![b'\n'; FILE_BYTES]);
    HEXLOWER.encode_mut(seed, &mut text[..FILE_BYTES - 1]);
    text
}

/// Writes a complete temporary file, then links it to its name, which fails if the name is taken.
fn create(path: &Path, seed: &[u8; 32]) -> io::Result<()> {
    let mut name = path.file_name().ok_or(ErrorKind::InvalidInput)?.to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let temporary = path.with_file_name(name);
    // Only this process uses this name; a file there is left from an earlier process that died.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let linked = write_synced(&temporary, seed).and_then(|()| fs::hard_link(&temporary, path));
    fs::remove_file(&temporary)?;
    linked?;
    sync_folder(path)
}

fn write_synced(path: &Path, seed: &[u8; 32]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(&format(seed))?;
    file.sync_all()
}

#[cfg(unix)]
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn is_readable_by_others(metadata: &fs::Metadata) -> bool {
    std::os::unix::fs::MetadataExt::mode(metadata) & 0o077 != 0
}

#[cfg(not(unix))]
fn is_readable_by_others(_: &fs::Metadata) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn never() -> [u8; 32] {
        panic!("an existing file needs no seed")
    }

    #[test]
    fn a_created_identity_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.key");
        let created = load_or_create(&path, || [0x5a; 32]).unwrap();
        assert!(created.was_created && !created.is_readable_by_others);
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", "5a".repeat(32)));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file remains");
        let loaded = load_or_create(&path, never).unwrap();
        assert!(!loaded.was_created);
        assert_eq!(loaded.keypair.entity_id(), created.keypair.entity_id());
    }

    #[cfg(unix)]
    #[test]
    fn permissions_are_tight_and_loose_ones_are_noticed() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.key");
        load_or_create(&path, || [1; 32]).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(load_or_create(&path, never).unwrap().is_readable_by_others);
    }

    #[test]
    fn damaged_files_are_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.key");
        for text in ["", "\n", "5a", &"5a".repeat(33), &"zz".repeat(32), &"+5".repeat(32)] {
            fs::write(&path, text).unwrap();
            let error = load_or_create(&path, never).unwrap_err();
            assert!(matches!(error, KeyFileError::Damaged { .. }), "{text:?}: {error}");
            assert!(error.to_string().contains("node.key"));
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        fs::write(&path, "5A".repeat(32)).unwrap();
        load_or_create(&path, never).unwrap();
    }

    #[test]
    fn a_missing_folder_and_a_folder_in_place_of_the_file_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("none/node.key");
        assert!(matches!(load_or_create(&missing, || [1; 32]), Err(KeyFileError::Create { .. })));
        assert!(matches!(load_or_create(folder.path(), never), Err(KeyFileError::Read { .. })));
    }

    #[test]
    fn a_file_that_appears_meanwhile_wins() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.key");
        let other = load_or_create(&path, || {
            load_or_create(&path, || [7; 32]).unwrap();
            [8; 32]
        })
        .unwrap();
        assert!(!other.was_created);
        assert_eq!(other.keypair.entity_id(), EntityKeypair::from_seed([7; 32]).entity_id());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    proptest! {
        #[test]
        fn text_round_trips_and_arbitrary_text_never_panics(
            seed: [u8; 32],
            junk in proptest::collection::vec(any::<u8>(), 0..70),
        ) {
            prop_assert_eq!(parse(&format(&seed)), Some(seed));
            if let Some(parsed) = parse(&junk) {
                prop_assert_eq!(format(&parsed)[..64].to_vec(), junk[..64].to_ascii_lowercase());
            }
        }
    }
}

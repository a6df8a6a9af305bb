//! What makes a data folder one node's: its key, its number and its mesh secret.
//!
//! ```text
//! node_key   the identity, 64 hexadecimal digits          created once
//! node_id    the number in the consensus group, decimal   created once
//! mesh_key   the mesh secret, 64 hexadecimal digits       replaced when another is given
//! address    the UDP address that other members know      replaced when they know another
//! forming    empty                                        until the cluster begun here has formed
//! ```
//!
//! All are readable by their owner alone.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::Path;

use aspen_api::{MemberId, MeshKey};
use net_crypto::{EntityKeypair, KeyFileError, MeshSecret};
use net_types::EntityId;
use rand_core::{OsRng, RngCore};
use thiserror::Error;

use crate::private_file::write_private;
use crate::settings::Settings;

/// Why a data folder has no usable identity.
#[derive(Debug, Error)]
pub(crate) enum IdentityError {
    /// The key file cannot be used.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// A file cannot be read or written.
    #[error("{name}: {source}")]
    File { name: &'static str, source: io::Error },
    /// A file holds something else.
    #[error("{0} is damaged; restore it, or move it away")]
    Damaged(&'static str),
    /// The settings name another node.
    #[error("this data folder belongs to node {folder}, the settings say {asked}")]
    OtherNode { folder: MemberId, asked: MemberId },
}

/// Who a node is.
pub(crate) struct Identity {
    pub(crate) keypair: EntityKeypair,
    pub(crate) member_id: MemberId,
    pub(crate) mesh_key: MeshKey,
    /// Whether the node is to begin a cluster of its own: the folder is new, or an earlier start
    /// ended before the cluster had formed.
    pub(crate) is_forming: bool,
}

const KEY_FILE: &str = "node_key";
const ID_FILE: &str = "node_id";
const SECRET_FILE: &str = "mesh_key";
const ADDRESS_FILE: &str = "address";
const FORMING_FILE: &str = "forming";

fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    OsRng.fill_bytes(&mut bytes);
    bytes
}

/// The number of a node that was given none: short enough to type, and different for each identity
/// of a cluster as far as chance goes; a collision is refused when the node is added.
fn derived_id(entity: &EntityId) -> MemberId {
    let id = entity.node_id().0 & 0xffff_ffff;
    MemberId(id.max(1))
}

impl Identity {
    /// The identity in `folder`, completed by what the settings say.
    ///
    /// A new folder begins a cluster unless the node `joins` one.
    pub(crate) fn load(
        folder: &Path,
        settings: &Settings,
        joins: bool,
    ) -> Result<Self, IdentityError> {
        if joins {
            remove(folder, FORMING_FILE)?;
        } else if !has(folder, KEY_FILE)? {
            // Before the key: a folder with a key and without this file waits to be added.
            write(folder, FORMING_FILE, "")?;
        }
        let is_forming = has(folder, FORMING_FILE)?;
        let key = net_crypto::load_or_create(&folder.join(KEY_FILE), random)?;
        if key.is_readable_by_others {
            tracing::warn!("{KEY_FILE} can be read by other users; make it mode 0600");
        }
        let entity = key.keypair.entity_id();
        let stored = read(folder, ID_FILE)?
            .map(|text| text.trim().parse().map(MemberId))
            .transpose()
            .map_err(|_| IdentityError::Damaged(ID_FILE))?;
        let member_id = match (stored, settings.node_id) {
            (Some(folder), Some(asked)) if folder != asked => {
                return Err(IdentityError::OtherNode { folder, asked });
            }
            (Some(stored), _) => stored,
            (None, asked) => {
                let id = asked.unwrap_or_else(|| derived_id(&entity));
                write(folder, ID_FILE, &format!("{id}\n"))?;
                id
            }
        };
        let mesh_key = mesh_key(folder, settings)?;
        Ok(Self { keypair: key.keypair, member_id, mesh_key, is_forming })
    }

    /// Notes that the cluster has formed.
    pub(crate) fn formed(folder: &Path) -> Result<(), IdentityError> {
        remove(folder, FORMING_FILE)
    }

    /// The address under which others know the node of a folder.
    pub(crate) fn known_address(folder: &Path) -> Result<Option<SocketAddr>, IdentityError> {
        let text = read(folder, ADDRESS_FILE)?;
        let address = text.map(|text| text.trim().parse()).transpose();
        address.map_err(|_| IdentityError::Damaged(ADDRESS_FILE))
    }

    /// Notes the address that others know now.
    pub(crate) fn keep_address(folder: &Path, address: SocketAddr) -> Result<(), IdentityError> {
        write(folder, ADDRESS_FILE, &format!("{address}\n"))
    }

    /// The mesh secret as the mesh takes it.
    pub(crate) fn secret(&self) -> MeshSecret {
        MeshSecret::new(self.mesh_key.0)
    }
}

/// The mesh secret: from the ticket, from the cookie, from the folder, or a new one.
fn mesh_key(folder: &Path, settings: &Settings) -> Result<MeshKey, IdentityError> {
    let given = match (&settings.ticket, &settings.cookie) {
        (Some(ticket), _) => Some(ticket.mesh_key.clone()),
        (None, Some(cookie)) => Some(MeshKey(*MeshSecret::from_cookie(cookie).as_bytes())),
        (None, None) => None,
    };
    let stored = read(folder, SECRET_FILE)?
        .map(|text| text.trim().parse::<EntityId>().map(|hex| MeshKey(hex.0)))
        .transpose()
        .map_err(|_| IdentityError::Damaged(SECRET_FILE))?;
    match (given, stored) {
        (Some(given), Some(stored)) if given == stored => Ok(stored),
        (None, Some(stored)) => Ok(stored),
        (given, stored) => {
            if stored.is_some() {
                tracing::warn!("the mesh secret of this data folder is replaced");
            }
            let key = given.unwrap_or_else(|| MeshKey(random()));
            // The digits of 32 bytes, as an entity id has them.
            write(folder, SECRET_FILE, &format!("{}\n", EntityId(key.0)))?;
            Ok(key)
        }
    }
}

fn read(folder: &Path, name: &'static str) -> Result<Option<String>, IdentityError> {
    match std::fs::read_to_string(folder.join(name)) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(IdentityError::File { name, source }),
    }
}

fn has(folder: &Path, name: &'static str) -> Result<bool, IdentityError> {
    folder.join(name).try_exists().map_err(|source| IdentityError::File { name, source })
}

fn remove(folder: &Path, name: &'static str) -> Result<(), IdentityError> {
    match std::fs::remove_file(folder.join(name)) {
        Err(source) if source.kind() != ErrorKind::NotFound => {
            Err(IdentityError::File { name, source })
        }
        _ => Ok(()),
    }
}

fn write(folder: &Path, name: &'static str, text: &str) -> Result<(), IdentityError> {
    write_private(&folder.join(name), text).map_err(|source| IdentityError::File { name, source })
}

//! Whom a node lets in: the mesh's secret alone, or capability tokens as well.

use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aspen_auth::{Audience, Capability, Claims, Token};
use aspen_cluster::{Authorizer, CheckTokens, TrustMesh};
use net_crypto::EntityKeypair;
use net_types::EntityId;

use crate::private_file::write_private;

/// Life of a root token, seconds: a year.
const ROOT_TOKEN_LIFE: u64 = 365 * 24 * 3_600;

/// What the settings say about tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TokenSettings {
    /// Whether tokens are checked; otherwise every holder of the mesh's secret is trusted.
    pub(crate) is_enabled: bool,
    /// Whether a request without a token is refused.
    pub(crate) is_required: bool,
    /// Issuers that are trusted; none means the members.
    pub(crate) roots: Vec<EntityId>,
    /// Where a root token is to be written, once.
    pub(crate) root_token: Option<PathBuf>,
}

impl TokenSettings {
    /// Who decides.
    pub(crate) fn authorizer(&self) -> Arc<dyn Authorizer> {
        match self.is_enabled {
            true => Arc::new(CheckTokens::new(self.roots.clone(), self.is_required)),
            false => Arc::new(TrustMesh),
        }
    }

    /// Writes a token with which its bearer may do everything, unless the file is there already.
    pub(crate) fn write_root_token(&self, keypair: &EntityKeypair) -> io::Result<()> {
        let Some(path) = &self.root_token else { return Ok(()) };
        if path.try_exists()? {
            tracing::info!(path = %path.display(), "the root token is kept as it is");
            return Ok(());
        }
        if !self.roots.is_empty() && !self.roots.contains(&keypair.entity_id()) {
            let text = "this node's key is not among --trusted-root-key";
            return Err(io::Error::new(ErrorKind::InvalidInput, text));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let claims = Claims::root(
            keypair.entity_id(),
            Audience::Bearer {},
            vec![Capability::ClusterAdmin {}],
            now,
            now.saturating_add(ROOT_TOKEN_LIFE),
        );
        let token = Token::sign(keypair, claims).map_err(io::Error::other)?;
        write_private(path, &format!("{}\n", token.to_text().expose()))?;
        tracing::info!(path = %path.display(), "root token written");
        Ok(())
    }
}

//! `token`. All but `revoke` work without a cluster.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aspen_api::KeyValueStore;
use aspen_api::kv::Lifetime;
use aspen_auth::{Audience, Capability, Claims, Token, revocation_key};
use aspen_client::Client;
use bytes::Bytes;
use clap::{Args, Subcommand};
use net_crypto::{EntityKeypair, load_key_file};
use net_types::limits::{MAX_TIME_TO_LIVE, TOKEN_CLOCK_SKEW};
use rand_core::{OsRng, RngCore};
use serde_json::{Value, json};

use crate::outcome::{Failure, Outcome};
use crate::token::token_from;

/// Longest life of a token: ten years.
const MAX_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3_600);

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    #[command(flatten)]
    Offline(OfflineTokenCommand),
    /// Take a token back, and all that rest on it. Needs the capability `admin`.
    #[command(after_help = "\
Example:
  aspen-cli --token admin.token token revoke aspentoken...")]
    Revoke {
        /// The token's text, or a file that only you can read with it.
        token: String,
    },
}

/// What needs no cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum OfflineTokenCommand {
    /// Issue a token as a root, without asking a cluster.
    #[command(after_help = "\
Examples:
  aspen-cli token generate --key-file data/node_key --capability read:app/ --expires-in 30d
  aspen-cli token generate --key-file root_key --capability admin --audience <64 hex>")]
    Generate {
        #[command(flatten)]
        issue: Issue,
    },
    /// Show what a token says, and whether it is whole, without asking a cluster.
    #[command(after_help = "Example:\n  aspen-cli token inspect aspentoken...")]
    Inspect {
        /// The token's text, or a file that only you can read with it.
        token: String,
    },
    /// Hand on a narrower token, without asking a cluster. The token that is handed on must name the
    /// key as its audience and have the capability `delegate`.
    #[command(after_help = "\
Example:
  aspen-cli token delegate team.token --key-file my_key --capability read:app/public/")]
    Delegate {
        /// The token's text, or a file that only you can read with it.
        token: String,
        #[command(flatten)]
        issue: Issue,
    },
}

/// What a new token says.
#[derive(Debug, Args)]
pub(crate) struct Issue {
    /// The key that signs, as 64 hexadecimal digits in a file, like a node's `node_key`.
    #[arg(long, value_name = "FILE")]
    pub(crate) key_file: PathBuf,
    /// What it allows: read:PREFIX, write:PREFIX, delete:PREFIX, full:PREFIX, admin or delegate.
    /// Repeat it for more.
    #[arg(long = "capability", value_name = "CAPABILITY", required = true)]
    pub(crate) capabilities: Vec<Capability>,
    /// Who may use it: an entity id, or `bearer` for any holder.
    #[arg(long, value_name = "WHO", default_value = "bearer", value_parser = parse_audience)]
    pub(crate) audience: Audience,
    /// How long it lives, like 90s, 12h or 30d.
    #[arg(long, value_name = "DURATION", default_value = "30d", value_parser = parse_life)]
    pub(crate) expires_in: Duration,
}

fn parse_audience(text: &str) -> Result<Audience, String> {
    match text {
        "bearer" => Ok(Audience::Bearer {}),
        _ => match text.parse() {
            Ok(key) => Ok(Audience::Key { key }),
            Err(_) => Err("write an entity id, which is 64 hexadecimal digits, or bearer".into()),
        },
    }
}

fn parse_life(text: &str) -> Result<Duration, String> {
    let life = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    match life {
        _ if life < Duration::from_secs(1) => Err("at least 1s".into()),
        _ if life > MAX_LIFE => Err("at most ten years".into()),
        _ => Ok(life),
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Carries out a command that needs no cluster.
pub(crate) fn offline(command: &OfflineTokenCommand) -> Result<Outcome, Failure> {
    match command {
        OfflineTokenCommand::Generate { issue } => generate(issue, None),
        OfflineTokenCommand::Delegate { token, issue } => {
            generate(issue, Some(&token_from("TOKEN", token)?))
        }
        OfflineTokenCommand::Inspect { token } => Ok(inspected(&token_from("TOKEN", token)?)),
    }
}

fn keypair(issue: &Issue) -> Result<EntityKeypair, Failure> {
    match load_key_file(&issue.key_file) {
        Ok(Some(found)) => Ok(found.keypair),
        Ok(None) => {
            let path = issue.key_file.display();
            Err(Failure::usage(format!("--key-file: {path} does not exist")))
        }
        Err(error) => Err(Failure::usage(format!("--key-file: {error}"))),
    }
}

/// A token of the key's owner: a root's, or one that rests on `parent`, which it does not outlive.
fn generate(issue: &Issue, parent: Option<&Token>) -> Result<Outcome, Failure> {
    let keypair = keypair(issue)?;
    let issued_at = now();
    let wanted = issued_at.saturating_add(issue.expires_in.as_secs());
    let expires_at = parent.map_or(wanted, |parent| wanted.min(parent.claims().expires_at));
    let mut nonce = vec![0; 16];
    OsRng.fill_bytes(&mut nonce);
    let claims = Claims {
        nonce: Some(Bytes::from(nonce)),
        ..Claims::root(
            keypair.entity_id(),
            issue.audience.clone(),
            issue.capabilities.clone(),
            issued_at,
            expires_at,
        )
    };
    let token = match parent {
        Some(parent) => parent.delegate(&keypair, claims),
        None => Token::sign(&keypair, claims),
    };
    let token = token.map_err(|error| Failure::usage(error.to_string()))?;
    if let Some(parent) = parent {
        token.narrows(parent).map_err(|error| Failure::usage(error.to_string()))?;
    }
    let text = token.to_text();
    let mut json = described(&token);
    json["token"] = text.expose().into();
    Ok(Outcome::new(json, text.expose()))
}

fn described(token: &Token) -> Value {
    let claims = token.claims();
    let audience = match &claims.audience {
        Audience::Key { key } => key.to_string(),
        Audience::Bearer {} => "bearer".to_owned(),
    };
    let capabilities: Vec<_> = claims.capabilities.iter().map(ToString::to_string).collect();
    json!({
        "token_id": token.id().to_string(),
        "issuer": claims.issuer.to_string(),
        "audience": audience,
        "capabilities": capabilities,
        "issued_at": claims.issued_at,
        "expires_at": claims.expires_at,
        "delegation_depth": claims.delegation_depth,
    })
}

fn date(unix_seconds: u64) -> String {
    match UNIX_EPOCH.checked_add(Duration::from_secs(unix_seconds)) {
        Some(time) if unix_seconds < 253_402_300_800 => {
            humantime::format_rfc3339_seconds(time).to_string()
        }
        _ => format!("{unix_seconds} s after 1970"),
    }
}

fn inspected(token: &Token) -> Outcome {
    let claims = token.claims();
    let json = described(token);
    let (now, skew) = (now(), TOKEN_CLOCK_SKEW.as_secs());
    let word = |name: &str| json[name].as_str().unwrap_or_default().to_owned();
    let capabilities: Vec<_> = claims.capabilities.iter().map(ToString::to_string).collect();
    let lines = [
        format!("token_id\t{}", word("token_id")),
        format!("issuer\t{}", claims.issuer),
        format!("audience\t{}", word("audience")),
        format!("capabilities\t{}", capabilities.join(" ")),
        format!("issued_at\t{}", date(claims.issued_at)),
        format!("expires_at\t{}", date(claims.expires_at)),
        format!("delegation_depth\t{}", claims.delegation_depth),
    ];
    let outcome = Outcome::new(json, lines.join("\n"));
    if claims.expires_at.saturating_add(skew) <= now {
        outcome.with_note("the token has expired")
    } else if claims.expires_at <= now {
        outcome.with_note(format!(
            "the token has expired; for {skew} s clusters allow for their clocks"
        ))
    } else {
        outcome.with_note("whether a cluster trusts the issuer, only it can say")
    }
}

/// Writes the key that names the token as revoked; it lives as long as the token would.
pub(crate) async fn revoke(client: &Client, given: &str) -> Result<Outcome, Failure> {
    let token = token_from("TOKEN", given)?;
    let until = token.claims().expires_at.saturating_add(2 * TOKEN_CLOCK_SKEW.as_secs());
    let id = token.id().to_string();
    let json = json!({ "status": "success", "token_id": id });
    let left = until.saturating_sub(now());
    if left == 0 {
        return Ok(Outcome::new(json, id).with_note("the token had expired already"));
    }
    let (key, value) = (revocation_key(&token.id()), Bytes::new());
    let life = Duration::from_secs(left);
    if life <= MAX_TIME_TO_LIVE {
        let ttl_ms = left.saturating_mul(1_000);
        client.set_with_lifetime(key, value, Lifetime::Ttl { ttl_ms }).await?;
    } else {
        // It outlives the token, and no time to live is that long.
        client.set(key, value).await?;
    }
    Ok(Outcome::new(json, id))
}

//! `lease`.

use aspen_api::LeaseId;
use aspen_api::lease::{
    LeaseGrant, LeaseInfo, LeaseKeepalive, LeaseList, LeaseRevoke, LeaseTimeToLive,
    LeaseTimeToLiveResult,
};
use aspen_client::Client;
use clap::Subcommand;
use serde_json::{Value, json};

use crate::outcome::{Failure, Outcome, Text};
use crate::values::shown_value;

#[derive(Debug, Subcommand)]
pub(crate) enum LeaseCommand {
    /// Grant a lease.
    #[command(after_help = "\
Examples:
  aspen-cli lease grant 60            a generated id
  aspen-cli lease grant 60 --id 7")]
    Grant {
        /// Seconds it lives without a keepalive.
        ttl_seconds: u64,
        /// The id to use.
        #[arg(long)]
        id: Option<LeaseId>,
    },
    /// End a lease and delete its keys.
    #[command(after_help = "Example:\n  aspen-cli lease revoke 7")]
    Revoke {
        /// The lease.
        id: LeaseId,
    },
    /// Renew a lease: its time to live starts again.
    #[command(after_help = "Example:\n  aspen-cli lease keepalive 7")]
    Keepalive {
        /// The lease.
        id: LeaseId,
    },
    /// Show how long a lease lives.
    #[command(after_help = "Example:\n  aspen-cli lease ttl 7 --keys")]
    Ttl {
        /// The lease.
        id: LeaseId,
        /// List its keys as well.
        #[arg(long)]
        keys: bool,
    },
    /// List leases.
    #[command(after_help = "Example:\n  aspen-cli --json lease list")]
    List,
}

pub(crate) async fn run(client: &Client, command: LeaseCommand) -> Result<Outcome, Failure> {
    match command {
        LeaseCommand::Grant { ttl_seconds, id } => {
            let result = client.send(LeaseGrant { lease_id: id, ttl_seconds }).await?;
            let (lease, ttl_seconds) = (result.lease_id.0, result.ttl_seconds);
            let json =
                json!({ "status": "success", "lease_id": lease, "ttl_seconds": ttl_seconds });
            Ok(Outcome::new(json, lease.to_string()))
        }
        LeaseCommand::Revoke { id } => {
            let keys = client.send(LeaseRevoke { lease_id: id }).await?.keys_deleted;
            let json = json!({ "status": "success", "lease_id": id.0, "keys_deleted": keys });
            Ok(Outcome::new(json, format!("{keys} keys deleted")))
        }
        LeaseCommand::Keepalive { id } => {
            let ttl = client.send(LeaseKeepalive { lease_id: id }).await?.ttl_seconds;
            let json = json!({ "status": "success", "lease_id": id.0, "ttl_seconds": ttl });
            Ok(Outcome::new(json, format!("lives for {ttl} s")))
        }
        LeaseCommand::Ttl { id, keys } => {
            let request = LeaseTimeToLive { lease_id: id, should_include_keys: keys };
            Ok(time_to_live(&client.send(request).await?, keys))
        }
        LeaseCommand::List => Ok(listed(&all_leases(client).await?)),
    }
}

async fn all_leases(client: &Client) -> Result<Vec<LeaseInfo>, Failure> {
    let mut leases: Vec<LeaseInfo> = Vec::new();
    loop {
        let after = leases.last().map(|lease| lease.lease_id);
        let page = client.send(LeaseList { after, limit: None }).await?;
        let is_last = !page.is_truncated || page.leases.is_empty();
        leases.extend(page.leases);
        if is_last {
            return Ok(leases);
        }
    }
}

fn time_to_live(result: &LeaseTimeToLiveResult, should_list: bool) -> Outcome {
    let mut json = json!({
        "lease_id": result.lease_id.0,
        "granted_ttl_seconds": result.granted_ttl_seconds,
        "remaining_ms": result.remaining_ms,
        "key_count": result.key_count,
    });
    let mut lines = vec![format!(
        "{} of {} s remain, {} keys",
        result.remaining_ms / 1_000,
        result.granted_ttl_seconds,
        result.key_count
    )];
    if should_list {
        json["keys"] = result.keys.iter().map(|key| Value::from(key.as_str())).collect();
        lines.extend(result.keys.iter().map(|key| shown_value(key.as_bytes())));
    }
    let outcome = Outcome::new(json, lines.join("\n"));
    let hidden = result.key_count.saturating_sub(result.keys.len() as u64);
    match should_list && hidden > 0 {
        true => outcome.with_note(format!("{hidden} more keys are not listed")),
        false => outcome,
    }
}

fn listed(leases: &[LeaseInfo]) -> Outcome {
    let shown: Vec<_> = leases
        .iter()
        .map(|lease| {
            json!({
                "lease_id": lease.lease_id.0,
                "granted_ttl_seconds": lease.granted_ttl_seconds,
                "remaining_ms": lease.remaining_ms,
                "key_count": lease.key_count,
            })
        })
        .collect();
    let lines: Vec<_> = leases
        .iter()
        .map(|lease| {
            let (remaining, granted) = (lease.remaining_ms / 1_000, lease.granted_ttl_seconds);
            format!("{}\t{remaining}/{granted} s\t{} keys", lease.lease_id, lease.key_count)
        })
        .collect();
    let outcome = Outcome::new(json!({ "count": shown.len(), "leases": shown }), "");
    Outcome { text: Text::lines(&lines), ..outcome }
}

#[cfg(test)]
mod tests {
    use aspen_api::LeaseId;

    use super::*;

    #[test]
    fn keys_are_listed_only_if_asked_for() {
        let mut result = LeaseTimeToLiveResult {
            lease_id: LeaseId(7),
            granted_ttl_seconds: 60,
            remaining_ms: 59_500,
            key_count: 2,
            keys: vec![],
        };
        let outcome = time_to_live(&result, false);
        assert_eq!(outcome.text, Text::Lines("59 of 60 s remain, 2 keys".into()));
        assert_eq!((outcome.json.get("keys"), outcome.note), (None, None));
        result.keys = vec!["a".parse().unwrap()];
        let outcome = time_to_live(&result, true);
        assert_eq!(outcome.json["keys"], json!(["a"]));
        assert_eq!(outcome.note.as_deref(), Some("1 more keys are not listed"));
    }

    #[test]
    fn no_lease_is_an_empty_list() {
        let outcome = listed(&[]);
        assert_eq!(outcome.json, json!({ "count": 0, "leases": [] }));
        assert_eq!(outcome.text, Text::Nothing);
    }
}

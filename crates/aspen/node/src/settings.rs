//! Settings: a flag wins over `ASPEN_*` in the environment, which wins over the file.
//!
//! A variable has the name of its flag, but for one: `ASPEN_JOIN_TICKET`. `ASPEN_TICKET` is what people
//! export for `aspen-cli`. If a node read it too, a new node in the same shell would silently wait
//! to be added to that cluster, and an old one of another cluster would take on its mesh secret and
//! be cut off from its own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aspen_api::{ClusterTicket, Level, MemberId};
use aspen_client::ticket_from;
use aspen_cluster::Timing;
use aspen_door::{Tls, TlsError};
use clap::{Args, Parser, Subcommand, ValueEnum};
use net_types::limits::DEFAULT_MAX_CLIENTS;
use net_types::{EntityId, PeerAddr};
use serde::Deserialize;
use thiserror::Error;

use crate::auth::TokenSettings;
use crate::dev::DevArguments;
use crate::http::HttpSettings;

/// Stands in for the highest feature level that the program understands, to try upgrades with one
/// program.
const TOP_LEVEL_VARIABLE: &str = "ASPEN_TEST_TOP_LEVEL";

/// A node of an Aspen cluster.
#[derive(Debug, Parser)]
#[command(
    version,
    about,
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  aspen-node dev                                   three nodes on this machine, until Ctrl-C
  aspen-node --data-dir ./node-1                   a cluster of one node
  aspen-node --data-dir ./node-2 --ticket ./node-1/cluster-ticket.txt
                                                   a node that waits to be added to it

A flag wins over its variable, and that over the settings file. Exit codes: 0 stopped as asked,
2 unusable settings, 1 anything else."
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) node: NodeArguments,
}

/// What to do instead of running one node.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Dev(DevArguments),
}

/// Where a node keeps its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StorageBackend {
    /// In its data folder.
    Redb,
    /// In memory; a restart forgets everything.
    Inmemory,
}

/// The settings of one node, each from a flag, the environment or a file.
#[derive(Clone, Debug, Default, Args, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct NodeArguments {
    /// Read settings from this TOML file; its keys are the names of these flags.
    #[arg(long, env = "ASPEN_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    config: Option<PathBuf>,
    /// The node's number in the consensus group [default: derived from its identity]
    #[arg(long, env = "ASPEN_NODE_ID", value_name = "NUMBER")]
    node_id: Option<u64>,
    /// Folder for everything the node keeps; created if missing.
    #[arg(long, env = "ASPEN_DATA_DIR", value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// The secret that all nodes of the mesh share [default: random, kept in the data folder]
    #[arg(long, env = "ASPEN_COOKIE", hide_env_values = true)]
    cookie: Option<String>,
    /// Address to listen on [default: 127.0.0.1]
    #[arg(long, env = "ASPEN_HOST", value_name = "IP")]
    host: Option<IpAddr>,
    /// UDP port to listen on [default: that of the last start, else any]
    #[arg(long, env = "ASPEN_BIND_PORT", value_name = "PORT")]
    bind_port: Option<u16>,
    /// Address for /healthz, /readyz and /metrics [default: 127.0.0.1]. One that other machines
    /// reach needs TLS; /metrics then needs a capability token (Authorization: Bearer TOKEN).
    #[arg(long, env = "ASPEN_HTTP_HOST", value_name = "IP")]
    http_host: Option<IpAddr>,
    /// TCP port for them, 0 for any [default: 0]
    #[arg(long, env = "ASPEN_HTTP_PORT", value_name = "PORT")]
    http_port: Option<u16>,
    /// Certificate chain for HTTPS, in PEM, the node's own certificate first.
    #[arg(long, env = "ASPEN_HTTP_TLS_CERT", value_name = "FILE")]
    http_tls_cert: Option<PathBuf>,
    /// Private key of that certificate, in PEM.
    #[arg(long, env = "ASPEN_HTTP_TLS_KEY", value_name = "FILE")]
    http_tls_key: Option<PathBuf>,
    /// Ticket of the cluster to join, or a file that only you can read with it; the node then waits
    /// to be added. (ASPEN_TICKET is aspen-cli's and means nothing to a node.)
    #[arg(long, env = "ASPEN_JOIN_TICKET", hide_env_values = true)]
    ticket: Option<String>,
    /// Known peers, `<entity id>@<host>:<port>`, separated by commas; the node then waits to be added.
    #[arg(long, env = "ASPEN_PEERS", value_name = "PEER", value_delimiter = ',')]
    peers: Option<Vec<String>>,
    /// Milliseconds between a leader's signs of life [default: 500]
    #[arg(long, env = "ASPEN_HEARTBEAT_INTERVAL_MS", value_name = "MS")]
    heartbeat_interval_ms: Option<u64>,
    /// Shortest silence before an election, milliseconds [default: 1500]
    #[arg(long, env = "ASPEN_ELECTION_TIMEOUT_MIN_MS", value_name = "MS")]
    election_timeout_min_ms: Option<u64>,
    /// Longest silence before an election, milliseconds [default: twice the shortest]
    #[arg(long, env = "ASPEN_ELECTION_TIMEOUT_MAX_MS", value_name = "MS")]
    election_timeout_max_ms: Option<u64>,
    /// Clients served at the same time; those beyond are refused [default: 200]
    #[arg(long, env = "ASPEN_MAX_CLIENTS", value_name = "NUMBER")]
    max_clients: Option<u16>,
    /// Where data is kept [default: redb]
    #[arg(long, env = "ASPEN_STORAGE_BACKEND")]
    storage_backend: Option<StorageBackend>,
    /// Check the capability tokens of requests. Without it every holder of the ticket is trusted.
    #[arg(long, env = "ASPEN_ENABLE_TOKEN_AUTH", num_args = 0..=1, default_missing_value = "true")]
    enable_token_auth: Option<bool>,
    /// Refuse requests without a token, other members' apart.
    #[arg(long, env = "ASPEN_REQUIRE_TOKEN_AUTH", num_args = 0..=1, default_missing_value = "true")]
    require_token_auth: Option<bool>,
    /// Entity ids whose tokens are trusted, separated by commas [default: the members']
    #[arg(long, env = "ASPEN_TRUSTED_ROOT_KEY", value_delimiter = ',')]
    trusted_root_key: Option<Vec<String>>,
    /// Write a token that allows everything to this file, readable by its owner alone, unless it
    /// exists.
    #[arg(long, env = "ASPEN_OUTPUT_ROOT_TOKEN")]
    output_root_token: Option<PathBuf>,
}

/// Why settings cannot be used.
#[derive(Debug, Error)]
pub(crate) enum SettingsError {
    /// The file cannot be read.
    #[error("cannot read the settings file {path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    /// The file is not what it should be.
    #[error("settings file {path}: {text}")]
    Syntax { path: PathBuf, text: String },
    /// There is no data folder.
    #[error(
        "--data-dir is needed (or ASPEN_DATA_DIR, or data-dir in the settings file); for a cluster \
         to try things on, run \"aspen-node dev\""
    )]
    NoDataDir,
    /// The files of HTTPS cannot be used.
    #[error("--http-tls-cert and --http-tls-key: {0}")]
    HttpTls(#[from] TlsError),
    /// A value cannot be used.
    #[error("{name}: {text}")]
    Value { name: &'static str, text: String },
}

fn value(name: &'static str, text: impl Into<String>) -> SettingsError {
    SettingsError::Value { name, text: text.into() }
}

impl NodeArguments {
    fn read_file(path: &Path) -> Result<Self, SettingsError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| SettingsError::File { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|text| SettingsError::Syntax { path: path.to_owned(), text })
    }

    /// The settings in a file's text, or what is wrong with it and in which line. The line itself is
    /// not shown, as it may hold a secret.
    fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| match error.span() {
            Some(span) => {
                let before = text.get(..span.start).unwrap_or(text);
                format!("line {}: {}", before.matches('\n').count() + 1, error.message())
            }
            None => error.message().to_owned(),
        })
    }

    /// These settings, and those of `below` where these say nothing.
    fn over(self, below: Self) -> Self {
        macro_rules! first_of {
            ($($field:ident),*) => {
                Self { config: self.config, $($field: self.$field.or(below.$field),)* }
            };
        }
        first_of!(
            node_id,
            data_dir,
            cookie,
            host,
            bind_port,
            http_host,
            http_port,
            http_tls_cert,
            http_tls_key,
            ticket,
            peers,
            heartbeat_interval_ms,
            election_timeout_min_ms,
            election_timeout_max_ms,
            max_clients,
            storage_backend,
            enable_token_auth,
            require_token_auth,
            trusted_root_key,
            output_root_token
        )
    }
}

/// Settings that can be used, with every default filled in.
pub(crate) struct Settings {
    pub(crate) node_id: Option<MemberId>,
    pub(crate) data_dir: PathBuf,
    pub(crate) cookie: Option<String>,
    pub(crate) bind: SocketAddr,
    pub(crate) http: HttpSettings,
    pub(crate) ticket: Option<ClusterTicket>,
    pub(crate) peers: Vec<PeerAddr>,
    pub(crate) timing: Timing,
    pub(crate) max_clients: usize,
    pub(crate) storage_backend: StorageBackend,
    pub(crate) tokens: TokenSettings,
    pub(crate) top_level: Level,
}

impl Settings {
    /// Completes what the command line and the environment say with the settings file.
    pub(crate) fn resolve(arguments: NodeArguments) -> Result<Self, SettingsError> {
        let below = match &arguments.config {
            Some(path) => NodeArguments::read_file(path)?,
            None => NodeArguments::default(),
        };
        let all = arguments.over(below);
        // An empty variable is how scripts say that there is none.
        let ticket = all.ticket.as_deref().filter(|text| !text.trim().is_empty());
        let ticket = ticket.map(ticket_from).transpose();
        let ticket = ticket.map_err(|error| value("--ticket", error.to_string()))?;
        if ticket.is_some() && all.cookie.is_some() {
            return Err(value("--cookie", "the ticket brings the secret; give one of the two"));
        }
        if all.max_clients == Some(0) {
            return Err(value("--max-clients", "at least 1"));
        }
        if all.node_id == Some(0) {
            return Err(value("--node-id", "numbers start at 1"));
        }
        if all.cookie.as_deref() == Some("") {
            return Err(value("--cookie", "must not be empty"));
        }
        let tokens = tokens(&all)?;
        let http = http(&all)?;
        let peers = all.peers.unwrap_or_default();
        let peers = peers.iter().map(|text| parse_peer(text)).collect::<Result<_, _>>()?;
        let host = all.host.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        Ok(Self {
            node_id: all.node_id.map(MemberId),
            data_dir: all.data_dir.ok_or(SettingsError::NoDataDir)?,
            cookie: all.cookie,
            bind: SocketAddr::new(host, all.bind_port.unwrap_or(0)),
            http,
            ticket,
            peers,
            timing: timing(
                all.heartbeat_interval_ms,
                all.election_timeout_min_ms,
                all.election_timeout_max_ms,
            )?,
            max_clients: all.max_clients.map_or(DEFAULT_MAX_CLIENTS, usize::from),
            storage_backend: all.storage_backend.unwrap_or(StorageBackend::Redb),
            tokens,
            top_level: top_level(std::env::var(TOP_LEVEL_VARIABLE).ok().as_deref())?,
        })
    }
}

/// The highest feature level that the node says it understands: that of the program, unless a test
/// of upgrades says otherwise.
fn top_level(text: Option<&str>) -> Result<Level, SettingsError> {
    match text.filter(|text| !text.is_empty()) {
        None => Ok(Level::TOP),
        Some(text) => match text.parse() {
            Ok(level) if level > 0 => Ok(Level(level)),
            Ok(_) | Err(_) => Err(value(TOP_LEVEL_VARIABLE, "a feature level, from 1 on")),
        },
    }
}

fn http(all: &NodeArguments) -> Result<HttpSettings, SettingsError> {
    let host = all.http_host.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let tls = match (&all.http_tls_cert, &all.http_tls_key) {
        (Some(certificate), Some(key)) => Some(Tls::load(certificate, key)?),
        (None, None) if host.is_loopback() => None,
        (None, None) => {
            let text = format!(
                "other machines reach {host}; that needs TLS: add --http-tls-cert and --http-tls-key"
            );
            return Err(value("--http-host", text));
        }
        (Some(_), None) => return Err(value("--http-tls-cert", "add --http-tls-key")),
        (None, Some(_)) => return Err(value("--http-tls-key", "add --http-tls-cert")),
    };
    Ok(HttpSettings { addr: SocketAddr::new(host, all.http_port.unwrap_or(0)), tls })
}

fn tokens(all: &NodeArguments) -> Result<TokenSettings, SettingsError> {
    let is_required = all.require_token_auth.unwrap_or(false);
    let is_enabled = is_required || all.enable_token_auth.unwrap_or(false);
    let bad = |text: &String| value("--trusted-root-key", format!("{text:?} is no entity id"));
    let keys = all.trusted_root_key.iter().flatten();
    let roots = keys.map(|text| text.trim().parse().map_err(|_| bad(text)));
    let roots = roots.collect::<Result<Vec<EntityId>, _>>()?;
    for (name, is_given) in [
        ("--trusted-root-key", !roots.is_empty()),
        ("--output-root-token", all.output_root_token.is_some()),
    ] {
        if is_given && !is_enabled {
            let text = "tokens are not checked; add --enable-token-auth or --require-token-auth";
            return Err(value(name, text));
        }
    }
    Ok(TokenSettings { is_enabled, is_required, roots, root_token: all.output_root_token.clone() })
}

fn timing(
    heartbeat: Option<u64>,
    min: Option<u64>,
    max: Option<u64>,
) -> Result<Timing, SettingsError> {
    let min = min.unwrap_or(1_500);
    let max = max.unwrap_or(min.saturating_mul(2));
    let heartbeat = heartbeat.unwrap_or(500);
    if heartbeat < 10 {
        return Err(value("--heartbeat-interval-ms", "at least 10"));
    }
    if min >= max {
        return Err(value("--election-timeout-min-ms", "must be below --election-timeout-max-ms"));
    }
    if heartbeat.saturating_mul(2) >= max / 2 + heartbeat {
        let text = "must be below half of --election-timeout-max-ms";
        return Err(value("--heartbeat-interval-ms", text));
    }
    if max > 60_000 {
        return Err(value("--election-timeout-max-ms", "at most 60000"));
    }
    let ms = Duration::from_millis;
    Ok(Timing { heartbeat: ms(heartbeat), election_min: ms(min), election_max: ms(max) })
}

fn parse_peer(text: &str) -> Result<PeerAddr, SettingsError> {
    let bad = || value("--peers", format!("{text:?} is not <entity id>@<host>:<port>"));
    let (id, addr) = text.trim().split_once('@').ok_or_else(bad)?;
    let entity: EntityId = id.parse().map_err(|_| bad())?;
    let addr: SocketAddr = addr.parse().map_err(|_| bad())?;
    Ok(PeerAddr::direct(entity, addr))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> NodeArguments {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn the_nearer_source_wins_and_the_file_fills_the_rest() {
        let near = NodeArguments { bind_port: Some(7), ..NodeArguments::default() };
        let all = near.over(file("bind-port = 1\nhttp-port = 2\ndata-dir = \"/d\"\n"));
        let settings = Settings::resolve(all).unwrap();
        assert_eq!((settings.bind.port(), settings.http.addr.port()), (7, 2));
        assert_eq!(settings.data_dir, PathBuf::from("/d"));
        assert_eq!(settings.timing, Timing::default());
    }

    #[test]
    fn unknown_keys_and_impossible_values_are_named() {
        let unknown = NodeArguments::parse("host = \"::1\"\nbind-prot = 1").unwrap_err();
        assert!(unknown.starts_with("line 2: ") && unknown.contains("bind-prot"), "{unknown}");
        let secret = NodeArguments::parse("cookie = 'secret").unwrap_err();
        assert!(secret.starts_with("line 1: ") && !secret.contains("secret"), "{secret}");
        let resolve = |text: &str| Settings::resolve(file(text)).err().unwrap().to_string();
        assert!(resolve("").contains("--data-dir"));
        let with = |text: &str| resolve(&format!("data-dir = \"/d\"\n{text}"));
        assert!(with("ticket = \"nonsense\"").contains("--ticket"));
        assert!(with("peers = [\"x\"]").contains("--peers"));
        assert!(with("cookie = \"\"").contains("--cookie"));
        assert!(Settings::resolve(file("data-dir = \"/d\"\nticket = \"\"")).is_ok());
        assert!(with("node-id = 0").contains("--node-id"));
        assert!(
            with("require-token-auth = true\ntrusted-root-key = [\"x\"]").contains("entity id")
        );
        assert!(with("output-root-token = \"/t\"").contains("--enable-token-auth"));
        assert!(with("heartbeat-interval-ms = 2000").contains("half"));
        assert!(with("http-host = \"0.0.0.0\"").contains("needs TLS"));
        assert!(with("http-tls-cert = \"/c\"").contains("--http-tls-key"));
        assert!(with("http-tls-key = \"/k\"").contains("--http-tls-cert"));
        let absent = with("http-tls-cert = \"/absent/c\"\nhttp-tls-key = \"/absent/k\"");
        assert!(absent.contains("cannot read /absent/c: No such file"), "{absent}");
        assert!(
            with("election-timeout-min-ms = 10\nelection-timeout-max-ms = 10").contains("below")
        );
    }

    #[test]
    fn a_fast_cluster_needs_only_two_settings() {
        let timing = timing(Some(50), Some(300), None).unwrap();
        assert_eq!(timing.election_max, Duration::from_millis(600));
    }
}

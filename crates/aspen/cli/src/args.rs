//! What can be typed around a command: the global options.

use clap::{ArgAction, Parser};

use crate::commands::Command;

/// Where help lists what every command takes.
const GLOBAL: &str = "Global options";

/// The command line of an Aspen cluster.
#[derive(Debug, Parser)]
#[command(
    name = "aspen-cli",
    version,
    max_term_width = 100,
    after_help = "\
Examples:
  aspen-node dev                          start a local cluster; this tool finds it by itself
  aspen-cli kv set greeting hello
  aspen-cli kv get greeting
  aspen-cli --json cluster status
  ASPEN_TICKET=aspen... aspen-cli kv scan app/

A value stands on stdout as it is; remarks and errors stand on stderr.

Exit codes: 0 success, 1 negative outcome (conflict, limit), 2 usage, 3 not found, 5 permission,
6 not connected, 7 deadline, 9 capability unavailable."
)]
pub(crate) struct Cli {
    /// The cluster: a ticket's text, or a file that only you can read with a ticket in it. Without
    /// it the ticket of your local development cluster is used.
    #[arg(long, env = "ASPEN_TICKET", global = true, hide_env_values = true)]
    #[arg(help_heading = GLOBAL)]
    pub(crate) ticket: Option<String>,

    /// Capability token to send with each request: its text, or a file that only you can read with
    /// it. Stands before the command, as some commands have a --token of their own.
    #[arg(long, env = "ASPEN_TOKEN", hide_env_values = true)]
    #[arg(help_heading = GLOBAL)]
    pub(crate) token: Option<String>,

    /// Milliseconds for the whole command, retries included.
    #[arg(long, global = true, default_value_t = 30_000, value_name = "MS")]
    #[arg(help_heading = GLOBAL)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    pub(crate) timeout: u64,

    /// Print exactly one JSON document; errors are JSON on stderr.
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub(crate) json: bool,

    /// Say more on stderr; twice for details of every attempt.
    #[arg(short, long, global = true, action = ArgAction::Count, conflicts_with = "quiet")]
    #[arg(help_heading = GLOBAL)]
    pub(crate) verbose: u8,

    /// Say nothing on stderr but errors.
    #[arg(short, long, global = true, help_heading = GLOBAL)]
    pub(crate) quiet: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use clap::CommandFactory;

    use super::*;
    use crate::commands::{KvCommand, OfCluster};

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("aspen-cli").chain(line.split_whitespace()))
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_stand_before_or_after_the_command() {
        for line in ["--json --timeout 5 kv get k", "kv get k --json --timeout 5"] {
            let cli = parse(line).unwrap();
            assert_eq!((cli.json, cli.timeout), (true, 5), "{line}");
        }
        assert_eq!(parse("kv get k").unwrap().timeout, 30_000);
        assert!(parse("kv get k -v -q").is_err());
        assert!(parse("--timeout 0 kv get k").is_err());
    }

    #[test]
    fn the_scan_token_and_the_capability_token_are_two_options() {
        let cli = parse("--token cap kv scan app/ --token AQ").unwrap();
        assert_eq!(cli.token.as_deref(), Some("cap"));
        let Command::OfCluster(OfCluster::Kv(KvCommand::Scan { prefix, limit, token, .. })) =
            cli.command
        else {
            panic!("not a scan");
        };
        assert_eq!((prefix.as_str(), limit), ("app/", 100));
        assert_eq!(token, Some(Bytes::from_static(&[1])));
        assert!(parse("kv scan --limit 10001").is_err());
        assert!(parse("kv scan --token !").is_err());
    }

    #[test]
    fn a_value_comes_from_one_place() {
        for (line, is_fine) in [
            ("kv set k v", true),
            ("kv set k --file -", true),
            ("kv set k", false),
            ("kv set k v --file f", false),
            ("kv set k v --ttl-ms 1 --lease 2", false),
            ("kv set k -5", true),
            ("kv set -- k -v", true),
        ] {
            assert_eq!(parse(line).is_ok(), is_fine, "{line}");
        }
        assert!(Cli::try_parse_from(["aspen-cli", "kv", "set", "k", ""]).is_ok());
        assert!(Cli::try_parse_from(["aspen-cli", "kv", "set", "", "v"]).is_err());
    }

    #[test]
    fn batches_are_bounded_and_split_at_the_first_equals_sign() {
        let Command::OfCluster(OfCluster::Kv(KvCommand::BatchWrite { assignments })) =
            parse("kv batch-write a=1=2 b=").unwrap().command
        else {
            panic!("not a batch");
        };
        let found: Vec<_> = assignments.iter().map(|(k, v)| (k.as_str(), &v[..])).collect();
        assert_eq!(found, [("a", &b"1=2"[..]), ("b", &b""[..])]);
        assert!(parse("kv batch-write a").is_err());
        assert!(parse(&format!("kv batch-read {}", "k ".repeat(100))).is_ok());
        assert!(parse("kv batch-write").is_err());
    }

    #[test]
    fn every_command_has_an_example_and_every_argument_a_help() {
        fn check(command: &clap::Command) {
            let is_leaf = command.get_subcommands().next().is_none();
            let help = command.get_after_help().map(|help| help.to_string()).unwrap_or_default();
            assert!(!is_leaf || help.contains("Example"), "{}", command.get_name());
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {argument}", command.get_name());
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }

    #[test]
    fn a_swap_takes_each_value_from_one_place_and_one_lifetime() {
        for (line, is_fine) in [
            ("kv cas k --new-value v", true),
            ("kv cas k --file - --expected -1 --lease 7", true),
            ("kv cas k --new-value -v --expected-file f --ttl-ms 5", true),
            ("kv cas k", false),
            ("kv cas k --new-value v --file f", false),
            ("kv cas k --new-value v --expected a --expected-file f", false),
            ("kv cas k --new-value v --ttl-ms 5 --lease 7", false),
            ("kv cad k --expected-file f", true),
            ("kv cad k", false),
            ("kv scan --token AQ --revision 5", false),
        ] {
            assert_eq!(parse(line).is_ok(), is_fine, "{line}");
        }
    }
}

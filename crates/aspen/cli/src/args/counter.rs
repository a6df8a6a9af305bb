//! `counter`, as it is typed.

use aspen_api::Key;
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum CounterCommand {
    /// Print the value of a counter; one that was never written is 0.
    #[command(after_help = "\
Examples:
  aspen-cli counter get visits
  aspen-cli counter get balance --signed")]
    Get {
        /// The counter's name.
        name: Key,
        /// The signed counter of this name.
        #[arg(long)]
        signed: bool,
    },
    /// Add 1.
    #[command(after_help = "Example:\n  aspen-cli counter incr visits")]
    Incr {
        /// The counter's name.
        name: Key,
    },
    /// Subtract 1; a counter at 0 stays there.
    #[command(after_help = "Example:\n  aspen-cli counter decr visits")]
    Decr {
        /// The counter's name.
        name: Key,
    },
    /// Add a number; the sum stops at 2^64 - 1, that of a signed counter at 2^63 - 1.
    #[command(after_help = "\
Examples:
  aspen-cli counter add visits 10
  aspen-cli counter add balance 250 --signed")]
    Add {
        /// The counter's name.
        name: Key,
        /// How much.
        amount: u64,
        /// The signed counter of this name.
        #[arg(long)]
        signed: bool,
    },
    /// Subtract a number; the rest stops at 0, that of a signed counter at -2^63.
    #[command(after_help = "\
Examples:
  aspen-cli counter sub visits 10
  aspen-cli counter sub balance 250 --signed")]
    Sub {
        /// The counter's name.
        name: Key,
        /// How much.
        amount: u64,
        /// The signed counter of this name.
        #[arg(long)]
        signed: bool,
    },
    /// Set a counter.
    #[command(after_help = "Example:\n  aspen-cli counter set visits 0")]
    Set {
        /// The counter's name.
        name: Key,
        /// The value.
        value: u64,
    },
    /// Set a counter if it has the expected value. Exit code 1 if it has not.
    #[command(after_help = "\
Example:
  aspen-cli counter cas visits --expected 10 --new-value 0")]
    Cas {
        /// The counter's name.
        name: Key,
        /// The value that it must have.
        #[arg(long, value_name = "NUMBER")]
        expected: u64,
        /// The value to set.
        #[arg(long, value_name = "NUMBER")]
        new_value: u64,
    },
}

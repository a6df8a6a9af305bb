//! `counter`.

use aspen_api::Key;
use aspen_client::Client;
use aspen_coordination::counter::{
    CounterAdd, CounterCompareAndSet, CounterDelete, CounterGet, CounterSet, CounterSubtract,
    SignedCounterAdd, SignedCounterGet,
};
use clap::Subcommand;
use serde_json::{Value, json};

use crate::outcome::{Failure, Outcome};

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
    /// Delete a counter, which is 0 again.
    #[command(after_help = "Example:\n  aspen-cli counter delete visits")]
    Delete {
        /// The counter's name.
        name: Key,
        /// The signed counter of this name.
        #[arg(long)]
        signed: bool,
    },
}

pub(super) async fn run(client: &Client, command: CounterCommand) -> Result<Outcome, Failure> {
    match command {
        CounterCommand::Get { name, signed } => {
            let value = match signed {
                true => client.send(SignedCounterGet { name: name.clone() }).await?.value().into(),
                false => client.send(CounterGet { name: name.clone() }).await?.value.into(),
            };
            Ok(counted(&name, value))
        }
        CounterCommand::Incr { name } => add(client, name, 1, false).await,
        CounterCommand::Decr { name } => subtract(client, name, 1, false).await,
        CounterCommand::Add { name, amount, signed } => add(client, name, amount, signed).await,
        CounterCommand::Sub { name, amount, signed } => {
            subtract(client, name, amount, signed).await
        }
        CounterCommand::Set { name, value } => {
            client.send(CounterSet { name: name.clone(), value }).await?;
            Ok(counted(&name, value.into()))
        }
        CounterCommand::Cas { name, expected, new_value } => {
            let request = CounterCompareAndSet { name: name.clone(), expected, new_value };
            let result = client.send(request).await?;
            let mut outcome = counted(&name, result.value.into());
            outcome.json["is_success"] = result.is_success.into();
            match result.is_success {
                true => Ok(outcome),
                false => {
                    outcome.json["status"] = "conflict".into();
                    Ok(outcome.negative().with_note(format!("the value is not {expected}")))
                }
            }
        }
        CounterCommand::Delete { name, signed } => {
            let request = CounterDelete { name: name.clone(), is_signed: signed };
            let was_deleted = client.send(request).await?.was_deleted;
            let json =
                json!({ "status": "success", "name": name.as_str(), "was_deleted": was_deleted });
            Ok(Outcome::new(json, if was_deleted { "deleted" } else { "was not there" }))
        }
    }
}

async fn add(client: &Client, name: Key, amount: u64, signed: bool) -> Result<Outcome, Failure> {
    let value = match signed {
        true => add_signed(client, &name, amount, false).await?,
        false => client.send(CounterAdd { name: name.clone(), amount }).await?.value.into(),
    };
    Ok(counted(&name, value))
}

async fn subtract(
    client: &Client,
    name: Key,
    amount: u64,
    signed: bool,
) -> Result<Outcome, Failure> {
    let value = match signed {
        true => add_signed(client, &name, amount, true).await?,
        false => client.send(CounterSubtract { name: name.clone(), amount }).await?.value.into(),
    };
    Ok(counted(&name, value))
}

async fn add_signed(
    client: &Client,
    name: &Key,
    amount: u64,
    is_subtraction: bool,
) -> Result<Value, Failure> {
    let request = SignedCounterAdd { name: name.clone(), amount, is_subtraction };
    Ok(client.send(request).await?.value().into())
}

fn counted(name: &Key, value: Value) -> Outcome {
    let text = value.to_string();
    Outcome::new(json!({ "status": "success", "name": name.as_str(), "value": value }), text)
}

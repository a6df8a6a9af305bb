//! `counter`.

use aspen_api::Key;
use aspen_client::Client;
use aspen_coordination::counter::{
    CounterAdd, CounterCompareAndSet, CounterGet, CounterSet, CounterSubtract, SignedCounterAdd,
    SignedCounterGet,
};
use serde_json::{Value, json};

use crate::args::CounterCommand;
use crate::outcome::{Failure, Outcome};

pub(super) async fn run(client: &Client, command: CounterCommand) -> Result<Outcome, Failure> {
    match command {
        CounterCommand::Get { name, signed: true } => {
            let value = client.send(SignedCounterGet { name: name.clone() }).await?.value();
            Ok(counted(&name, value.into()))
        }
        CounterCommand::Get { name, signed: false } => {
            let value = client.send(CounterGet { name: name.clone() }).await?.value;
            Ok(counted(&name, value.into()))
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
    }
}

async fn add(client: &Client, name: Key, amount: u64, signed: bool) -> Result<Outcome, Failure> {
    match signed {
        true => add_signed(client, name, amount, false).await,
        false => {
            let value = client.send(CounterAdd { name: name.clone(), amount }).await?.value;
            Ok(counted(&name, value.into()))
        }
    }
}

async fn subtract(
    client: &Client,
    name: Key,
    amount: u64,
    signed: bool,
) -> Result<Outcome, Failure> {
    match signed {
        true => add_signed(client, name, amount, true).await,
        false => {
            let value = client.send(CounterSubtract { name: name.clone(), amount }).await?.value;
            Ok(counted(&name, value.into()))
        }
    }
}

async fn add_signed(
    client: &Client,
    name: Key,
    amount: u64,
    is_subtraction: bool,
) -> Result<Outcome, Failure> {
    let request = SignedCounterAdd { name: name.clone(), amount, is_subtraction };
    let value = client.send(request).await?.value();
    Ok(counted(&name, value.into()))
}

fn counted(name: &Key, value: Value) -> Outcome {
    let text = value.to_string();
    Outcome::new(json!({ "status": "success", "name": name.as_str(), "value": value }), text)
}

//! Counters, on real nodes.

use aspen_api::KeyValueStore;
use aspen_coordination::counter::{CounterAdd, CounterGet};
use serde_json::json;
use tempfile::TempDir;

use crate::cli::Cli;
use crate::process::{Node, client};

#[test]
fn every_verb_says_what_the_counter_is_now() {
    let folder = TempDir::new().unwrap();
    let node = Node::start(folder.path(), &[]).unwrap();
    let cli = Cli::of(&node);
    let counter = |args: &[&str]| cli.run(&[&["counter"], args].concat()).text().trim().to_owned();
    assert_eq!(counter(&["get", "visits"]), "0");
    assert_eq!(counter(&["incr", "visits"]), "1");
    assert_eq!(counter(&["add", "visits", "18446744073709551615"]), "18446744073709551615");
    assert_eq!(counter(&["set", "visits", "3"]), "3");
    assert_eq!(counter(&["sub", "visits", "9"]), "0");
    assert_eq!(counter(&["decr", "visits"]), "0");
    assert_eq!(counter(&["sub", "balance", "5", "--signed"]), "-5");
    assert_eq!(counter(&["get", "balance", "--signed"]), "-5");
    let cas = ["counter", "cas", "visits", "--expected", "0", "--new-value", "7"];
    let won = json!({ "status": "success", "name": "visits", "value": 7, "is_success": true });
    assert_eq!(cli.json(&cas).json(), won);
    let lost = cli.json(&cas);
    assert_eq!(lost.code, 1);
    assert_eq!(
        (&lost.document()["status"], &lost.document()["value"]),
        (&json!("conflict"), &json!(7))
    );
    let delete = cli.json(&["counter", "delete", "visits"]).json();
    assert_eq!(delete, json!({ "status": "success", "name": "visits", "was_deleted": true }));
    assert_eq!(counter(&["get", "visits"]), "0");
    assert_eq!(counter(&["delete", "visits"]), "was not there");
    assert_eq!(counter(&["get", "balance", "--signed"]), "-5");
    assert_eq!(counter(&["delete", "balance", "--signed"]), "deleted");
    // Its state is no key of everyone's.
    assert_eq!(cli.json(&["kv", "scan", "visits"]).json()["count"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn concurrent_additions_sum_up_and_are_counted_by_name() {
    const CLIENTS: u64 = 8;
    const ADDITIONS: u64 = 25;
    let folder = TempDir::new().unwrap();
    let node = Node::start(folder.path(), &[]).unwrap();
    let clients: Vec<_> = (0..CLIENTS).map(|_| client(node.folder())).collect();
    let adders: Vec<_> = clients
        .into_iter()
        .map(|client| {
            tokio::spawn(async move {
                for _ in 0..ADDITIONS {
                    let name = "visits".parse().unwrap();
                    client.send(CounterAdd { name, amount: 1 }).await.unwrap();
                }
            })
        })
        .collect();
    for adder in adders {
        adder.await.unwrap();
    }
    let reader = client(node.folder());
    let name = "visits".parse().unwrap();
    assert_eq!(reader.send(CounterGet { name }).await.unwrap().value, CLIENTS * ADDITIONS);
    let state = reader.get("__coord:counter:visits".parse().unwrap()).await.unwrap();
    assert_eq!(state.item.unwrap().value, (CLIENTS * ADDITIONS).to_string());
    let metrics = Cli::of(&node).run(&["cluster", "prometheus"]);
    let count = format!("aspen_requests_total{{request=\"CounterAdd\"}} {}\n", CLIENTS * ADDITIONS);
    assert!(metrics.text().contains(&count), "{}", metrics.text());
}

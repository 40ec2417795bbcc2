//! Faults that systems of this kind have met, each named after its number in `docs/faults.md`.
//!
//! Those that take longer than ten seconds, or break a server of their own, are ignored by default; `make faults` runs
//! them all. After each: no run is stuck, each node run ended once, effects are counted per idempotency key, and what
//! was accepted has ended.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tests::client::Client;
use tests::fleet::{FleetOptions, TestFleet};
use tests::http_target::HttpTarget;
use tests::ledger::{FAULTS, Fault};
use tests::servers::{PrivateRabbit, Servers, workspace};

use crate::definitions::*;

mod broker;
mod broker_down;
mod clock;
mod database;
mod leader;
mod load;
mod payload;
mod workers;

/// A fleet on a broker of its own.
async fn on_a_private_rabbit(options: FleetOptions) -> (TestFleet, PrivateRabbit) {
    let rabbit = PrivateRabbit::start().await;
    (on(&rabbit, options).await, rabbit)
}

async fn on(rabbit: &PrivateRabbit, options: FleetOptions) -> TestFleet {
    let servers = Servers::shared().await.with_rabbit(rabbit);
    TestFleet::start(FleetOptions { servers: Some(servers), ..options }).await
}

/// `a` → `b` → `c`, each of which calls the target.
fn three_calls(target: &HttpTarget, path: &str) -> Value {
    let calls = |id: &str| call(id, &target.url(path));
    pipeline("p", [calls("a"), calls("b"), calls("c")], [edge("a", "b"), edge("b", "c")])
}

/// The input of an action that calls the target.
fn calling(target: &HttpTarget, path: &str) -> Value {
    json!({"method": "POST", "url": target.url(path), "json": {}})
}

/// Submits so many actions.
async fn actions(client: &Client, count: usize, action: &str, input: Value) -> Vec<String> {
    let mut ids = Vec::with_capacity(count);
    for _ in 0..count {
        ids.push(client.action(action, input.clone()).await);
    }
    ids
}

/// Fails the test unless so many keys have had an effect; returns the most effects that one of them had.
fn most_effects(effects: &BTreeMap<String, usize>, keys: usize) -> usize {
    assert_eq!(effects.len(), keys, "{effects:#?}");
    assert!(!effects.contains_key("none"), "a call without a key: {effects:#?}");
    effects.values().copied().max().unwrap_or_default()
}

/// A row for each number, a test for each row, and no row in the document that is not the table's.
#[test]
fn the_ledger_has_every_fault() {
    let sources =
        std::fs::read_dir(workspace().join("tests/tests/faults")).expect("tests of faults");
    let sources: String = sources
        .map(|file| std::fs::read_to_string(file.expect("a file").path()).expect("a source"))
        .collect();
    let document = std::fs::read_to_string(workspace().join("docs/faults.md")).expect("the ledger");
    let numbers: Vec<u32> = FAULTS.iter().map(|fault| fault.number).collect();
    assert_eq!(numbers, (1..=30).collect::<Vec<_>>());
    let number = |line: &str| line.strip_prefix("| ")?.split(' ').next()?.parse().ok();
    assert_eq!(document.lines().filter_map(number).collect::<Vec<u32>>(), numbers);
    for Fault { number, fault, made, expected } in FAULTS {
        assert!(
            sources.contains(&format!("async fn fault_{number:02}_")),
            "no test of fault {number}"
        );
        let row = format!("| {number} | {fault} | {made} | {expected} | ");
        let has_row = document.lines().any(|line| line.starts_with(&row));
        assert!(has_row, "docs/faults.md has no row {row:?}; `make faults` writes it");
    }
}

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
use tests::servers::{PrivateRabbit, Servers};

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

//! What waits, and what it must not slow down.

use std::time::{Duration, Instant};

use serde_json::json;
use tests::fleet::{FleetOptions, TestFleet};
use tests::http_target::HttpTarget;
use tests::ledger::seconds;

use super::most_effects;
use crate::definitions::*;

#[tokio::test]
async fn fault_13_far_delays_do_not_slow_ready_work() {
    let entry = tests::entry!();
    let fleet = TestFleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    let items = vec![json!({"action": "echo", "input": {}, "delay": "1000h"}); 1000];
    for _ in 0..10 {
        client.post("/v1/runs:batch", &json!({"items": items})).await.expect(200);
    }
    let began = Instant::now();
    for _ in 0..20 {
        let id = client.action("echo", json!({})).await;
        client.wait(&id).await.expect("completed");
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    // They would be left over.
    fleet.database().execute("delete from timers").await;
    fleet.database().execute("delete from runs where finished_at is null").await;
    fleet.finish().await;
    entry.seen(format!("20 actions, one after the other, in {}", seconds(took)));
}

#[tokio::test]
async fn fault_14_a_delay_beyond_every_time_out_fires_once() {
    let entry = tests::entry!();
    let target = HttpTarget::start().await;
    let fleet = TestFleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    // The node's own time-out counts execution only, and a delay executes nothing.
    let definition = pipeline(
        "p",
        [with(delay("d", "2s"), "timeout", json!("100ms")), call("e", &target.url("/effect"))],
        [edge("d", "e")],
    );
    let began = Instant::now();
    let run = client.run_pipeline(definition, json!({})).await.expect("completed");
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(2), "{took:?}");
    assert!(run.node("d").attempt <= 2, "{run:#?}");
    assert_eq!(most_effects(&target.effects("/effect"), 1), 1);
    fleet.finish().await;
    entry.seen(format!("the run took {}; one call", seconds(took)));
}

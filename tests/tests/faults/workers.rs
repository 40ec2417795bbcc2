//! Workers that die, freeze, stop and kill each other.

use std::time::{Duration, Instant};

use serde_json::json;
use tests::fleet::{FleetOptions, Role, TestFleet};
use tests::http_target::{HttpTarget, Reply};
use tests::ledger::seconds;
use tests::proxy::{Mode, Proxy};
use tests::wait::{eventually, seen};

use super::{actions, calling, most_effects, three_calls};
use crate::definitions::*;

#[tokio::test]
async fn fault_01_a_worker_killed_in_a_node_is_replaced_within_five_seconds() {
    let mut entry = tests::entry!();
    let target = HttpTarget::start().await;
    let mut fleet = TestFleet::start(FleetOptions::default()).await;
    let (client, gate) = (fleet.client(), target.gate("/held"));
    client.create_pipeline(&three_calls(&target, "/held")).await;
    let id = client.submit("p", json!({})).await;
    target.arrived("/held", 1).await;
    fleet.add(Role::Worker, &[]);
    fleet.ready().await;

    fleet.kill(Role::Worker, 0);
    let killed_at = Instant::now();
    let took = target.arrived("/held", 2).await[1].at - killed_at;
    assert!(took < Duration::from_secs(5), "taken over after {took:?}");
    entry.recovered_in(took);
    gate.open();
    let run = client.wait(&id).await.expect("completed");
    assert_eq!(["a", "b", "c"].map(|node| run.node(node).attempt), [2, 1, 1], "{run:#?}");
    let effects = target.effects("/held");
    assert_eq!(most_effects(&effects, 3), 2, "one key for both attempts");
    fleet.all_ended(&[id]).await;
    fleet.finish().await;
    entry.seen("taken over with attempt 2; 3 keys, one of them called twice");
}

const POISON: &str = "kill -9 $PPID";

/// Kills so many of the fleet's workers as have ended by themselves, and says how many.
fn bury_dead_workers(fleet: &mut TestFleet, workers: usize) -> usize {
    let mut dead = 0;
    for index in 0..workers {
        if fleet.process(Role::Worker, index).ended().is_some() {
            fleet.kill(Role::Worker, index);
            dead += 1;
        }
    }
    dead
}

#[tokio::test]
async fn fault_02_a_node_that_kills_its_worker_fails_after_three() {
    let mut entry = tests::entry!();
    let mut fleet = TestFleet::start(FleetOptions { workers: 4, ..FleetOptions::default() }).await;
    let client = fleet.client();
    entry.broken();
    let poison = client.action("run_command", json!({"argv": ["sh", "-c", POISON]})).await;
    let run = client.wait_for(&poison, Duration::from_secs(60)).await.expect("failed");
    let took = entry.recovered();
    assert_eq!(run.error["kind"], "worker_lost", "{run:#?}");
    let losses = "select losses::int8 from node_runs where node = 'run_command'";
    assert_eq!(fleet.database().count(losses).await, 3);
    let neighbours = actions(&client, 10, "echo", json!({})).await;
    for id in &neighbours {
        client.wait(id).await.expect("completed");
    }
    assert_eq!(bury_dead_workers(&mut fleet, 4), 3, "three workers are lost, and no more");
    fleet.finish().await;
    entry.seen(format!(
        "failed as worker_lost {} after it was submitted; 3 workers dead, the 4th goes on",
        seconds(took)
    ));
}

#[tokio::test]
async fn fault_03_fifty_neighbours_of_a_poison_are_not_lost() {
    let mut entry = tests::entry!();
    let target = HttpTarget::start().await;
    let mut fleet =
        TestFleet::start(FleetOptions { concurrency: 64, ..FleetOptions::default() }).await;
    let (client, gate) = (fleet.client(), target.gate("/held"));
    let neighbours = actions(&client, 50, "call_api", calling(&target, "/held")).await;
    target.arrived("/held", 50).await;
    let poison = client.action("run_command", json!({"argv": ["sh", "-c", POISON]})).await;
    eventually(Duration::from_secs(20), "the worker to be killed", async || {
        fleet.process(Role::Worker, 0).ended().ok_or("it runs")
    })
    .await;
    entry.broken();
    gate.open();
    for _ in 0..3 {
        fleet.add(Role::Worker, &[]);
    }
    for id in &neighbours {
        client.wait_for(id, Duration::from_secs(60)).await.expect("completed");
    }
    entry.recovered();
    let run = client.wait_for(&poison, Duration::from_secs(60)).await.expect("failed");
    assert_eq!(run.error["kind"], "worker_lost", "{run:#?}");
    assert_eq!(bury_dead_workers(&mut fleet, 4), 3, "three workers are lost, and no more");
    let dead = fleet.broker().ready(&fleet.broker().dead()).await.unwrap_or(0);
    assert_eq!(dead, 0, "nothing is dead-lettered");
    let most = most_effects(&target.effects("/held"), 50);
    assert!(most <= 3, "a neighbour was called {most} times");
    fleet.all_ended(&neighbours).await;
    fleet.finish().await;
    entry.seen(format!("all 50 completed, each called at most {most} times; the poison failed as worker_lost; 3 workers dead"));
}

#[tokio::test]
async fn fault_15_nothing_is_hoarded() {
    let entry = tests::entry!();
    let target = HttpTarget::start().await;
    let mut fleet =
        TestFleet::start(FleetOptions { workers: 0, concurrency: 25, ..FleetOptions::default() })
            .await;
    let url = fleet.database().url().to_owned();
    let slow = Proxy::before(&url).await;
    slow.set(Mode::Delay(Duration::from_millis(10)));
    fleet.add(Role::Worker, &[("DATABASE_URL", &slow.url(&url))]);
    for _ in 0..3 {
        fleet.add(Role::Worker, &[]);
    }
    fleet.ready().await;
    let (client, gate) = (fleet.client(), target.gate("/held"));
    let branches: Vec<_> = (0..100).map(|n| format!("b{n}")).collect();
    let mut nodes = vec![echo("start", json!({}))];
    nodes.extend(branches.iter().map(|id| call(id, &target.url("/held"))));
    client
        .create_pipeline(&pipeline("p", nodes, branches.iter().map(|id| edge("start", id))))
        .await;
    let (id, began) = (client.submit("p", json!({})).await, Instant::now());
    // A hundred slots in all: each holds one of the hundred.
    target.arrived("/held", 100).await;
    let took = began.elapsed();
    gate.open();
    client.wait_for(&id, Duration::from_secs(60)).await.expect("completed");
    assert_eq!(most_effects(&target.effects("/held"), 100), 1);
    fleet.finish().await;
    entry
        .seen(format!("all 100 under way at the same time {} after the submission", seconds(took)));
}

#[tokio::test]
async fn fault_16_a_worker_is_told_to_stop_with_work_running_and_prefetched() {
    let mut entry = tests::entry!();
    let target = HttpTarget::start().await;
    let mut fleet =
        TestFleet::start(FleetOptions { concurrency: 4, ..FleetOptions::default() }).await;
    let (client, gate) = (fleet.client(), target.gate("/held"));
    let ids = actions(&client, 20, "call_api", calling(&target, "/held")).await;
    target.arrived("/held", 4).await;
    fleet.process(Role::Worker, 0).terminate();
    entry.broken();
    fleet.add(Role::Worker, &[]);
    target.arrived("/held", 8).await;
    entry.recovered();
    gate.open();
    fleet.stopped(Role::Worker, 0).await;
    for id in &ids {
        let run = client.wait(id).await.expect("completed");
        assert_eq!(run.node("call_api").attempt, 1, "{run:#?}");
    }
    assert_eq!(most_effects(&target.effects("/held"), 20), 1);
    fleet.finish().await;
    entry.seen("4 ended where they ran, 16 elsewhere; each of 20 called once, attempt 1");
}

#[tokio::test]
#[ignore = "takes more than a minute"]
async fn fault_21_a_frozen_worker_is_replaced_and_its_late_result_fenced_off() {
    let mut entry = tests::entry!();
    let target = HttpTarget::start().await;
    let mut fleet = TestFleet::start(FleetOptions::default()).await;
    let (client, gate) = (fleet.client(), target.gate("/held"));
    target.answers("/held", [Reply::json(&json!("first")), Reply::json(&json!("second"))]);
    let id = client.action("call_api", calling(&target, "/held")).await;
    target.arrived("/held", 1).await;
    fleet.process(Role::Worker, 0).freeze();
    let frozen_at = Instant::now();
    entry.broken();
    fleet.add(Role::Worker, &[]);
    target.arrived("/held", 2).await;
    entry.recovered();
    gate.open();
    let run = client.wait_for(&id, Duration::from_secs(90)).await.expect("completed");
    assert_eq!(run.output["body"], "second");
    let left = Duration::from_secs(60).saturating_sub(frozen_at.elapsed());
    // The fault is a minute of silence.
    tokio::time::sleep(left).await;
    fleet.process(Role::Worker, 0).thaw();
    // It knows that it is out, and comes back as a worker.
    fleet.ready().await;
    let ids = actions(&client, 5, "echo", json!({})).await;
    for id in &ids {
        client.wait(id).await.expect("completed");
    }
    let run = client.run(&id).await;
    assert_eq!((run.output["body"].as_str(), run.node("call_api").attempt), (Some("second"), 2));
    assert_eq!(most_effects(&target.effects("/held"), 1), 2);
    fleet.finish().await;
    entry.seen("attempt 2 on the other worker counts, the late result of attempt 1 does not; the thawed worker is ready again");
}

#[tokio::test]
async fn fault_26_workers_killed_at_the_moment_of_delivery() {
    let mut entry = tests::entry!();
    let target = HttpTarget::start().await;
    let mut fleet = TestFleet::start(FleetOptions { workers: 1, ..FleetOptions::default() }).await;
    let client = fleet.client();
    client.create_pipeline(&three_calls(&target, "/effect")).await;
    let mut ids = Vec::new();
    for round in 0..5 {
        for _ in 0..5 {
            ids.push(client.submit("p", json!({})).await);
        }
        fleet.add(Role::Worker, &[]);
        target.arrived("/effect", 15 * round + 1).await;
        fleet.kill(Role::Worker, round);
    }
    entry.broken();
    for id in &ids {
        client.wait_for(id, Duration::from_secs(60)).await.expect("completed");
    }
    entry.recovered();
    let most = most_effects(&target.effects("/effect"), 75);
    assert!(most <= 3, "{most} calls under one key");
    fleet.all_ended(&ids).await;
    fleet.finish().await;
    entry.seen(format!("25 runs completed; 75 keys, at most {most} calls under one"));
}

/// A worker that was killed leaves nothing that the next cannot find, whatever the next is doing.
#[tokio::test]
async fn fault_01_a_worker_killed_beside_a_busy_one_is_replaced() {
    let mut entry = tests::entry!();
    let target = HttpTarget::start().await;
    let mut fleet =
        TestFleet::start(FleetOptions { workers: 2, concurrency: 4, ..FleetOptions::default() })
            .await;
    let (client, gate) = (fleet.client(), target.gate("/held"));
    let ids = actions(&client, 8, "call_api", calling(&target, "/held")).await;
    target.arrived("/held", 8).await;
    fleet.kill(Role::Worker, 0);
    entry.broken();
    gate.open();
    for id in &ids {
        client.wait(id).await.expect("completed");
    }
    entry.recovered();
    let most = most_effects(&target.effects("/held"), 8);
    assert_eq!(most, 2, "the four of the dead worker ran again");
    seen(target.received("/held").len() == 12, target.received("/held").len()).expect("12 calls");
    fleet.all_ended(&ids).await;
    fleet.finish().await;
    entry.seen("4 of 8 taken over by a worker that was busy; 12 calls");
}

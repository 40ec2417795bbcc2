//! A broker that dies, freezes, refuses, and hangs up.

use std::time::{Duration, Instant};

use serde_json::json;
use tests::client::Client;
use tests::fleet::{FleetOptions, Role, TestFleet};
use tests::http_target::HttpTarget;
use tests::ledger::{Entry, seconds};
use tests::proxy::Proxy;
use tests::servers::{PrivateRabbit, Servers};
use tests::wait::{eventually, seen};

use super::{actions, calling, most_effects, on_a_private_rabbit};
use crate::definitions::*;

async fn connections(rabbit: &PrivateRabbit) -> usize {
    let list = rabbit.ctl(&["list_connections", "pid", "--quiet", "--no-table-headers"]).await;
    list.lines().filter(|line| !line.trim().is_empty()).count()
}

#[tokio::test]
#[ignore = "breaks a RabbitMQ of its own"]
async fn fault_04_connections_are_closed_again_and_again() {
    let mut entry = tests::entry!();
    let (fleet, rabbit) =
        on_a_private_rabbit(FleetOptions { workers: 2, ..FleetOptions::default() }).await;
    let client = fleet.client();
    client.create_pipeline(&chain("p", 3)).await;
    let before = connections(&rabbit).await;
    let mut accepted = Vec::new();
    for _ in 0..20 {
        rabbit.ctl(&["close_all_connections", "a test"]).await;
        entry.broken();
        let ids = futures::future::join_all((0..10).map(|_| client.submit("p", json!({})))).await;
        for id in &ids {
            client.wait(id).await.expect("completed");
        }
        let took = entry.recovered();
        assert!(took < Duration::from_secs(5), "{took:?}");
        accepted.extend(ids);
    }
    fleet.ready().await;
    let after = eventually(Duration::from_secs(20), "as many connections as before", async || {
        let after = connections(&rabbit).await;
        seen(after == before, after)
    })
    .await;
    fleet.all_ended(&accepted).await;
    fleet.finish().await;
    entry.seen(format!("{} runs of 3 nodes completed, those of each round within 5 s; {before} connections before, {after} after", accepted.len()));
}

#[tokio::test]
#[ignore = "breaks a RabbitMQ of its own"]
async fn fault_05_the_broker_is_killed_and_restarted() {
    let mut entry = tests::entry!();
    let target = HttpTarget::start().await;
    let (fleet, rabbit) =
        on_a_private_rabbit(FleetOptions { concurrency: 50, ..FleetOptions::default() }).await;
    let (client, gate) = (fleet.client(), target.gate("/held"));
    let held = actions(&client, 50, "call_api", calling(&target, "/held")).await;
    target.arrived("/held", 50).await;
    for _ in 0..10 {
        let items = vec![json!({"action": "echo", "input": {}}); 1000];
        client.post("/v1/runs:batch", &json!({"items": items})).await.expect(200);
    }
    rabbit.kill().await;
    let while_away = client.action("echo", json!({})).await;
    rabbit.up().await;
    entry.broken();
    gate.open();
    for id in held.iter().chain([&while_away]) {
        client.wait_for(id, Duration::from_secs(90)).await.expect("completed");
    }
    let took = entry.recovered();
    fleet.drain(Duration::from_secs(120)).await;
    let all = "select count(*) from runs where state = 'completed'";
    assert_eq!(fleet.database().count(all).await, 10_051);
    assert_eq!(most_effects(&target.effects("/held"), 50), 1, "no worker died: nothing runs twice");
    fleet.finish().await;
    entry.seen(format!("10,051 of 10,051 completed, the 50 that ran once each; the last of those submitted while it was away {} after it was back", seconds(took)));
}

/// The slowest of the answers.
async fn submit_for(client: &Client, time: Duration, ids: &mut Vec<String>) -> Duration {
    let (began, mut slowest) = (Instant::now(), Duration::ZERO);
    while began.elapsed() < time {
        let asked = Instant::now();
        ids.push(client.action("echo", json!({})).await);
        slowest = slowest.max(asked.elapsed());
        // Ten submissions a second are the load of this fault.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(slowest < Duration::from_secs(1), "a 202 took {slowest:?}");
    slowest
}

#[tokio::test]
#[ignore = "breaks a RabbitMQ of its own"]
async fn fault_06_the_broker_is_frozen() {
    let mut entry = tests::entry!();
    let (fleet, rabbit) = on_a_private_rabbit(FleetOptions::default()).await;
    let client = fleet.client();
    rabbit.freeze().await;
    let mut ids = Vec::new();
    let slowest = submit_for(&client, Duration::from_secs(60), &mut ids).await;
    rabbit.thaw().await;
    entry.broken();
    for id in &ids {
        client.wait_for(id, Duration::from_secs(90)).await.expect("completed");
    }
    entry.recovered();
    fleet.all_ended(&ids).await;
    fleet.finish().await;
    entry.seen(format!(
        "{} answers of 202 meanwhile, the slowest in {}; all completed",
        ids.len(),
        seconds(slowest)
    ));
}

/// An alarm is raised and cleared; what runs has to end meanwhile.
async fn alarm(entry: &mut Entry, raise: &[&str], clear: &[&str]) -> String {
    let target = HttpTarget::start().await;
    let (fleet, rabbit) = on_a_private_rabbit(FleetOptions::default()).await;
    let (client, gate) = (fleet.client(), target.gate("/held"));
    let running = client.action("call_api", calling(&target, "/held")).await;
    target.arrived("/held", 1).await;
    rabbit.ctl(raise).await;
    let mut ids = Vec::new();
    let slowest = submit_for(&client, Duration::from_secs(5), &mut ids).await;
    gate.open();
    client.wait(&running).await.expect("completed");
    rabbit.ctl(clear).await;
    entry.broken();
    for id in &ids {
        client.wait_for(id, Duration::from_secs(60)).await.expect("completed");
    }
    entry.recovered();
    assert_eq!(most_effects(&target.effects("/held"), 1), 1);
    fleet.all_ended(&ids).await;
    fleet.finish().await;
    format!(
        "{} answers of 202 meanwhile, the slowest in {}; what ran ended under the alarm; all completed",
        ids.len(),
        seconds(slowest)
    )
}

#[tokio::test]
#[ignore = "breaks a RabbitMQ of its own"]
async fn fault_07_a_memory_alarm() {
    let mut entry = tests::entry!();
    let raise = ["set_vm_memory_high_watermark", "absolute", "1MiB"];
    let seen = alarm(&mut entry, &raise, &["set_vm_memory_high_watermark", "0.4"]).await;
    entry.seen(seen);
}

#[tokio::test]
#[ignore = "breaks a RabbitMQ of its own"]
async fn fault_08_a_disk_alarm() {
    let mut entry = tests::entry!();
    let raise = ["set_disk_free_limit", "1000000GB"];
    let seen = alarm(&mut entry, &raise, &["set_disk_free_limit", "50MB"]).await;
    entry.seen(seen);
}

#[tokio::test]
#[ignore = "takes minutes"]
async fn fault_25_memory_does_not_grow_with_reconnects() {
    let mut entry = tests::entry!();
    let servers = Servers::shared().await;
    let proxy = Proxy::before(&servers.amqp_url).await;
    let mut options = FleetOptions::default();
    for role in [Role::Api, Role::Worker, Role::Scheduler] {
        options = options.with_broker_via(role, &proxy, &servers);
    }
    let fleet = TestFleet::start(options).await;
    let client = fleet.client();
    let memory = || fleet.processes().map(|process| process.memory_kib().0).collect::<Vec<_>>();
    let mut settled = Vec::new();
    for round in 0..600 {
        proxy.cut();
        entry.broken();
        let id = client.action("echo", json!({})).await;
        client.wait(&id).await.expect("completed");
        entry.recovered();
        if round == 100 {
            settled = memory();
        }
    }
    let after = memory();
    let grown = settled.iter().zip(&after).any(|(before, after)| *after > before + 10 * 1024);
    assert!(!grown, "KiB after 100 and 600 reconnects: {settled:?}, {after:?}");
    fleet.finish().await;
    entry.seen(format!(
        "KiB of api, worker, scheduler after 100 reconnects {settled:?}, after 600 {after:?}"
    ));
}

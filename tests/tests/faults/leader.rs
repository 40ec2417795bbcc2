//! A leader that freezes, dies, and loses its link.

use std::time::{Duration, Instant};

use serde_json::json;
use tests::client::Client;
use tests::fleet::{FleetOptions, Role, TestFleet};
use tests::http_target::HttpTarget;
use tests::ledger::seconds;
use tests::proxy::{Mode, Proxy};
use tests::servers::Servers;
use tests::wait::{eventually, seen};

use super::{calling, most_effects};

const EPOCH: &str = "select epoch from leader";

async fn delayed(client: &Client, target: &HttpTarget, delay: &str) -> String {
    let input = calling(target, "/effect");
    client.action_with(json!({"action": "call_api", "input": input, "delay": delay})).await
}

#[tokio::test]
#[ignore = "takes as long as a session may be silent"]
async fn fault_17_a_frozen_leader_is_replaced_and_changes_nothing_when_it_wakes() {
    let mut entry = tests::entry!();
    let target = HttpTarget::start().await;
    let mut fleet =
        TestFleet::start(FleetOptions { schedulers: 2, ..FleetOptions::default() }).await;
    let client = fleet.client();
    let (leader, before) = (fleet.leader().await, fleet.database().count(EPOCH).await);
    fleet.process(Role::Scheduler, leader).freeze();
    entry.broken();
    let mut ids = vec![delayed(&client, &target, "100ms").await];
    client.wait_for(&ids[0], Duration::from_secs(25)).await.expect("completed");
    entry.recovered();
    fleet.process(Role::Scheduler, leader).thaw();
    for _ in 0..10 {
        ids.push(delayed(&client, &target, "200ms").await);
    }
    for id in &ids {
        client.wait(id).await.expect("completed");
    }
    fleet.ready().await;
    assert_eq!(fleet.database().count(EPOCH).await, before + 1, "it stands by");
    assert_eq!(most_effects(&target.effects("/effect"), 11), 1);
    fleet.finish().await;
    entry.seen("one election; 11 delays, one call each; the thawed one stands by");
}

/// A leader with a server behind a proxy, and a standby without one.
async fn led_through_a_proxy(
    variable: &str,
    url: impl Fn(&TestFleet) -> String,
) -> (TestFleet, Proxy) {
    let mut fleet =
        TestFleet::start(FleetOptions { schedulers: 0, ..FleetOptions::default() }).await;
    let url = url(&fleet);
    let proxy = Proxy::before(&url).await;
    fleet.add(Role::Scheduler, &[(variable, &proxy.url(&url))]);
    assert_eq!(fleet.leader().await, 0);
    fleet.add(Role::Scheduler, &[]);
    fleet.ready().await;
    (fleet, proxy)
}

#[tokio::test]
async fn fault_18_the_leader_is_killed_between_its_commit_and_the_message() {
    let mut entry = tests::entry!();
    let target = HttpTarget::start().await;
    let servers = Servers::shared().await;
    let (mut fleet, proxy) = led_through_a_proxy("AMQP_URL", |_| servers.amqp_url.clone()).await;
    let client = fleet.client();
    proxy.set(Mode::SwallowRequests);
    let id = delayed(&client, &target, "100ms").await;
    eventually(Duration::from_secs(10), "the leader to queue what is due", async || {
        let queued =
            fleet.database().count("select count(*) from runs where queued_at is not null").await;
        seen(queued == 1, queued)
    })
    .await;
    fleet.kill(Role::Scheduler, 0);
    entry.broken();
    let run = client.wait(&id).await.expect("completed");
    entry.recovered();
    assert_eq!(run.node("call_api").attempt, 1);
    assert_eq!(most_effects(&target.effects("/effect"), 1), 1);
    fleet.finish().await;
    entry.seen("the next leader found the row and sent it; one call");
}

#[tokio::test]
#[ignore = "takes as long as a session may be silent"]
async fn fault_19_the_leaders_link_to_the_database_is_cut() {
    let mut entry = tests::entry!();
    let target = HttpTarget::start().await;
    let (fleet, proxy) =
        led_through_a_proxy("DATABASE_URL", |fleet| fleet.database().url().to_owned()).await;
    let client = fleet.client();
    let before = fleet.database().count(EPOCH).await;
    proxy.set(Mode::Hold);
    let cut_at = Instant::now();
    entry.broken();
    let id = delayed(&client, &target, "100ms").await;
    client.wait(&id).await.expect("completed");
    let took = entry.recovered();
    assert!(cut_at.elapsed() < Duration::from_secs(20), "{:?}", cut_at.elapsed());
    assert_eq!(fleet.leader().await, 1);
    proxy.heal();
    fleet.ready().await;
    let id = delayed(&client, &target, "100ms").await;
    client.wait(&id).await.expect("completed");
    assert_eq!(fleet.database().count(EPOCH).await, before + 1, "the old leader stands by");
    assert_eq!(most_effects(&target.effects("/effect"), 2), 1);
    fleet.finish().await;
    entry.seen(format!("the standby had done what was due {} after the cut", seconds(took)));
}

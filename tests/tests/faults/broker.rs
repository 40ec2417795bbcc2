//! What happens to queues and messages while the broker is up.

use std::time::{Duration, Instant};

use lapin::BasicProperties;
use serde_json::json;
use tests::fleet::{FleetOptions, Role, TestFleet};
use tests::http_target::HttpTarget;
use tests::ledger::seconds;
use tests::proxy::Mode;
use tests::servers::{PrivateRabbit, Servers};
use tests::wait::{eventually, seen};

use super::{actions, calling, most_effects, on, three_calls};
use crate::rules::api_behind_proxy;

#[tokio::test]
async fn fault_09_the_api_is_killed_between_its_commit_and_the_confirm() {
    let mut entry = tests::entry!();
    let target = HttpTarget::start().await;
    let (mut fleet, proxy) = api_behind_proxy().await;
    let client = fleet.client();
    proxy.set(Mode::SwallowAnswers);
    let ids = actions(&client, 10, "call_api", calling(&target, "/effect")).await;
    fleet.kill(Role::Api, 0);
    entry.broken();
    proxy.heal();
    fleet.add(Role::Api, &[]);
    fleet.ready().await;
    let client = fleet.client_of(1);
    for id in &ids {
        client.wait(id).await.expect("completed");
    }
    entry.recovered();
    assert_eq!(most_effects(&target.effects("/effect"), 10), 1);
    fleet.all_ended(&ids).await;
    fleet.finish().await;
    entry.seen("10 of 10 that got a 202 ran, each once, though their messages may have come twice");
}

/// What a process counts under a metric, over all labels.
async fn counted(fleet: &TestFleet, role: Role, metric: &str) -> f64 {
    let metrics = fleet.metrics(role, 0).await;
    let values = metrics.lines().filter(|line| line.starts_with(metric));
    values.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[tokio::test]
async fn fault_10_a_lane_whose_queue_is_unbound_keeps_what_comes_back() {
    let mut entry = tests::entry!();
    let mut fleet = TestFleet::start(FleetOptions { workers: 0, ..FleetOptions::default() }).await;
    let client = fleet.client();
    // Whatever a publisher declares, it has declared now.
    let first = client.action("echo", json!({})).await;
    eventually(Duration::from_secs(10), "the first message", async || {
        let ready = fleet.broker().ready(&fleet.queue()).await;
        seen(ready == Some(1), ready)
    })
    .await;
    fleet.broker().unbind("default").await;
    entry.broken();
    let id = client.action("echo", json!({})).await;
    let returned = "gathering_broker_returned_total";
    eventually(
        Duration::from_secs(10),
        "the message to come back, and the row to stay",
        async || {
            let count = counted(&fleet, Role::Api, returned).await;
            seen(count >= 1.0, count)
        },
    )
    .await;
    assert!(fleet.logs().contains("messages came back"), "the log says so");
    fleet.add(Role::Worker, &[]);
    for id in [&first, &id] {
        client.wait(id).await.expect("completed");
    }
    let took = entry.recovered();
    fleet.finish().await;
    entry.seen(format!(
        "unbound: returned, told in log and metric, delivered {} after",
        seconds(took)
    ));
}

#[tokio::test]
async fn fault_10_a_lane_whose_queue_is_deleted_is_filled_again() {
    let mut entry = tests::entry!();
    let mut fleet = TestFleet::start(FleetOptions { workers: 0, ..FleetOptions::default() }).await;
    let client = fleet.client();
    fleet.broker().delete(&fleet.queue()).await;
    entry.broken();
    let id = client.action("echo", json!({})).await;
    fleet.add(Role::Worker, &[]);
    client.wait(&id).await.expect("completed");
    let took = entry.recovered();
    fleet.finish().await;
    entry.seen(format!("deleted: delivered {} after", seconds(took)));
}

#[tokio::test]
async fn fault_11_a_queue_deleted_under_its_consumer_comes_back() {
    let mut entry = tests::entry!();
    let fleet = TestFleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    fleet.broker().delete(&fleet.queue()).await;
    entry.broken();
    let id = client.action("echo", json!({})).await;
    // A consumer may hang on the queue that was: a lane that is quiet for long is consumed anew.
    client.wait_for(&id, Duration::from_secs(60)).await.expect("completed");
    entry.recovered();
    let id = client.action("echo", json!({})).await;
    client.wait(&id).await.expect("completed");
    fleet.finish().await;
    entry.seen("the next action completed, and the one after it");
}

#[tokio::test]
#[ignore = "takes longer than ten seconds"]
async fn fault_12_the_brokers_time_out_is_shorter_than_a_node() {
    let mut entry = tests::entry!();
    let target = HttpTarget::start().await;
    let rabbit = PrivateRabbit::start().await;
    // What it looks at once a minute, it looks at each second; before anybody connects.
    let settings = "application:set_env(rabbit, consumer_timeout, 2000), \
                    application:set_env(rabbit, channel_tick_interval, 1000).";
    rabbit.ctl(&["eval", settings]).await;
    let fleet = on(&rabbit, FleetOptions { workers: 2, ..FleetOptions::default() }).await;
    let (client, gate) = (fleet.client(), target.gate("/held"));
    client.create_pipeline(&three_calls(&target, "/held")).await;
    let id = client.submit("p", json!({})).await;
    target.arrived("/held", 1).await;
    eventually(Duration::from_secs(60), "the broker to give up on the delivery", async || {
        let logs = fleet.logs();
        if logs.contains("PRECONDITION") || logs.contains("406") {
            Ok(())
        } else {
            Err("it has not")
        }
    })
    .await;
    entry.broken();
    let beside = actions(&client, 5, "echo", json!({})).await;
    for id in &beside {
        client.wait(id).await.expect("completed");
    }
    entry.recovered();
    assert_eq!(target.received("/held").len(), 1, "it goes on where it is");
    gate.open();
    let run = client.wait_for(&id, Duration::from_secs(60)).await.expect("completed");
    assert!(run.nodes.iter().all(|node| node.attempt == 1), "{run:#?}");
    assert_eq!(most_effects(&target.effects("/held"), 3), 1);
    fleet.finish().await;
    entry.seen("the broker closed the channel (406) and sent the job again; the node went on and was called once");
}

#[tokio::test]
async fn fault_20_a_job_that_is_published_five_times_at_once_runs_once() {
    let entry = tests::entry!();
    let target = HttpTarget::start().await;
    let mut fleet =
        TestFleet::start(FleetOptions { workers: 0, concurrency: 4, ..FleetOptions::default() })
            .await;
    let client = fleet.client();
    client.create_pipeline(&three_calls(&target, "/effect")).await;
    let mut ids = Vec::new();
    for _ in 0..10 {
        ids.push(client.submit("p", json!({})).await);
    }
    let queue = fleet.queue();
    eventually(Duration::from_secs(10), "ten messages", async || {
        let ready = fleet.broker().ready(&queue).await;
        seen(ready == Some(10), ready)
    })
    .await;
    for message in fleet.broker().peek(&queue).await {
        for _ in 0..4 {
            fleet.broker().publish("default", &message.data, message.properties.clone()).await;
        }
    }
    for _ in 0..2 {
        fleet.add(Role::Worker, &[]);
    }
    for id in &ids {
        let run = client.wait(id).await.expect("completed");
        assert!(run.nodes.iter().all(|node| node.attempt == 1), "{run:#?}");
    }
    assert_eq!(most_effects(&target.effects("/effect"), 30), 1);
    fleet.finish().await;
    entry.seen("50 messages for 10 runs; 30 keys, one call each");
}

#[tokio::test]
async fn fault_27_messages_that_were_looked_at_still_run() {
    let entry = tests::entry!();
    let mut fleet = TestFleet::start(FleetOptions { workers: 0, ..FleetOptions::default() }).await;
    let client = fleet.client();
    let ids = actions(&client, 5, "echo", json!({})).await;
    let queue = fleet.queue();
    eventually(Duration::from_secs(10), "five messages", async || {
        let ready = fleet.broker().ready(&queue).await;
        seen(ready == Some(5), ready)
    })
    .await;
    for _ in 0..30 {
        eventually(Duration::from_secs(5), "all five messages to be back", async || {
            let count = fleet.broker().peek(&queue).await.len();
            seen(count == 5, count)
        })
        .await;
    }
    fleet.add(Role::Worker, &[]);
    for id in &ids {
        client.wait(id).await.expect("completed");
    }
    fleet.finish().await;
    entry.seen("5 messages looked at 30 times each; all 5 ran");
}

#[tokio::test]
#[ignore = "takes longer than ten seconds"]
async fn fault_28_queues_purged_under_frozen_workers_are_refilled() {
    let mut entry = tests::entry!();
    let target = HttpTarget::start().await;
    let mut fleet =
        TestFleet::start(FleetOptions { workers: 2, concurrency: 2, ..FleetOptions::default() })
            .await;
    let (client, gate) = (fleet.client(), target.gate("/held"));
    client.create_pipeline(&three_calls(&target, "/held")).await;
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(client.submit("p", json!({})).await);
    }
    target.arrived("/held", 4).await;
    for index in 0..2 {
        fleet.process(Role::Worker, index).freeze();
    }
    eventually(Duration::from_secs(10), "the rest to be in the queue", async || {
        let ready = fleet.broker().ready(&fleet.queue()).await;
        seen(
            ready >= Some(10) && fleet.database().count("select count(*) from outbox").await == 0,
            ready,
        )
    })
    .await;
    let purged = fleet.broker().purge(&fleet.queue()).await;
    assert!(purged >= 10, "{purged} messages purged");
    entry.broken();
    for index in 0..2 {
        fleet.process(Role::Worker, index).thaw();
    }
    gate.open();
    // New load comes, and does not cover up what is missing.
    ids.extend(actions(&client, 100, "echo", json!({})).await);
    let since = Instant::now();
    for id in &ids {
        let left = Duration::from_secs(60).saturating_sub(since.elapsed());
        client.wait_for(id, left).await.expect("completed");
    }
    let took = entry.recovered();
    assert!(took < Duration::from_secs(60), "{took:?}");
    let most = most_effects(&target.effects("/held"), 60);
    fleet.all_ended(&ids).await;
    fleet.finish().await;
    entry.seen(format!(
        "{purged} messages purged, all {} runs ended; at most {most} calls under a key",
        ids.len()
    ));
}

#[tokio::test]
async fn fault_29_a_queue_with_other_arguments_is_named_and_other_lanes_work() {
    let mut entry = tests::entry!();
    let mut fleet = TestFleet::start(FleetOptions {
        workers: 0,
        lanes: "default,gpu".into(),
        ..FleetOptions::default()
    })
    .await;
    let servers = Servers::shared().await;
    let connection =
        lapin::Connection::connect(&servers.amqp_url, lapin::ConnectionProperties::default()).await;
    let connection = connection.expect("RabbitMQ takes connections");
    let channel = connection.create_channel().await.expect("a channel");
    let queue = fleet.broker().lane("gpu");
    let classic = lapin::options::QueueDeclareOptions::durable();
    channel
        .queue_declare(queue.as_str().into(), classic, lapin::types::FieldTable::default())
        .await
        .expect("declared");

    fleet.add(Role::Worker, &[]);
    entry.broken();
    let client = fleet.client();
    let id = client.action("echo", json!({})).await;
    client.wait(&id).await.expect("completed");
    entry.recovered();
    eventually(Duration::from_secs(10), "the log to name the queue", async || {
        let logs = fleet.logs();
        if logs.contains(&queue) { Ok(()) } else { Err(logs) }
    })
    .await;
    fleet.finish().await;
    entry.seen("the log names the queue; an action of the lane `default` completed");
}

/// Messages of other senders do not block those that follow.
#[tokio::test]
async fn foreign_messages_among_a_load_lose_nothing() {
    let fleet = TestFleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    let mut ids = Vec::new();
    for n in 0..20 {
        fleet
            .broker()
            .publish("default", format!("garbage {n}").as_bytes(), BasicProperties::default())
            .await;
        ids.push(client.action("echo", json!({"n": n})).await);
    }
    for id in &ids {
        client.wait(id).await.expect("completed");
    }
    fleet.finish().await;
}

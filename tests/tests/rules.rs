//! The rules R1 to R14 of the design, each pinned by a test that names it (R11 is in `problems`).

use std::time::{Duration, Instant};

use lapin::BasicProperties;
use serde_json::{Value, json};
use tests::fleet::{FleetOptions, Role, TestFleet};
use tests::http_target::HttpTarget;
use tests::proxy::{Mode, Proxy};
use tests::servers::{Servers, workspace};
use tests::wait::{eventually, seen};
use uuid::Uuid;

use crate::definitions::*;

/// An api behind a proxy to the broker, with everything else beside it.
pub(crate) async fn api_behind_proxy() -> (TestFleet, Proxy) {
    let servers = Servers::shared().await;
    let proxy = Proxy::before(&servers.amqp_url).await;
    let options = FleetOptions::default().with_broker_via(Role::Api, &proxy, &servers);
    (TestFleet::start(options).await, proxy)
}

/// The api dies after it has answered 202, before it knows that the broker has the message; or has it twice.
async fn accepted_survives(mode: Mode) {
    let (mut fleet, proxy) = api_behind_proxy().await;
    let client = fleet.client();
    client.create_pipeline(&chain("p", 2)).await;
    proxy.set(mode);

    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(client.submit("p", json!({})).await);
        ids.push(client.action("echo", json!({})).await);
    }
    fleet.kill(Role::Api, 0);
    proxy.heal();
    fleet.add(Role::Api, &[]);
    fleet.ready().await;

    let client = fleet.client_of(1);
    for id in &ids {
        let run = client.wait(id).await.expect("completed");
        assert!(run.nodes.iter().all(|node| node.attempt == 1), "{run:#?}");
    }
    fleet.finish().await;
}

#[tokio::test]
async fn r1_accepted_runs_survive_an_api_killed_before_its_messages_arrive() {
    accepted_survives(Mode::SwallowRequests).await;
}

#[tokio::test]
async fn r1_accepted_runs_survive_an_api_killed_before_its_confirms_arrive() {
    accepted_survives(Mode::SwallowAnswers).await;
}

#[tokio::test]
async fn r1_a_run_is_accepted_while_the_broker_is_away() {
    let (fleet, proxy) = api_behind_proxy().await;
    let client = fleet.client();
    for mode in [Mode::Refuse, Mode::Hold] {
        proxy.set(mode);
        let began = Instant::now();
        let id = client.action("echo", json!({})).await;
        assert!(
            began.elapsed() < Duration::from_secs(2),
            "202 does not wait for the broker: {:?}",
            began.elapsed()
        );
        // The leader has its own way to the broker.
        client.wait(&id).await.expect("completed");
        proxy.heal();
    }
    fleet.finish().await;
}

#[tokio::test]
async fn r2_every_job_is_a_row_until_the_broker_has_confirmed_it() {
    let servers = Servers::shared().await;
    let proxy = Proxy::before(&servers.amqp_url).await;
    let options = FleetOptions { schedulers: 0, ..FleetOptions::default() }.with_broker_via(
        Role::Api,
        &proxy,
        &servers,
    );
    let mut fleet = TestFleet::start(options).await;
    let client = fleet.client();

    // Whatever a publisher does once, it has done now.
    let first = client.action("echo", json!({})).await;
    client.wait(&first).await.expect("completed");
    let rows = "select count(*) from outbox";
    eventually(Duration::from_secs(10), "the outbox to empty", async || {
        let rows = fleet.database().count(rows).await;
        seen(rows == 0, rows)
    })
    .await;

    // The broker has the message, but its confirm is lost: the row stays, though the run completes.
    proxy.set(Mode::SwallowAnswers);
    let id = client.action("echo", json!({})).await;
    client.wait(&id).await.expect("completed");
    assert_eq!(fleet.database().count(rows).await, 1);
    let job: Value = sqlx::query_scalar("select job from outbox")
        .fetch_one(fleet.database().pool())
        .await
        .expect("a row");
    assert_eq!((&job["type"], &job["run"]), (&json!("run.start"), &json!(id)));

    // From the leader on, it is sent again, confirmed and deleted; the duplicate changes nothing.
    proxy.heal();
    fleet.add(Role::Scheduler, &[]);
    eventually(Duration::from_secs(30), "the outbox to empty", async || {
        let rows = fleet.database().count(rows).await;
        seen(rows == 0, rows)
    })
    .await;
    assert_eq!(client.run(&id).await.node("echo").attempt, 1);
    fleet.finish().await;
}

#[tokio::test]
async fn r3_a_message_is_a_pointer_that_reads_well() {
    let fleet =
        TestFleet::start(FleetOptions { workers: 0, schedulers: 0, ..FleetOptions::default() })
            .await;
    let client = fleet.client();
    client.create_pipeline(&chain("nightly", 1)).await;
    let id = client
        .submit(
            "nightly",
            json!({"confidential": "a-secret-of-the-client", "long": "x".repeat(10_000)}),
        )
        .await;

    let queue = fleet.queue();
    eventually(Duration::from_secs(10), "the message", async || {
        let ready = fleet.broker().ready(&queue).await;
        seen(ready == Some(1), ready)
    })
    .await;
    let message = fleet.broker().peek(&queue).await.remove(0);
    let text = String::from_utf8(message.data.clone()).expect("UTF-8");
    assert!(
        text.len() < 1024 && !text.contains("a-secret-of-the-client") && !text.contains("xxx"),
        "{text}"
    );
    assert_eq!(
        (&message.body["type"], &message.body["run"]),
        (&json!("run.start"), &json!(id)),
        "{text}"
    );
    assert_eq!(message.body["reason"], "submitted", "{text}");

    let properties = &message.properties;
    let property =
        |value: &Option<lapin::types::ShortString>| value.as_ref().map(ToString::to_string);
    assert_eq!(property(properties.content_type()).as_deref(), Some("application/json"));
    assert_eq!(property(properties.content_encoding()).as_deref(), Some("utf-8"));
    assert_eq!(property(properties.kind()).as_deref(), Some("run.start"));
    assert_eq!(property(properties.correlation_id()), Some(id));
    assert_eq!(*properties.delivery_mode(), Some(2));
    assert!(
        properties.message_id().is_some()
            && properties.timestamp().is_some()
            && properties.app_id().is_some()
    );
    assert_eq!(message.header("pipeline").as_deref(), Some("nightly"));
    assert_eq!(message.header("reason").as_deref(), Some("submitted"));
}

#[tokio::test]
async fn r3_what_cannot_be_decoded_goes_to_the_dead_queue_with_a_reason() {
    let fleet = TestFleet::start(FleetOptions::default()).await;
    // Their reason, or their headers, are larger than a frame that we send.
    let unknown = format!("{{\"type\":\"{}\"}}", "launch".repeat(5_000));
    let mut headers = lapin::types::FieldTable::default();
    let theirs = lapin::types::AMQPValue::LongString("x".repeat(100_000).into());
    headers.insert("theirs".into(), theirs);
    let garbage: [&[u8]; 8] = [
        b"with large headers",
        unknown.as_bytes(),
        b"",
        b"hello",
        b"\xff\xfe\x00",
        b"{\"type\":\"node.execute\"}",
        b"{\"type\":\"launch.rocket\",\"job\":\"01890000-0000-7000-8000-000000000000\",\"reason\":\"submitted\"}",
        &[b'x'; 100_000],
    ];
    let mut properties = BasicProperties::default().with_headers(headers);
    for body in garbage {
        fleet.broker().publish("default", body, std::mem::take(&mut properties)).await;
    }
    let id = fleet.client().action("echo", json!({})).await;
    fleet.client().wait(&id).await.expect("completed");

    let dead = fleet.broker().dead();
    eventually(Duration::from_secs(10), "the garbage in the dead queue", async || {
        let ready = fleet.broker().ready(&dead).await;
        seen(ready == Some(garbage.len() as u32), ready)
    })
    .await;
    for (message, body) in fleet.broker().take(&dead).await.iter().zip(garbage) {
        assert_eq!(message.data, body, "unchanged, and in order");
        assert!(
            message.header("reason").is_some_and(|reason| !reason.is_empty()),
            "{:?}",
            message.properties
        );
    }
    fleet.finish().await;
}

#[tokio::test]
async fn r3_a_job_for_what_does_not_exist_changes_nothing() {
    let fleet = TestFleet::start(FleetOptions::default()).await;
    for task in [
        json!({"type": "run.start", "run": Uuid::now_v7()}),
        json!({"type": "node.execute", "run": Uuid::now_v7(), "node": "a", "attempt": 1}),
        json!({"type": "probe", "probe": Uuid::now_v7()}),
    ] {
        let mut job = task;
        job["job"] = json!(Uuid::now_v7());
        job["reason"] = json!("submitted");
        fleet
            .broker()
            .publish("default", job.to_string().as_bytes(), BasicProperties::default())
            .await;
    }
    let id = fleet.client().action("echo", json!({})).await;
    fleet.client().wait(&id).await.expect("completed");
    fleet.finish().await;
}

#[tokio::test]
async fn r4_a_late_result_meets_a_raised_fence() {
    let target = HttpTarget::start().await;
    let fleet =
        TestFleet::start(FleetOptions { concurrency: 1, schedulers: 0, ..FleetOptions::default() })
            .await;
    let (client, gate) = (fleet.client(), target.gate("/held"));
    target.answers("/held", [tests::http_target::Reply::json(&json!("late"))]);
    let id = client.action("call_api", json!({"method": "GET", "url": target.url("/held")})).await;
    target.arrived("/held", 1).await;

    // As if another worker had taken over, which has died since.
    let (owner, job) = (Uuid::now_v7(), Uuid::now_v7());
    let database = fleet.database();
    let worker = format!(
        "insert into workers (id, lock_key, name, lanes, slots) values ('{owner}', {}, 'gone', '{{default}}', 1)",
        rand::random::<i64>()
    );
    database.execute(&worker).await;
    let taken = format!(
        "update node_runs set attempt = 2, owner = '{owner}', job_id = '{job}' where state = 'running'"
    );
    assert_eq!(database.execute(&taken).await, 1);

    // With one slot, the next action runs when the late result has been dealt with.
    gate.open();
    let next = client.action("echo", json!({})).await;
    client.wait(&next).await.expect("completed");
    let run = client.run(&id).await;
    assert_eq!(
        (run.state.as_str(), run.node("call_api").state.as_str()),
        ("running", "running"),
        "{run:#?}"
    );
    assert!(run.node("call_api").output.is_null(), "{run:#?}");

    // The dead worker's delivery comes back, and is taken over with the next attempt.
    target.answers("/held", [tests::http_target::Reply::json(&json!("in time"))]);
    let delivery = json!({"type": "node.execute", "job": job, "run": id, "node": "call_api", "attempt": 2, "reason": "retry"});
    fleet
        .broker()
        .publish("default", delivery.to_string().as_bytes(), BasicProperties::default())
        .await;
    let run = client.wait(&id).await.expect("completed");
    assert_eq!(
        (run.node("call_api").attempt, &run.output["body"]),
        (3, &json!("in time")),
        "{run:#?}"
    );
    fleet.finish().await;
}

#[tokio::test]
async fn r5_a_worker_killed_in_a_node_is_replaced_within_five_seconds() {
    let target = HttpTarget::start().await;
    let mut fleet = TestFleet::start(FleetOptions::default()).await;
    let (client, gate) = (fleet.client(), target.gate("/held"));
    let definition = pipeline(
        "p",
        [echo("a", json!({})), call("b", &target.url("/held")), echo("c", json!({}))],
        [edge("a", "b"), edge("b", "c")],
    );
    client.create_pipeline(&definition).await;
    let id = client.submit("p", json!({})).await;
    target.arrived("/held", 1).await;

    // Not acked before its commit: the broker hands the message to the next worker.
    fleet.add(Role::Worker, &[]);
    fleet.ready().await;
    fleet.kill(Role::Worker, 0);
    let killed_at = Instant::now();
    let calls = target.arrived("/held", 2).await;
    let took = calls[1].at - killed_at;
    assert!(took < Duration::from_secs(5), "taken over after {took:?}");
    gate.open();

    let run = client.wait(&id).await.expect("completed");
    assert_eq!(["a", "b", "c"].map(|node| run.node(node).attempt), [1, 2, 1], "{run:#?}");
    assert_eq!(
        target.effects("/held"),
        [(format!("{id}/b"), 2)].into(),
        "one key for all attempts"
    );
    fleet.finish().await;
}

#[tokio::test]
async fn r6_duplicates_of_every_message_execute_nothing_twice() {
    let target = HttpTarget::start().await;
    let mut fleet =
        TestFleet::start(FleetOptions { workers: 0, concurrency: 4, ..FleetOptions::default() })
            .await;
    let client = fleet.client();
    let calls = |id: &str| call(id, &target.url("/effect"));
    let definition = pipeline(
        "p",
        [calls("a"), calls("b"), calls("c"), calls("d")],
        [edge("a", "b"), edge("a", "c"), edge("b", "d"), edge("c", "d")],
    );
    client.create_pipeline(&definition).await;
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
    // Five of each, for two workers that start at once.
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
    let effects = target.effects("/effect");
    assert_eq!(effects.len(), 40);
    assert!(effects.values().all(|count| *count == 1), "{effects:#?}");

    // What comes late is a duplicate, too.
    for id in &ids {
        for node in ["a", "d"] {
            let job = json!({"type": "node.execute", "job": Uuid::now_v7(), "run": id, "node": node, "attempt": 1, "reason": "fan_out"});
            fleet
                .broker()
                .publish("default", job.to_string().as_bytes(), BasicProperties::default())
                .await;
        }
    }
    let last = client.action("echo", json!({})).await;
    client.wait(&last).await.expect("completed");
    assert_eq!(target.received("/effect").len(), 40);
    fleet.finish().await;
}

#[tokio::test]
async fn r6_a_node_may_say_that_it_must_not_run_again() {
    let target = HttpTarget::start().await;
    let mut fleet = TestFleet::start(FleetOptions { workers: 2, ..FleetOptions::default() }).await;
    let (client, _gate) = (fleet.client(), target.gate("/held"));
    let definition =
        pipeline("p", [with(call("a", &target.url("/held")), "on_worker_lost", json!("fail"))], []);
    client.create_pipeline(&definition).await;
    let id = client.submit("p", json!({})).await;
    target.arrived("/held", 1).await;
    let run = client.run(&id).await;
    assert_eq!(run.node("a").state, "running");

    // Nobody knows from outside which of the two it is, and both may go.
    fleet.kill(Role::Worker, 0);
    fleet.kill(Role::Worker, 1);
    fleet.add(Role::Worker, &[]);
    let run = client.wait(&id).await.expect("failed");
    assert_eq!(
        (&run.node("a").error["kind"], target.received("/held").len()),
        (&json!("worker_lost"), 1),
        "{run:#?}"
    );
    fleet.finish().await;
}

/// It takes as long as the design says that it may: a probe goes out after 15 s.
#[tokio::test]
async fn r7_purged_queues_are_refilled() {
    let mut fleet = TestFleet::start(FleetOptions { workers: 0, ..FleetOptions::default() }).await;
    let client = fleet.client();
    client.create_pipeline(&fan("fan", 5)).await;
    let mut ids = Vec::new();
    for _ in 0..10 {
        ids.push(client.submit("fan", json!({})).await);
        ids.push(client.action("echo", json!({})).await);
    }
    let queue = fleet.queue();
    eventually(Duration::from_secs(10), "twenty messages", async || {
        let ready = fleet.broker().ready(&queue).await;
        seen(
            ready >= Some(20) && fleet.database().count("select count(*) from outbox").await == 0,
            ready,
        )
    })
    .await;
    fleet.broker().purge(&queue).await;
    let purged_at = Instant::now();
    fleet.add(Role::Worker, &[]);
    for id in &ids {
        let left = Duration::from_secs(75).saturating_sub(purged_at.elapsed());
        client.wait_for(id, left).await.expect("completed");
    }
    fleet.finish().await;
}

#[tokio::test]
async fn r8_what_is_due_starts_once_under_two_schedulers() {
    let target = HttpTarget::start().await;
    let mut fleet =
        TestFleet::start(FleetOptions { schedulers: 2, ..FleetOptions::default() }).await;
    let client = fleet.client();
    let mut ids = Vec::new();
    for n in 0..30 {
        let delay = format!("{}ms", 500 + 50 * n);
        let input = json!({"method": "POST", "url": target.url("/effect")});
        ids.push(
            client.action_with(json!({"action": "call_api", "input": input, "delay": delay})).await,
        );
    }
    target.arrived("/effect", 5).await;
    let leader = fleet.leader().await;
    fleet.kill(Role::Scheduler, leader);
    for id in &ids {
        client.wait(id).await.expect("completed");
    }
    let effects = target.effects("/effect");
    assert_eq!(effects.len(), 30);
    assert!(effects.values().all(|count| *count == 1), "{effects:#?}");
    fleet.finish().await;
}

#[tokio::test]
async fn r9_a_standby_takes_over_within_five_seconds_of_the_leaders_death() {
    let mut fleet =
        TestFleet::start(FleetOptions { schedulers: 2, ..FleetOptions::default() }).await;
    let client = fleet.client();
    let epoch = "select epoch from leader";
    let leader = fleet.leader().await;
    let before = fleet.database().count(epoch).await;

    let id = client.action_with(json!({"action": "echo", "input": {}, "delay": "500ms"})).await;
    fleet.kill(Role::Scheduler, leader);
    let killed_at = Instant::now();
    client.wait(&id).await.expect("completed");
    assert!(killed_at.elapsed() < Duration::from_secs(6), "{:?}", killed_at.elapsed());
    assert_eq!(fleet.database().count(epoch).await, before + 1, "each election raises the epoch");
    fleet.finish().await;
}

#[tokio::test]
async fn r9_a_standby_takes_over_within_twenty_seconds_of_a_cut_link() {
    let mut fleet =
        TestFleet::start(FleetOptions { schedulers: 0, ..FleetOptions::default() }).await;
    let client = fleet.client();
    let proxy = Proxy::before(fleet.database().url()).await;
    let by_proxy = proxy.url(fleet.database().url());
    let first = fleet.add(Role::Scheduler, &[("DATABASE_URL", &by_proxy)]);
    assert_eq!(fleet.leader().await, first);
    fleet.add(Role::Scheduler, &[]);
    fleet.ready().await;
    let epoch = "select epoch from leader";
    let before = fleet.database().count(epoch).await;

    proxy.set(Mode::Hold);
    let cut_at = Instant::now();
    eventually(Duration::from_secs(20), "the standby to lead", async || {
        match fleet.database().count(epoch).await {
            raised if raised > before => Ok(()),
            raised => Err(raised),
        }
    })
    .await;
    assert!(cut_at.elapsed() < Duration::from_secs(20));
    let id = client.action_with(json!({"action": "echo", "input": {}, "delay": "100ms"})).await;
    client.wait(&id).await.expect("completed");

    proxy.heal();
    let id = client.action_with(json!({"action": "echo", "input": {}, "delay": "100ms"})).await;
    client.wait(&id).await.expect("completed");
    assert_eq!(fleet.database().count(epoch).await, before + 1, "the old leader stands by");
    fleet.finish().await;
}

#[tokio::test]
async fn r9_an_old_leader_that_wakes_up_changes_nothing() {
    let mut fleet =
        TestFleet::start(FleetOptions { schedulers: 2, ..FleetOptions::default() }).await;
    let client = fleet.client();
    let epoch = "select epoch from leader";
    let (leader, before) = (fleet.leader().await, fleet.database().count(epoch).await);

    fleet.process(Role::Scheduler, leader).freeze();
    let id = client.action_with(json!({"action": "echo", "input": {}, "delay": "100ms"})).await;
    client.wait_for(&id, Duration::from_secs(25)).await.expect("completed");
    assert_eq!(fleet.database().count(epoch).await, before + 1);
    fleet.process(Role::Scheduler, leader).thaw();

    for _ in 0..10 {
        let id = client.action_with(json!({"action": "echo", "input": {}, "delay": "200ms"})).await;
        let run = client.wait(&id).await.expect("completed");
        assert_eq!(run.node("echo").attempt, 1);
    }
    assert_eq!(fleet.database().count(epoch).await, before + 1, "it stands by");
    fleet.finish().await;
}

/// The database's clock is the only one that SQL reads, and it is read when locks are held, not when transactions begin.
#[test]
fn r10_sql_reads_one_clock() {
    let mut files: Vec<_> =
        std::fs::read_dir(workspace().join("migrations")).expect("migrations").collect();
    files.extend(std::fs::read_dir(workspace().join("common/src/store")).into_iter().flatten());
    for file in files {
        let path = file.expect("a file").path();
        let text = std::fs::read_to_string(&path).unwrap_or_default().to_lowercase();
        for clock in [
            "now()",
            "current_timestamp",
            "localtimestamp",
            "statement_timestamp",
            "utc::now",
            "systemtime",
        ] {
            let line = text.lines().find(|line| line.contains(clock));
            assert!(line.is_none(), "{} reads another clock: {line:?}", path.display());
        }
    }
}

#[tokio::test]
async fn r12_what_cannot_be_done_says_so() {
    let fleet = TestFleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    for action in ["send_pigeon", "run_task", "made_up"] {
        let problem =
            client.post("/v1/actions", &json!({"action": action, "input": {}})).await.problem(422);
        let detail = problem["errors"][0]["detail"].as_str().expect("a detail");
        assert!(
            ["echo", "call_api", "run_command"].iter().all(|known| detail.contains(known)),
            "{detail}"
        );
    }
    let nobody_listens = tests::ports::Port::claim();
    let input = json!({"method": "GET", "url": format!("http://{}/", nobody_listens.address())});
    let id = client
        .action_with(json!({"action": "call_api", "input": input, "retry": {"max_attempts": 1}}))
        .await;
    let run = client.wait(&id).await.expect("failed");
    assert!(!run.error["message"].as_str().unwrap_or_default().is_empty(), "{run:#?}");
    let id = client.action_with(json!({"action": "run_command", "input": {"argv": ["/no/such/program"]}, "retry": {"max_attempts": 1}})).await;
    let run = client.wait(&id).await.expect("failed");
    assert!(
        run.error["message"].as_str().unwrap_or_default().contains("/no/such/program"),
        "{run:#?}"
    );
    fleet.finish().await;
}

#[tokio::test]
async fn r13_waiting_holds_no_worker() {
    let target = HttpTarget::start().await;
    let fleet = TestFleet::start(FleetOptions { concurrency: 1, ..FleetOptions::default() }).await;
    let client = fleet.client();
    target.answers("/down", [tests::http_target::Reply::status(503)]);
    client.create_pipeline(&pipeline("waits", [delay("d", "1h")], [])).await;
    let retry = json!({"max_attempts": 2, "initial_interval": "1h", "max_interval": "1h"});
    client
        .create_pipeline(&pipeline(
            "retries",
            [with(call("c", &target.url("/down")), "retry", retry)],
            [],
        ))
        .await;
    let mut ids = Vec::new();
    for _ in 0..10 {
        ids.push(client.submit("waits", json!({})).await);
        ids.push(client.submit("retries", json!({})).await);
    }
    for id in &ids {
        let node = client.run(id).await.nodes[0].id.clone();
        client.wait_for_node(id, &node, if node == "d" { "waiting" } else { "retrying" }).await;
    }
    let id = client.action("echo", json!({})).await;
    client.wait_for(&id, Duration::from_secs(5)).await.expect("completed");
    assert_eq!(fleet.broker().ready(&fleet.queue()).await, Some(0), "a row each, and no message");
    for id in &ids {
        client.cancel(id).await;
        client.wait(id).await.expect("cancelled");
    }
    fleet.finish().await;
}

#[tokio::test]
async fn r14_secrets_are_in_no_log_and_no_answer() {
    let target = HttpTarget::start().await;
    let fleet = TestFleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    let servers = Servers::shared().await;

    let header = "Bearer of-the-called-service";
    let input =
        json!({"method": "GET", "url": target.url("/x"), "headers": {"authorization": header}});
    let id = client.action("call_api", input).await;
    let run = client.wait(&id).await.expect("completed");
    let token =
        tests::client::token(tests::fleet::SECRET, "someone", "admin", Duration::from_secs(60));
    let signed_wrong = tests::client::token(
        "not the secret, but as long as it is",
        "x",
        "admin",
        Duration::from_secs(60),
    );
    client.with_token(Some(token.clone())).get("/v1/runs").await.expect(200);
    let refused = client
        .with_token(Some(signed_wrong.clone()))
        .get("/v1/runs")
        .await
        .problem(401)
        .to_string();

    // What goes wrong inside is told without the inside: the database's sessions end under a request.
    fleet.database().execute("alter table runs rename to runs_gone").await;
    let broken = client.get("/v1/runs").await;
    fleet.database().execute("alter table runs_gone rename to runs").await;
    assert!(broken.status >= 500, "{}", broken.text);
    assert!(
        !broken.text.contains("relation") && !broken.text.contains("select"),
        "{}",
        broken.text
    );

    let password = |url: &str| {
        format!(
            "{}@",
            url.split_once("//")
                .and_then(|(_, rest)| rest.split_once('@'))
                .map_or("", |(user, _)| user)
        )
    };
    let logs = fleet.logs();
    let everything = [logs.as_str(), &refused, &broken.text, &run.output.to_string()].concat();
    for secret in [
        tests::fleet::SECRET,
        header,
        &token,
        &signed_wrong,
        &password(&servers.database_url),
        &password(&servers.amqp_url),
    ] {
        let line = everything.lines().find(|line| line.contains(secret));
        assert!(line.is_none(), "{secret} is in {line:?}");
    }
    fleet.finish().await;
}

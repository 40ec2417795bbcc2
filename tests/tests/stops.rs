//! A stop after every recorded transition of a run that uses every node type, then a restart: the same ending each time.
//!
//! The process is stopped from within, right after a commit and before anything that follows from it, by
//! `GATHERING_TEST_STOP_AFTER` (see `common::breakpoint`).

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tests::client::{Client, Run};
use tests::fleet::{FleetOptions, Role, TestFleet};
use tests::http_target::{HttpTarget, Reply};
use tests::ledger::Entry;
use tests::wait::eventually;

use crate::definitions::*;

const STOP: &str = "GATHERING_TEST_STOP_AFTER";

/// Every node type, a failure that is tried again, one that a failure edge takes up, a join and a skip.
fn everything() -> Value {
    let flaky = action("flaky", "call_api", json!({"method": "POST", "url": "{{ input.flaky }}"}));
    let mut each = calls("each", "below", json!({"n": "{{ item }}"}));
    each["config"]["for_each"] = json!([1, 2]);
    each["config"]["max_concurrency"] = json!(1);
    pipeline(
        "everything",
        [
            json!({"id": "start", "type": "trigger"}),
            json!({"id": "fork", "type": "parallel"}),
            with(flaky, "retry", quick_retry(3)),
            shell("count", "echo '{\"lines\": 3}'"),
            condition("enough", "nodes.count.output.json.lines > 2"),
            delay("pause", "50ms"),
            failing("fails"),
            echo("takes-it-up", json!({"value": 1})),
            approval("sign", json!({"deadline": "50ms", "default": "approve"})),
            awaits("hear", json!({"type": "never", "timeout": "50ms", "on_timeout": "continue"})),
            calls("child", "below", json!({"n": 1})),
            each,
            echo("yes", json!({"said": "{{ nodes.flaky.output.body }}"})),
            echo("no", json!({})),
        ],
        [
            edge("start", "fork"),
            edge("fork", "flaky"),
            edge("fork", "count"),
            edge("fork", "fails"),
            edge_when("fails", "takes-it-up", "failure"),
            edge("fork", "sign"),
            edge("fork", "hear"),
            edge("fork", "child"),
            edge("fork", "each"),
            edge("sign", "yes"),
            edge("hear", "yes"),
            edge("child", "yes"),
            edge("each", "yes"),
            edge("count", "enough"),
            edge("flaky", "pause"),
            edge("pause", "yes"),
            edge("enough", "yes"),
            edge("takes-it-up", "yes"),
            edge_if("enough", "no", "not output.result"),
        ],
    )
}

/// What `everything` starts.
async fn create(client: &Client) {
    let below = pipeline("below", [echo("x", json!({"n": "{{ input.n }}"}))], []);
    client.create_pipeline(&below).await;
    client.create_pipeline(&everything()).await;
}

/// How a run ended, without what differs from run to run.
#[derive(Debug, PartialEq)]
struct Ending {
    state: String,
    output: Value,
    nodes: BTreeMap<String, (String, Value, Value)>,
}

fn ending(run: Run) -> Ending {
    let nodes = run.nodes.into_iter().map(|node| {
        let output = match &node.output["body"] {
            Value::Null => node.output,
            body => json!({"status": node.output["status"], "body": body}),
        };
        // The run's input names the path that is its own.
        let output = if output["flaky"].is_string() { json!("the input") } else { output };
        // An approval's output tells when it was decided.
        let mut output = output;
        if output["approved"].is_boolean() {
            output["at"] = Value::Null;
        }
        // A command's output tells how long it took, too.
        let output = if output["json"].is_null() { output } else { output["json"].clone() };
        (node.id, (node.state, output, node.error["kind"].clone()))
    });
    Ending { state: run.state, output: run.output, nodes: nodes.collect() }
}

/// Submits a run whose flaky call fails once.
async fn submit(client: &Client, target: &HttpTarget, path: &str) -> String {
    target.answers(path, [Reply::status(503), Reply::json(&json!("hello"))]);
    client.submit("everything", json!({"flaky": target.url(path)})).await
}

async fn undisturbed(fleet: &mut TestFleet, target: &HttpTarget) -> Ending {
    let client = fleet.client();
    create(&client).await;
    let worker = fleet.add(Role::Worker, &[]);
    let id = submit(&client, target, "/undisturbed").await;
    let ended = ending(client.wait(&id).await.expect("completed"));
    fleet.kill(Role::Worker, worker);
    assert_eq!(ended.nodes["no"].0, "skipped");
    ended
}

/// Waits until a process has ended by itself (true), or the run has (false).
async fn stopped(fleet: &mut TestFleet, role: Role, index: usize, id: &str) -> bool {
    let client = fleet.client();
    eventually(Duration::from_secs(30), "the process to stop, or the run to end", async || {
        if fleet.process(role, index).ended().is_some() {
            return Ok(true);
        }
        if client.run(id).await.is_over() { Ok(false) } else { Err("neither") }
    })
    .await
}

#[tokio::test]
async fn a_worker_that_stops_after_any_transition_changes_no_ending() {
    let target = HttpTarget::start().await;
    let mut fleet = TestFleet::start(FleetOptions { workers: 0, ..FleetOptions::default() }).await;
    let expected = undisturbed(&mut fleet, &target).await;
    let client = fleet.client();
    let mut stops = 0;
    loop {
        let point = format!("any:{}", stops + 1);
        let armed = fleet.add(Role::Worker, &[(STOP, &point)]);
        let path = format!("/stop-{stops}");
        let id = submit(&client, &target, &path).await;
        if !stopped(&mut fleet, Role::Worker, armed, &id).await {
            fleet.kill(Role::Worker, armed);
            break;
        }
        fleet.kill(Role::Worker, armed);
        let next = fleet.add(Role::Worker, &[]);
        let ended = ending(client.wait(&id).await);
        assert_eq!(ended, expected, "stopped after {point}");
        fleet.kill(Role::Worker, next);
        // An answer that nobody recorded is asked for again: once more than without a stop, at the most.
        assert!(target.received(&path).len() <= 3, "{} calls", target.received(&path).len());
        stops += 1;
    }
    assert!(stops >= 8, "the run has more transitions than {stops}");
    // Whose acks were cut off, their messages come again: somebody has to find that there is nothing left to do.
    fleet.add(Role::Worker, &[]);
    fleet.finish().await;
    Entry::beside("a_worker_that_stops_after_any_transition_changes_no_ending").seen(format!(
        "stopped after each of {stops} commits of a worker; the same ending each time"
    ));
}

/// `kill -9` from outside, where the process is held right after its commit.
#[tokio::test]
async fn a_worker_killed_at_three_transitions_changes_no_ending() {
    let target = HttpTarget::start().await;
    let mut fleet = TestFleet::start(FleetOptions { workers: 0, ..FleetOptions::default() }).await;
    let expected = undisturbed(&mut fleet, &target).await;
    let client = fleet.client();
    for point in ["start:1:hold", "record:2:hold", "claim:1:hold"] {
        let held = fleet.add(Role::Worker, &[(STOP, point)]);
        let id = submit(&client, &target, &format!("/{point}")).await;
        eventually(Duration::from_secs(30), "the worker to be held", async || {
            let log = fleet.process(Role::Worker, held).log();
            if log.contains("held at a breakpoint") { Ok(()) } else { Err(log) }
        })
        .await;
        fleet.kill(Role::Worker, held);
        let next = fleet.add(Role::Worker, &[]);
        assert_eq!(ending(client.wait(&id).await), expected, "killed at {point}");
        fleet.kill(Role::Worker, next);
    }
    fleet.add(Role::Worker, &[]);
    fleet.finish().await;
    Entry::beside("a_worker_killed_at_three_transitions_changes_no_ending")
        .seen("`kill -9` after a start, a claim and a record: the same ending each time");
}

#[tokio::test]
async fn a_leader_and_an_api_that_stop_after_their_transitions_change_no_ending() {
    let target = HttpTarget::start().await;
    let mut fleet =
        TestFleet::start(FleetOptions { schedulers: 0, workers: 0, ..FleetOptions::default() })
            .await;
    let client = fleet.client();
    create(&client).await;
    fleet.add(Role::Worker, &[]);
    let first = fleet.add(Role::Scheduler, &[]);
    let id = submit(&client, &target, "/undisturbed").await;
    let expected = ending(client.wait(&id).await.expect("completed"));
    fleet.stop(Role::Scheduler, first).await;

    let mut stops = 0;
    loop {
        let armed = fleet.add(Role::Scheduler, &[(STOP, &format!("timers:{}", stops + 1))]);
        let id = submit(&client, &target, &format!("/timers-{stops}")).await;
        if !stopped(&mut fleet, Role::Scheduler, armed, &id).await {
            fleet.stop(Role::Scheduler, armed).await;
            break;
        }
        fleet.kill(Role::Scheduler, armed);
        let next = fleet.add(Role::Scheduler, &[]);
        assert_eq!(ending(client.wait(&id).await), expected, "the leader stopped after {stops}");
        fleet.stop(Role::Scheduler, next).await;
        stops += 1;
    }
    assert!(stops >= 2, "a retry and a delay are due, at {stops} moments");

    // The client gets no answer; the run was accepted all the same, and the leader sends its job.
    fleet.add(Role::Scheduler, &[]);
    let api = fleet.add(Role::Api, &[(STOP, "accept:1")]);
    fleet.ready().await;
    target.answers("/api", [Reply::json(&json!("hello"))]);
    let body = json!({"input": {"flaky": target.url("/api")}, "tags": ["unanswered"]});
    let request =
        fleet.client_of(api).request(reqwest::Method::POST, "/v1/pipelines/everything/runs");
    let answer = client.try_send(request.json(&body)).await;
    assert!(answer.is_err(), "{answer:?}");
    fleet.kill(Role::Api, api);
    let runs = client.list("/v1/runs?tag=unanswered").await;
    let id = runs[0]["id"].as_str().expect("an id");
    assert_eq!(ending(client.wait(id).await), expected);
    fleet.finish().await;
    Entry::beside("a_leader_and_an_api_that_stop_after_their_transitions_change_no_ending").seen(
        format!("the leader stopped after each of its {stops} commits, the api after its own: the same ending each time"),
    );
}

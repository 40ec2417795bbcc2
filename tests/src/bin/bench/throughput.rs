//! W1, W2, W3, W6, W7: how many a second.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tests::fleet::Role;

use crate::Arguments;
use crate::load::{CONNECTIONS, Ended, Load, chain, fan, no_op, no_ops};
use crate::report::{Usage, rounded};
use crate::slow_server::SlowServer;

const PATIENCE: Duration = Duration::from_secs(600);

/// One measurement: what is submitted, to how many workers.
struct Submission<'a> {
    workload: &'a str,
    unit: &'a str,
    workers: usize,
    pipeline: Option<Value>,
    path: &'a str,
    body: Value,
    requests: usize,
    connections: usize,
    runs: usize,
}

async fn submit(arguments: &Arguments, submission: Submission<'_>) -> Value {
    let load = Load::start(arguments, submission.workers).await;
    if let Some(pipeline) = &submission.pipeline {
        load.client().create_pipeline(pipeline).await;
    }
    let usage = Usage::start(&load.fleet);
    let began = SystemTime::now();
    load.submit(submission.path, &submission.body, submission.requests, submission.connections)
        .await;
    let accepted = began.elapsed().unwrap_or_default().as_secs_f64();
    let ended = load.ended(PATIENCE).await;
    let seconds = load.seconds_since(began).await;
    let used = usage.end(&load.fleet);
    load.check(&ended, submission.runs).await;
    json!({
        "workload": submission.workload,
        "unit": submission.unit,
        "rate": rounded(count(&submission, &ended) / seconds, 1),
        "seconds": rounded(seconds, 3),
        "accepted_s": rounded(accepted, 3),
        "runs": ended.runs,
        "nodes": ended.nodes,
        "connections": submission.connections,
        "workers": submission.workers,
        "concurrency": arguments.concurrency,
        "apis": arguments.apis,
        "usage": used,
    })
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn count(submission: &Submission<'_>, ended: &Ended) -> f64 {
    if submission.unit == "nodes/s" { ended.nodes as f64 } else { ended.runs as f64 }
}

pub(crate) async fn actions(arguments: &Arguments) -> Value {
    let requests = arguments.scaled(5_000);
    let submission = Submission {
        workload: "W1",
        unit: "actions/s",
        workers: 1,
        pipeline: None,
        path: "/v1/actions",
        body: no_op(),
        requests,
        connections: CONNECTIONS,
        runs: requests,
    };
    submit(arguments, submission).await
}

pub(crate) async fn batches(arguments: &Arguments) -> Value {
    let requests = arguments.scaled(50);
    let submission = Submission {
        workload: "W1b",
        unit: "actions/s",
        workers: 1,
        pipeline: None,
        path: "/v1/runs:batch",
        body: no_ops(100),
        requests,
        connections: 1,
        runs: requests * 100,
    };
    submit(arguments, submission).await
}

pub(crate) async fn chains(arguments: &Arguments) -> Value {
    let requests = arguments.scaled(2_000);
    let submission = Submission {
        workload: "W2",
        unit: "nodes/s",
        workers: 1,
        pipeline: Some(chain("chain", 10, &json!({"action": "echo", "n": 1}))),
        path: "/v1/pipelines/chain/runs",
        body: json!({"input": {}}),
        requests,
        connections: CONNECTIONS,
        runs: requests,
    };
    submit(arguments, submission).await
}

pub(crate) async fn fans(arguments: &Arguments) -> Value {
    let requests = arguments.scaled(500);
    let submission = Submission {
        workload: "W3",
        unit: "nodes/s",
        workers: 2,
        pipeline: Some(fan("fan", 20)),
        path: "/v1/pipelines/fan/runs",
        body: json!({"input": {}}),
        requests,
        connections: CONNECTIONS,
        runs: requests,
    };
    submit(arguments, submission).await
}

pub(crate) async fn large_fan(arguments: &Arguments) -> Value {
    let submission = Submission {
        workload: "W3L",
        unit: "nodes/s",
        workers: 2,
        pipeline: Some(fan("fan", arguments.scaled(10_000))),
        path: "/v1/pipelines/fan/runs",
        body: json!({"input": {}}),
        requests: 1,
        connections: 1,
        runs: 1,
    };
    submit(arguments, submission).await
}

/// A backlog is accepted while no worker runs; then it drains under W1.
pub(crate) async fn backlog(arguments: &Arguments) -> Value {
    let (batches, requests) = (arguments.scaled(1_000), arguments.scaled(5_000));
    let mut load = Load::start(arguments, 0).await;
    let accepting = SystemTime::now();
    load.submit("/v1/runs:batch", &no_ops(100), batches, 1).await;
    let accepted = accepting.elapsed().unwrap_or_default().as_secs_f64();
    load.fleet.add(Role::Worker, &[]);
    load.fleet.ready().await;

    let usage = Usage::start(&load.fleet);
    let done_before = load
        .fleet
        .database()
        .count("select count(*) from runs where finished_at is not null")
        .await;
    let began = SystemTime::now();
    load.submit("/v1/actions", &no_op(), requests, CONNECTIONS).await;
    let ended = load.ended(PATIENCE).await;
    let seconds = load.seconds_since(began).await;
    let used = usage.end(&load.fleet);
    load.check(&ended, batches * 100 + requests).await;
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let rate = (ended.runs - done_before) as f64 / seconds;
    json!({
        "workload": "W6",
        "unit": "actions/s",
        "rate": rounded(rate, 1),
        "seconds": rounded(seconds, 3),
        "backlog": batches * 100,
        "backlog_accepted_s": rounded(accepted, 3),
        "runs": ended.runs,
        "connections": CONNECTIONS,
        "workers": 1,
        "concurrency": arguments.concurrency,
        "apis": arguments.apis,
        "usage": used,
    })
}

/// Nodes that wait 100 ms each: what more workers bring.
pub(crate) async fn waiting(arguments: &Arguments) -> Vec<Value> {
    let server = SlowServer::start(Duration::from_millis(100)).await;
    let mut lines = Vec::new();
    let mut alone = None;
    for workers in [1, 2, 4] {
        let line = waiting_on(arguments, &server, workers).await;
        let rate = line["rate"].as_f64().unwrap_or_default();
        let speed_up = rate / *alone.get_or_insert(rate);
        lines.push(with(line, "speed_up", json!(rounded(speed_up, 2))));
    }
    lines
}

async fn waiting_on(arguments: &Arguments, server: &SlowServer, workers: usize) -> Value {
    let runs = arguments.scaled(4_000);
    let mut load = Load::start_with(arguments, 0, 50).await;
    let config = json!({"action": "call_api", "method": "GET", "url": server.url()});
    load.client().create_pipeline(&chain("waits", 5, &config)).await;
    load.submit("/v1/pipelines/waits/runs", &json!({"input": {}}), runs, CONNECTIONS).await;
    for _ in 0..workers {
        load.fleet.add(Role::Worker, &[]);
    }
    let usage = Usage::start(&load.fleet);
    let ended = load.ended(PATIENCE).await;
    let used = usage.end(&load.fleet);
    load.check(&ended, runs).await;
    let seconds: f64 = sqlx::query_scalar(
        "select extract(epoch from max(finished_at) - min(started_at))::float8 from node_runs",
    )
    .fetch_one(load.fleet.database().pool())
    .await
    .expect("node runs can be read");
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let rate = ended.nodes as f64 / seconds;
    json!({
        "workload": "W7",
        "unit": "nodes/s",
        "rate": rounded(rate, 1),
        "seconds": rounded(seconds, 3),
        "runs": ended.runs,
        "nodes": ended.nodes,
        "workers": workers,
        "concurrency": 50,
        "apis": arguments.apis,
        "usage": used,
    })
}

fn with(mut line: Value, name: &str, value: Value) -> Value {
    line[name] = value;
    line
}

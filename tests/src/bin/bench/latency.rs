//! W4 and W5: how long one takes, when nothing else is to do.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Arguments;
use crate::http::{Request, id};
use crate::load::{Load, chain, no_op};
use crate::report::{Usage, quantile, rounded};

pub(crate) async fn actions(arguments: &Arguments) -> Value {
    one_by_one(arguments, "W4", None, "/v1/actions", &no_op()).await
}

pub(crate) async fn chains(arguments: &Arguments) -> Value {
    let pipeline = chain("chain", 3, &json!({"action": "echo", "n": 1}));
    one_by_one(arguments, "W5", Some(pipeline), "/v1/pipelines/chain/runs", &json!({"input": {}}))
        .await
}

async fn one_by_one(
    arguments: &Arguments,
    workload: &str,
    pipeline: Option<Value>,
    path: &str,
    body: &Value,
) -> Value {
    let load = Load::start(arguments, 1).await;
    if let Some(pipeline) = &pipeline {
        load.client().create_pipeline(pipeline).await;
    }
    let submit = Request::post(path, &load.token, &body.to_string());
    let mut connection = load.connections(arguments, 1).await.remove(0);
    let count = arguments.scaled(300);
    let usage = Usage::start(&load.fleet);
    let mut milliseconds = Vec::with_capacity(count);
    for _ in 0..count {
        let began = Instant::now();
        let path = format!("/v1/runs/{}?wait=30s", id(connection.expect(&submit, 202).await));
        let answer = connection.expect(&Request::get(&path, &load.token), 200).await;
        milliseconds.push(began.elapsed().as_secs_f64() * 1e3);
        let answer = String::from_utf8_lossy(answer);
        assert!(answer.contains("\"state\":\"completed\""), "{answer}");
    }
    let used = usage.end(&load.fleet);
    let ended = load.ended(Duration::from_secs(30)).await;
    load.check(&ended, count).await;
    milliseconds.sort_by(f64::total_cmp);
    json!({
        "workload": workload,
        "unit": "ms",
        "p50": rounded(quantile(&milliseconds, 0.5), 2),
        "p95": rounded(quantile(&milliseconds, 0.95), 2),
        "p99": rounded(quantile(&milliseconds, 0.99), 2),
        "max": rounded(milliseconds.last().copied().unwrap_or_default(), 2),
        "runs": count,
        "connections": 1,
        "workers": 1,
        "concurrency": arguments.concurrency,
        "apis": arguments.apis,
        "usage": used,
    })
}

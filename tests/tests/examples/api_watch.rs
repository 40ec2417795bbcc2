//! `api-watch`, on a service that is well, ill, and away.

use serde_json::{Value, json};
use tests::http_target::{HttpTarget, Reply};

use super::fleet_with;

fn input(target: &HttpTarget) -> Value {
    json!({
        "service": "shop",
        "health": target.url("/health"),
        "page": target.url("/page"),
        "webhook": target.url("/hook"),
    })
}

/// What the webhook got.
fn told(target: &HttpTarget) -> Vec<Value> {
    let received = target.received("/hook");
    received.iter().map(|request| serde_json::from_str(&request.body).expect("JSON")).collect()
}

#[tokio::test]
async fn nobody_is_told_while_all_is_well() {
    let fleet = fleet_with("api-watch").await;
    let target = HttpTarget::start().await;
    // A hiccup of each is retried.
    target.answers("/health", [Reply::status(500), Reply::json(&json!({"status": "ok"}))]);
    target.answers("/page", [Reply::status(502), Reply::status(200).body("<html>")]);

    let id = fleet.client().submit("api-watch", input(&target)).await;
    let run = fleet.client().wait(&id).await.expect("completed");
    assert_eq!(run.output, json!({"level": "up", "problems": []}));
    assert_eq!((target.received("/health").len(), target.received("/page").len()), (2, 2));
    assert!(told(&target).is_empty());
    fleet.finish().await;
}

#[tokio::test]
async fn an_answer_that_is_not_well_is_told() {
    let fleet = fleet_with("api-watch").await;
    let target = HttpTarget::start().await;
    let ill = r#"{"disk": "full", "status": "degraded"}"#;
    for (status, body) in [(200, ill), (503, ill), (200, "[1]"), (200, "null")] {
        let reply = Reply::status(status).header("content-type", "application/json").body(body);
        target.answers("/health", [reply]);
        let id = fleet.client().submit("api-watch", input(&target)).await;
        let run = fleet.client().wait(&id).await.expect("completed");
        let problem = format!("the health check says {status} {body}");
        assert_eq!(run.output, json!({"level": "degraded", "problems": [problem]}));
        let message =
            json!({"service": "shop", "level": "degraded", "problems": [problem], "run": id});
        assert_eq!(told(&target).last(), Some(&message));
    }
    assert_eq!(told(&target).len(), 4, "each was told once");
    fleet.finish().await;
}

#[tokio::test]
async fn a_failed_call_goes_the_way_of_failures() {
    let fleet = fleet_with("api-watch").await;
    let target = HttpTarget::start().await;
    target.answers("/health", [Reply::status(500)]);
    target.answers("/page", [Reply::status(404)]);

    let id = fleet.client().submit("api-watch", input(&target)).await;
    let run = fleet.client().wait(&id).await.expect("completed");
    let problems = json!(["the health check does not answer", "the page does not answer"]);
    assert_eq!(run.output, json!({"level": "down", "problems": problems}));
    let states = ["health", "healthy", "no_health", "page", "no_page", "notify"];
    assert_eq!(
        states.map(|node| run.node(node).state.as_str()),
        ["failed", "skipped", "completed", "failed", "completed", "completed"]
    );
    assert_eq!(target.received("/health").len(), 3, "what may pass is tried again");
    assert_eq!(target.received("/page").len(), 1, "what will not is not");
    assert_eq!(
        told(&target),
        [json!({"service": "shop", "level": "down", "problems": problems, "run": id})]
    );
    fleet.finish().await;
}

#[tokio::test]
async fn a_message_that_is_not_taken_fails_the_run() {
    let fleet = fleet_with("api-watch").await;
    let target = HttpTarget::start().await;
    target.answers("/page", [Reply::status(404)]);
    target.answers("/hook", [Reply::status(403)]);
    let id = fleet.client().submit("api-watch", input(&target)).await;
    let run = fleet.client().wait(&id).await.expect("failed");
    assert_eq!(run.error["node"], "notify");
    fleet.finish().await;
}

//! `Idempotency-Key`.

use futures::future::join_all;
use serde_json::json;
use tests::fleet::{FleetOptions, TestFleet};

use crate::definitions::chain;

#[tokio::test]
async fn the_same_key_gets_the_same_answer() {
    let fleet = TestFleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    client.create_pipeline(&chain("p", 1)).await;
    for (path, body, other) in [
        ("/v1/pipelines/p/runs", json!({"input": {"n": 1}}), json!({"input": {"n": 2}})),
        (
            "/v1/actions",
            json!({"action": "echo", "input": {}}),
            json!({"action": "echo", "input": {"n": 2}}),
        ),
    ] {
        let first = client.post_once(path, &body, "key").await;
        let second = client.post_once(path, &body, "key").await;
        assert_eq!((first.status, second.status), (202, 202), "{second:?}");
        assert_eq!(
            (first.header("location"), &first.body["id"]),
            (second.header("location"), &second.body["id"])
        );
        client.post_once(path, &other, "key").await.problem(422);
        let with_another_key = client.post_once(path, &body, "another key").await.expect(202);
        assert_ne!(with_another_key["id"], first.body["id"]);
    }
    assert_eq!(fleet.database().count("select count(*) from runs").await, 4);
    fleet.finish().await;
}

#[tokio::test]
async fn the_same_key_at_the_same_time_makes_one_run() {
    let fleet = TestFleet::start(FleetOptions { apis: 2, ..FleetOptions::default() }).await;
    let clients = [fleet.client_of(0), fleet.client_of(1)];
    let body = json!({"action": "echo", "input": {}});

    for round in 0..10 {
        let key = format!("round {round}");
        let requests = (0..8).map(|n| clients[n % 2].post_once("/v1/actions", &body, &key));
        let mut ids = Vec::new();
        for answer in join_all(requests).await {
            match answer.status {
                202 => ids.push(answer.body["id"].to_string()),
                409 => drop(answer.problem(409)),
                other => panic!("{other}: {}", answer.text),
            }
        }
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 1, "one run a key");
    }
    assert_eq!(fleet.database().count("select count(*) from runs").await, 10);
    fleet.finish().await;
}

#[tokio::test]
async fn a_key_belongs_to_one_principal() {
    let fleet = TestFleet::start(FleetOptions { workers: 0, ..FleetOptions::default() }).await;
    let client = fleet.client();
    let token = tests::client::token(
        tests::fleet::SECRET,
        "someone else",
        "admin",
        std::time::Duration::from_secs(60),
    );
    let other = client.with_token(Some(token));
    let body = json!({"action": "echo", "input": {}});
    let mine = client.post_once("/v1/actions", &body, "key").await.expect(202);
    let theirs = other.post_once("/v1/actions", &body, "key").await.expect(202);
    assert_ne!(mine["id"], theirs["id"]);
}

#[tokio::test]
async fn a_request_that_was_refused_uses_up_no_key() {
    let fleet = TestFleet::start(FleetOptions { workers: 0, ..FleetOptions::default() }).await;
    let client = fleet.client();
    client
        .post_once("/v1/actions", &json!({"action": "fly", "input": {}}), "key")
        .await
        .problem(422);
    client
        .post_once("/v1/actions", &json!({"action": "echo", "input": {}}), "key")
        .await
        .expect(202);
}

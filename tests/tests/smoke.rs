//! The first things that a newcomer tries.

use serde_json::json;
use tests::fleet::{FleetOptions, TestFleet};

use crate::definitions::{chain, fan};

#[tokio::test]
async fn an_action_returns_its_output() {
    let fleet = TestFleet::start(FleetOptions::default()).await;
    let client = fleet.client();

    let id = client.action("echo", json!({"hello": "world", "n": 1})).await;
    let run = client.wait(&id).await.expect("completed");

    assert_eq!((run.kind.as_str(), &run.pipeline, run.version), ("action", &None, None));
    assert_eq!(run.output, json!({"hello": "world", "n": 1}));
    assert_eq!(run.nodes.len(), 1, "an action is a run with exactly one node");
    assert_eq!((run.node("echo").state.as_str(), run.node("echo").attempt), ("completed", 1));
    assert!(run.error.is_null());
    assert!(
        Some(&run.created_at) <= run.started_at.as_ref() && run.started_at <= run.finished_at,
        "{run:#?}"
    );
    fleet.finish().await;
}

#[tokio::test]
async fn a_chain_runs_in_order() {
    let fleet = TestFleet::start(FleetOptions::default()).await;
    let run = fleet.client().run_pipeline(chain("chain", 5), json!({})).await.expect("completed");

    assert_eq!(run.output, json!({"value": 4}));
    let started: Vec<_> = (0..5).map(|n| run.node(&format!("n{n}")).started_at.clone()).collect();
    assert!(started.is_sorted(), "{started:?}");
    fleet.finish().await;
}

#[tokio::test]
async fn branches_join() {
    let fleet = TestFleet::start(FleetOptions { workers: 2, ..FleetOptions::default() }).await;
    let run = fleet.client().run_pipeline(fan("fan", 30), json!({})).await.expect("completed");

    assert_eq!(run.nodes.len(), 32);
    assert!(
        run.nodes.iter().all(|node| node.state == "completed" && node.attempt == 1),
        "{run:#?}"
    );
    assert_eq!(run.output, json!({"value": -1}));
    fleet.finish().await;
}

#[tokio::test]
async fn a_large_fan_joins_once() {
    let fleet = TestFleet::start(FleetOptions { workers: 2, ..FleetOptions::default() }).await;
    let run = fleet.client().run_pipeline(fan("fan", 2_000), json!({})).await.expect("completed");

    let completed =
        fleet.database().count("select count(*) from node_runs where state = 'completed'").await;
    assert_eq!((completed, run.nodes.len()), (2_002, 2_002));
    fleet.finish().await;
}

#[tokio::test]
async fn many_runs_at_once_all_complete() {
    let fleet = TestFleet::start(FleetOptions { workers: 2, ..FleetOptions::default() }).await;
    let client = fleet.client();
    client.create_pipeline(&chain("chain", 3)).await;

    let submissions = (0..100).map(|n| client.submit("chain", json!({"n": n})));
    let ids = futures::future::join_all(submissions).await;
    for id in &ids {
        client.wait(id).await.expect("completed");
    }
    fleet.finish().await;
}

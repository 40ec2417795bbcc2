use std::time::Duration;

use futures::future::join_all;
use tests::client::{Answer, Client, token};
use tests::fleet::SECRET;
use tests::wait::eventually;

use super::*;
use crate::definitions::*;

async fn decide(client: &Client, run: &str, body: Value) -> Answer {
    client.post(&format!("/v1/runs/{run}/nodes/ask/decision"), &body).await
}

fn asks(name: &str, config: Value) -> Value {
    let nodes = [approval("ask", config), echo("after", json!({"said": "{{ nodes.ask.output }}"}))];
    pipeline(name, nodes, [edge("ask", "after")])
}

/// A run that waits for a decision.
async fn waiting(client: &Client, definition: Value) -> String {
    client.create_pipeline(&definition).await;
    let id = client.submit(definition["name"].as_str().expect("a name"), json!({})).await;
    client.wait_for_node(&id, "ask", "waiting").await;
    id
}

#[tokio::test]
async fn a_decision_ends_what_waits_for_it_and_the_second_changes_nothing() {
    let fleet = TestFleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    let config = json!({"message": "Ship {{ run.pipeline }}?", "deadline": "24h"});
    let id = waiting(&client, asks("ship", config)).await;

    let shown = client.run(&id).await.node("ask").waiting.clone();
    assert_eq!((&shown["for"], &shown["message"]), (&json!("approval"), &json!("Ship ship?")));
    assert!(shown["since"].is_string() && shown["deadline_at"].is_string(), "{shown}");
    assert_eq!(client.node(&id, "ask").await["waiting"], shown);
    let listed = client.list("/v1/approvals?limit=1").await;
    assert_eq!(listed.len(), 1);
    assert_eq!((&listed[0]["run"], &listed[0]["node"]), (&json!(id), &json!("ask")));
    assert_eq!(listed[0]["pipeline"], "ship");

    let body = json!({"approve": true, "comment": "go"});
    let decided = decide(&client, &id, body).await.expect(200);
    assert_eq!((&decided["approved"], &decided["by"]), (&json!(true), &json!("test")));
    let run = client.wait(&id).await.expect("completed");
    let output = &run.node("ask").output;
    assert_eq!(output["comment"], "go");
    assert_eq!((&output["at"], &output["by"]), (&decided["at"], &decided["by"]));
    assert_eq!(run.output["said"], *output);

    let problem = decide(&client, &id, json!({"approve": false})).await.problem(409);
    let detail = problem["detail"].as_str().expect("a detail");
    assert!(detail.starts_with("It was approved by test at "), "{detail}");
    assert!(client.list("/v1/approvals").await.is_empty());
    eventually(Duration::from_secs(10), "the event", async || {
        let events = client.list("/v1/audit-events?kind=decision").await;
        let found = events.iter().find(|event| event["subject"] == json!(id)).cloned();
        found.filter(|event| event["detail"]["approved"] == true).ok_or("none")
    })
    .await;
    fleet.finish().await;
}

#[tokio::test]
async fn a_rejection_fails_the_node_unless_it_is_to_go_on() {
    let fleet = TestFleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    let id = waiting(&client, asks("strict", json!({}))).await;
    decide(&client, &id, json!({"approve": false, "comment": "too soon"})).await.expect(200);
    let run = client.wait(&id).await.expect("failed");
    assert_eq!(run.error["kind"], "permanent");
    assert_eq!(run.error["message"], "it was rejected by test: too soon");

    // Run again from what failed, it asks again.
    let again = client.rerun(&id, "failed").await;
    client.wait_for_node(&again, "ask", "waiting").await;
    decide(&client, &again, json!({"approve": true})).await.expect(200);
    client.wait(&again).await.expect("completed");

    let id = waiting(&client, asks("lenient", json!({"on_reject": "continue"}))).await;
    decide(&client, &id, json!({"approve": false})).await.expect(200);
    let run = client.wait(&id).await.expect("completed");
    assert_eq!(run.output["said"]["approved"], false);
    fleet.finish().await;
}

#[tokio::test]
async fn at_its_deadline_an_approval_does_what_it_says() {
    let fleet = TestFleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    for (default, state, kind) in [
        ("approve", "completed", Value::Null),
        ("reject", "failed", json!("permanent")),
        ("fail", "failed", json!("timed_out")),
    ] {
        let config = json!({"deadline": "100ms", "default": default});
        let run = client.run_pipeline(asks(default, config), json!({})).await.expect(state);
        assert_eq!(run.error["kind"], kind, "{default}");
        let problem = decide(&client, &run.id, json!({"approve": true})).await.problem(409);
        let detail = problem["detail"].as_str().expect("a detail");
        assert!(detail.starts_with("Its deadline came first"), "{detail}");
    }
    fleet.finish().await;
}

#[tokio::test]
async fn only_those_decide_whom_it_asks() {
    let fleet = TestFleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    let id = waiting(&client, asks("admins", json!({"role": "admin"}))).await;
    let with = |role| client.with(&token(SECRET, "somebody", role, Duration::from_secs(600)));
    for role in ["viewer", "operator"] {
        decide(&with(role), &id, json!({"approve": true})).await.problem(403);
    }
    assert_eq!(client.run(&id).await.node("ask").state, "waiting");
    decide(&with("admin"), &id, json!({"approve": true})).await.expect(200);
    client.wait(&id).await.expect("completed");
    fleet.finish().await;
}

#[tokio::test]
async fn what_does_not_wait_cannot_be_decided() {
    let fleet = TestFleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    let id = waiting(&client, asks("one", json!({}))).await;
    for (body, pointer) in [
        (json!({}), "/approve"),
        (json!({"approve": "yes"}), "/approve"),
        (json!({"approve": true, "comment": 1}), "/comment"),
        (json!({"approve": true, "coment": "x"}), "/coment"),
        (json!({"approve": true, "comment": "x".repeat(5_000)}), "/comment"),
    ] {
        let problem = decide(&client, &id, body).await.problem(422);
        assert_eq!(problem["errors"][0]["pointer"], pointer);
    }
    let other = |node: &str| format!("/v1/runs/{id}/nodes/{node}/decision");
    client.post(&other("after"), &json!({"approve": true})).await.problem(409);
    client.post(&other("nothing"), &json!({"approve": true})).await.problem(404);
    let nowhere = "/v1/runs/00000000-0000-7000-8000-000000000000/nodes/ask/decision";
    client.post(nowhere, &json!({"approve": true})).await.problem(404);

    client.cancel(&id).await;
    client.wait(&id).await.expect("cancelled");
    decide(&client, &id, json!({"approve": true})).await.problem(409);
    assert!(client.list("/v1/approvals").await.is_empty());
    fleet.finish().await;
}

#[tokio::test]
async fn of_many_decisions_at_once_one_counts() {
    let fleet = TestFleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    let id = waiting(&client, asks("race", json!({"on_reject": "continue"}))).await;
    let answers = (0..20).map(|n| decide(&client, &id, json!({"approve": n % 2 == 0})));
    let answers = join_all(answers).await;
    let counted: Vec<_> = answers.iter().filter(|answer| answer.status == 200).collect();
    assert_eq!(counted.len(), 1, "{answers:?}");
    assert!(answers.iter().all(|answer| [200, 409].contains(&answer.status)), "{answers:?}");
    let run = client.wait(&id).await.expect("completed");
    assert_eq!(run.output["said"]["approved"], counted[0].body["approved"]);
    fleet.finish().await;
}

/// R13: it costs no slot; and whoever dies meanwhile, the decision counts.
#[tokio::test]
async fn r13_an_approval_holds_no_worker_and_survives_all_of_them() {
    let options = FleetOptions { concurrency: 1, ..two_workers() };
    let mut fleet = TestFleet::start(options).await;
    let client = fleet.client();
    let id = waiting(&client, asks("patient", json!({}))).await;
    let others = join_all((0..4).map(|_| client.submit("patient", json!({})))).await;
    for other in &others {
        client.wait_for_node(other, "ask", "waiting").await;
    }
    // With one slot each, the workers are free for other work.
    let beside = client.action("echo", json!({"a": 1})).await;
    client.wait(&beside).await.expect("completed");

    kill_all(&mut fleet, 2);
    decide(&client, &id, json!({"approve": true})).await.expect(200);
    // One that stops right after it has claimed what was decided, and one that goes on with it.
    let armed = fleet.add(Role::Worker, &[("GATHERING_TEST_STOP_AFTER", "claim:1")]);
    eventually(Duration::from_secs(30), "the worker to stop", async || {
        fleet.process(Role::Worker, armed).ended().ok_or("it runs")
    })
    .await;
    fleet.kill(Role::Worker, armed);
    fleet.add(Role::Worker, &[]);
    client.wait(&id).await.expect("completed");
    for other in &others {
        decide(&client, other, json!({"approve": true})).await.expect(200);
        client.wait(other).await.expect("completed");
    }
    fleet.finish().await;
}

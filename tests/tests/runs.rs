//! Runs: submit, wait, list, cancel, run again.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::fleet::{FleetOptions, Role, TestFleet};
use tests::http_target::HttpTarget;
use tests::wait::{eventually, seen};

use crate::definitions::*;

fn ids(items: &[Value]) -> Vec<&str> {
    items.iter().filter_map(|item| item["id"].as_str()).collect()
}

#[tokio::test]
async fn waiting_answers_at_the_end_or_with_the_state_as_it_is() {
    let (fleet, target) =
        (TestFleet::start(FleetOptions::default()).await, HttpTarget::start().await);
    let (client, gate) = (fleet.client(), target.gate("/held"));
    let id = client.action("call_api", json!({"method": "GET", "url": target.url("/held")})).await;
    target.arrived("/held", 1).await;

    let began = Instant::now();
    let state = client.get(&format!("/v1/runs/{id}?wait=1s")).await.expect(200)["state"].clone();
    assert_eq!(state, "running");
    assert!(began.elapsed() >= Duration::from_secs(1));

    let waiting = tokio::spawn({
        let (client, id) = (client.clone(), id.clone());
        async move { client.get(&format!("/v1/runs/{id}?wait=30s")).await.expect(200) }
    });
    gate.open();
    assert_eq!(waiting.await.expect("the request ends")["state"], "completed");
    fleet.finish().await;
}

#[tokio::test]
async fn one_request_at_the_most_meets_connections_that_are_gone() {
    let fleet = TestFleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    let id = client.action("echo", json!({"a": 1})).await;
    client.wait(&id).await.expect("completed");
    let path = format!("/v1/runs/{id}");
    let action = json!({"action": "echo", "input": {"a": 1}});
    for _ in 0..3 {
        // What is asked for at once is read over a connection each.
        let reads = (0..8).map(|_| client.get(&path));
        for read in futures::future::join_all(reads).await {
            assert_eq!(read.expect(200)["state"], "completed");
        }
        client.post("/v1/actions", &action).await.expect(202);
        fleet
            .database()
            .execute(
                "select pg_terminate_backend(pid, 5000) from pg_stat_activity
                 where datname = current_database() and backend_type = 'client backend' and pid <> pg_backend_pid()",
            )
            .await;
        // A commit whose answer is lost is not made again unasked; a read is.
        let mut refused = 0;
        for _ in 0..5 {
            let answer = client.post("/v1/actions", &action).await;
            match answer.status {
                202 => {
                    let id = answer.body["id"].as_str().expect("an id");
                    client.wait(id).await.expect("completed");
                }
                _ => {
                    answer.problem(503);
                    refused += 1;
                }
            }
        }
        assert!(refused <= 1, "{refused}");
        assert_eq!(client.get(&path).await.expect(200)["state"], "completed");
    }
    fleet.finish().await;
}

#[tokio::test]
async fn nodes_are_pending_before_the_start() {
    let fleet = TestFleet::start(FleetOptions { workers: 0, ..FleetOptions::default() }).await;
    let client = fleet.client();
    client.create_pipeline(&chain("chain", 3)).await;
    let id = client.submit("chain", json!({"a": 1})).await;
    let run = client.run(&id).await;

    assert_eq!(
        (run.state.as_str(), run.version, &run.input),
        ("queued", Some(1), &json!({"a": 1}))
    );
    assert_eq!(
        run.nodes.iter().map(|node| node.state.as_str()).collect::<Vec<_>>(),
        ["pending"; 3]
    );

    // A run that has not started is cancelled without a worker.
    client.cancel(&id).await;
    let run = client.wait(&id).await.expect("cancelled");
    assert!(run.started_at.is_none() && run.finished_at.is_some(), "{run:#?}");
}

#[tokio::test]
async fn cancelling_stops_what_runs_and_what_was_to_come() {
    let (fleet, target) =
        (TestFleet::start(FleetOptions::default()).await, HttpTarget::start().await);
    let (client, _gate) = (fleet.client(), target.gate("/held"));
    let definition = pipeline(
        "p",
        [echo("a", json!({})), call("b", &target.url("/held")), echo("c", json!({}))],
        [edge("a", "b"), edge("b", "c")],
    );
    client.create_pipeline(&definition).await;
    let id = client.submit("p", json!({})).await;
    target.arrived("/held", 1).await;

    client.cancel(&id).await;
    let run = client.wait(&id).await.expect("cancelled");
    assert_eq!(
        ["a", "b", "c"].map(|id| run.node(id).state.as_str()),
        ["completed", "cancelled", "cancelled"]
    );
    assert_eq!(run.error["kind"], "cancelled", "{run:#?}");

    let again = client.post(&format!("/v1/runs/{id}/cancel"), &json!({})).await;
    assert!([202, 409].contains(&again.status), "{again:?}");
    client.wait(&id).await.expect("cancelled");
    fleet.finish().await;
}

#[tokio::test]
async fn a_delayed_start_starts_late() {
    let fleet = TestFleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    let began = Instant::now();
    let id =
        client.action_with(json!({"action": "echo", "input": {"n": 1}, "delay": "1500ms"})).await;
    assert_eq!(client.run(&id).await.state, "queued");
    client.wait(&id).await.expect("completed");
    let took = began.elapsed();
    assert!((Duration::from_millis(1500)..Duration::from_secs(6)).contains(&took), "{took:?}");

    let far = client.action_with(json!({"action": "echo", "input": {}, "delay": "24h"})).await;
    client.cancel(&far).await;
    client.wait(&far).await.expect("cancelled");
    fleet.finish().await;
}

#[tokio::test]
async fn running_again_from_the_start_makes_a_new_run_of_the_same_version() {
    let fleet = TestFleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    let first = client.run_pipeline(chain("p", 2), json!({"n": 7})).await.expect("completed");
    client.put("/v1/pipelines/p", &chain("p", 5)).await.expect(200);

    let id = client.rerun(&first.id, "start").await;
    let again = client.wait(&id).await.expect("completed");
    assert_eq!((again.version, again.nodes.len(), &again.input), (Some(1), 2, &json!({"n": 7})));
    assert_eq!(again.rerun_of.as_ref(), Some(&first.id));
    fleet.finish().await;
}

#[tokio::test]
async fn running_again_from_what_failed_keeps_what_completed() {
    let (fleet, target) =
        (TestFleet::start(FleetOptions::default()).await, HttpTarget::start().await);
    let client = fleet.client();
    target.answers(
        "/b",
        [tests::http_target::Reply::status(400), tests::http_target::Reply::status(200)],
    );
    let definition = pipeline(
        "p",
        [
            call("a", &target.url("/a")),
            call("b", &target.url("/b")),
            echo("c", json!({"got": "{{ nodes.a.output.status }}"})),
        ],
        [edge("a", "b"), edge("b", "c")],
    );
    let first = client.run_pipeline(definition, json!({})).await.expect("failed");
    assert_eq!(first.node("c").state, "skipped");

    let id = client.rerun(&first.id, "failed").await;
    let again = client.wait(&id).await.expect("completed");
    assert_eq!(again.output, json!({"got": 200}), "what completed keeps its output");
    assert_eq!(
        (target.received("/a").len(), target.received("/b").len()),
        (1, 2),
        "what completed does not run again"
    );
    fleet.finish().await;
}

#[tokio::test]
async fn a_run_that_goes_on_is_not_run_again() {
    let fleet = TestFleet::start(FleetOptions { workers: 0, ..FleetOptions::default() }).await;
    let client = fleet.client();
    let id = client.action("echo", json!({})).await;
    client.post(&format!("/v1/runs/{id}/rerun"), &json!({"from": "failed"})).await.problem(409);
}

#[tokio::test]
async fn lists_filter_and_page() {
    let fleet = TestFleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    client.create_pipeline(&chain("one", 1)).await;
    client.create_pipeline(&pipeline("two", [failing("a")], [])).await;
    let mut ones = Vec::new();
    for n in 0..7 {
        ones.push(
            client
                .submit_with("one", json!({"input": {}, "tags": ["all", format!("t{}", n % 2)]}))
                .await,
        );
    }
    let two = client.submit("two", json!({})).await;
    let action = client.action("echo", json!({})).await;
    fleet.drain(Duration::from_secs(20)).await;
    ones.reverse();

    let all = client.list("/v1/runs?limit=2").await;
    let expected: Vec<_> = [&action, &two].into_iter().chain(&ones).collect();
    assert_eq!(ids(&all), expected, "newest first, each once");
    assert_eq!(ids(&client.list("/v1/runs?pipeline=one&limit=3").await), ones);
    assert_eq!(ids(&client.list("/v1/runs?state=failed").await), [&two]);
    assert_eq!(ids(&client.list("/v1/runs?kind=action").await), [&action]);
    assert_eq!(client.list("/v1/runs?tag=t1&limit=1").await.len(), 3);
    assert_eq!(client.list("/v1/runs?pipeline=one&tag=t0&state=completed").await.len(), 4);
    let third = client.run(&ones[2]).await.created_at;
    assert_eq!(
        ids(&client.list(&format!("/v1/runs?created_after={third}&pipeline=one")).await).len(),
        2
    );
    assert_eq!(
        ids(&client.list(&format!("/v1/runs?created_before={third}")).await),
        ones[3..].iter().collect::<Vec<_>>()
    );
    for wrong in [
        "state=resting",
        "cursor=nonsense",
        "limit=0",
        "created_after=yesterday",
        "no_such_filter=1",
    ] {
        let problem = client.get(&format!("/v1/runs?{wrong}")).await.problem(422);
        let parameter = wrong.split('=').next().expect("a name");
        assert!(problem.to_string().contains(parameter), "{problem}");
    }
    fleet.finish().await;
}

/// A slice of both walks is eight runs long at first.
#[tokio::test]
async fn what_ended_leaves_the_walk_of_the_open_and_is_pruned_beside_what_goes_on() {
    let mut fleet = TestFleet::start(FleetOptions { schedulers: 0, ..Default::default() }).await;
    let client = fleet.client();
    let (mut open, mut ended) = (Vec::new(), Vec::new());
    for _ in 0..10 {
        let delayed = json!({"action": "echo", "input": {}, "delay": "24h"});
        open.push(client.action_with(delayed).await);
        ended.push(client.action("echo", json!({})).await);
    }
    for id in &ended {
        client.wait(id).await.expect("completed");
    }
    let walked = "select count(*) from open_runs";
    assert_eq!(fleet.database().count(walked).await, 20);
    open.reverse();
    assert_eq!(ids(&client.list("/v1/runs?state=queued&limit=3").await), open);

    fleet.database().age_runs("2 days", "true").await;
    let young = client.action("echo", json!({})).await;
    client.wait(&young).await.expect("completed");
    let lost = "delete from open_runs where run_id in (select id from runs where finished_at is null limit 5)";
    assert_eq!(fleet.database().execute(lost).await, 5);
    fleet.add(Role::Scheduler, &[("GATHERING_RETENTION", "1d")]);
    eventually(
        Duration::from_secs(20),
        "what ended to be forgotten, and what was lost to be found",
        async || {
            let counts = (
                fleet.database().count(walked).await,
                fleet.database().count("select count(*) from runs").await,
            );
            seen(counts == (10, 11), counts)
        },
    )
    .await;
    client.run(&young).await.expect("completed");
    assert_eq!(ids(&client.list("/v1/runs?state=queued").await), open);
    for id in &open {
        client.cancel(id).await;
        client.wait(id).await.expect("cancelled");
    }
    eventually(Duration::from_secs(20), "the walk to be empty", async || {
        let left = fleet.database().count(walked).await;
        seen(left == 0, left)
    })
    .await;
    fleet.finish().await;
}

#[tokio::test]
async fn a_batch_answers_for_each_item() {
    let fleet = TestFleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    client.create_pipeline(&chain("p", 1)).await;
    let items = json!({"items": [
        {"pipeline": "p", "input": {}},
        {"action": "echo", "input": {"n": 2}},
        {"pipeline": "missing", "input": {}},
        {"action": "fly", "input": {}},
        {},
    ]});
    let answer = client.post("/v1/runs:batch", &items).await.expect(200);
    let items = answer["items"].as_array().expect("items");
    let statuses: Vec<_> =
        items.iter().map(|item| item["status"].as_u64().expect("a status")).collect();
    assert_eq!(statuses, [202, 202, 404, 422, 422], "{answer}");
    assert_eq!(items[3]["problem"]["errors"][0]["pointer"], "/items/3/action", "{answer}");
    let run = client.wait(items[1]["run"]["id"].as_str().expect("an id")).await.expect("completed");
    assert_eq!(run.output, json!({"n": 2}));

    let too_many = json!({"items": vec![json!({"action": "echo", "input": {}}); 1001]});
    client.post("/v1/runs:batch", &too_many).await.problem(422);
    fleet.finish().await;
}

#[tokio::test]
async fn a_large_output_is_left_out_of_the_run() {
    let fleet = TestFleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    let long = "x".repeat(5000);
    let definition = pipeline(
        "p",
        [
            echo("a", json!({"long": long})),
            echo("b", json!({"n": "{{ nodes.a.output.long | length }}"})),
        ],
        [edge("a", "b")],
    );
    let run = client.run_pipeline(definition, json!({})).await.expect("completed");
    assert_eq!(run.output, json!({"n": 5000}));
    assert!(run.node("a").output_omitted && run.node("a").output.is_null(), "{run:#?}");
    assert_eq!(
        client.node(&run.id, "a").await["output"]["long"].as_str().map(str::len),
        Some(5000)
    );
    fleet.finish().await;
}

#[tokio::test]
async fn lanes_have_their_own_workers() {
    let mut fleet =
        TestFleet::start(FleetOptions { lanes: "default,gpu=4".into(), ..FleetOptions::default() })
            .await;
    let client = fleet.client();
    let definition = pipeline(
        "p",
        [echo("a", json!({})), with(echo("b", json!({})), "lane", json!("gpu"))],
        [edge("a", "b")],
    );
    client.run_pipeline(definition, json!({})).await.expect("completed");
    let id = client.action_with(json!({"action": "echo", "input": {}, "lane": "gpu"})).await;
    client.wait(&id).await.expect("completed");
    fleet.stop(Role::Worker, 0).await;

    // The same pipeline, when the worker of one lane is away.
    fleet.add(Role::Worker, &[("GATHERING_LANES", "default")]);
    fleet.ready().await;
    let id = client.submit("p", json!({})).await;
    client.wait_for_node(&id, "b", "queued").await;
    fleet.add(Role::Worker, &[("GATHERING_LANES", "gpu")]);
    client.wait(&id).await.expect("completed");
    fleet.finish().await;
}

use std::time::Duration;

use tests::client::{Client, Run};
use tests::http_target::{HttpTarget, Reply};
use tests::wait::eventually;

use super::*;
use crate::definitions::*;

/// A pipeline whose only node starts another, once.
fn parent(name: &str, child: &str) -> Value {
    let node = with(calls("call", child, json!({"n": "{{ input.n }}"})), "retry", quick_retry(1));
    pipeline(name, [node], [])
}

/// A pipeline that waits for a person, and then returns its input.
fn asks(name: &str) -> Value {
    let nodes = [approval("ask", json!({})), echo("after", json!({"n": "{{ input.n }}"}))];
    pipeline(name, nodes, [edge("ask", "after")])
}

/// The runs that a run has started, oldest first.
async fn children(client: &Client, run: &str) -> Vec<Value> {
    let mut children = client.list(&format!("/v1/runs?parent={run}&limit=200")).await;
    children.reverse();
    children
}

fn id(run: &Value) -> String {
    run["id"].as_str().expect("an id").to_owned()
}

/// The only child, once it is there.
async fn only_child(client: &Client, run: &str) -> String {
    eventually(Duration::from_secs(30), "the child", async || {
        let children = children(client, run).await;
        if let [child] = children.as_slice() { Ok(id(child)) } else { Err("none") }
    })
    .await
}

async fn approve(client: &Client, run: &str) {
    client.wait_for_node(run, "ask", "waiting").await;
    let at = format!("/v1/runs/{run}/nodes/ask/decision");
    client.post(&at, &json!({"approve": true})).await.expect(200);
}

#[tokio::test]
async fn r13_a_child_gives_its_output_and_its_parent_holds_no_worker() {
    let options = FleetOptions { concurrency: 1, ..FleetOptions::default() };
    let fleet = TestFleet::start(options).await;
    let client = fleet.client();
    client.create_pipeline(&asks("child")).await;
    client.create_pipeline(&parent("parent", "child")).await;
    let run = client.submit("parent", json!({"n": 7})).await;
    let child = only_child(&client, &run).await;
    let shown = client.wait_for_node(&run, "call", "waiting").await.node("call").waiting.clone();
    assert_eq!((&shown["for"], &shown["run"]), (&json!("child"), &json!(child)));
    let seen = client.run(&child).await;
    assert_eq!(seen.parent, json!({"run": run, "node": "call", "index": 0}));
    assert_eq!((&seen.trigger["kind"], &seen.input), (&json!("parent"), &json!({"n": 7})));
    assert_eq!(seen.created_by, "test");

    approve(&client, &child).await;
    let ended = client.wait(&run).await.expect("completed");
    assert_eq!(ended.output, json!({"n": 7}));
    assert_eq!(children(&client, &run).await.len(), 1);
    fleet.finish().await;
}

#[tokio::test]
async fn a_childs_failure_is_its_parents_and_another_try_makes_another_child() {
    let target = HttpTarget::start().await;
    let fleet = TestFleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    client.create_pipeline(&pipeline("breaks", [failing("x")], [])).await;
    let run = client.run_pipeline(parent("hopeless", "breaks"), json!({"n": 1})).await;
    let run = run.expect("failed");
    let child = only_child(&client, &run.id).await;
    let message = run.error["message"].as_str().expect("a message");
    assert!(message.starts_with(&format!("the child run {child} ended failed: ")), "{message}");
    assert_eq!((&run.error["kind"], &run.error["node"]), (&json!("permanent"), &json!("call")));

    // What may go better another time does.
    let ask = with(call("ask", &target.url("/flaky")), "retry", quick_retry(1));
    target.answers("/flaky", [Reply::status(503), Reply::json(&json!("there"))]);
    client.create_pipeline(&pipeline("flaky", [ask], [])).await;
    let node = with(calls("call", "flaky", json!({})), "retry", quick_retry(2));
    let run = client.run_pipeline(pipeline("again", [node], []), json!({})).await;
    let run = run.expect("completed");
    assert_eq!(run.output["body"], "there");
    let states: Vec<Value> =
        children(&client, &run.id).await.iter().map(|child| child["state"].clone()).collect();
    assert_eq!(states, ["failed", "completed"]);

    // A failure edge takes it up.
    let nodes = [calls("call", "breaks", json!({})), echo("mend", json!({"mended": true}))];
    let mended = pipeline("mended", nodes, [edge_when("call", "mend", "failure")]);
    let run = client.run_pipeline(mended, json!({})).await.expect("completed");
    assert_eq!(run.output, json!({"mended": true}));
    fleet.finish().await;
}

#[tokio::test]
async fn a_child_that_cannot_be_started_is_a_permanent_failure_that_says_why() {
    let fleet = TestFleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    let mut strict = chain("strict", 1);
    strict["input_schema"] = json!({"type": "object", "required": ["b"]});
    for definition in [chain("gone", 1), chain("resting", 1), strict] {
        client.create_pipeline(&definition).await;
    }
    client.delete("/v1/pipelines/gone").await.expect(204);
    client.post("/v1/pipelines/resting/pause", &json!({})).await.expect(200);
    for (child, why) in [
        ("nothing", "there is no pipeline \"nothing\""),
        ("gone", "there is no pipeline \"gone\""),
        ("resting", "the pipeline \"resting\" is paused"),
        ("strict", "the input does not fit the pipeline \"strict\""),
    ] {
        let name = format!("calls-{child}");
        let run = client.run_pipeline(parent(&name, child), json!({"n": 1})).await;
        let run = run.expect("failed");
        let message = run.error["message"].as_str().expect("a message");
        assert!(message.starts_with(why), "{message}");
        assert_eq!(run.error["kind"], "permanent");
        assert!(children(&client, &run.id).await.is_empty());
    }
    // A single action starts one, too.
    let input = json!({"pipeline": "strict", "input": {"b": 1}});
    let action = client.action("execute_pipeline", input).await;
    assert_eq!(client.wait(&action).await.expect("completed").output, json!({"value": 0}));
    fleet.finish().await;
}

/// A run, its child, and its child's child, which waits.
async fn three_deep(client: &Client, top: &Value) -> [String; 3] {
    client.create_pipeline(top).await;
    let run = client.submit(top["name"].as_str().expect("a name"), json!({"n": 1})).await;
    let child = only_child(client, &run).await;
    let below = only_child(client, &child).await;
    client.wait_for_node(&below, "ask", "waiting").await;
    [run, child, below]
}

#[tokio::test]
async fn a_parents_stop_goes_down_to_its_children() {
    let fleet = TestFleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    client.create_pipeline(&asks("lowest")).await;
    client.create_pipeline(&parent("middle", "lowest")).await;

    let runs = three_deep(&client, &parent("cancelled", "middle")).await;
    client.cancel(&runs[0]).await;
    for run in &runs {
        client.wait(run).await.expect("cancelled");
    }

    let mut late = parent("late", "middle");
    late["timeout"] = json!("2s");
    let runs = three_deep(&client, &late).await;
    client.wait(&runs[0]).await.expect("timed_out");
    for run in &runs[1..] {
        client.wait(run).await.expect("cancelled");
    }

    let nodes =
        [calls("call", "middle", json!({"n": 1})), approval("gate", json!({})), failing("x")];
    let mut fast = pipeline("fast", nodes, [edge("gate", "x")]);
    fast["fail_fast"] = json!(true);
    let runs = three_deep(&client, &fast).await;
    client.wait_for_node(&runs[0], "gate", "waiting").await;
    let at = format!("/v1/runs/{}/nodes/gate/decision", runs[0]);
    client.post(&at, &json!({"approve": true})).await.expect(200);
    client.wait(&runs[0]).await.expect("failed");
    for run in &runs[1..] {
        client.wait(run).await.expect("cancelled");
    }

    // A child that is cancelled by itself fails its parent.
    let runs = three_deep(&client, &parent("above", "middle")).await;
    client.cancel(&runs[2]).await;
    for run in &runs[..2] {
        let run = client.wait(run).await.expect("failed");
        let message = run.error["message"].as_str().expect("a message");
        assert!(message.contains("ended cancelled"), "{message}");
    }
    fleet.finish().await;
}

#[tokio::test]
async fn a_child_that_takes_too_long_is_stopped() {
    let fleet = TestFleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    client.create_pipeline(&asks("slow")).await;
    let mut node = with(calls("call", "slow", json!({"n": 1})), "retry", quick_retry(1));
    node["config"]["timeout"] = json!("300ms");
    let run = client.run_pipeline(pipeline("hasty", [node], []), json!({})).await.expect("failed");
    assert_eq!(run.error["kind"], "timed_out");
    let child = only_child(&client, &run.id).await;
    client.wait(&child).await.expect("cancelled");
    fleet.finish().await;
}

#[tokio::test]
async fn no_run_stands_deeper_than_ten() {
    let fleet = TestFleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    // It reaches itself, but on a condition: that is what an end could hang on.
    let nodes =
        [echo("start", json!({})), with(calls("call", "deep", json!({})), "retry", quick_retry(1))];
    let deep = pipeline("deep", nodes, [edge_if("start", "call", "true")]);
    let top: Run = client.run_pipeline(deep, json!({})).await.expect("failed");
    let runs = client.list("/v1/runs?pipeline=deep").await;
    assert_eq!(runs.len(), 11);
    let lowest = client.run(&id(&runs[0])).await;
    let message = lowest.error["message"].as_str().expect("a message");
    assert!(message.starts_with("10 runs stand above this one already"), "{message}");
    assert_eq!(top.error["kind"], "permanent");
    fleet.finish().await;
}

#[tokio::test]
async fn a_pipeline_that_starts_itself_without_a_condition_is_refused() {
    let options = FleetOptions { workers: 0, schedulers: 0, ..FleetOptions::default() };
    let fleet = TestFleet::start(options).await;
    let client = fleet.client();
    let refused = |problem: Value, way: &str| {
        assert_eq!(problem["errors"][0]["pointer"], "/nodes/0/config/pipeline");
        let detail = problem["errors"][0]["detail"].as_str().expect("a detail");
        assert!(detail.contains(way), "{detail}");
    };
    let itself = client.post("/v1/pipelines", &parent("a", "a")).await.problem(422);
    refused(itself, "starts the pipeline itself,");

    client.create_pipeline(&parent("c", "a")).await;
    client.create_pipeline(&parent("b", "c")).await;
    let around = client.post("/v1/pipelines", &parent("a", "b")).await.problem(422);
    refused(around, "by way of `b` and `c`");
    let validated = client.post("/v1/pipelines/validate", &parent("a", "b")).await.expect(200);
    assert_eq!(validated["valid"], false);

    // On a condition it may; and so it may once the way is cut.
    let nodes = [echo("start", json!({})), calls("call", "b", json!({}))];
    let guarded = pipeline("a", nodes, [edge_if("start", "call", "input.n > 0")]);
    client.create_pipeline(&guarded).await;
    client.put("/v1/pipelines/a", &parent("a", "b")).await.problem(422);
    client.put("/v1/pipelines/c", &chain("c", 1)).await.expect(200);
    client.put("/v1/pipelines/a", &parent("a", "b")).await.expect(200);
    fleet.finish().await;
}

/// Everybody dies while a child is under way, and whoever first learns of its end dies as well.
#[tokio::test]
async fn a_child_survives_the_death_of_all_workers() {
    let mut fleet = TestFleet::start(two_workers()).await;
    let client = fleet.client();
    client.create_pipeline(&asks("child")).await;
    client.create_pipeline(&parent("parent", "child")).await;
    let mut added = 0;
    for point in ["child_end:1", "record:1", "claim:1"] {
        let run = client.submit("parent", json!({"n": 3})).await;
        let child = only_child(&client, &run).await;
        client.wait_for_node(&child, "ask", "waiting").await;
        kill_all(&mut fleet, 2 + added);
        approve(&client, &child).await;
        let armed = fleet.add(Role::Worker, &[("GATHERING_TEST_STOP_AFTER", point)]);
        eventually(Duration::from_secs(60), "the worker to stop", async || {
            fleet.process(Role::Worker, armed).ended().ok_or("it runs")
        })
        .await;
        fleet.kill(Role::Worker, armed);
        fleet.add(Role::Worker, &[]);
        added += 2;
        let ended = client.wait(&run).await.expect("completed");
        assert_eq!(ended.output, json!({"n": 3}), "{point}");
        assert_eq!(children(&client, &run).await.len(), 1, "{point}");
    }
    fleet.finish().await;
}

/// R7: what tells of a child's end, or of its parent's, is a message; when it is lost, the leader finds out.
#[tokio::test]
async fn r7_a_childs_end_whose_message_is_lost_is_counted_by_the_leader() {
    let mut fleet = TestFleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    client.create_pipeline(&asks("child")).await;
    client.create_pipeline(&parent("parent", "child")).await;
    let [first, second] = [json!({"n": 1}), json!({"n": 2})];
    let runs = [client.submit("parent", first).await, client.submit("parent", second).await];
    let below = [only_child(&client, &runs[0]).await, only_child(&client, &runs[1]).await];
    client.wait_for_node(&below[0], "ask", "waiting").await;
    client.wait_for_node(&below[1], "ask", "waiting").await;
    // Nobody is there to take them.
    fleet.kill(Role::Worker, 0);
    for run in [&below[0], &runs[1]] {
        client.cancel(run).await;
    }
    fleet.database().execute("delete from outbox").await;
    fleet.broker().purge(&fleet.queue()).await;
    fleet.add(Role::Worker, &[]);
    let run = client.wait_for(&runs[0], Duration::from_secs(60)).await.expect("failed");
    assert!(run.error["message"].as_str().is_some_and(|it| it.contains("cancelled")), "{run:?}");
    client.wait_for(&below[1], Duration::from_secs(60)).await.expect("cancelled");
    fleet.finish().await;
}

/// Its answer is read from its run, however long ago that ended.
#[tokio::test]
async fn a_child_is_kept_while_its_parent_goes_on_and_pruned_like_any_run_after_that() {
    let options = FleetOptions { schedulers: 0, ..FleetOptions::default() };
    let mut fleet = TestFleet::start(options).await;
    let client = fleet.client();
    client.create_pipeline(&chain("child", 1)).await;
    let nodes = [calls("call", "child", json!({})), approval("ask", json!({}))];
    client.create_pipeline(&pipeline("parent", nodes, [edge("call", "ask")])).await;
    let run = client.submit("parent", json!({})).await;
    client.wait_for_node(&run, "ask", "waiting").await;
    let child = only_child(&client, &run).await;
    let other = client.action("echo", json!({})).await;
    client.wait(&other).await.expect("completed");
    let young = "finished_at > clock_timestamp() - interval '1 day'";
    fleet.database().age_runs("60 days", young).await;
    let leader = fleet.add(Role::Scheduler, &[]);
    let gone = async |fleet: &TestFleet, run: &str| {
        eventually(Duration::from_secs(30), "an old run to be pruned", async || {
            let answer = fleet.client().get(&format!("/v1/runs/{run}")).await;
            if answer.status == 404 { Ok(()) } else { Err(answer.status) }
        })
        .await;
    };
    gone(&fleet, &other).await;
    client.wait(&child).await.expect("completed");

    fleet.stop(Role::Scheduler, leader).await;
    approve(&client, &run).await;
    client.wait(&run).await.expect("completed");
    fleet.database().age_runs("60 days", young).await;
    fleet.add(Role::Scheduler, &[]);
    gone(&fleet, &run).await;
    gone(&fleet, &child).await;
    for table in ["select count(*) from waits", "select count(*) from children"] {
        assert_eq!(fleet.database().count(table).await, 0, "{table}");
    }
    fleet.finish().await;
}

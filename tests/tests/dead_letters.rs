//! Dead letters: what failed for good is kept, with its history, until it is redriven or dismissed.

use std::time::Duration;

use lapin::BasicProperties;
use serde_json::{Value, json};
use tests::client::Client;
use tests::fleet::{FleetOptions, Role, TestFleet};
use tests::http_target::{HttpTarget, Reply};
use tests::wait::{eventually, seen};

use crate::definitions::*;

const LETTERS: &str = "/v1/dead-letters";

async fn letters(client: &Client, query: &str) -> Vec<Value> {
    client.list(&format!("{LETTERS}{query}")).await
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("no {field} in {value}"))
}

fn address(letter: &Value) -> String {
    format!("{LETTERS}/{}", text(letter, "id"))
}

/// `a` → `b`, of which `b` calls a service that is down.
async fn down(client: &Client, target: &HttpTarget) -> String {
    target.answers("/service", [Reply::status(503), Reply::status(503), Reply::status(200)]);
    let b = with(call("b", &target.url("/service")), "retry", quick_retry(2));
    let a = echo("a", json!({"of": "{{ run.id }}"}));
    client.create_pipeline(&pipeline("p", [a, b], [edge("a", "b")])).await;
    let body = json!({"input": {"n": 1}, "tags": ["x"]});
    let run = client.submit_with("p", body).await;
    client.wait(&run).await.expect("failed");
    run
}

#[tokio::test]
async fn a_redriven_letter_runs_again_what_failed_and_nothing_else() {
    let (fleet, target) =
        (TestFleet::start(FleetOptions::default()).await, HttpTarget::start().await);
    let client = fleet.client();
    let run = down(&client, &target).await;

    let found = letters(&client, "").await;
    let [letter] = found.as_slice() else { panic!("one letter: {found:#?}") };
    assert_eq!(
        ["run", "node", "pipeline", "action", "lane"].map(|field| text(letter, field)),
        [run.as_str(), "b", "p", "call_api", "default"]
    );
    assert_eq!((&letter["attempts"], &letter["version"]), (&json!(2), &json!(1)));
    assert_eq!((&letter["error"]["kind"], &letter["tags"]), (&json!("retryable"), &json!(["x"])));
    let whole = client.get(&address(letter)).await.expect(200);
    let history: Vec<_> =
        whole["history"].as_array().expect("a history").iter().map(|a| &a["attempt"]).collect();
    assert_eq!(history, [1, 2]);

    let redrive = format!("{}/redrive", address(letter));
    let answer = client.post_once(&redrive, &json!({}), "once").await;
    let same = client.post_once(&redrive, &json!({}), "once").await;
    assert_eq!(answer.text, same.text, "the same key gets the same answer");
    let location = answer.header("location").expect("it names the run").to_owned();
    let again = text(&answer.expect(202), "id").to_owned();
    assert_eq!(location, format!("/v1/runs/{again}"));
    let problem = client.post(&redrive, &json!({})).await.problem(409);
    assert_eq!(problem["type"], "urn:gathering:problem:redriven");
    assert!(text(&problem, "detail").contains(&again), "{problem}");

    let ended = client.wait(&again).await.expect("completed");
    assert_eq!((ended.rerun_of.as_deref(), &ended.input), (Some(run.as_str()), &json!({"n": 1})));
    assert_eq!(ended.node("a").output["of"], json!(run), "what had completed is kept");
    assert_eq!((&ended.tags, ended.version), (&vec!["x".to_owned()], Some(1)));
    let (kind, of) = (&ended.trigger["kind"], &ended.trigger["dead_letter"]);
    assert_eq!((kind, of), (&json!("redrive"), &letter["id"]));
    assert_eq!(target.received("/service").len(), 3);

    assert!(letters(&client, "").await.is_empty(), "nothing is open");
    let redriven = letters(&client, "?state=redriven").await;
    assert_eq!(text(&redriven[0], "redriven_as"), again);
    assert_eq!(text(&redriven[0], "redriven_by"), "test");
    let audited = eventually(Duration::from_secs(5), "the event", async || {
        let found = client.list("/v1/audit-events?kind=dead_letter_redriven").await;
        seen(found.len() == 1, found)
    })
    .await;
    assert_eq!(
        (&audited[0]["subject"], &audited[0]["detail"]["run"]),
        (&letter["id"], &json!(again))
    );
    fleet.finish().await;
}

#[tokio::test]
async fn what_fails_again_is_a_letter_again() {
    let (fleet, target) =
        (TestFleet::start(FleetOptions::default()).await, HttpTarget::start().await);
    let client = fleet.client();
    down(&client, &target).await;
    let first = letters(&client, "").await.remove(0);
    target.answers("/service", [Reply::status(400)]);
    let again = client.post(&format!("{}/redrive", address(&first)), &json!({})).await.expect(202);
    client.wait(text(&again, "id")).await.expect("failed");
    let open = letters(&client, "").await;
    assert_eq!((open.len(), &open[0]["run"]), (1, &again["id"]), "{open:#?}");
    fleet.finish().await;
}

#[tokio::test]
async fn two_who_redrive_at_once_make_one_run() {
    let (fleet, target) = (
        TestFleet::start(FleetOptions { apis: 2, ..FleetOptions::default() }).await,
        HttpTarget::start().await,
    );
    let client = fleet.client();
    down(&client, &target).await;
    let redrive = format!("{}/redrive", address(&letters(&client, "").await[0]));
    let body = json!({});
    let sent = (0..12).map(|n| {
        let (client, redrive, body) = (fleet.client_of(n % 2), &redrive, &body);
        async move { client.post(redrive, body).await.status }
    });
    let mut answers = futures::future::join_all(sent).await;
    answers.sort_unstable();
    assert_eq!((answers[0], &answers[1..]), (202, &[409; 11][..]));
    assert_eq!(fleet.database().count("select count(*) from runs").await, 2);
    fleet.finish().await;
}

#[tokio::test]
async fn only_what_failed_its_run_is_a_letter() {
    let (fleet, target) =
        (TestFleet::start(FleetOptions::default()).await, HttpTarget::start().await);
    let (client, gate) = (fleet.client(), target.gate("/held"));
    // Taken up by an edge: the run completes.
    let taken_up = pipeline(
        "taken-up",
        [failing("a"), echo("mend", json!({}))],
        [edge_when("a", "mend", "failure")],
    );
    client.run_pipeline(taken_up, json!({})).await.expect("completed");
    // Taken up beside one that is not.
    let both = pipeline(
        "both",
        [failing("a"), echo("mend", json!({})), failing("b")],
        [edge_when("a", "mend", "failure")],
    );
    let both = client.run_pipeline(both, json!({})).await.expect("failed");
    // The condition of an edge fails the node that it leads to.
    let edge = edge_if("a", "b", "output.there_is_no_such_thing > 1");
    let edged = pipeline(
        "edged",
        [echo("a", json!({})), echo("b", json!({})), echo("c", json!({}))],
        [edge, super::definitions::edge("b", "c")],
    );
    let edged = client.run_pipeline(edged, json!({})).await.expect("failed");
    // Cancelled after a failure, while another branch goes on.
    let held = pipeline("held", [failing("a"), call("b", &target.url("/held"))], []);
    client.create_pipeline(&held).await;
    let (cancelled, going_on) =
        (client.submit("held", json!({})).await, client.submit("held", json!({})).await);
    target.arrived("/held", 2).await;
    for run in [&cancelled, &going_on] {
        client.wait_for_node(run, "a", "failed").await;
    }
    client.cancel(&cancelled).await;
    client.wait(&cancelled).await.expect("cancelled");

    let shown = async || -> Vec<(String, String)> {
        let found = letters(&client, "").await;
        found.iter().map(|it| (text(it, "run").to_owned(), text(it, "node").to_owned())).collect()
    };
    let mut expected = vec![(edged.id, "b".to_owned()), (both.id, "b".to_owned())];
    assert_eq!(shown().await, expected, "nothing of a run that goes on, or was cancelled");
    gate.open();
    client.wait(&going_on).await.expect("failed");
    expected.insert(0, (going_on, "a".to_owned()));
    assert_eq!(shown().await, expected);
    assert_eq!(letters(&client, "?pipeline=edged").await[0]["attempts"], 0);
    fleet.finish().await;
}

#[tokio::test]
async fn a_run_that_fails_fast_or_times_out_has_letters_too() {
    let (fleet, target) =
        (TestFleet::start(FleetOptions::default()).await, HttpTarget::start().await);
    let (client, gate) = (fleet.client(), target.gate("/held"));
    let nodes = || [failing("a"), call("b", &target.url("/held"))];
    let fast = with(pipeline("fast", nodes(), []), "fail_fast", json!(true));
    client.run_pipeline(fast, json!({})).await.expect("failed");
    let late = with(pipeline("late", nodes(), []), "timeout", json!("1s"));
    client.run_pipeline(late, json!({})).await.expect("timed_out");
    gate.open();
    let open = letters(&client, "").await;
    let shown: Vec<_> = open.iter().map(|it| (text(it, "pipeline"), text(it, "node"))).collect();
    assert_eq!(shown, [("late", "a"), ("fast", "a")]);
    let again =
        client.post(&format!("{}/redrive", address(&open[0])), &json!({})).await.expect(202);
    let again = client.wait(text(&again, "id")).await.expect("failed");
    assert_eq!(again.node("b").state, "completed", "what was cut short runs again: {again:#?}");
    fleet.finish().await;
}

#[tokio::test]
async fn letters_of_a_run_are_redriven_together_and_dismissed_one_by_one() {
    let fleet = TestFleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    let two = pipeline("two", [failing("a"), failing("b")], []);
    client.run_pipeline(two, json!({})).await.expect("failed");
    let action = json!({"action": "call_api", "input": {"url": "http://127.0.0.1:9/"},
        "retry": {"max_attempts": 1}});
    let action = client.action_with(action).await;
    client.wait(&action).await.expect("failed");

    let count = async |query: &str| letters(&client, query).await.len();
    assert_eq!(count("").await, 3);
    assert_eq!(count("?limit=1").await, 3, "page by page");
    assert_eq!(count("?pipeline=two").await, 2);
    assert_eq!(count("?action=call_api").await, 1);
    assert_eq!(count("?kind=permanent").await, 2);
    assert_eq!(count("?kind=retryable,timed_out").await, 1);
    assert_eq!(count("?created_after=2020-01-01T00:00:00Z").await, 3);
    assert_eq!(count("?created_before=2020-01-01T00:00:00Z").await, 0);
    for wrong in ["?kind=cancelled", "?state=lost", "?state=open,redriven", "?created_after=x"] {
        client.get(&format!("{LETTERS}{wrong}")).await.problem(422);
    }

    let single = letters(&client, "?action=call_api").await.remove(0);
    client.delete(&address(&single)).await.expect_status(204);
    client.delete(&address(&single)).await.problem(404);
    client.get(&address(&single)).await.problem(404);
    client.post(&format!("{}/redrive", address(&single)), &json!({})).await.problem(404);
    assert_eq!(count("").await, 2);
    client.run(&action).await.expect("failed");

    let pair = letters(&client, "?pipeline=two").await;
    let again =
        client.post(&format!("{}/redrive", address(&pair[0])), &json!({})).await.expect(202);
    client.post(&format!("{}/redrive", address(&pair[1])), &json!({})).await.problem(409);
    let other = client.get(&address(&pair[1])).await.expect(200);
    assert_eq!(other["redriven_as"], again["id"]);
    client.wait(text(&again, "id")).await.expect("failed");
    fleet.finish().await;
}

#[tokio::test]
async fn an_open_letter_keeps_its_run() {
    let options = FleetOptions { schedulers: 0, ..FleetOptions::default() };
    let mut fleet = TestFleet::start(options).await;
    let client = fleet.client();
    let mut runs = Vec::new();
    for name in ["open", "dismissed", "redriven"] {
        let run = client.run_pipeline(pipeline(name, [failing("a")], []), json!({})).await;
        runs.push(run.expect("failed").id);
    }
    let letter = async |name: &str| letters(&client, &format!("?pipeline={name}")).await.remove(0);
    client.delete(&address(&letter("dismissed").await)).await.expect_status(204);
    let redrive = format!("{}/redrive", address(&letter("redriven").await));
    let again = client.post(&redrive, &json!({})).await.expect(202);
    client.wait(text(&again, "id")).await.expect("failed");
    let plain = client.action("echo", json!({})).await;
    client.wait(&plain).await.expect("completed");
    let old = format!("id <> '{}'", text(&again, "id"));
    fleet.database().age_runs("2 days", &old).await;

    fleet.add(Role::Scheduler, &[("GATHERING_RETENTION", "1d")]);
    eventually(Duration::from_secs(20), "what is old to be pruned", async || {
        let gone = [&plain, &runs[1]].map(|run| format!("/v1/runs/{run}"));
        let left = [client.get(&gone[0]).await.status, client.get(&gone[1]).await.status];
        seen(left == [404, 404], left)
    })
    .await;
    for kept in [&runs[0], &runs[2]] {
        client.run(kept).await.expect("failed");
    }
    assert_eq!(text(&letter("open").await, "run"), runs[0]);
    let left =
        fleet.database().count("select count(*) from dead_letters where dismissed_at is not null");
    assert_eq!(left.await, 0, "the dismissed letter went with its run");
    fleet.finish().await;
}

#[tokio::test]
async fn lanes_tell_what_waits_who_serves_and_what_nobody_could_read() {
    let options = FleetOptions { lanes: "default=3,gpu=2".to_owned(), ..FleetOptions::default() };
    let (fleet, target) = (TestFleet::start(options).await, HttpTarget::start().await);
    let (client, gate) = (fleet.client(), target.gate("/held"));
    fleet.broker().publish("default", b"no job at all", BasicProperties::default()).await;
    let input = json!({"method": "POST", "url": target.url("/held")});
    let held = json!({"action": "call_api", "input": input, "lane": "gpu"});
    let mut runs = Vec::new();
    for _ in 0..2 {
        runs.push(client.action_with(held.clone()).await);
    }
    target.arrived("/held", 2).await;
    runs.push(client.action_with(held).await);
    let attic = json!({"action": "echo", "input": {}, "lane": "attic"});
    let attic = client.action_with(attic).await;
    // A look may be a second old.
    let seen = eventually(Duration::from_secs(10), "the queues as they are", async || {
        let lanes = client.get("/v1/lanes").await.expect(200);
        let whole = lanes["dead"]["messages"] == 1
            && lanes["items"][0]["queue"]["messages"] == 1
            && lanes["items"][2]["queue"]["messages"] == 1;
        seen(whole, lanes)
    })
    .await;
    let shown = |at: usize| {
        let lane = &seen["items"][at];
        let numbers = ["queued_runs", "queued", "running", "workers", "slots"];
        (
            text(lane, "lane").to_owned(),
            numbers.map(|field| lane[field].as_i64().expect("a number")),
        )
    };
    assert_eq!(shown(0), ("attic".to_owned(), [1, 0, 0, 0, 0]));
    assert_eq!(shown(1), ("default".to_owned(), [0, 0, 0, 1, 3]));
    assert_eq!(shown(2), ("gpu".to_owned(), [1, 0, 2, 1, 2]));
    assert_eq!(seen["items"][2]["queue"]["name"], fleet.broker().lane("gpu"));
    assert_eq!(
        (&seen["partial"], seen["items"].as_array().map(Vec::len)),
        (&json!(false), Some(3))
    );
    gate.open();
    client.cancel(&attic).await;
    for run in runs {
        client.wait(&run).await.expect("completed");
    }
    let queue = fleet.broker().lane("attic");
    fleet.broker().delete(&queue).await;
    fleet.broker().take(&fleet.broker().dead()).await;
    fleet.finish().await;
}

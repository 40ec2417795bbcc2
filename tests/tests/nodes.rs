//! Node types and actions, retries, time-outs, and edges.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::client::Run;
use tests::fleet::{FleetOptions, TestFleet};
use tests::http_target::{HttpTarget, Reply};
use tests::wait::eventually;

use crate::definitions::*;

async fn run(definition: Value, input: Value) -> Run {
    let fleet = TestFleet::start(FleetOptions::default()).await;
    let run = fleet.client().run_pipeline(definition, input).await;
    fleet.finish().await;
    run
}

#[tokio::test]
async fn every_node_type_runs() {
    let target = HttpTarget::start().await;
    target.answers("/greet", [Reply::json(&json!({"greeting": "hello"}))]);
    let definition = pipeline(
        "all-types",
        [
            json!({"id": "start", "type": "trigger"}),
            json!({"id": "fork", "type": "parallel"}),
            action("greet", "call_api", json!({"method": "GET", "url": "{{ input.url }}"})),
            shell("count", "echo '{\"lines\": 3}'"),
            condition("enough", "nodes.count.output.json.lines > 2"),
            delay("pause", "50ms"),
            echo(
                "yes",
                json!({"said": "{{ nodes.greet.output.body.greeting }}", "lines": "{{ nodes.count.output.json.lines }}"}),
            ),
            echo("no", json!({})),
        ],
        [
            edge("start", "fork"),
            edge("fork", "greet"),
            edge("fork", "count"),
            edge("count", "enough"),
            edge("greet", "pause"),
            edge("pause", "yes"),
            edge("enough", "yes"),
            edge_if("enough", "no", "not output.result"),
        ],
    );
    let input = json!({"url": target.url("/greet")});
    let run = run(definition, input.clone()).await.expect("completed");

    assert_eq!(run.node("start").output, input, "a trigger outputs the run's input");
    assert_eq!(run.node("fork").output, input, "parallel outputs its only predecessor's output");
    assert_eq!(run.node("greet").output["status"], 200);
    assert_eq!(
        run.node("pause").output,
        run.node("greet").output,
        "a delay outputs its only predecessor's output"
    );
    assert_eq!(run.node("enough").output, json!({"result": true}));
    let count = &run.node("count").output;
    assert_eq!((&count["exit_code"], &count["json"]), (&json!(0), &json!({"lines": 3})));
    assert_eq!(run.node("no").state, "skipped");
    assert_eq!(
        run.output,
        json!({"said": "hello", "lines": 3}),
        "a whole expression keeps its type"
    );
}

#[tokio::test]
async fn call_api_is_tried_again_while_the_server_is_unavailable() {
    let (fleet, target) =
        (TestFleet::start(FleetOptions::default()).await, HttpTarget::start().await);
    target.answers(
        "/flaky",
        [Reply::status(503), Reply::status(503), Reply::json(&json!({"done": true}))],
    );
    let client = fleet.client();

    let call = with(call("call", &target.url("/flaky")), "retry", quick_retry(5));
    let run =
        client.run_pipeline(pipeline("flaky", [call], []), json!({})).await.expect("completed");

    assert_eq!((run.node("call").attempt, &run.output["body"]), (3, &json!({"done": true})));
    let effects = target.effects("/flaky");
    assert_eq!(effects, [(format!("{}/call", run.id), 3)].into(), "one key for all attempts");
    let node = client.node(&run.id, "call").await;
    let failed: Vec<_> = node["attempts"]
        .as_array()
        .expect("attempts")
        .iter()
        .filter(|a| !a["error"].is_null())
        .collect();
    assert_eq!(failed.len(), 2, "{node}");
    assert!(failed.iter().all(|attempt| attempt["error"]["kind"] == "retryable"), "{node}");
    fleet.finish().await;
}

#[tokio::test]
async fn retry_after_is_kept() {
    let (fleet, target) =
        (TestFleet::start(FleetOptions::default()).await, HttpTarget::start().await);
    target.answers("/busy", [Reply::status(429).header("retry-after", "2"), Reply::status(200)]);

    let call = with(call("call", &target.url("/busy")), "retry", quick_retry(2));
    fleet.client().run_pipeline(pipeline("busy", [call], []), json!({})).await.expect("completed");

    let calls = target.received("/busy");
    let waited = calls[1].at - calls[0].at;
    assert!(
        (Duration::from_millis(1_900)..Duration::from_secs(10)).contains(&waited),
        "{waited:?}"
    );
    fleet.finish().await;
}

#[tokio::test]
async fn attempts_are_limited() {
    let (fleet, target) =
        (TestFleet::start(FleetOptions::default()).await, HttpTarget::start().await);
    target.answers("/down", [Reply::status(500)]);

    let call = with(call("call", &target.url("/down")), "retry", quick_retry(3));
    let run =
        fleet.client().run_pipeline(pipeline("down", [call], []), json!({})).await.expect("failed");

    assert_eq!(target.received("/down").len(), 3);
    assert_eq!(run.node("call").error["kind"], "retryable");
    assert_eq!(run.error["node"], "call", "{run:#?}");
    fleet.finish().await;
}

#[tokio::test]
async fn a_permanent_failure_is_not_tried_again() {
    let (fleet, target) =
        (TestFleet::start(FleetOptions::default()).await, HttpTarget::start().await);
    target.answers("/gone", [Reply::status(404)]);

    let definition = pipeline("gone", [call("call", &target.url("/gone"))], []);
    let run = fleet.client().run_pipeline(definition, json!({})).await.expect("failed");

    assert_eq!(
        (target.received("/gone").len(), &run.node("call").error["kind"]),
        (1, &json!("permanent"))
    );
    fleet.finish().await;
}

#[tokio::test]
async fn a_node_that_takes_too_long_is_timed_out_and_tried_again() {
    let (fleet, target) =
        (TestFleet::start(FleetOptions::default()).await, HttpTarget::start().await);
    target
        .answers("/slow", [Reply::status(200).after(Duration::from_secs(60)), Reply::status(200)]);

    let call = with(
        with(call("call", &target.url("/slow")), "timeout", json!("300ms")),
        "retry",
        quick_retry(2),
    );
    let run = fleet
        .client()
        .run_pipeline(pipeline("slow", [call], []), json!({}))
        .await
        .expect("completed");

    let node = fleet.client().node(&run.id, "call").await;
    assert_eq!(node["attempts"][0]["error"]["kind"], "timed_out", "{node}");
    fleet.finish().await;
}

#[tokio::test]
async fn a_run_that_takes_too_long_is_timed_out() {
    let definition = pipeline(
        "slow",
        [shell("sleep", "sleep 60"), echo("after", json!({}))],
        [edge("sleep", "after")],
    );
    let began = Instant::now();
    let run = run(with(definition, "timeout", json!("1s")), json!({})).await.expect("timed_out");

    assert_eq!(
        (run.node("sleep").state.as_str(), run.node("after").state.as_str()),
        ("cancelled", "cancelled")
    );
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn a_commands_whole_process_group_dies_on_cancel() {
    let fleet = TestFleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    let pids = fleet.folder().join("pids");
    // A child in the background, which outlives a kill of the shell alone.
    let script = format!("sleep 300 & echo $! $$ > {0}.new; mv {0}.new {0}; wait", pids.display());
    let id = client.action("run_command", json!({"argv": ["sh", "-c", script]})).await;
    let pids = eventually(Duration::from_secs(30), "the command to begin", async || {
        std::fs::read_to_string(&pids)
    })
    .await;

    client.cancel(&id).await;
    client.wait(&id).await.expect("cancelled");

    for pid in pids.split_whitespace() {
        eventually(Duration::from_secs(10), "the process group to be gone", async || {
            // A zombie that nobody has waited for yet is dead, too.
            let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            if status.is_empty() || status.contains(") Z ") { Ok(()) } else { Err(status) }
        })
        .await;
    }
    fleet.finish().await;
}

#[tokio::test]
async fn a_command_that_exits_badly_fails_with_what_it_said() {
    let retry = json!({"max_attempts": 1});
    let definition =
        pipeline("bad", [with(shell("sh", "echo out; echo why >&2; exit 3"), "retry", retry)], []);
    let run = run(definition, json!({})).await.expect("failed");
    let message = run.node("sh").error["message"].as_str().expect("a message").to_owned();
    assert!(message.contains('3') && message.contains("why"), "{message}");
}

#[tokio::test]
async fn commands_run_only_when_the_operator_lists_them() {
    use tests::fleet::Role;
    let options = FleetOptions::default().with(Role::Worker, "GATHERING_COMMANDS", "true");
    let fleet = TestFleet::start(options).await;
    let client = fleet.client();

    let listed = client.action("run_command", json!({"argv": ["true"]})).await;
    client.wait(&listed).await.expect("completed");
    let unlisted = client.action("run_command", json!({"argv": ["false"]})).await;
    let run = client.wait(&unlisted).await.expect("failed");
    let message = run.error["message"].as_str().expect("a message").to_owned();
    assert!(message.contains("GATHERING_COMMANDS"), "{message}");
    fleet.finish().await;
}

#[tokio::test]
async fn a_failure_edge_takes_a_failure_up() {
    let definition = pipeline(
        "handled",
        [failing("a"), echo("cleanup", json!({"cleaned": true})), echo("next", json!({}))],
        [edge_when("a", "cleanup", "failure"), edge("a", "next")],
    );
    let run = run(definition, json!({})).await.expect("completed");
    assert_eq!(
        (run.node("a").state.as_str(), run.node("next").state.as_str()),
        ("failed", "skipped")
    );
    assert_eq!(run.output, json!({"cleaned": true}));
    assert!(run.error.is_null(), "a failure that was taken up is not the run's");
}

#[tokio::test]
async fn other_branches_go_on_after_a_failure() {
    let definition = pipeline(
        "branches",
        [
            failing("a"),
            echo("b", json!({})),
            delay("c", "300ms"),
            echo("d", json!({})),
            echo("e", json!({})),
        ],
        [edge("a", "b"), edge("c", "d"), edge_when("a", "e", "always")],
    );
    let run = run(definition, json!({})).await.expect("failed");
    let states = ["b", "c", "d", "e"].map(|id| run.node(id).state.as_str());
    assert_eq!(states, ["skipped", "completed", "completed", "completed"]);
    assert_eq!(run.error["node"], "a");
    let message = run.error["message"].as_str().expect("a message");
    assert!(message.contains("there_is_no_such_thing"), "an undefined name is named: {message}");
}

#[tokio::test]
async fn fail_fast_stops_the_other_branches() {
    let definition = pipeline(
        "fast",
        [failing("a"), shell("b", "sleep 60"), echo("c", json!({}))],
        [edge("b", "c")],
    );
    let began = Instant::now();
    let run = run(with(definition, "fail_fast", json!(true)), json!({})).await.expect("failed");
    assert_eq!(
        (run.node("c").state.as_str(), run.node("a").state.as_str()),
        ("cancelled", "failed")
    );
    assert_eq!(run.error["node"], "a");
    assert!(began.elapsed() < Duration::from_secs(30));
}

#[tokio::test]
async fn an_undefined_name_is_an_error_and_never_false() {
    for (name, expression) in [
        ("compared", "nodes.a.output.missing == 1"),
        ("ordered", "nodes.a.output.missing > 1"),
        ("negated", "not nodes.a.output.missing"),
        ("combined", "nodes.a.output.missing and true"),
        ("deep", "nodes.a.output.missing.deeper == 1"),
        ("plain", "nodes.a.output.missing"),
    ] {
        let definition = pipeline(
            name,
            [echo("a", json!({"value": 1})), condition("c", expression)],
            [edge("a", "c")],
        );
        let run = run(definition, json!({})).await;
        assert_eq!(run.state, "failed", "{expression}: {run:#?}");
        let message = run.node("c").error["message"].as_str().expect("a message").to_owned();
        assert!(message.contains("missing"), "{expression}: {message}");
    }
}

#[tokio::test]
async fn an_edge_whose_condition_errors_fails_the_node_that_it_leads_to() {
    let definition = pipeline(
        "edges",
        [
            echo("a", json!({"value": 1})),
            echo("b", json!({})),
            echo("c", json!({})),
            echo("d", json!({})),
        ],
        [
            edge_if("a", "b", "output.missing == 1"),
            edge_if("a", "c", "output.value"),
            edge_if("a", "d", "output.value == 1"),
        ],
    );
    let run = run(definition, json!({})).await.expect("failed");
    let states = ["a", "b", "c", "d"].map(|id| run.node(id).state.as_str());
    assert_eq!(
        states,
        ["completed", "failed", "failed", "completed"],
        "a condition that is no boolean is an error, too"
    );
}

#[tokio::test]
async fn a_delay_waits_as_long_as_it_says() {
    let began = Instant::now();
    let run = run(pipeline("wait", [delay("d", "1s")], []), json!({})).await.expect("completed");
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert_eq!(run.output, Value::Null, "a delay without a predecessor outputs null");
}

#[tokio::test]
async fn a_breaker_lets_attempts_wait_unspent() {
    let (fleet, target) = (
        TestFleet::start(FleetOptions { concurrency: 1, ..FleetOptions::default() }).await,
        HttpTarget::start().await,
    );
    let client = fleet.client();
    // Two failures open it; the probe after the recovery time succeeds, and what waited goes on.
    target.answers("/weak", [Reply::status(503), Reply::status(503), Reply::status(200)]);
    let call = with(call("call", &target.url("/weak")), "retry", quick_retry(5));
    let call = with(call, "breaker", json!({"failure_threshold": 2, "recovery": "1s"}));
    client.create_pipeline(&pipeline("weak", [call], [])).await;

    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(client.submit("weak", json!({})).await);
    }
    for id in &ids {
        client.wait(id).await.expect("completed");
    }
    let calls = target.received("/weak");
    assert_eq!(calls.len(), 7, "two failures, and one success a run");
    let recovery = calls[2].at - calls[1].at;
    assert!(recovery >= Duration::from_millis(900), "no call while it is open: {recovery:?}");
    fleet.finish().await;
}

#[tokio::test]
async fn an_output_that_the_database_cannot_hold_is_a_failure_that_says_so() {
    let retry = json!({"max_attempts": 1});
    let definition =
        pipeline("null-byte", [with(shell("sh", "printf 'a\\000b'"), "retry", retry)], []);
    let run = run(definition, json!({})).await;
    // Whether the byte is replaced or refused: the run ends, and nothing hangs.
    assert!(run.is_over(), "{run:#?}");
}

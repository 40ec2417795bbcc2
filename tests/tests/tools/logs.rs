//! What nodes print.

use std::time::Duration;

use serde_json::{Value, json};
use tests::client::Client;
use tests::fleet::{FleetOptions, Role, SECRET, TestFleet};
use tests::proxy::{Mode, Proxy};
use tests::servers::Servers;
use tests::wait::{eventually, seen};

use crate::definitions::*;

/// The lines of an attempt, as `stream: text`.
fn lines(node: &Value, attempt: usize) -> Vec<String> {
    let lines = node["attempts"][attempt - 1]["logs"].as_array();
    let lines = lines.unwrap_or_else(|| panic!("no logs of attempt {attempt} in {node:#}"));
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    lines.iter().map(|line| format!("{}: {}", text(&line["stream"]), text(&line["text"]))).collect()
}

/// Waits until an attempt of a node that runs shows a line.
async fn shows(client: &Client, run: &str, node: &str, attempt: usize, line: &str) {
    eventually(Duration::from_secs(30), &format!("the line {line:?}"), async || {
        let node = client.node(run, node).await;
        let shown = node["attempts"].as_array().is_some_and(|all| all.len() >= attempt);
        seen(shown && lines(&node, attempt).iter().any(|shown| shown == line), node)
    })
    .await;
}

/// A program that says `first`, waits for a file, and says `second`.
fn waiting_for(file: &std::path::Path) -> String {
    let file = file.display();
    format!("echo first; while [ ! -e {file} ]; do sleep 0.05; done; echo second")
}

async fn stored(fleet: &TestFleet) -> i64 {
    fleet.database().count("select count(*) from node_logs").await
}

#[tokio::test]
async fn each_attempt_has_its_own_lines() {
    let fleet = TestFleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    let script = "echo try $GATHERING_ATTEMPT; echo oh >&2; sleep 0.1; printf 'no end'; exit $((2 - GATHERING_ATTEMPT))";
    let node = with(shell("a", script), "retry", quick_retry(3));
    let definition = pipeline("p", [node, echo("silent", json!({}))], [edge("a", "silent")]);
    let run = client.run_pipeline(definition, json!({})).await.expect("completed");

    let node = client.node(&run.id, "a").await;
    for attempt in [1, 2] {
        let mut lines = lines(&node, attempt);
        lines[..2].sort();
        let try_n = format!("stdout: try {attempt}");
        assert_eq!(lines, ["stderr: oh", try_n.as_str(), "stdout: no end"]);
    }
    let first = &node["attempts"][0]["logs"][0];
    assert_eq!(first["seq"], 1);
    assert!(first["at"].as_str() >= node["attempts"][0]["started_at"].as_str(), "{node:#}");
    assert_eq!(client.node(&run.id, "silent").await["attempts"][0]["logs"], json!([]));
    let only = client.get(&format!("/v1/runs/{}/nodes/a?attempt=1", run.id)).await.expect(200);
    assert_eq!(only["attempts"].as_array().map(Vec::len), Some(1));
    client.get(&format!("/v1/runs/{}/nodes/a?attempt=9", run.id)).await.problem(404);
    client.get(&format!("/v1/runs/{}/nodes/a?attempt=x", run.id)).await.problem(422);
    assert_eq!(stored(&fleet).await, 6, "what prints nothing writes nothing");
    fleet.finish().await;
}

#[tokio::test]
async fn lines_show_while_the_node_runs() {
    let fleet = TestFleet::start(FleetOptions::default()).await;
    let (client, file) = (fleet.client(), fleet.folder().join("go"));
    client.create_pipeline(&pipeline("p", [shell("a", &waiting_for(&file))], [])).await;
    let id = client.submit("p", json!({})).await;
    shows(&client, &id, "a", 1, "stdout: first").await;
    assert_eq!(client.run(&id).await.node("a").state, "running");

    let mut events = client.events(&id, None).await;
    let mut told = Vec::new();
    while told.last().is_none_or(|event: &tests::events::Event| event.name != "node.log") {
        told.push(events.next().await.expect("the stream goes on"));
    }
    assert_eq!(told.last().expect("an event").data["lines"][0]["text"], "first");
    std::fs::write(&file, "").expect("the test's folder takes a file");
    told.extend(events.rest().await);
    let names: Vec<_> = told.iter().map(|event| event.name.as_str()).collect();
    let [.., "node.log", "node.completed", "run.completed"] = names[..] else {
        panic!("the last lines come before the end: {told:#?}");
    };
    let texts: Vec<_> = told
        .iter()
        .filter_map(|event| event.data["lines"].as_array())
        .flatten()
        .map(|line| (line["seq"].as_i64(), line["stream"].as_str(), line["text"].as_str()))
        .collect();
    let stdout = Some("stdout");
    assert_eq!(texts, [(Some(1), stdout, Some("first")), (Some(2), stdout, Some("second"))]);
    // From the beginning, it is told again; after the end, nothing is.
    let again = client.events(&id, None).await.rest().await;
    assert_eq!(again.iter().filter(|event| event.name == "node.log").count(), 1, "{again:#?}");
    let last = &told.last().expect("an event").id;
    assert!(client.events(&id, Some(last)).await.rest().await.is_empty());
    fleet.finish().await;
}

/// The worker cannot send hints; the stream finds the lines in their rows.
#[tokio::test]
async fn a_lost_hint_loses_no_line() {
    let servers = Servers::shared().await;
    let proxy = Proxy::before(&servers.amqp_url).await;
    let options = FleetOptions::default().with_broker_via(Role::Worker, &proxy, &servers);
    let fleet = TestFleet::start(options).await;
    let (client, file) = (fleet.client(), fleet.folder().join("go"));
    let script = waiting_for(&file) + "; while [ -e $F ]; do sleep 0.05; done";
    let mut node = shell("a", &script);
    node["config"]["env"] = json!({"F": file.display().to_string()});
    client.create_pipeline(&pipeline("p", [node], [])).await;
    let id = client.submit("p", json!({})).await;
    let mut events = client.events(&id, None).await;
    let mut line = async |text: &str| loop {
        let event = events.next().await.expect("the stream goes on");
        if event.data["lines"].as_array().is_some_and(|all| all.iter().any(|l| l["text"] == text)) {
            return;
        }
    };
    line("first").await;
    proxy.set(Mode::Refuse);
    std::fs::write(&file, "").expect("the test's folder takes a file");
    line("second").await;
    assert_eq!(client.run(&id).await.node("a").state, "running");
    std::fs::remove_file(&file).expect("the file is there");
    proxy.set(Mode::Forward);
    client.wait(&id).await.expect("completed");
    fleet.ready().await;
    fleet.finish().await;
}

#[tokio::test]
async fn head_and_tail_are_kept_within_the_limit() {
    let options = FleetOptions::default().with(Role::Worker, "GATHERING_LOG_LIMIT", "8KiB");
    let fleet = TestFleet::start(options).await;
    let client = fleet.client();
    // Slowly enough to be stored in several pieces.
    let script = "for part in 1 2 3; do seq 1 40000; sleep 1.2; done; echo the end";
    let definition = pipeline("p", [shell("a", script)], []);
    let run = client.run_pipeline(definition, json!({})).await.expect("completed");
    let node = client.node(&run.id, "a").await;
    let lines = lines(&node, 1);
    assert_eq!(lines[0], "stdout: 1");
    assert_eq!(lines[lines.len() - 2..], ["stdout: 40000", "stdout: the end"]);
    let cut: Vec<_> = lines.iter().filter(|line| line.starts_with("cut: ")).collect();
    let left_out = 120_001 - (lines.len() as i64 - 1);
    assert!(
        matches!(cut[..], [cut] if cut.starts_with(&format!("cut: {left_out} lines ("))),
        "{cut:?}, {left_out}"
    );
    assert!((100..300).contains(&lines.len()), "{}", lines.len());
    fleet.finish().await;
}

#[tokio::test]
async fn r14_no_secret_shows_however_it_is_cut() {
    let fleet = TestFleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    let value = "open-sesame-and-close-again";
    client.post("/v1/secrets", &json!({"name": "S", "value": value})).await.expect(201);
    // In two pieces, with time to store the first; across the end of a line that is too long; in base64.
    let script = r#"
        printf 'cut: %.9s' "$S"; sleep 1.5; printf '%s\n' "${S#open-sesa}"
        printf '%08185d' 0; printf '%s\n' "$S"
        printf '%s' "$S" | base64 >&2
        echo "$S"; exit 1"#;
    let mut node = with(shell("a", script), "retry", quick_retry(1));
    node["config"]["env"] = json!({"S": "{{ secrets.S }}"});
    let run = client.run_pipeline(pipeline("p", [node], []), json!({})).await;
    assert_eq!(run.state, "failed");
    let node = client.node(&run.id, "a").await;
    let lines = lines(&node, 1);
    assert!(lines.contains(&"stdout: cut: ***".to_owned()), "{lines:?}");
    assert!(lines.contains(&"stderr: ***".to_owned()), "{lines:?}");
    let all: String = fleet.logs() + &node.to_string() + &lines.concat();
    assert!(!all.contains("sesame") && !all.contains("close-again"));
    let leaks = "select count(*) from node_logs where text ~ 'open-|sesa|close|again'";
    assert_eq!(fleet.database().count(leaks).await, 0);
    fleet.finish().await;
}

#[tokio::test]
async fn what_postgres_cannot_hold_is_replaced() {
    let fleet = TestFleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    let node = shell("a", r"printf 'nul \000, no utf-8 \377, windows\r\n'");
    let run = client.run_pipeline(pipeline("p", [node], []), json!({})).await;
    // The output has the null character, too; what was printed is kept all the same.
    let printed = lines(&client.node(&run.id, "a").await, 1);
    assert_eq!(printed, ["stdout: nul \u{fffd}, no utf-8 \u{fffd}, windows"]);
    fleet.finish().await;
}

#[tokio::test]
async fn a_killed_worker_leaves_what_it_has_stored() {
    let mut fleet = TestFleet::start(FleetOptions { workers: 1, ..Default::default() }).await;
    let (client, file) = (fleet.client(), fleet.folder().join("go"));
    client.create_pipeline(&pipeline("p", [shell("a", &waiting_for(&file))], [])).await;
    let id = client.submit("p", json!({})).await;
    shows(&client, &id, "a", 1, "stdout: first").await;
    fleet.kill(Role::Worker, 0);
    fleet.add(Role::Worker, &[]);
    shows(&client, &id, "a", 2, "stdout: first").await;
    std::fs::write(&file, "").expect("the test's folder takes a file");
    client.wait(&id).await.expect("completed");
    let node = client.node(&id, "a").await;
    assert_eq!(lines(&node, 1), ["stdout: first"]);
    assert_eq!(lines(&node, 2), ["stdout: first", "stdout: second"]);
    fleet.finish().await;
}

/// The first worker is frozen until it has been replaced; what its command prints then is nobody's.
#[tokio::test]
async fn an_attempt_that_was_fenced_off_writes_nothing_more() {
    let mut fleet = TestFleet::start(FleetOptions::default()).await;
    let (client, file) = (fleet.client(), fleet.folder().join("go"));
    client.create_pipeline(&pipeline("p", [shell("a", &waiting_for(&file))], [])).await;
    let id = client.submit("p", json!({})).await;
    shows(&client, &id, "a", 1, "stdout: first").await;
    fleet.process(Role::Worker, 0).freeze();
    fleet.add(Role::Worker, &[]);
    shows(&client, &id, "a", 2, "stdout: first").await;
    std::fs::write(&file, "").expect("the test's folder takes a file");
    client.wait(&id).await.expect("completed");
    fleet.process(Role::Worker, 0).thaw();
    // Its outcome comes after its last lines.
    eventually(Duration::from_secs(30), "the first worker to be refused", async || {
        let metrics = fleet.metrics(Role::Worker, 0).await;
        let stale = metrics.lines().find(|line| line.starts_with("gathering_records_stale_total"));
        seen(stale.is_some(), metrics.len())
    })
    .await;
    let node = client.node(&id, "a").await;
    assert_eq!(lines(&node, 1), ["stdout: first"]);
    assert_eq!(lines(&node, 2), ["stdout: first", "stdout: second"]);
    fleet.ready().await;
    fleet.finish().await;
}

#[tokio::test]
async fn lines_are_pruned_with_their_run() {
    let mut fleet = TestFleet::start(FleetOptions { schedulers: 0, ..Default::default() }).await;
    let client = Client::new(fleet.url(Role::Api, 0), SECRET);
    let id = client.action("run_command", json!({"argv": ["seq", "3000"]})).await;
    client.wait(&id).await.expect("completed");
    assert_eq!(stored(&fleet).await, 3000);
    // A leader prunes as it begins, then once a minute.
    let old = "select count(*) from runs where finished_at < clock_timestamp() - interval '1.1 s'";
    eventually(Duration::from_secs(10), "the run to be old", async || {
        let count = fleet.database().count(old).await;
        seen(count == 1, count)
    })
    .await;
    fleet.add(Role::Scheduler, &[("GATHERING_RETENTION", "1s")]);
    eventually(Duration::from_secs(30), "the run to be pruned", async || {
        let (runs, lines) =
            (fleet.database().count("select count(*) from runs").await, stored(&fleet).await);
        seen((runs, lines) == (0, 0), (runs, lines))
    })
    .await;
    fleet.finish().await;
}

//! Tools that programs in any language execute.

use std::time::Duration;

use serde_json::{Value, json};
use tests::client::Client;
use tests::fleet::{FleetOptions, Role, TestFleet};
use tests::remote_tool::Program;
use tests::wait::{eventually, seen};

use crate::definitions::*;

const TOOL: &str = "count-words";

fn schema() -> Value {
    json!({"type": "object", "required": ["text"], "additionalProperties": false,
        "properties": {"text": {"type": "string"}, "unlucky": {"type": "boolean"}}})
}

/// Registers the tool; `timeout` is the longest that a call may take.
pub(crate) async fn register(client: &Client, timeout: &str) -> Value {
    let body = json!({"name": TOOL, "description": "Counts words.", "schema": schema(), "timeout": timeout});
    client.post("/v1/tools", &body).await.expect(201)
}

fn count(id: &str, text: &str) -> Value {
    with(action(id, TOOL, json!({"text": text})), "retry", quick_retry(3))
}

async fn program(fleet: &TestFleet) -> Program {
    fleet.broker().program(TOOL).await
}

async fn fleet_with(options: FleetOptions, timeout: &str) -> (TestFleet, Client, Program) {
    let fleet = TestFleet::start(options).await;
    let client = fleet.client();
    register(&client, timeout).await;
    let program = program(&fleet).await;
    (fleet, client, program)
}

#[tokio::test]
async fn a_program_is_called_and_its_answer_is_the_output() {
    let options = FleetOptions { concurrency: 1, ..FleetOptions::default() };
    let (fleet, client, mut program) = fleet_with(options, "1m").await;
    let definition = pipeline(
        "p",
        [
            echo("a", json!({"text": "{{ input.text }}"})),
            count("count", "{{ nodes.a.output.text }}"),
            echo("b", json!({"n": "{{ nodes.count.output.words }}"})),
        ],
        [edge("a", "count"), edge("count", "b")],
    );
    client.create_pipeline(&definition).await;
    let run = client.submit("p", json!({"text": "to be"})).await;
    let call = program.take().await;

    let id = format!("{run}/count/1");
    assert_eq!(call.id(), id);
    let text = |value: &Option<lapin::types::ShortString>| {
        value.as_ref().map(ToString::to_string).unwrap_or_default()
    };
    let properties = &call.properties;
    assert_eq!(text(properties.kind()), "tool.call");
    assert_eq!(text(properties.message_id()), id);
    assert_eq!(text(properties.reply_to()), fleet.broker().replies());
    assert_eq!(text(properties.expiration()), "60000");
    let mut body = call.body.clone();
    let job = body.as_object_mut().expect("an object").remove("job");
    assert!(job.is_some_and(|job| job.is_string()));
    assert_eq!(
        body,
        json!({"type": "tool.call", "tool": TOOL, "run": run, "node": "count", "attempt": 1,
            "idempotency_key": format!("{run}/count"), "timeout_ms": 60_000, "reason": "called",
            "pipeline": "p", "version": 1, "input": {"text": "to be"}})
    );

    // Waiting holds no slot: the worker has only one.
    client.wait_for_node(&run, "count", "waiting").await;
    let other = client.action("echo", json!({})).await;
    client.wait(&other).await.expect("completed");
    call.answer(json!({"words": 2})).await;
    let run = client.wait(&run).await.expect("completed");
    assert_eq!(run.output, json!({"n": 2}));
    let shown = client.list("/v1/tools").await;
    let tool = shown.iter().find(|tool| tool["name"] == TOOL).expect("it is listed");
    assert_eq!((&tool["enabled"], &tool["schema"]), (&json!(true), &schema()));
    assert_eq!(tool["remote"]["queue"], fleet.broker().tool(TOOL));
    fleet.finish().await;
}

#[tokio::test]
async fn a_single_action_can_be_a_remote_tools() {
    let (fleet, client, mut program) = fleet_with(FleetOptions::default(), "1m").await;
    let run = client.action(TOOL, json!({"text": "a"})).await;
    let call = program.take().await;
    assert_eq!((&call.body["node"], &call.body["pipeline"]), (&json!(TOOL), &Value::Null));
    call.answer(json!(1)).await;
    assert_eq!(client.wait(&run).await.expect("completed").output, 1);
    fleet.finish().await;
}

#[tokio::test]
async fn refusals_are_typed_by_consequence() {
    let (fleet, client, mut program) = fleet_with(FleetOptions::default(), "1m").await;
    client.create_pipeline(&pipeline("p", [count("count", "a b")], [])).await;
    let run = client.submit("p", json!({})).await;
    let first = program.take().await;
    let fence = first.body["attempt"].as_i64().expect("an attempt");
    first.refuse(json!({"kind": "retryable", "message": "busy", "retry_after": "50ms"})).await;
    let second = program.take().await;
    assert!(second.body["attempt"].as_i64() > Some(fence), "{}", second.body);
    assert_eq!(second.body["idempotency_key"], format!("{run}/count"));
    second.answer(json!(2)).await;
    let ended = client.wait(&run).await.expect("completed");
    assert_eq!(ended.output, 2);
    let node = client.node(&run, "count").await;
    assert_eq!(node["attempts"][0]["error"]["message"], "busy");
    assert_eq!(node["attempts"][0]["error"]["kind"], "retryable");

    let run = client.submit("p", json!({})).await;
    program.take().await.refuse(json!({"kind": "permanent", "message": "no words"})).await;
    let ended = client.wait(&run).await.expect("failed");
    assert_eq!(
        (&ended.error["kind"], &ended.error["message"]),
        (&json!("permanent"), &json!("no words"))
    );
    let letters = client.list("/v1/dead-letters?action=count-words").await;
    assert_eq!(letters.len(), 1, "{letters:#?}");
    fleet.finish().await;
}

#[tokio::test]
async fn r4_a_late_reply_is_fenced_off() {
    let (fleet, client, mut program) = fleet_with(FleetOptions::default(), "3s").await;
    client.create_pipeline(&pipeline("p", [count("count", "a")], [])).await;
    let run = client.submit("p", json!({})).await;
    let late = program.take().await;
    let second = program.take().await;
    assert_ne!(late.id(), second.id());
    late.reply(&json!({"output": "late"})).await;
    // Replies are taken in order: when the second counts, the first was seen.
    second.reply(&json!({"output": "in time"})).await;
    second.reply(&json!({"output": "again"})).await;
    let ended = client.wait(&run).await.expect("completed");
    assert_eq!(ended.output, "in time");
    let node = client.node(&run, "count").await;
    assert_eq!(node["attempts"][0]["error"]["kind"], "timed_out", "{node:#}");
    late.reply(&json!({"output": "much later"})).await;
    late.ack().await;
    second.ack().await;
    empty(&fleet).await;
    assert_eq!(client.run(&run).await.output, "in time");
    assert_eq!(fleet.broker().ready(&fleet.broker().dead()).await, Some(0));
    fleet.finish().await;
}

/// Waits until all replies are taken.
async fn empty(fleet: &TestFleet) {
    let queue = fleet.broker().replies();
    eventually(Duration::from_secs(10), "the replies to be taken", async || {
        let left = fleet.broker().ready(&queue).await;
        seen(left == Some(0), format!("{left:?}"))
    })
    .await;
}

#[tokio::test]
async fn a_program_that_dies_loses_nothing() {
    let (fleet, client, mut first) = fleet_with(FleetOptions::default(), "1m").await;
    let run = client.action(TOOL, json!({"text": "a"})).await;
    let call = first.take().await;
    first.die().await;
    let mut second = program(&fleet).await;
    let again = second.take().await;
    assert!(again.redelivered);
    assert_eq!(again.id(), call.id(), "it is the same call");
    again.answer(json!("by the second")).await;
    assert_eq!(client.wait(&run).await.expect("completed").output, "by the second");
    fleet.finish().await;
}

#[tokio::test]
async fn r1_all_workers_may_die_while_a_program_works() {
    let options = FleetOptions { workers: 2, ..FleetOptions::default() };
    let (mut fleet, client, mut program) = fleet_with(options, "1m").await;
    client
        .create_pipeline(&pipeline(
            "p",
            [count("count", "a"), echo("b", json!({}))],
            [edge("count", "b")],
        ))
        .await;
    let run = client.submit("p", json!({})).await;
    let call = program.take().await;
    fleet.kill(Role::Worker, 0);
    fleet.kill(Role::Worker, 1);
    call.answer(json!(1)).await;
    fleet.add(Role::Worker, &[]);
    let ended = client.wait(&run).await.expect("completed");
    let attempts = client.node(&run, "count").await["attempts"].clone();
    assert_eq!(ended.node("count").output, json!(1), "{attempts:#}");
    fleet.finish().await;
}

#[tokio::test]
async fn a_purged_queue_costs_a_timeout_and_no_run() {
    let fleet = TestFleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    register(&client, "3s").await;
    client.create_pipeline(&pipeline("p", [count("count", "a")], [])).await;
    let run = client.submit("p", json!({})).await;
    let queue = fleet.broker().tool(TOOL);
    eventually(Duration::from_secs(10), "the call to be in its queue", async || {
        let ready = fleet.broker().ready(&queue).await;
        seen(ready == Some(1), format!("{ready:?}"))
    })
    .await;
    assert_eq!(fleet.broker().purge(&queue).await, 1);
    let mut program = program(&fleet).await;
    program.take().await.answer(json!(1)).await;
    client.wait(&run).await.expect("completed");
    let node = client.node(&run, "count").await;
    assert_eq!(node["attempts"][0]["error"]["kind"], "timed_out", "{node:#}");
    fleet.finish().await;
}

#[tokio::test]
async fn a_call_survives_a_broker_that_has_lost_its_queue() {
    let fleet = TestFleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    register(&client, "1m").await;
    fleet.broker().delete(&fleet.broker().tool(TOOL)).await;
    let run = client.action(TOOL, json!({"text": "a"})).await;
    let queue = fleet.broker().tool(TOOL);
    eventually(Duration::from_secs(30), "the queue to be made anew", async || {
        let ready = fleet.broker().ready(&queue).await;
        seen(ready == Some(1), format!("{ready:?}"))
    })
    .await;
    program(&fleet).await.take().await.answer(json!(1)).await;
    client.wait(&run).await.expect("completed");
    fleet.finish().await;
}

#[tokio::test]
async fn what_a_tool_does_not_take_is_refused_before_it_is_sent() {
    let fleet = TestFleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    register(&client, "1m").await;
    let refused = async |node: Value, at: &str, says: &str| {
        let problem = client.post("/v1/pipelines", &pipeline("p", [node], [])).await.problem(422);
        assert_eq!(problem["errors"][0]["pointer"], at, "{problem:#}");
        let detail = problem["errors"][0]["detail"].as_str().unwrap_or_default();
        assert!(detail.contains(says), "{detail}");
    };
    refused(action("a", TOOL, json!({})), "/nodes/0/config/text", "missing").await;
    refused(action("a", TOOL, json!({"text": 1})), "/nodes/0/config/text", "string").await;
    let secret = action("a", TOOL, json!({"text": "x {{ secrets.TOKEN }}"}));
    refused(secret, "/nodes/0/config/text", "broker").await;
    let body = json!({"action": TOOL, "input": {"text": "{{ secrets.TOKEN }}"}});
    let problem = client.post("/v1/actions", &body).await.problem(422);
    assert_eq!(problem["errors"][0]["pointer"], "/input/text", "{problem:#}");

    // What templates come to is known only when they are rendered.
    let definition = pipeline("p", [action("a", TOOL, json!({"text": "{{ input.text }}"}))], []);
    client.create_pipeline(&definition).await;
    let failed = async |text: Value, says: &str| {
        let run = client.submit("p", json!({"text": text})).await;
        let run = client.wait(&run).await.expect("failed");
        assert_eq!(run.error["kind"], "permanent");
        assert!(
            run.error["message"].as_str().is_some_and(|text| text.contains(says)),
            "{}",
            run.error
        );
    };
    failed(json!([1]), "does not fit the tool").await;
    failed(json!("x".repeat(300 * 1024)), "262144 are the most").await;
    client.delete("/v1/tools/count-words").await.expect_status(204);
    client.delete("/v1/tools/count-words").await.problem(404);
    failed(json!("a"), "count-words").await;
    client.post("/v1/actions", &json!({"action": TOOL, "input": {"text": "a"}})).await.problem(422);
    assert_eq!(fleet.broker().ready(&fleet.broker().tool(TOOL)).await, Some(0), "nothing was sent");
    fleet.finish().await;
}

#[tokio::test]
async fn a_tool_is_registered_by_name_and_seen_by_every_api() {
    let options = FleetOptions { apis: 2, ..FleetOptions::default() };
    let fleet = TestFleet::start(options).await;
    let client = fleet.client();
    for name in ["echo", "call_api", "execute_pipeline"] {
        let problem = client.post("/v1/tools", &json!({"name": name})).await.problem(409);
        assert_eq!(problem["type"], "urn:gathering:problem:name-taken");
    }
    for (body, at) in [
        (json!({}), "/name"),
        (json!({"name": "a b"}), "/name"),
        (json!({"name": "a", "schema": {"type": 7}}), "/schema/type"),
    ] {
        let problem = client.post("/v1/tools", &body).await.problem(422);
        assert_eq!(problem["errors"][0]["pointer"], at, "{problem:#}");
    }
    let registered = register(&client, "1m").await;
    assert_eq!(registered["queue"], fleet.broker().tool(TOOL));
    assert_eq!(fleet.broker().ready(&fleet.broker().tool(TOOL)).await, Some(0), "it has its queue");
    let other = fleet.client_of(1);
    let definition = pipeline("p", [action("a", TOOL, json!({"number": 1}))], []);
    let check = async |errors: usize| {
        eventually(Duration::from_secs(5), "the other api to know it", async || {
            let verdict = other.post("/v1/pipelines/validate", &definition).await.expect(200);
            let found = verdict["errors"].as_array().map_or(0, Vec::len);
            seen(found == errors, verdict)
        })
        .await;
    };
    // `text` is missing, and `number` is unknown.
    check(2).await;
    let body = json!({"name": TOOL, "schema": {"properties": {"number": {"type": "integer"}}}});
    client.post("/v1/tools", &body).await.expect(200);
    check(0).await;
    let events = eventually(Duration::from_secs(5), "the events", async || {
        let found = client.list("/v1/audit-events?kind=tool_registered").await;
        seen(found.len() == 2, found)
    })
    .await;
    assert_eq!(events[0]["subject"], TOOL);
    fleet.finish().await;
}

#[tokio::test]
async fn r3_replies_that_cannot_be_read_go_to_the_dead_queue() {
    let (fleet, client, mut program) = fleet_with(FleetOptions::default(), "1m").await;
    let run = client.action(TOOL, json!({"text": "a"})).await;
    let call = program.take().await;
    let garbage: [(&str, &[u8]); 4] = [
        (&call.id(), b"no JSON"),
        (&call.id(), br#"{"result": 1}"#),
        (&call.id(), br#"{"output": "\u0000"}"#),
        ("somebody", br#"{"output": 1}"#),
    ];
    for (id, body) in garbage {
        call.reply_as(id, body).await;
    }
    let dead = fleet.broker().dead();
    eventually(Duration::from_secs(10), "the garbage in the dead queue", async || {
        let ready = fleet.broker().ready(&dead).await;
        seen(ready == Some(4), format!("{ready:?}"))
    })
    .await;
    for message in fleet.broker().take(&dead).await {
        assert!(message.header("reason").is_some_and(|reason| reason.len() > 10), "{message:?}");
        assert_eq!(message.header("from_queue"), Some(fleet.broker().replies()));
    }
    call.answer(json!(1)).await;
    client.wait(&run).await.expect("completed");
    fleet.finish().await;
}

#[tokio::test]
async fn a_cancelled_run_hears_no_reply() {
    let (fleet, client, mut program) = fleet_with(FleetOptions::default(), "1m").await;
    let run = client.action(TOOL, json!({"text": "a"})).await;
    let call = program.take().await;
    client.cancel(&run).await;
    let ended = client.wait(&run).await.expect("cancelled");
    call.answer(json!(1)).await;
    empty(&fleet).await;
    let now = client.run(&run).await;
    assert_eq!((now.state, now.finished_at), (ended.state, ended.finished_at));
    assert_eq!(fleet.broker().ready(&fleet.broker().dead()).await, Some(0));
    fleet.finish().await;
}

//! Definitions: create, read, replace, pause, delete, validate.

use serde_json::{Value, json};
use tests::fleet::{FleetOptions, TestFleet};

use crate::definitions::*;

async fn api_only() -> TestFleet {
    TestFleet::start(FleetOptions { workers: 0, schedulers: 0, ..FleetOptions::default() }).await
}

fn pointers(problem: &Value) -> Vec<&str> {
    problem["errors"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default()
        .iter()
        .filter_map(|e| e["pointer"].as_str())
        .collect()
}

#[tokio::test]
async fn a_pipeline_is_created_read_replaced_and_deleted() {
    let fleet = api_only().await;
    let client = fleet.client();
    let created = client.create_pipeline(&chain("p", 2)).await;
    assert_eq!((&created["name"], &created["version"]), (&json!("p"), &json!(1)));
    client.post("/v1/pipelines", &chain("p", 2)).await.problem(409);

    let replaced = client.put("/v1/pipelines/p", &chain("p", 3)).await.expect(200);
    assert_eq!(replaced["version"], 2);
    let count = |body: &Value| {
        body["definition"]["nodes"].as_array().or(body["nodes"].as_array()).map(Vec::len)
    };
    assert_eq!(count(&client.get("/v1/pipelines/p").await.expect(200)), Some(3));
    assert_eq!(count(&client.get("/v1/pipelines/p?version=1").await.expect(200)), Some(2));
    client.get("/v1/pipelines/p?version=3").await.problem(404);

    let id = client.submit("p", json!({})).await;
    client.delete("/v1/pipelines/p").await.expect(204);
    client.get("/v1/pipelines/p").await.problem(404);
    client.post("/v1/pipelines/p/runs", &json!({"input": {}})).await.problem(404);
    assert_eq!(client.run(&id).await.pipeline.as_deref(), Some("p"), "its runs stay");
    assert_eq!(
        client.create_pipeline(&chain("p", 1)).await["version"],
        1,
        "the name is free again"
    );
}

#[tokio::test]
async fn pipelines_are_listed_by_name() {
    let fleet = api_only().await;
    let client = fleet.client();
    for name in ["b", "a", "c", "d", "e"] {
        client.create_pipeline(&chain(name, 1)).await;
    }
    let pages = client.list("/v1/pipelines?limit=2").await;
    let mut names: Vec<_> = pages.iter().filter_map(|item| item["name"].as_str()).collect();
    assert_eq!(names.len(), 5, "each once");
    names.sort_unstable();
    assert_eq!(names, ["a", "b", "c", "d", "e"]);
}

#[tokio::test]
async fn a_paused_pipeline_takes_no_runs() {
    let fleet = TestFleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    client.create_pipeline(&pipeline("p", [delay("a", "500ms")], [])).await;
    let before = client.submit("p", json!({})).await;
    client.post("/v1/pipelines/p/pause", &json!({})).await.expect(200);
    client.post("/v1/pipelines/p/runs", &json!({"input": {}})).await.problem(409);
    client.wait(&before).await.expect("completed");
    client.post("/v1/pipelines/p/resume", &json!({})).await.expect(200);
    let after = client.submit("p", json!({})).await;
    client.wait(&after).await.expect("completed");
    fleet.finish().await;
}

/// An api takes what it knows of a pipeline for a guess: what another does to it counts at once.
#[tokio::test]
async fn what_another_api_does_to_a_pipeline_counts_for_the_next_run() {
    let options = FleetOptions { apis: 2, ..FleetOptions::default() };
    let fleet = TestFleet::start(options).await;
    let (here, there) = (fleet.client_of(0), fleet.client_of(1));
    let submitted =
        async |input: Value| here.post("/v1/pipelines/p/runs", &json!({"input": input})).await;
    here.create_pipeline(&pipeline("p", [echo("a", json!({}))], [])).await;
    for version in [1, 1] {
        assert_eq!(submitted(json!({})).await.expect(202)["version"], version);
    }

    let mut strict = pipeline("p", [echo("a", json!({}))], []);
    strict["input_schema"] = json!({"required": ["day"]});
    there.put("/v1/pipelines/p", &strict).await.expect(200);
    submitted(json!({})).await.problem(422);
    for version in [2, 2] {
        assert_eq!(submitted(json!({"day": 1})).await.expect(202)["version"], version);
    }
    submitted(json!({})).await.problem(422);

    there.post("/v1/pipelines/p/pause", &json!({})).await.expect(200);
    submitted(json!({"day": 1})).await.problem(409);
    there.post("/v1/pipelines/p/resume", &json!({})).await.expect(200);
    submitted(json!({"day": 1})).await.expect(202);

    there.delete("/v1/pipelines/p").await.expect_status(204);
    submitted(json!({"day": 1})).await.problem(404);
    there.create_pipeline(&pipeline("p", [echo("a", json!({}))], [])).await;
    for version in [1, 1] {
        assert_eq!(submitted(json!({})).await.expect(202)["version"], version);
    }
    let runs = "select count(*) from runs r join pipelines p on p.id = r.pipeline_id where p.deleted_at is null";
    assert_eq!(fleet.database().count(runs).await, 2, "of the new pipeline");

    // Of a batch that has one run for an outdated version, each gets its own answer.
    there.put("/v1/pipelines/p", &strict).await.expect(200);
    let items = json!({"items": [{"pipeline": "p"}, {"pipeline": "p", "input": {"day": 1}}, {"action": "echo"}]});
    let answered = here.post("/v1/runs:batch", &items).await.expect(200);
    let statuses: Vec<_> = (0..3).map(|ix| answered["items"][ix]["status"].as_i64()).collect();
    assert_eq!(statuses, [Some(422), Some(202), Some(202)]);
    fleet.finish().await;
}

#[tokio::test]
async fn a_run_keeps_the_version_it_started_with() {
    let fleet = TestFleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    client
        .create_pipeline(&pipeline(
            "p",
            [delay("a", "700ms"), echo("b", json!({"version": 1}))],
            [edge("a", "b")],
        ))
        .await;
    let id = client.submit("p", json!({})).await;
    client
        .put("/v1/pipelines/p", &pipeline("p", [echo("b", json!({"version": 2}))], []))
        .await
        .expect(200);
    assert_eq!(client.wait(&id).await.expect("completed").output, json!({"version": 1}));
    let id = client.submit("p", json!({})).await;
    assert_eq!(client.wait(&id).await.expect("completed").output, json!({"version": 2}));
    fleet.finish().await;
}

#[tokio::test]
async fn yaml_is_as_good_as_json() {
    let fleet = api_only().await;
    let yaml = "name: from-yaml\nnodes:\n  - {id: a, type: action, config: {action: echo, n: 1}}\n  - id: b\n    type: delay\n    config: {duration: 1s}\nedges:\n  - {from: a, to: b}\n";
    for content_type in ["application/yaml", "application/x-yaml", "text/yaml"] {
        let valid =
            fleet.client().post_raw("/v1/pipelines/validate", content_type, yaml).await.expect(200);
        assert_eq!(
            (&valid["valid"], &valid["order"]),
            (&json!(true), &json!(["a", "b"])),
            "{content_type}"
        );
    }
    fleet.client().post_raw("/v1/pipelines", "application/yaml", yaml).await.expect(201);
    let bad = fleet
        .client()
        .post_raw("/v1/pipelines", "application/yaml", "name: [unclosed")
        .await
        .problem(400);
    assert!(bad["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{bad}");
}

#[tokio::test]
async fn definitions_of_the_original_are_accepted_with_warnings() {
    let fleet = api_only().await;
    let definition = json!({
        "name": "legacy",
        "nodes": [
            {"id": "t", "type": "trigger", "name": "Start", "config": {"trigger_type": "manual"}, "position": {"x": 0, "y": 0}, "next": ["a"]},
            {"id": "a", "type": "action", "name": "A", "config": {"action": "echo"}, "position": {"x": 1, "y": 0}, "next": []},
        ],
        "edges": [{"id": "e1", "from": "t", "to": "a", "condition": null}],
    });
    let valid = fleet.client().post("/v1/pipelines/validate", &definition).await.expect(200);
    assert_eq!(valid["valid"], true, "{valid}");
    let warned: Vec<_> = valid["warnings"]
        .as_array()
        .expect("warnings")
        .iter()
        .filter_map(|w| w["pointer"].as_str())
        .collect();
    assert!(warned.contains(&"/nodes/0/next"), "{valid}");
    fleet.client().create_pipeline(&definition).await;
}

#[tokio::test]
async fn validation_finds_all_errors_at_once_and_stores_nothing() {
    let fleet = api_only().await;
    let client = fleet.client();
    let definition = json!({
        "name": "wrong",
        "colour": "red",
        "nodes": [
            {"id": "a", "type": "action", "config": {"action": "echo"}},
            {"id": "a", "type": "action", "config": {"action": "echo"}},
            {"id": "b", "type": "action", "config": {"action": "call_api"}},
            {"id": "c", "type": "condition", "config": {"expression": "1 +"}},
            {"id": "d", "type": "teleport"},
            {"id": "e", "type": "delay", "config": {"duration": "soon"}},
            {"id": "f", "type": "action", "config": {"action": "echo", "x": "{{ nodes.b.output }}"}},
        ],
        "edges": [{"from": "a", "to": "nowhere"}, {"from": "b", "to": "b"}],
    });
    let problem = client.post("/v1/pipelines", &definition).await.problem(422);
    for pointer in [
        "/colour",
        "/nodes/1/id",
        "/nodes/3/config/expression",
        "/nodes/4/type",
        "/nodes/5/config/duration",
        "/edges/0/to",
    ] {
        assert!(pointers(&problem).contains(&pointer), "no {pointer} in {problem:#}");
    }
    assert!(
        pointers(&problem).iter().any(|pointer| pointer.starts_with("/nodes/2/config")),
        "{problem:#}"
    );
    let answer = client.post("/v1/pipelines/validate", &definition).await.expect(200);
    assert_eq!(answer["valid"], false);
    assert_eq!(answer["errors"], problem["errors"]);
    client.get("/v1/pipelines/wrong").await.problem(404);
    assert_eq!(fleet.database().count("select count(*) from pipelines").await, 0);
}

#[tokio::test]
async fn each_mistake_is_pointed_at() {
    let fleet = api_only().await;
    let client = fleet.client();
    let a = || echo("a", json!({}));
    let b = || echo("b", json!({}));
    let c = || echo("c", json!({}));
    for (what, definition, pointer) in [
        ("no name", json!({"nodes": [a()], "edges": []}), "/name"),
        ("a bad name", pipeline("a b", [a()], []), "/name"),
        ("no nodes", json!({"name": "p", "edges": []}), "/nodes"),
        ("empty nodes", pipeline("p", [], []), "/nodes"),
        ("nodes of the wrong type", json!({"name": "p", "nodes": "all"}), "/nodes"),
        ("a bad id", pipeline("p", [echo("a/b", json!({}))], []), "/nodes/0/id"),
        ("a self-loop", pipeline("p", [a()], [edge("a", "a")]), "/edges/0"),
        (
            "a cycle",
            pipeline("p", [a(), b(), c()], [edge("a", "b"), edge("b", "c"), edge("c", "a")]),
            "/edges",
        ),
        ("an unknown source", pipeline("p", [a()], [edge("x", "a")]), "/edges/0/from"),
        (
            "an unknown when",
            pipeline("p", [a(), b()], [edge_when("a", "b", "maybe")]),
            "/edges/0/when",
        ),
        (
            "a bad edge condition",
            pipeline("p", [a(), b()], [edge_if("a", "b", "output ==")]),
            "/edges/0/condition",
        ),
        (
            "an unknown field of an edge",
            pipeline("p", [a(), b()], [with(edge("a", "b"), "colour", json!(1))]),
            "/edges/0/colour",
        ),
        (
            "an unknown field of a node",
            pipeline("p", [with(a(), "colour", json!(1))], []),
            "/nodes/0/colour",
        ),
        (
            "an unknown action",
            pipeline("p", [action("a", "fly", json!({}))], []),
            "/nodes/0/config/action",
        ),
        (
            "an agent",
            pipeline("p", [json!({"id": "a", "type": "agent", "config": {}})], []),
            "/nodes/0/type",
        ),
        (
            "a wrong retry",
            pipeline("p", [with(a(), "retry", json!({"max_attempts": 0}))], []),
            "/nodes/0/retry/max_attempts",
        ),
        (
            "a wrong timeout",
            pipeline("p", [with(a(), "timeout", json!("5 parsecs"))], []),
            "/nodes/0/timeout",
        ),
        ("a wrong lane", pipeline("p", [with(a(), "lane", json!("no/lane"))], []), "/nodes/0/lane"),
        (
            "an edge into a trigger",
            pipeline("p", [a(), json!({"id": "t", "type": "trigger"})], [edge("a", "t")]),
            "/edges/0",
        ),
        (
            "a node that is not upstream",
            pipeline("p", [a(), echo("b", json!({"x": "{{ nodes.a.output }}"}))], []),
            "/nodes/1/config/x",
        ),
        (
            "a delay beyond the run's time-out",
            with(pipeline("p", [delay("d", "2h")], []), "timeout", json!("1h")),
            "/nodes/0/config/duration",
        ),
        (
            "a delay without a time",
            pipeline("p", [json!({"id": "d", "type": "delay", "config": {}})], []),
            "/nodes/0/config",
        ),
        (
            "a wrong input schema",
            with(pipeline("p", [a()], []), "input_schema", json!({"type": "thing"})),
            "/input_schema",
        ),
    ] {
        let problem = client.post("/v1/pipelines", &definition).await.problem(422);
        let found = pointers(&problem);
        assert!(
            found.iter().any(|at| at.starts_with(pointer)),
            "{what}: no {pointer} in {problem:#}"
        );
    }
    assert_eq!(fleet.database().count("select count(*) from pipelines").await, 0);
}

#[tokio::test]
async fn a_cycle_is_shown_with_its_path() {
    let fleet = api_only().await;
    let nodes = ["a", "b", "c"].map(|id| echo(id, json!({})));
    let definition = pipeline("p", nodes, [edge("a", "b"), edge("b", "c"), edge("c", "a")]);
    let problem = fleet.client().post("/v1/pipelines", &definition).await.problem(422);
    let details = problem["errors"].to_string();
    assert!(["a", "b", "c"].iter().all(|id| details.contains(id)), "{details}");
}

#[tokio::test]
async fn input_is_checked_against_its_schema() {
    let fleet = api_only().await;
    let client = fleet.client();
    let schema =
        json!({"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}});
    client.create_pipeline(&with(chain("p", 1), "input_schema", schema)).await;
    client.submit("p", json!({"n": 1})).await;
    let problem =
        client.post("/v1/pipelines/p/runs", &json!({"input": {"n": "one"}})).await.problem(422);
    assert_eq!(pointers(&problem), ["/input/n"], "{problem:#}");
    let problem = client.post("/v1/pipelines/p/runs", &json!({"input": {}})).await.problem(422);
    assert!(pointers(&problem).iter().all(|pointer| pointer.starts_with("/input")), "{problem:#}");
    assert_eq!(fleet.database().count("select count(*) from runs").await, 1);
}

#[tokio::test]
async fn a_large_pipeline_is_accepted_and_one_beyond_the_limits_is_not() {
    let fleet = api_only().await;
    let client = fleet.client();
    client.create_pipeline(&chain("large", 10_000)).await;
    let answer = client.post("/v1/pipelines", &chain("larger", 20_001)).await;
    assert!([413, 422].contains(&answer.status), "{}", answer.status);
}

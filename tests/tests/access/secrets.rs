//! Values that nodes use, and nobody reads.

use serde_json::{Value, json};
use tests::fleet::{FleetOptions, Role, SECRETS_KEY, TestFleet};
use tests::http_target::{HttpTarget, Reply};

use super::{admin, apis, text};

const VALUE: &str = "s3same-öpen \"now\"";
/// Another key of 32 bytes.
const NEXT_KEY: &str = "YW5vdGhlciBrZXkgb2YgdGVzdHMsIDMyIGJ5dGVzISE=";

#[tokio::test]
async fn a_value_goes_in_and_never_comes_out() {
    let fleet = TestFleet::start(apis(1)).await;
    let admin = admin(&fleet).await;
    let put = async |name: &str, value: &str| {
        admin.post("/v1/secrets", &json!({"name": name, "value": value})).await
    };
    let made = put("TOKEN", VALUE).await.expect(201);
    let mut names: Vec<_> = made.as_object().expect("an object").keys().cloned().collect();
    names.sort();
    assert_eq!(names, ["created_at", "created_by", "name", "updated_at"]);
    put("TOKEN", "another value").await.expect(200);
    put("OTHER", VALUE).await.expect(201);
    let listed: Vec<_> = admin.list("/v1/secrets?limit=1").await;
    assert_eq!(
        listed.iter().map(|secret| text(secret, "name")).collect::<Vec<_>>(),
        ["OTHER", "TOKEN"]
    );
    assert!(!Value::from(listed).to_string().contains("s3same"));
    let plain = "select 1 from secrets where encode(sealed, 'escape') like '%s3same%' or secrets::text like '%s3same%'";
    assert_eq!(fleet.database().execute(plain).await, 0);
    admin.get("/v1/secrets/TOKEN").await.problem(405);
    admin.delete("/v1/secrets/TOKEN").await.expect(204);
    admin.delete("/v1/secrets/TOKEN").await.problem(404);
    for (name, value, pointer) in
        [("a b", VALUE, "/name"), ("1A", VALUE, "/name"), ("A", "short", "/value")]
    {
        let problem = put(name, value).await.problem(422);
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
        assert!(!problem.to_string().contains("short\""), "{problem}");
    }
    assert!(!fleet.logs().contains("s3same"));
}

/// A pipeline whose nodes get the secret, and give it away in every way that they have.
fn leaky(target: &HttpTarget) -> Value {
    let secret = "{{ secrets.TOKEN }}";
    json!({"name": "leaky", "nodes": [
        {"id": "call", "type": "action", "config": {"action": "call_api", "method": "POST", "url": target.url("/in"),
            "headers": {"x-token": "Bearer {{ secrets.PLAIN }}"}, "json": {"token": secret}}},
        {"id": "echo", "type": "action", "config": {"action": "echo", "whole": secret, "part": "<{{ secrets.TOKEN }}>",
            "list": [secret], "plain": "{{ secrets.PLAIN | upper }}"}},
        {"id": "after", "type": "action", "config": {"action": "echo", "got": "{{ nodes.echo.output.whole }}"}},
        {"id": "shout", "type": "action", "retry": {"max_attempts": 1}, "config": {"action": "run_command",
            "argv": ["sh", "-c", "echo $0 >&2; printf '%s' \"$0\" | base64 >&2; exit 3", "{{ secrets.PLAIN }}"]}},
    ], "edges": [{"from": "call", "to": "echo"}, {"from": "echo", "to": "after"}, {"from": "after", "to": "shout"}]})
}

#[tokio::test]
async fn a_node_gets_the_value_and_nobody_else_does() {
    const PLAIN: &str = "plain-s3same-value";
    let fleet = TestFleet::start(FleetOptions { workers: 1, schedulers: 1, ..apis(1) }).await;
    let admin = admin(&fleet).await;
    for (name, value) in [("TOKEN", VALUE), ("PLAIN", PLAIN)] {
        admin.post("/v1/secrets", &json!({"name": name, "value": value})).await.expect(201);
    }
    let target = HttpTarget::start().await;
    // The other side says it all back.
    target.answers("/in", [Reply::json(&json!({"you": VALUE, "sent": [PLAIN, {PLAIN: VALUE}]}))]);
    let run = admin.run_pipeline(leaky(&target), json!({})).await.expect("failed");
    let received = &target.received("/in")[0];
    assert_eq!(received.headers["x-token"], format!("Bearer {PLAIN}"));
    let body: Value = serde_json::from_str(&received.body).expect("JSON");
    assert_eq!(body["token"], VALUE);

    let echoed = &run.node("echo").output;
    assert_eq!(
        (&echoed["whole"], &echoed["part"], &echoed["list"]),
        (&json!("***"), &json!("<***>"), &json!(["***"]))
    );
    assert_eq!(run.node("after").output["got"], "***");
    let call = run.node("call").output.to_string();
    assert!(call.contains("***"), "{call}");
    let shout = run.node("shout").error.to_string();
    assert!(shout.contains("***"), "{shout}");
    // Nowhere in the database, in an answer or in a log.
    let quoted = json!(VALUE).to_string();
    let forms = [VALUE, PLAIN, quoted.trim_matches('"'), "cGxhaW4tczNzYW1lLXZhbHVl"];
    let mut seen = admin.get(&format!("/v1/runs/{}", run.id)).await.text + &fleet.logs();
    for node in ["call", "echo", "after", "shout"] {
        seen += &admin.get(&format!("/v1/runs/{}/nodes/{node}", run.id)).await.text;
    }
    for form in forms {
        assert!(!seen.contains(form), "{form} shows: {seen}");
    }
    for table in [
        "runs",
        "node_runs",
        "attempts",
        "outbox",
        "audit_events",
        "idempotency_keys",
        "pipeline_versions",
    ] {
        for form in ["s3same", "cGxhaW4tczNzYW1l"] {
            let found = format!("select 1 from {table} t where t::text like '%{form}%'");
            assert_eq!(fleet.database().execute(&found).await, 0, "{form} is in {table}");
        }
    }
    // A single action as well: its recorded input has the template, not the value.
    let id = admin.action("echo", json!({"x": "{{ secrets.PLAIN }}"})).await;
    let run = admin.wait(&id).await.expect("completed");
    assert_eq!((&run.output["x"], &run.input["x"]), (&json!("***"), &json!("{{ secrets.PLAIN }}")));
    fleet.finish().await;
}

#[tokio::test]
async fn a_secret_that_is_missing_or_misplaced_is_named() {
    let fleet = TestFleet::start(FleetOptions { workers: 1, ..apis(1) }).await;
    let admin = admin(&fleet).await;
    let id = admin.action("echo", json!({"x": "{{ secrets.NOT_THERE }}"})).await;
    let run = admin.wait(&id).await.expect("failed");
    assert!(text(&run.error, "message").contains("there is no secret `NOT_THERE`"), "{run:#?}");
    assert_eq!(run.error["kind"], "permanent");
    let misplaced = json!({"name": "p", "nodes": [{"id": "a", "type": "trigger"}, {"id": "b", "type": "trigger"}],
        "edges": [{"from": "a", "to": "b", "condition": "secrets.X == 'a'"}]});
    let problem = admin.post("/v1/pipelines", &misplaced).await.problem(422);
    let errors = problem["errors"].as_array().expect("errors");
    assert!(errors.iter().any(|error| error["pointer"] == "/edges/0/condition"), "{problem}");
    fleet.finish().await;
}

#[tokio::test]
async fn keys_are_rotated_by_listing_several() {
    let mut fleet = TestFleet::start(FleetOptions { workers: 1, ..apis(1) }).await;
    let first = admin(&fleet).await;
    first.post("/v1/secrets", &json!({"name": "TOKEN", "value": VALUE})).await.expect(201);
    let both = format!("{NEXT_KEY},{SECRETS_KEY}");
    let old = "select count(*) from secrets where key_id = (select min(key_id) from secrets)";
    assert_eq!(fleet.database().count(old).await, 1);
    let before = fleet.database().count("select hashtext(key_id)::int8 from secrets").await;
    // The worker first, so that it opens what the api will have sealed.
    fleet.stop(Role::Worker, 0).await;
    fleet.add(Role::Worker, &[("GATHERING_SECRETS_KEY", &both)]);
    fleet.add(Role::Api, &[("GATHERING_SECRETS_KEY", &both)]);
    fleet.ready().await;
    let after = fleet.database().count("select hashtext(key_id)::int8 from secrets").await;
    assert_ne!(before, after, "what the old key sealed is sealed anew");
    let works = async |fleet: &TestFleet| {
        let client = fleet.client();
        let id = client.action("echo", json!({"x": "{{ secrets.TOKEN }}"})).await;
        client.wait(&id).await
    };
    assert_eq!(works(&fleet).await.expect("completed").output["x"], "***");
    fleet.stop(Role::Worker, 1).await;
    fleet.add(Role::Worker, &[("GATHERING_SECRETS_KEY", NEXT_KEY)]);
    fleet.ready().await;
    works(&fleet).await.expect("completed");
    fleet.stop(Role::Worker, 2).await;
    fleet.add(Role::Worker, &[]);
    fleet.ready().await;
    let failed = works(&fleet).await.expect("failed");
    assert!(text(&failed.error, "message").contains("GATHERING_SECRETS_KEY"), "{failed:#?}");
}

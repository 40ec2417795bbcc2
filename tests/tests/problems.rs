//! What clients get wrong, and what they are told.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tests::client::{signed, token};
use tests::fleet::{FleetOptions, SECRET, TestFleet};

use crate::definitions::chain;

async fn api_only() -> TestFleet {
    TestFleet::start(FleetOptions { workers: 0, schedulers: 0, ..FleetOptions::default() }).await
}

const ROUTES: &[(&str, &str)] = &[
    ("GET", "/v1/pipelines"),
    ("POST", "/v1/pipelines"),
    ("GET", "/v1/pipelines/p"),
    ("PUT", "/v1/pipelines/p"),
    ("DELETE", "/v1/pipelines/p"),
    ("POST", "/v1/pipelines/validate"),
    ("POST", "/v1/pipelines/p/pause"),
    ("POST", "/v1/pipelines/p/resume"),
    ("POST", "/v1/pipelines/p/runs"),
    ("POST", "/v1/actions"),
    ("POST", "/v1/runs:batch"),
    ("GET", "/v1/runs"),
    ("GET", "/v1/runs/00000000-0000-7000-8000-000000000000"),
    ("GET", "/v1/runs/00000000-0000-7000-8000-000000000000/nodes/a"),
    ("GET", "/v1/runs/00000000-0000-7000-8000-000000000000/events"),
    ("POST", "/v1/runs/00000000-0000-7000-8000-000000000000/cancel"),
    ("POST", "/v1/runs/00000000-0000-7000-8000-000000000000/rerun"),
    ("GET", "/v1/schedules"),
    ("POST", "/v1/schedules"),
    ("POST", "/v1/schedules/preview"),
    ("GET", "/v1/schedules/00000000-0000-7000-8000-000000000000"),
    ("PATCH", "/v1/schedules/00000000-0000-7000-8000-000000000000"),
    ("DELETE", "/v1/schedules/00000000-0000-7000-8000-000000000000"),
    ("POST", "/v1/schedules/00000000-0000-7000-8000-000000000000/pause"),
    ("POST", "/v1/schedules/00000000-0000-7000-8000-000000000000/resume"),
    ("POST", "/v1/schedules/00000000-0000-7000-8000-000000000000/trigger"),
    ("GET", "/v1/schedules/00000000-0000-7000-8000-000000000000/fires"),
    ("POST", "/v1/schedules/00000000-0000-7000-8000-000000000000/backfills"),
    ("GET", "/v1/schedules/00000000-0000-7000-8000-000000000000/backfills"),
    ("POST", "/v1/events"),
];

#[tokio::test]
async fn every_route_needs_a_token() {
    let fleet = api_only().await;
    let client = fleet.client();
    let ttl = Duration::from_secs(3600);
    let expired = signed(
        SECRET,
        &json!({"iss": "gathering", "aud": "gathering", "sub": "test", "role": "admin",
            "jti": "00000000-0000-4000-8000-000000000000", "iat": 999_999_000, "nbf": 999_999_000,
            "exp": 1_000_000_000}),
    );
    // {"alg":"none"} . the same claims . no signature
    let unsigned = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJzdWIiOiJ0ZXN0Iiwicm9sZSI6ImFkbWluIiwiZXhwIjo0MTAyNDQ0ODAwfQ.";
    let tokens = [
        None,
        Some(String::new()),
        Some("nonsense".to_owned()),
        Some(token("another secret, just as long as the right one", "test", "admin", ttl)),
        Some(expired),
        Some(unsigned.to_owned()),
    ];
    for (method, path) in ROUTES {
        for token in &tokens {
            let client = client.with_token(token.clone());
            let method = Method::from_bytes(method.as_bytes()).expect("a method");
            let answer = client.send(client.request(method.clone(), path).json(&json!({}))).await;
            assert_eq!(answer.status, 401, "{method} {path} with {token:?}: {}", answer.text);
            assert!(answer.header("www-authenticate").is_some(), "{method} {path}");
            answer.problem(401);
        }
    }
    for path in ["/health/live", "/health/ready", "/metrics", "/openapi.json"] {
        assert_eq!(client.with_token(None).get(path).await.status, 200, "{path} is open");
    }
}

#[tokio::test]
async fn what_is_unknown_is_not_found() {
    let fleet = api_only().await;
    let client = fleet.client();
    for path in [
        "/",
        "/v1",
        "/v1/no-such-thing",
        "/v1/pipelines/missing",
        "/v1/runs/00000000-0000-7000-8000-000000000000",
        "/v1/runs/00000000-0000-7000-8000-000000000000/nodes/a",
        "/v1/runs/00000000-0000-7000-8000-000000000000/events",
    ] {
        client.get(path).await.problem(404);
    }
    let run = "/v1/runs/00000000-0000-7000-8000-000000000000";
    client.post(&format!("{run}/cancel"), &json!({})).await.problem(404);
    client.post(&format!("{run}/rerun"), &json!({"from": "start"})).await.problem(404);
    client.post("/v1/pipelines/missing/runs", &json!({"input": {}})).await.problem(404);
    client.delete("/v1/runs").await.problem(405);
    client.put("/v1/actions", &json!({})).await.problem(405);
    let id = client.get("/v1/runs/not-a-uuid").await;
    assert!([400, 404].contains(&id.status), "{}", id.text);
}

#[tokio::test]
async fn malformed_bodies_are_refused() {
    let fleet = api_only().await;
    let client = fleet.client();
    client.create_pipeline(&chain("p", 1)).await;
    for path in [
        "/v1/actions",
        "/v1/pipelines",
        "/v1/pipelines/validate",
        "/v1/pipelines/p/runs",
        "/v1/runs:batch",
        "/v1/schedules",
        "/v1/schedules/preview",
        "/v1/events",
    ] {
        for body in ["{", "", "{\"a\": 1,}", "\u{feff}{}", "{} {}", "nul"] {
            let answer = client.post_raw(path, "application/json", body).await;
            // An empty body may stand for an empty object where nothing is required.
            let fine =
                answer.status == 400 || (body.is_empty() && [202, 422].contains(&answer.status));
            assert!(fine, "{path} {body:?}: {} {}", answer.status, answer.text);
        }
        for body in ["[]", "null", "1", "\"text\""] {
            let answer = client.post_raw(path, "application/json", body).await;
            let refused = [400, 422].contains(&answer.status) || answer.body["valid"] == false;
            assert!(refused, "{path} {body:?}: {} {}", answer.status, answer.text);
        }
        let bytes: &[u8] = b"{\"action\": \"\xff\xfe\"}";
        client.post_raw(path, "application/json", bytes).await.problem(400);
        let answer = client.post_raw(path, "text/plain", "hello").await;
        assert!([400, 415].contains(&answer.status), "{path}: {} {}", answer.status, answer.text);
    }
}

#[tokio::test]
async fn wrong_fields_are_pointed_at() {
    let fleet = api_only().await;
    let client = fleet.client();
    client.create_pipeline(&chain("p", 1)).await;
    let (actions, runs) = ("/v1/actions", "/v1/pipelines/p/runs");
    for (path, body, pointer) in [
        (actions, json!({}), "/action"),
        (actions, json!({"action": 1}), "/action"),
        (actions, json!({"action": "fly", "input": {}}), "/action"),
        (actions, json!({"action": "echo", "input": {}, "colour": 1}), "/colour"),
        (actions, json!({"action": "echo", "input": {}, "delay": "soon"}), "/delay"),
        (actions, json!({"action": "echo", "input": {}, "delay": "-1s"}), "/delay"),
        (actions, json!({"action": "echo", "input": {}, "timeout": 5}), "/timeout"),
        (
            actions,
            json!({"action": "echo", "input": {}, "retry": {"max_attempts": -1}}),
            "/retry/max_attempts",
        ),
        (actions, json!({"action": "echo", "input": {}, "tags": "one"}), "/tags"),
        (actions, json!({"action": "echo", "input": {}, "tags": [1]}), "/tags/0"),
        (actions, json!({"action": "echo", "input": {}, "lane": ""}), "/lane"),
        (actions, json!({"action": "call_api", "input": {"url": 7}}), "/input/url"),
        (actions, json!({"action": "call_api", "input": {}}), "/input"),
        (actions, json!({"action": "run_command", "input": {"argv": []}}), "/input/argv"),
        (actions, json!({"action": "run_command", "input": {"argv": "ls"}}), "/input/argv"),
        (runs, json!({"input": {}, "colour": 1}), "/colour"),
        (runs, json!({"input": {}, "delay": 5}), "/delay"),
        (runs, json!({"input": {}, "tags": {}}), "/tags"),
        ("/v1/runs:batch", json!({}), "/items"),
        ("/v1/runs:batch", json!({"items": 1}), "/items"),
    ] {
        let problem = client.post(path, &body).await.problem(422);
        let errors = problem["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
        let pointed = errors
            .iter()
            .any(|error| error["pointer"].as_str().is_some_and(|at| at.starts_with(pointer)));
        assert!(pointed, "{path} {body}: no {pointer} in {problem:#}");
        assert!(
            errors
                .iter()
                .all(|error| error["detail"].as_str().is_some_and(|detail| !detail.is_empty())),
            "{problem}"
        );
    }
    assert_eq!(fleet.database().count("select count(*) from runs").await, 0, "nothing is stored");
}

/// R11: values at the edges of JSON and of Postgres are answered, and never make a 500.
#[tokio::test]
async fn r11_bad_input_is_answered_and_not_stored() {
    let fleet = api_only().await;
    let client = fleet.client();
    client.create_pipeline(&chain("p", 1)).await;
    let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    let values = [
        json!("a\u{0}b").to_string(),
        json!({"a\u{0}": 1}).to_string(),
        "\"\\ud800\"".to_owned(),
        "1e400".to_owned(),
        "-1e400".to_owned(),
        "123456789012345678901234567890".to_owned(),
        "1e-400".to_owned(),
        deep(100),
        deep(200),
        deep(100_000),
        "{\"a\": 1, \"a\": 2}".to_owned(),
        json!("\u{feff}\u{202e}🦀").to_string(),
        "null".to_owned(),
    ];
    for value in &values {
        for (path, body) in [
            ("/v1/actions", format!("{{\"action\": \"echo\", \"input\": {value}}}")),
            ("/v1/actions", format!("{{\"action\": \"echo\", \"input\": {{\"v\": {value}}}}}")),
            ("/v1/actions", format!("{{\"action\": {value}, \"input\": {{}}}}")),
            (
                "/v1/actions",
                format!("{{\"action\": \"echo\", \"input\": {{}}, \"tags\": [{value}]}}"),
            ),
            ("/v1/pipelines/p/runs", format!("{{\"input\": {value}}}")),
            ("/v1/pipelines", format!("{{\"name\": {value}, \"nodes\": [], \"edges\": []}}")),
            (
                "/v1/pipelines",
                format!(
                    "{{\"name\": \"q\", \"description\": {value}, \"nodes\": [], \"edges\": []}}"
                ),
            ),
            ("/v1/pipelines/validate", value.clone()),
            ("/v1/events", format!("{{\"type\": \"x\", \"data\": {value}}}")),
            ("/v1/events", format!("{{\"type\": {value}}}")),
            ("/v1/schedules/preview", format!("{{\"kind\": \"cron\", \"cron\": {value}}}")),
            ("/v1/schedules/preview", format!("{{\"kind\": \"once\", \"at\": {value}}}")),
            (
                "/v1/schedules",
                format!("{{\"name\": {value}, \"kind\": {value}, \"start\": {value}}}"),
            ),
            (
                "/v1/schedules",
                format!(
                    "{{\"name\": \"s\", \"kind\": \"event\", \"event_type\": \"x\", \"start\": \
                     {{\"action\": \"echo\", \"input\": {{\"v\": {value}}}}}}}"
                ),
            ),
            (
                "/v1/runs:batch",
                format!("{{\"items\": [{{\"action\": \"echo\", \"input\": {value}}}]}}"),
            ),
        ] {
            let answer = client.post_raw(path, "application/json", body).await;
            let shown: String = value.chars().take(60).collect();
            assert!(answer.status < 500, "{path} {shown}: {} {}", answer.status, answer.text);
            if answer.status >= 400 {
                let status = answer.status;
                answer.problem(status);
            }
        }
    }
    let null_byte = client
        .post("/v1/actions", &json!({"action": "echo", "input": {"v": ["a\u{0}b"]}}))
        .await
        .problem(422);
    assert_eq!(null_byte["errors"][0]["pointer"], "/input/v/0", "{null_byte}");
    for path in [
        "/v1/pipelines/%00",
        "/v1/pipelines/%ff",
        "/v1/runs?tag=%00",
        "/v1/runs?tag=%ff",
        "/v1/runs?pipeline=%00",
        "/v1/runs?limit=99999999999999999999",
        "/v1/runs?limit=-1",
        "/v1/runs?cursor=%00",
        "/v1/runs?created_after=yesterday",
        "/v1/runs?created_after=999999-01-01T00:00:00Z",
        "/v1/pipelines/p?version=99999999999",
        "/v1/pipelines/p?version=one",
        "/v1/runs/00000000-0000-7000-8000-000000000000?wait=forever",
        "/v1/runs/00000000-0000-7000-8000-000000000000/nodes/%00",
    ] {
        let answer = client.get(path).await;
        assert!(answer.status < 500, "{path}: {} {}", answer.status, answer.text);
    }
    for key in [&b"\xff"[..], b"", &[b'k'; 10_000]] {
        let request = client
            .request(Method::POST, "/v1/actions")
            .json(&json!({"action": "echo", "input": {}}));
        let answer = client.send(request.header("idempotency-key", key)).await;
        assert!(answer.status < 500, "{}", answer.text);
    }
}

#[tokio::test]
async fn request_ids_are_taken_and_given() {
    let fleet = api_only().await;
    let client = fleet.client();
    let answer = client
        .send(client.request(Method::GET, "/v1/runs").header("x-request-id", "my-request-1"))
        .await;
    assert_eq!(answer.header("x-request-id"), Some("my-request-1"));
    for answer in [
        client.get("/v1/runs").await,
        client.get("/v1/missing").await,
        client.with_token(None).get("/v1/runs").await,
    ] {
        assert!(answer.header("x-request-id").is_some_and(|id| id.len() >= 8), "{answer:?}");
    }
}

#[tokio::test]
async fn the_interface_is_described() {
    let fleet = api_only().await;
    let described: Value = fleet.client().get("/openapi.json").await.expect(200);
    let paths = described["paths"].as_object().expect("paths");
    for path in [
        "/v1/pipelines",
        "/v1/pipelines/{name}/runs",
        "/v1/actions",
        "/v1/runs",
        "/v1/runs/{id}",
        "/v1/runs:batch",
    ] {
        assert!(paths.contains_key(path), "no {path} in {:?}", paths.keys());
    }
}

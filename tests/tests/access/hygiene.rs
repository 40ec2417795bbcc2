//! What every answer has, and what is asked of every request.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tests::fleet::{Role, TestFleet};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{admin, apis, nobody};

#[tokio::test]
async fn every_answer_has_security_headers_and_no_version() {
    let options = apis(1).with(Role::Api, "GATHERING_TRUSTED_PROXIES", "127.0.0.0/8");
    let fleet = TestFleet::start(options).await;
    let admin = admin(&fleet).await;
    for (path, status) in [
        ("/v1/runs", 200),
        ("/nothing", 404),
        ("/health/live", 200),
        ("/docs", 200),
        ("/metrics", 200),
    ] {
        let answer = admin.get(path).await;
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(answer.header("x-frame-options"), Some("DENY"), "{path}");
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"), "{path}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
        let policy = answer.header("content-security-policy").expect("a policy");
        assert!(policy.starts_with("default-src 'none'"), "{path}: {policy}");
        assert!(answer.header("x-request-id").is_some(), "{path}");
        for absent in
            ["server", "x-powered-by", "strict-transport-security", "access-control-allow-origin"]
        {
            assert_eq!(answer.header(absent), None, "{path}");
        }
    }
    let secure = admin.request(Method::GET, "/v1/runs").header("x-forwarded-proto", "https");
    let secure = admin.send(secure).await;
    assert!(
        secure
            .header("strict-transport-security")
            .is_some_and(|hsts| hsts.starts_with("max-age=31536000"))
    );
}

#[tokio::test]
async fn only_pages_of_listed_origins_may_call() {
    const OURS: &str = "https://app.example.org";
    let mut fleet = TestFleet::start(apis(1)).await;
    fleet.add(
        Role::Api,
        &[("GATHERING_CORS_ORIGINS", "https://app.example.org,http://localhost:3000")],
    );
    fleet.ready().await;
    let preflight = async |api: usize, origin: &str| {
        let client = nobody(&fleet, api);
        let request = client.request(Method::OPTIONS, "/v1/runs").header("origin", origin);
        let request = request.header("access-control-request-method", "GET");
        client.send(request.header("access-control-request-headers", "authorization")).await
    };
    let allowed = "access-control-allow-origin";
    let ours = preflight(1, OURS).await;
    assert_eq!((ours.status, ours.header(allowed)), (200, Some(OURS)));
    assert!(
        ours.header("access-control-allow-headers")
            .is_some_and(|names| names.contains("authorization"))
    );
    assert_eq!(preflight(1, "https://evil.example.org").await.header(allowed), None);
    assert_eq!(preflight(0, OURS).await.header(allowed), None);
    let client = nobody(&fleet, 1);
    let answer = client.send(client.request(Method::GET, "/v1/runs").header("origin", OURS)).await;
    assert_eq!((answer.status, answer.header(allowed)), (401, Some(OURS)));
}

#[tokio::test]
async fn what_is_too_large_too_deep_or_of_another_kind_is_a_problem() {
    let fleet = TestFleet::start(apis(1)).await;
    let admin = admin(&fleet).await;
    let body = |size: usize| json!({"action": "echo", "input": "x".repeat(size)}).to_string();
    let send = async |path: &str, kind: &str, body: String| admin.post_raw(path, kind, body).await;
    let json = "application/json";
    send("/v1/actions", json, body(1 << 20)).await.problem(413);
    send("/v1/auth/token", json, body(1 << 20)).await.problem(413);
    let three: Value = serde_json::json!({"name": "p", "description": "x".repeat(3 << 20), "nodes": [{"id": "a", "type": "trigger"}], "edges": []});
    assert_ne!(send("/v1/pipelines/validate", json, three.to_string()).await.status, 413);
    send("/v1/pipelines", json, body(4 << 20)).await.problem(413);
    for path in ["/v1/actions", "/v1/auth/token", "/v1/users", "/v1/secrets", "/v1/api-keys"] {
        send(path, json, "[".repeat(5000)).await.problem(400);
        send(path, json, format!("{}1{}", "[".repeat(130), "]".repeat(130))).await.problem(400);
        send(path, json, "{".to_owned()).await.problem(400);
        send(path, "text/xml", "<a/>".to_owned()).await.problem(415);
    }
    admin.get("/v1/nothing").await.problem(404);
    let wrong_method = admin.delete("/v1/runs").await;
    assert_eq!(wrong_method.header("allow"), Some("GET,HEAD"));
    wrong_method.problem(405);
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_answered() {
    let fleet = TestFleet::start(apis(1).with(Role::Api, "GATHERING_REQUEST_TIMEOUT", "1s")).await;
    let admin = admin(&fleet).await;
    let run = admin.action_with(json!({"action": "echo", "delay": "1h"})).await;
    let began = Instant::now();
    admin.get(&format!("/v1/runs/{run}?wait=30s")).await.problem(408);
    assert!(began.elapsed() < Duration::from_secs(10));
    // A stream is not cut: its answer has begun.
    let stream = admin.request(Method::GET, &format!("/v1/runs/{run}/events"));
    let mut stream = stream.send().await.expect("it answers");
    let cut = tokio::time::timeout(Duration::from_secs(2), async {
        while stream.chunk().await.expect("it is not cut").is_some() {}
    });
    assert!(cut.await.is_err(), "the stream has ended");
}

/// What comes back for bytes, until the connection is closed.
async fn raw(fleet: &TestFleet, bytes: &[u8]) -> String {
    let address = fleet.url(Role::Api, 0).replace("http://", "");
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    stream.write_all(bytes).await.expect("it reads");
    let mut answer = Vec::new();
    let reading = stream.read_to_end(&mut answer);
    let _ = tokio::time::timeout(Duration::from_secs(20), reading).await.expect("it closes");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn what_is_not_http_is_answered_with_a_problem() {
    let fleet = TestFleet::start(apis(1)).await;
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(500));
    for (bytes, status) in [
        (b"nonsense\r\n\r\n".as_slice(), 400),
        (b"GET / HTTP/1.1\r\nbad header\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"POST /v1/actions HTTP/1.1\r\nhost: a\r\ncontent-length: x\r\n\r\n", 400),
        (many.as_bytes(), 431),
    ] {
        let answer = raw(&fleet, bytes).await;
        let (head, body) =
            answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(head.contains("content-type: application/problem+json"), "{answer}");
        let problem: Value = serde_json::from_str(body).expect("a problem is JSON");
        assert_eq!(problem["status"], status, "{answer}");
        assert!(problem["type"].is_string() && problem["title"].is_string(), "{answer}");
    }
}

#[tokio::test]
async fn a_head_that_does_not_arrive_is_not_waited_for() {
    let fleet = TestFleet::start(apis(1).with(Role::Api, "GATHERING_HEADER_TIMEOUT", "1s")).await;
    let began = Instant::now();
    let answer = raw(&fleet, b"GET /v1/runs HTTP/1.1\r\nhost: a\r\nx-slow").await;
    let took = began.elapsed();
    assert!(
        took >= Duration::from_millis(900) && took < Duration::from_secs(10),
        "{took:?}: {answer}"
    );
}

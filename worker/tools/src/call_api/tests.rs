#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod guarded;

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, HeaderValue};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::response;
use crate::guard::Guard;
use crate::http::Http;
use crate::tests::{context, permanent, retryable};
use crate::{Context, Failure, Outcome};

/// A server on the loopback that answers by a function of the request's text, and remembers what it was asked.
struct Server {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
    connections: Arc<Mutex<usize>>,
    _tasks: JoinSet<()>,
}

impl Server {
    async fn start(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (asked, connections) =
            (Arc::<Mutex<Vec<String>>>::default(), Arc::<Mutex<usize>>::default());
        let (log, count, answer) = (asked.clone(), connections.clone(), Arc::new(answer));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                *count.lock().unwrap() += 1;
                let (log, answer) = (log.clone(), answer.clone());
                open.spawn(async move {
                    while let Some(request) = read_request(&mut stream).await {
                        let bytes = answer(&request);
                        log.lock().unwrap().push(request);
                        stream.write_all(&bytes).await.unwrap();
                    }
                });
            }
        });
        Self { port, asked, connections, _tasks: tasks }
    }

    /// Always the same answer.
    async fn fixed(head: &str, body: impl AsRef<[u8]>) -> Self {
        let bytes = answer(head, body);
        Self::start(move |_| bytes.clone()).await
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some(end) = text.find("\r\n\r\n") {
            let length = header(&text, "content-length").map_or(0, |text| text.parse().unwrap());
            if bytes.len() >= end + 4 + length {
                return Some(text);
            }
        }
    }
}

/// `head` is the status, then headers, in lines.
fn answer(head: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = head.lines().map(str::trim).collect::<Vec<_>>().join("\r\n");
    let mut bytes =
        format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

fn header<'a>(request: &'a str, name: &str) -> Option<&'a str> {
    request.lines().take_while(|line| !line.is_empty()).find_map(|line| {
        let (key, value) = line.split_once(": ")?;
        key.eq_ignore_ascii_case(name).then_some(value)
    })
}

/// A client that may reach these hosts.
fn http(allowed: &str) -> Http {
    Http::open(Arc::new(Guard::new(allowed.parse().unwrap()))).unwrap()
}

async fn call(input: Value) -> Outcome {
    call_in(input, &context()).await
}

async fn call_in(input: Value, context: &Context) -> Outcome {
    super::run(&http("127.0.0.1"), input, context).await
}

#[tokio::test]
async fn the_good_way() {
    let server = Server::fixed(
        "201 Created\nContent-Type: application/json; charset=utf-8\nSet-Cookie: a=1, b\nX-A: 1\nX-A: 2",
        r#"{"ok": [true]}"#,
    )
    .await;
    let output = call(json!({
        "method": "post", "url": server.url("/a b?x=1"), "query": { "q": ["ä&", 2], "z": true },
        "headers": { "X-Key": "k" }, "json": { "n": 1 },
    }))
    .await
    .unwrap();
    assert_eq!(output["status"], 201);
    assert_eq!(output["body"], json!({ "ok": [true] }));
    assert_eq!(output["headers"]["set-cookie"], json!(["a=1, b"]));
    assert_eq!(output["headers"]["x-a"], "1, 2");

    let asked = server.asked().remove(0);
    assert!(asked.starts_with("POST /a%20b?x=1&q=%C3%A4%26&q=2&z=true HTTP/1.1"), "{asked}");
    assert!(asked.ends_with("\r\n\r\n{\"n\":1}"), "{asked}");
    assert_eq!(header(&asked, "content-type"), Some("application/json"));
    assert_eq!(header(&asked, "x-key"), Some("k"));
    assert_eq!(header(&asked, "user-agent"), Some("gathering/0.1.0"));
}

#[tokio::test]
async fn text_and_form_are_sent_as_such_and_json_null_is_a_body() {
    let server = Server::fixed("200 OK", "").await;
    let url = server.url("/");
    for body in
        [json!({ "text": "ä" }), json!({ "form": { "a": ["1 2", 3] } }), json!({ "json": null })]
    {
        let mut input = body;
        input["url"] = json!(url);
        input["method"] = json!("PUT");
        assert_eq!(call(input).await.unwrap()["body"], Value::Null);
    }
    let asked = server.asked();
    assert!(asked[0].ends_with("\r\n\r\nä"));
    assert_eq!(header(&asked[0], "content-type"), Some("text/plain; charset=utf-8"));
    assert!(asked[1].ends_with("\r\n\r\na=1+2&a=3"));
    assert_eq!(header(&asked[1], "content-type"), Some("application/x-www-form-urlencoded"));
    assert!(asked[2].ends_with("\r\n\r\nnull"));
}

#[tokio::test]
async fn r6_the_idempotency_key_and_the_trace_go_along_unless_the_caller_has_set_them() {
    let server = Server::fixed("200 OK", "").await;
    let context = context();
    call_in(json!({ "url": server.url("/") }), &context).await.unwrap();
    let own = json!({ "Idempotency-Key": "mine", "Traceparent": "t" });
    call_in(json!({ "url": server.url("/"), "headers": own }), &context).await.unwrap();
    let asked = server.asked();
    assert_eq!(header(&asked[0], "idempotency-key"), Some(context.idempotency_key.as_str()));
    assert_eq!(header(&asked[0], "traceparent"), context.traceparent.as_deref());
    assert_eq!(header(&asked[1], "idempotency-key"), Some("mine"));
    assert_eq!(header(&asked[1], "traceparent"), Some("t"));
}

#[tokio::test]
async fn what_cannot_be_sent_is_permanent() {
    for (part, named) in [
        (json!({ "url": "no url" }), "no URL"),
        (json!({ "url": "file:///etc/passwd" }), "http://"),
        (json!({ "method": "CONNECT" }), "CONNECT"),
        (json!({ "method": "A B" }), "A B"),
        (json!({ "json": 1, "text": "a" }), "one of"),
        (json!({ "headers": { "a b": "c" } }), "a b"),
        (json!({ "headers": { "a": "b\r\nc: d" } }), "control"),
        (json!({ "headers": { "Content-Length": "3" } }), "Content-Length"),
        (json!({ "expected_status": "2xy" }), "2xx"),
        (json!({ "expected_status": [] }), "2xx"),
    ] {
        let mut input = json!({ "url": "http://127.0.0.1:1/" });
        input.as_object_mut().unwrap().extend(part.as_object().unwrap().clone());
        let message = permanent(call(input).await);
        assert!(message.contains(named), "{part}: {message}");
    }
}

#[tokio::test]
async fn bodies_are_decoded_by_what_they_say_they_are() {
    for (kind, bytes, body) in [
        ("application/problem+json", &b"\xef\xbb\xbf[1]"[..], json!([1])),
        ("Application/JSON", b"{broken", json!("{broken")),
        ("text/plain", b"[1]", json!("[1]")),
        ("text/html; Charset=\"ISO-8859-1\"", b"\xe4", json!("ä")),
        ("text/plain", b"a\xff", json!("a\u{fffd}")),
        ("application/octet-stream", "ä".as_bytes(), json!("ä")),
    ] {
        let server = Server::fixed(&format!("200 OK\nContent-Type: {kind}"), bytes).await;
        let output = call(json!({ "url": server.url("/") })).await.unwrap();
        assert_eq!(output["body"], body, "{kind}");
    }
    let server = Server::fixed("200 OK\nContent-Type: image/png", b"\x89PNG\xff").await;
    let message = permanent(call(json!({ "url": server.url("/") })).await);
    assert!(message.contains("not text") && message.contains("image/png"), "{message}");
}

#[tokio::test]
async fn statuses_are_typed_by_consequence() {
    for (status, again) in [
        (400, false),
        (401, false),
        (404, false),
        (409, false),
        (304, false),
        (408, true),
        (429, true),
        (500, true),
        (503, true),
        (599, true),
    ] {
        let server = Server::fixed(&format!("{status} Hm"), "why\0".repeat(1000)).await;
        let outcome =
            call(json!({ "url": server.url("/secret?token=t"), "method": "DELETE" })).await;
        let message = if again { retryable(outcome) } else { permanent(outcome) };
        let named = format!("DELETE http://127.0.0.1:{} answered {status}", server.port);
        assert!(message.starts_with(&named), "{message}");
        assert!(message.contains("why") || status == 304, "{message}");
        assert!(!message.contains("token") && message.chars().count() < 600, "{message}");
    }
}

#[tokio::test]
async fn expected_statuses_replace_the_default() {
    for (expected, status, good) in [
        (json!(404), 404, true),
        (json!(404), 200, false),
        (json!("404"), 404, true),
        (json!([200, "5xx"]), 503, true),
        (json!(["2xx", 302]), 302, true),
        (json!("3xx"), 204, false),
    ] {
        let server = Server::fixed(&format!("{status} Hm\nLocation: /x"), "").await;
        let outcome = call(json!({ "url": server.url("/"), "expected_status": expected })).await;
        assert_eq!(outcome.is_ok(), good, "{expected} {status}: {outcome:?}");
    }
}

#[test]
fn retry_after_is_seconds_or_a_date_by_the_servers_clock() {
    let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777 + seconds);
    let date = "Sun, 06 Nov 1994 08:49:37 GMT";
    let parse = |text: &'static str, server: Option<&'static str>, now| {
        let mut headers = HeaderMap::new();
        headers.insert("retry-after", HeaderValue::from_static(text));
        if let Some(date) = server {
            headers.insert("date", HeaderValue::from_static(date));
        }
        response::retry_after(&headers, now).map(|wait| wait.as_secs())
    };
    assert_eq!(parse("120", None, at(0)), Some(120));
    assert_eq!(parse(" 0 ", None, at(0)), Some(0));
    assert_eq!(parse("99999999999999999999999", None, at(0)), Some(86_400));
    assert_eq!(parse(date, Some("Sun, 06 Nov 1994 08:49:07 GMT"), at(9_999_999)), Some(30));
    assert_eq!(parse(date, None, at(5)), Some(0), "in the past");
    assert_eq!(parse("Sunday, 06-Nov-94 08:49:37 GMT", Some(date), at(0)), Some(0));
    for nothing in ["", "-1", "1.5", "soon"] {
        assert_eq!(parse(nothing, None, at(0)), None, "{nothing}");
    }
}

#[tokio::test]
async fn retry_after_reaches_the_failure() {
    let server = Server::fixed("429 Slow\nRetry-After: 7", "").await;
    let Err(Failure::Retryable { retry_after, .. }) = call(json!({ "url": server.url("/") })).await
    else {
        panic!("not retryable")
    };
    assert_eq!(retry_after, Some(Duration::from_secs(7)));
}

#[tokio::test]
async fn no_connection_and_a_broken_one_are_retryable_and_name_the_cause_but_not_the_path() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let url = format!("http://u:pass@127.0.0.1:{gone}/secret?token=t");
    let message = retryable(call(json!({ "url": url })).await);
    assert!(message.contains("Connection refused"), "{message}");
    assert!(!message.contains("secret") && !message.contains("pass"), "{message}");

    let no_name = retryable(call(json!({ "url": "http://gathering.invalid/" })).await);
    assert!(no_name.contains("gathering.invalid"), "{no_name}");

    for cut in ["", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_request(&mut stream).await;
            stream.write_all(cut.as_bytes()).await.unwrap();
        });
        retryable(call(json!({ "url": url })).await);
    }
}

#[tokio::test]
async fn an_answer_over_the_limit_is_permanent_declared_or_not() {
    let exactly = Server::fixed("200 OK", "x".repeat(1000)).await;
    let input = |server: &Server, limit| json!({ "url": server.url("/"), "response_limit": limit });
    assert!(call(input(&exactly, 1000)).await.is_ok());
    let message = permanent(call(input(&exactly, 999)).await);
    assert!(message.contains("999 bytes"), "{message}");

    // Without end, and without a length.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_request(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
    });
    permanent(call(json!({ "url": url })).await);
    // The server sees the connection closed.
    timeout(Duration::from_secs(5), tasks.join_next()).await.unwrap();
}

#[tokio::test]
async fn a_cancel_drops_a_trickling_answer_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let context = context();
    let cancel = context.cancel.clone();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n").await.unwrap();
        stream.write_all(b"x").await.unwrap();
        cancel.cancel();
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let call = timeout(Duration::from_secs(5), call_in(json!({ "url": url }), &context));
    assert_eq!(call.await.unwrap(), Err(Failure::Cancelled));
    timeout(Duration::from_secs(5), tasks.join_next()).await.unwrap();
}

#[tokio::test]
async fn redirects_are_followed_as_browsers_do() {
    let server = Server::start(|request| {
        let path = request.split(' ').nth(1).unwrap();
        match path.strip_prefix("/from/") {
            Some(status) => answer(&format!("{status} Moved\nLocation: ../to?x#y"), "ignored"),
            None => answer("200 OK", ""),
        }
    })
    .await;
    for (status, method, then, body) in [
        (301, "POST", "GET /to?x ", ""),
        (302, "PUT", "PUT /to?x ", "b"),
        (303, "PUT", "GET /to?x ", ""),
        (303, "HEAD", "HEAD /to?x ", ""),
        (307, "POST", "POST /to?x ", "b"),
        (308, "PATCH", "PATCH /to?x ", "b"),
    ] {
        let text = if method == "HEAD" { "" } else { "b" };
        let headers = json!({ "X-Key": "k" });
        let input = json!({ "url": server.url(&format!("/from/{status}")), "method": method, "text": text, "headers": headers });
        call(input).await.unwrap();
        let last = server.asked().pop().unwrap();
        assert!(last.starts_with(then) && last.ends_with(&format!("\r\n\r\n{body}")), "{last}");
        assert_eq!(
            header(&last, "content-type").is_some(),
            !body.is_empty() || method == "HEAD",
            "{last}"
        );
        assert_eq!(header(&last, "x-key"), Some("k"));
    }
}

#[tokio::test]
async fn r14_credentials_stay_with_the_origin_that_they_were_given_for() {
    let other = Server::fixed("200 OK", "").await;
    // The same host, another port: another origin.
    let location = other.url("/").replace("http://", "http://made:up@");
    let server = Server::fixed(&format!("307 Moved\nLocation: {location}"), "").await;
    let url = server.url("/").replace("http://", "http://user:pass@");
    let headers = json!({ "X-Api-Key": "k", "Cookie": "c", "Accept": "text/plain" });
    call(json!({ "url": url, "method": "POST", "headers": headers, "json": 1 })).await.unwrap();

    let first = server.asked().remove(0);
    assert_eq!(header(&first, "authorization"), Some("Basic dXNlcjpwYXNz"));
    let second = other.asked().remove(0);
    for name in ["authorization", "x-api-key", "cookie", "referer"] {
        assert_eq!(header(&second, name), None, "{name}");
    }
    assert_eq!(header(&second, "accept"), Some("text/plain"));
    assert_eq!(header(&second, "content-type"), Some("application/json"));
    assert!(header(&second, "idempotency-key").is_some());
}

#[tokio::test]
async fn redirects_end() {
    let server = Server::fixed("302 Moved\nLocation: /", "").await;
    let message = permanent(call(json!({ "url": server.url("/") })).await);
    assert!(message.contains("10 redirects"), "{message}");
    assert_eq!(server.asked().len(), 11);

    let server = Server::fixed("302 Moved\nLocation: file:///etc/passwd", "").await;
    permanent(call(json!({ "url": server.url("/") })).await);
    let server = Server::fixed("302 Moved", "nowhere").await;
    assert!(permanent(call(json!({ "url": server.url("/") })).await).contains("302"));
}

#[tokio::test]
async fn connections_are_kept() {
    let server = Server::fixed("200 OK", "a").await;
    let client = http("127.0.0.1");
    for _ in 0..5 {
        super::run(&client, json!({ "url": server.url("/") }), &context()).await.unwrap();
    }
    assert_eq!(*server.connections.lock().unwrap(), 1);
}

#[tokio::test]
async fn a_failed_handshake_is_a_connect_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.write_all(b"this is no TLS").await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let message = retryable(call(json!({ "url": url })).await);
    assert!(message.contains("GET https://127.0.0.1") && message.contains("Connect"), "{message}");
}

#[tokio::test]
async fn who_asks_is_said_by_bearer_or_by_name_and_password() {
    let server = Server::fixed("200 OK", "").await;
    for (auth, sent) in [
        (json!({ "bearer": "t0k3n" }), "Bearer t0k3n"),
        (json!({ "username": "u", "password": "p:ä" }), "Basic dTpwOsOk"),
        (json!({ "username": "u" }), "Basic dTo="),
    ] {
        call(json!({ "url": server.url("/"), "auth": auth })).await.unwrap();
        assert_eq!(header(&server.asked().pop().unwrap(), "authorization"), Some(sent));
    }
    let both = json!({ "url": server.url("/"), "auth": { "bearer": "t" }, "headers": { "authorization": "x" } });
    assert!(permanent(call(both).await).contains("keep one"));
}

#[tokio::test]
async fn redirects_are_counted_and_may_be_none() {
    let server = Server::fixed("302 Moved\nLocation: /", "").await;
    let input = |redirects: u8, expected: Value| json!({ "url": server.url("/"), "redirects": redirects, "expected_status": expected });
    assert!(permanent(call(input(2, json!("2xx"))).await).contains("more than 2 redirects"));
    assert_eq!(server.asked().len(), 3);
    assert!(permanent(call(input(0, json!("2xx"))).await).contains("answered 302"));
    assert_eq!(call(input(0, json!("3xx"))).await.unwrap()["headers"]["location"], "/");
}

#[tokio::test]
async fn an_answer_that_takes_longer_than_its_timeout_is_retryable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_request(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx").await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let message = retryable(call(json!({ "url": url, "timeout": "200ms" })).await);
    assert!(message.contains("within 200ms"), "{message}");
    // The server sees the connection closed.
    timeout(Duration::from_secs(5), tasks.join_next()).await.unwrap();
    let message = permanent(call(json!({ "url": url, "timeout": "soon" })).await);
    assert!(message.contains("timeout"), "{message}");
}

#[tokio::test]
async fn root_certificates_must_be_some() {
    for pem in ["", "-----BEGIN CERTIFICATE-----\nnot base64\n-----END CERTIFICATE-----"] {
        let message = permanent(
            call(json!({ "url": "https://127.0.0.1:1/", "root_certificates": pem })).await,
        );
        assert!(message.contains("root_certificates"), "{message}");
    }
}

#[tokio::test]
async fn a_server_is_trusted_when_its_root_is_given() {
    let http = http("127.0.0.1");
    let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let _ = stream.read_buf(&mut Vec::new()).await;
            let _ = stream.write_all(&answer("200 OK\nConnection: close", "in private")).await;
            let _ = stream.shutdown().await;
        }
    });
    let unknown = retryable(super::run(&http, json!({ "url": url }), &context()).await);
    assert!(unknown.contains("certificate"), "{unknown}");
    let trusted =
        json!({ "url": url, "root_certificates": own.cert.pem(), "connect_timeout": "5s" });
    for _ in 0..2 {
        let output = super::run(&http, trusted.clone(), &context()).await.unwrap();
        assert_eq!(output["body"], "in private");
    }
}

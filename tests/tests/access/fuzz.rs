//! Whatever a client sends, the answer is never a 500.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use reqwest::Method;
use reqwest::header::{HeaderName, HeaderValue};
use serde_json::{Map, Value, json};
use tests::client::{Client, token};
use tests::fleet::{Role, SECRET, TestFleet};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::roles::operations;
use super::{account, admin, apis, nobody, text};

/// How many send at the same time.
const SENDERS: u64 = 4;

const TEXTS: &[&str] = &[
    "",
    " ",
    "a",
    "p",
    "0",
    "-1",
    "null",
    "true",
    "\0",
    "a\0b",
    "\u{feff}",
    "\u{202e}abc",
    "ß",
    "😀",
    "a/b",
    "..",
    "../../etc/passwd",
    "'; drop table runs; --",
    "%00",
    "%",
    "{{ 1 + }}",
    "{{ input }}",
    "{{ secrets.TOKEN }}",
    "{% for x in range(9999) %}{% endfor %}",
    "{{",
    "1s",
    "24h",
    "-1s",
    "1e99s",
    "99999999999999999999d",
    "2030-01-31T08:00:00Z",
    "0000-00-00T00:00:00Z",
    "9999999-01-01T00:00:00Z",
    "admin",
    "viewer",
    "echo",
    "call_api",
    "run_command",
    "http://127.0.0.1:1/",
    "a@b",
    "correct horse battery",
    "gtr_abc_def",
    "00000000-0000-0000-0000-000000000000",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
    "\"3\"",
    "*",
    "W/\"1\"",
    "\r\nx: y",
    "\u{7f}",
    "gpu",
    "default",
    "failed",
    "start",
    "completed,failed",
    "completed",
    "YQ",
    "AAAA",
    "*/5 * * * *",
    "Europe/Berlin",
    "\u{1}\u{2}",
    "\\u0000",
    "ⅷ",
    "İ",
];

const NUMBERS: &[&str] = &[
    "0",
    "-0",
    "1",
    "-1",
    "0.5",
    "1e5",
    "1e308",
    "1e309",
    "-1e309",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "2147483648",
    "1e-400",
    "123456789012345678901234567890",
    "201",
    "200",
    "1000000000000",
];

/// One sender's source of nonsense.
struct Fuzz {
    random: StdRng,
    schemas: Value,
    /// Ids and names of what there is.
    known: Vec<String>,
}

impl Fuzz {
    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from.choose(&mut self.random).expect("there are some")
    }

    fn word(&mut self) -> String {
        match self.random.random_range(0..20) {
            0 => "x".repeat(self.random.random_range(1..70_000)),
            1 => {
                (0..self.random.random_range(1..20)).map(|_| self.random.random::<char>()).collect()
            }
            2..6 => self.known.choose(&mut self.random).expect("there are some").clone(),
            _ => self.pick(TEXTS).to_owned(),
        }
    }

    fn value(&mut self, depth: u32) -> Value {
        match self.random.random_range(0..if depth == 0 { 5 } else { 8 }) {
            0 => Value::Null,
            1 => json!(self.random.random::<bool>()),
            2 => serde_json::from_str(self.pick(NUMBERS)).unwrap_or(Value::Null),
            3 | 4 => Value::String(self.word()),
            5 => (0..self.random.random_range(0..5)).map(|_| self.value(depth - 1)).collect(),
            6 => {
                let mut inner = self.value(0);
                for _ in 0..self.random.random_range(1..200) {
                    inner =
                        if depth.is_multiple_of(2) { json!([inner]) } else { json!({"a": inner}) };
                }
                inner
            }
            _ => {
                let names = 0..self.random.random_range(0..5);
                Value::Object(names.map(|_| (self.word(), self.value(depth - 1))).collect())
            }
        }
    }

    /// Something like what the schema describes.
    fn like(&mut self, schema: &Value, depth: u32) -> Value {
        if depth == 0 || self.chance(15) {
            return self.value(2);
        }
        if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
            let schema = self.schemas[name].clone();
            return self.like(&schema, depth - 1);
        }
        if let Some(properties) = schema["properties"].as_object() {
            let mut fields = Map::new();
            for (name, schema) in properties {
                if self.chance(75) {
                    fields.insert(name.clone(), self.like(schema, depth - 1));
                }
            }
            return Value::Object(fields);
        }
        match schema["type"].as_str() {
            Some("array") => {
                let count = self.random.random_range(0..4);
                (0..count).map(|_| self.like(&schema["items"], depth - 1)).collect()
            }
            Some("integer" | "number") => json!(self.random.random_range(-2..300)),
            Some("boolean") => json!(self.random.random::<bool>()),
            Some("string") => Value::String(self.word()),
            _ => self.definition(),
        }
    }

    /// Where the document says nothing, it is a pipeline, a node, or anything.
    fn definition(&mut self) -> Value {
        if self.chance(50) {
            return self.value(3);
        }
        let mut node = |id: &str| {
            let kind = ["trigger", "action", "condition", "delay", "parallel", "agent", "x"];
            let kind = self.pick(&kind);
            json!({"id": id, "type": kind, "config": {"action": "echo", "x": self.value(1), "condition": self.word(),
                "duration": self.word()}, "retry": self.value(1), "timeout": self.word()})
        };
        let nodes = [node("a"), node("b")];
        json!({"name": self.word(), "nodes": nodes, "edges": [{"from": "a", "to": "b", "condition": self.word(),
            "when": self.word()}], "input_schema": self.value(2), "timeout": self.word()})
    }

    fn body(&mut self, operation: &Value) -> Vec<u8> {
        let content = operation["requestBody"]["content"].as_object();
        let schemas: Vec<&Value> = content.into_iter().flat_map(Map::values).collect();
        let schema =
            schemas.choose(&mut self.random).map_or(Value::Null, |media| media["schema"].clone());
        let value = self.like(&schema, 6);
        let mut bytes = value.to_string().into_bytes();
        match self.random.random_range(0..12) {
            0 => bytes.truncate(bytes.len() / 2),
            1 => {
                let at = self.random.random_range(0..=bytes.len());
                bytes.splice(at..at, [0xff, 0xfe, 0xc0]);
            }
            2 => {
                let at = self.random.random_range(0..=bytes.len());
                bytes.insert(at, 0);
            }
            3 => bytes = "[".repeat(self.random.random_range(1..20_000)).into_bytes(),
            4 => {
                let escape = self.pick(&["\\u0000", "\\ud800", "\\udfff\\ud800", "\\x", "\\"]);
                bytes =
                    format!("{{\"name\":\"{escape}\",\"{escape}\":1,\"name\":1e999}}").into_bytes();
            }
            5 => bytes.resize(self.random.random_range(0..1_500_000), b' '),
            6 => bytes.clear(),
            7 => {
                bytes = format!("grant_type=password&username={}&password=%ff%00", self.word())
                    .into_bytes()
            }
            _ => {}
        }
        bytes
    }

    fn segment(&mut self) -> String {
        let mut word = self.word();
        word.truncate(word.floor_char_boundary(3_000));
        let encoded = word.bytes().map(|byte| {
            if byte.is_ascii_alphanumeric() || byte == b'-' {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02x}")
            }
        });
        let encoded: String = encoded.collect();
        if encoded.is_empty() { "%20".to_owned() } else { encoded }
    }

    fn path(&mut self, template: &str, operation: &Value) -> String {
        let mut path = String::new();
        for part in template.split('/').skip(1) {
            let segment = if part.starts_with('{') { self.segment() } else { part.to_owned() };
            path = format!("{path}/{segment}");
        }
        let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        let mut query = Vec::new();
        for parameter in parameters.iter().filter(|parameter| parameter["in"] == "query") {
            if self.chance(40) {
                query.push(format!("{}={}", text(parameter, "name"), self.segment()));
            }
        }
        if self.chance(5) {
            query.push(format!("{}={}", self.segment(), self.segment()));
        }
        if query.is_empty() { path } else { format!("{path}?{}", query.join("&")) }
    }

    fn headers(&mut self) -> Vec<(HeaderName, HeaderValue)> {
        let names = [
            "idempotency-key",
            "if-match",
            "last-event-id",
            "content-type",
            "x-request-id",
            "traceparent",
            "content-encoding",
            "accept",
            "x-forwarded-for",
            "origin",
            "authorization",
        ];
        let mut headers = Vec::new();
        for name in names {
            if self.chance(8)
                && let Ok(value) = HeaderValue::from_bytes(self.word().as_bytes())
                && value.len() < 8_000
            {
                headers.push((HeaderName::from_static(name), value));
            }
        }
        headers
    }
}

/// Sends one request; returns what is wrong with the answer.
async fn shoot(
    fuzz: &mut Fuzz,
    client: &Client,
    operation: &(Method, String, Value),
) -> Result<(), String> {
    let (method, template, operation) = operation;
    let path = fuzz.path(template, operation);
    let role = fuzz.pick(&["admin", "admin", "admin", "operator", "viewer"]);
    let client = client.with(&token(SECRET, "fuzz", role, Duration::from_secs(600)));
    let mut request = client.request(method.clone(), &path);
    let mut shown = format!("{method} {path}");
    if *method != Method::GET {
        let body = fuzz.body(operation);
        shown = format!("{shown}\n{}", String::from_utf8_lossy(&body[..body.len().min(2_000)]));
        let kind = if body.starts_with(b"grant_type") {
            "application/x-www-form-urlencoded"
        } else {
            "application/json"
        };
        request = request.header("content-type", kind).body(body);
    }
    for (name, value) in fuzz.headers() {
        shown = format!("{shown}\n{name}: {value:?}");
        request = request.header(name, value);
    }
    // What is no address at all does not get as far as the api.
    let Ok(request) = request.build() else { return Ok(()) };
    let answer = tests::client::http().execute(request).await;
    let answer = match answer {
        Ok(answer) => answer,
        // A body that is refused before it is read to its end can break the connection.
        Err(error) if error.is_request() || error.is_body() => return Ok(()),
        Err(error) => return Err(format!("{shown}\n{error:?}")),
    };
    let status = answer.status().as_u16();
    let kind = answer
        .headers()
        .get("content-type")
        .and_then(|kind| kind.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    if kind.starts_with("text/event-stream") {
        return Ok(());
    }
    let body = answer.text().await.unwrap_or_default();
    if status >= 500 {
        return Err(format!("{shown}\n{status} {body}"));
    }
    if status >= 400 && kind != "application/problem+json" {
        return Err(format!("{shown}\n{status} {kind}: {body}"));
    }
    Ok(())
}

/// Bytes that are hardly HTTP.
async fn shoot_bytes(fuzz: &mut Fuzz, address: &str) -> Result<(), String> {
    let mut bytes =
        b"POST /v1/actions HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}"
            .to_vec();
    for _ in 0..fuzz.random.random_range(1..6) {
        let at = fuzz.random.random_range(0..bytes.len());
        bytes[at] = fuzz.random.random();
    }
    let mut stream =
        tokio::net::TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let _ = stream.write_all(&bytes).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(3), stream.read_to_end(&mut answer)).await;
    let answer = String::from_utf8_lossy(&answer);
    if answer.starts_with("HTTP/1.1 5") {
        return Err(format!("{:?}\n{answer}", String::from_utf8_lossy(&bytes)));
    }
    Ok(())
}

async fn fuzz(time: Duration) {
    let options = apis(1).with(Role::Api, "GATHERING_REGISTRATION", "open").with(
        Role::Api,
        "GATHERING_REQUEST_TIMEOUT",
        "2s",
    );
    let fleet = TestFleet::start(options).await;
    let admin = admin(&fleet).await;
    let user = account(&admin, "somebody@example.org", "viewer").await;
    let key = admin.post("/v1/api-keys", &json!({"name": "k"})).await.expect(201);
    admin.create_pipeline(&crate::definitions::chain("p", 2)).await;
    let run = admin.submit("p", json!({})).await;
    let known = vec![user, text(&key, "id").to_owned(), run, "p".to_owned(), "TOKEN".to_owned()];
    let client = nobody(&fleet, 0);
    let document = client.get("/openapi.json").await.expect(200);
    let operations = Arc::new(operations(&client).await);
    let address = fleet.url(Role::Api, 0).replace("http://", "");
    let seed: u64 = std::env::var("GATHERING_FUZZ_SEED")
        .map_or_else(|_| rand::random(), |seed| seed.parse().expect("a number"));
    println!("GATHERING_FUZZ_SEED={seed}");
    let until = Instant::now() + time;
    let sent = Arc::new(AtomicUsize::new(0));
    let senders = (0..SENDERS).map(|index| {
        let mut fuzz = Fuzz {
            random: StdRng::seed_from_u64(seed.wrapping_add(index)),
            schemas: document["components"]["schemas"].clone(),
            known: known.clone(),
        };
        let (client, operations, address, sent) =
            (client.clone(), operations.clone(), address.clone(), sent.clone());
        tokio::spawn(async move {
            while Instant::now() < until {
                for operation in operations.iter() {
                    shoot(&mut fuzz, &client, operation).await?;
                    sent.fetch_add(1, Ordering::Relaxed);
                }
                shoot_bytes(&mut fuzz, &address).await?;
            }
            Ok::<(), String>(())
        })
    });
    for sender in futures::future::join_all(senders).await {
        if let Err(wrong) = sender.expect("it ends") {
            panic!("GATHERING_FUZZ_SEED={seed}\n{wrong}");
        }
    }
    let sent = sent.load(Ordering::Relaxed);
    println!("{sent} requests");
    assert!(sent > operations.len() * 4, "{sent}");
    client.get("/health/ready").await.expect(200);
    let logs = fleet.logs();
    let failed =
        logs.lines().find(|line| line.contains("a request failed") || line.contains("panicked at"));
    assert!(failed.is_none(), "GATHERING_FUZZ_SEED={seed}\n{failed:?}");
}

#[tokio::test]
async fn nothing_that_is_sent_makes_the_api_fail() {
    fuzz(Duration::from_secs(20)).await;
}

#[tokio::test]
#[ignore = "it takes five minutes: make faults runs it"]
async fn nothing_that_is_sent_for_five_minutes_makes_the_api_fail() {
    fuzz(Duration::from_secs(300)).await;
}

//! How many requests somebody may send.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tests::client::{Answer, Client};
use tests::fleet::{FleetOptions, Role, TestFleet};
use tests::ports::Port;
use tests::wait::{eventually, seen};

use super::{ADMIN, PASSWORD, account, admin, apis, nobody, signed_in, text};

fn limited(options: FleetOptions, auth: &str, write: &str, read: &str) -> FleetOptions {
    options
        .with(Role::Api, "GATHERING_RATE_LIMIT_AUTH", auth)
        .with(Role::Api, "GATHERING_RATE_LIMIT_WRITE", write)
        .with(Role::Api, "GATHERING_RATE_LIMIT_READ", read)
}

fn number(answer: &Answer, name: &str) -> u64 {
    let value = answer.header(name).unwrap_or_else(|| panic!("no {name}: {:?}", answer.headers));
    value.parse().unwrap_or_else(|_| panic!("{name}: {value}"))
}

/// How many requests are let through before one is turned away.
async fn taken(client: &Client, path: &str) -> usize {
    for count in 0..100 {
        if client.get(path).await.status == 429 {
            return count;
        }
    }
    panic!("100 were let through");
}

#[tokio::test]
async fn every_answer_says_what_is_left_and_one_too_many_when_to_come_back() {
    let fleet = TestFleet::start(limited(apis(1), "off", "3/h", "5/h")).await;
    let admin = admin(&fleet).await;
    for left in [2, 1, 0] {
        let answer = admin.post("/v1/actions", &json!({"action": "echo"})).await;
        assert_eq!(answer.status, 202, "{}", answer.text);
        for name in ["ratelimit-limit", "x-ratelimit-limit"] {
            assert_eq!(number(&answer, name), 3);
        }
        for name in ["ratelimit-remaining", "x-ratelimit-remaining"] {
            assert_eq!(number(&answer, name), left);
        }
        let spent = 3 - left;
        let reset = number(&answer, "ratelimit-reset");
        assert!(reset > (spent - 1) * 1200 && reset <= spent * 1200, "{reset}");
        assert!(number(&answer, "x-ratelimit-reset") > 1_700_000_000 + reset);
    }
    let over = admin.post("/v1/actions", &json!({"action": "echo"})).await;
    let wait = number(&over, "retry-after");
    assert!((1100..=1200).contains(&wait), "{wait}");
    assert_eq!(
        (number(&over, "ratelimit-remaining"), number(&over, "x-ratelimit-remaining")),
        (0, 0)
    );
    over.problem(429);
    // Reading is counted by itself; so are errors, and each of the callers.
    let read = admin.get("/v1/runs/nonsense").await;
    assert_eq!((read.status, number(&read, "ratelimit-remaining")), (400, 4));
    assert_eq!(taken(&admin, "/v1/runs").await, 4);
    let operator = fleet.client();
    assert_eq!(taken(&operator, "/v1/runs").await, 5);
    // Who is not signed in is counted by address, wherever they knock.
    let nobody = nobody(&fleet, 0);
    assert_eq!(nobody.get("/v1/runs").await.status, 401);
    assert_eq!(nobody.delete("/v1/runs").await.status, 405);
    assert_eq!(number(&nobody.get("/nothing").await, "ratelimit-remaining"), 2);
    assert_eq!(taken(&nobody, "/nothing").await, 2);
    for path in ["/health/live", "/health/ready", "/metrics"] {
        for _ in 0..10 {
            let answer = nobody.get(path).await;
            assert_eq!((answer.status, answer.header("ratelimit-limit")), (200, None), "{path}");
        }
    }
}

#[tokio::test]
async fn signing_in_is_limited_by_address_and_keys_by_key() {
    let options = limited(apis(1), "3/min", "off", "2/min").with(
        Role::Api,
        "GATHERING_TRUSTED_PROXIES",
        "127.0.0.1",
    );
    let fleet = TestFleet::start(options).await;
    let nobody = nobody(&fleet, 0);
    let sign_in = async |address: &str| {
        let body = json!({"email": ADMIN, "password": "not the password"});
        let request = nobody.request(Method::POST, "/v1/auth/token").json(&body);
        nobody.send(request.header("x-forwarded-for", address)).await.status
    };
    for status in [401, 401, 401, 429, 429] {
        assert_eq!(sign_in("203.0.113.1").await, status);
    }
    assert_eq!(sign_in("203.0.113.2").await, 401, "another address");
    let admin = admin(&fleet).await;
    let make = async || admin.post("/v1/api-keys", &json!({"name": "k"})).await.expect(201);
    for key in [make().await, make().await] {
        assert_eq!(taken(&nobody.with(text(&key, "key")), "/v1/runs").await, 2);
    }
    // Off means off.
    for _ in 0..50 {
        let answer = admin.post("/v1/actions", &json!({"action": "nothing"})).await;
        assert_eq!((answer.status, answer.header("ratelimit-limit")), (422, None));
    }
}

#[tokio::test]
async fn the_defaults_are_5_600_and_1200_a_minute() {
    let mut fleet = TestFleet::prepare(apis(0)).await;
    fleet.add(
        Role::Api,
        &[
            ("GATHERING_RATE_LIMIT_AUTH", "5/min"),
            ("GATHERING_RATE_LIMIT_WRITE", "600/min"),
            ("GATHERING_RATE_LIMIT_READ", "1200/min"),
        ],
    );
    let help = tests::process::command(&tests::process::binary("gathering-api"))
        .args(["serve", "--help"])
        .output();
    let help = String::from_utf8(help.expect("it runs").stdout).expect("text");
    for default in ["[default: 5/min]", "[default: 600/min]", "[default: 1200/min]"] {
        assert!(help.contains(default), "{default}: {help}");
    }
    fleet.ready().await;
    let admin = admin(&fleet).await;
    assert_eq!(number(&admin.get("/v1/runs").await, "ratelimit-limit"), 1200);
    assert_eq!(number(&admin.post("/v1/actions", &json!({})).await, "ratelimit-limit"), 600);
}

/// A Redis of one test, killed at drop.
struct Redis {
    child: Child,
    port: Port,
    folder: PathBuf,
}

impl Redis {
    async fn start(folder: &std::path::Path) -> Self {
        let port = Port::claim();
        let child = Self::spawn(&port, folder);
        let redis = Self { child, port, folder: folder.to_owned() };
        redis.ready().await;
        redis
    }

    fn spawn(port: &Port, folder: &std::path::Path) -> Child {
        let number = port.address().port().to_string();
        Command::new("redis-server")
            .args(["--port", &number, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .current_dir(folder)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server can be started: scripts/test installs it where apt-get is, else install it yourself")
    }

    async fn ready(&self) {
        eventually(Duration::from_secs(10), "Redis to listen", async || {
            tokio::net::TcpStream::connect(self.port.address()).await.map(drop)
        })
        .await;
    }

    fn url(&self) -> String {
        format!("redis://{}", self.port.address())
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    async fn again(&mut self) {
        self.child = Self::spawn(&self.port, &self.folder);
        self.ready().await;
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn is_shared(fleet: &TestFleet, expected: bool) {
    for api in 0..2 {
        eventually(Duration::from_secs(10), "Redis to be noticed", async || {
            let metrics = fleet.metrics(Role::Api, api).await;
            let line = metrics.lines().find(|line| line.starts_with("gathering_rate_limit_shared"));
            let is = line.is_some_and(|line| line.ends_with(" 1"));
            seen(is == expected && line.is_some(), line.map(str::to_owned))
        })
        .await;
    }
}

#[tokio::test]
async fn with_redis_all_replicas_count_together_and_without_it_each_by_itself() {
    let mut fleet = TestFleet::prepare(limited(apis(0), "off", "off", "10/h")).await;
    let mut redis = Redis::start(&fleet.folder().clone()).await;
    let url = redis.url();
    for _ in 0..2 {
        fleet.add(Role::Api, &[("GATHERING_REDIS_URL", &url)]);
    }
    fleet.ready().await;
    is_shared(&fleet, true).await;
    let one = admin(&fleet).await;
    let two = nobody(&fleet, 1).with(one.token().expect("a token"));
    for left in (0..10).rev() {
        let client = if left % 2 == 0 { &one } else { &two };
        assert_eq!(number(&client.get("/v1/runs").await, "ratelimit-remaining"), left);
    }
    for client in [&one, &two] {
        let over = client.get("/v1/runs").await;
        assert!((300..=360).contains(&number(&over, "retry-after")), "{:?}", over.headers);
        over.problem(429);
    }
    // Each goes on by itself, and says so.
    redis.kill();
    assert_eq!(taken(&one, "/v1/runs").await, 10);
    assert_eq!(taken(&two, "/v1/runs").await, 10);
    is_shared(&fleet, false).await;
    assert!(fleet.logs().contains("Redis is away: each replica counts requests by itself"));
    redis.again().await;
    is_shared(&fleet, true).await;
    let bob = account(&one, "bob@example.org", "viewer").await;
    assert!(!bob.is_empty());
    let bob = signed_in(&fleet, "bob@example.org").await;
    bob.get("/v1/runs").await.expect(200);
    let bob = nobody(&fleet, 1).with(bob.token().expect("a token"));
    assert_eq!(number(&bob.get("/v1/runs").await, "ratelimit-remaining"), 8);
    let _ = PASSWORD;
}

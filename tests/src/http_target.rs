//! A real HTTP server on the loopback for `call_api` nodes to call: it answers as told, and counts effects.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Response, Uri};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

/// One answer.
#[derive(Debug, Clone)]
pub struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
    delay: Duration,
}

impl Reply {
    /// An answer without a body.
    pub fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: String::new(), delay: Duration::ZERO }
    }

    /// 200 with a JSON body.
    pub fn json(body: &serde_json::Value) -> Self {
        Self { body: body.to_string(), ..Self::status(200) }
            .header("content-type", "application/json")
    }

    /// The same with a header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The same with another body.
    #[must_use]
    pub fn body(self, body: impl Into<String>) -> Self {
        Self { body: body.into(), ..self }
    }

    /// The same, after a time.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }
}

/// A request that came.
#[derive(Debug, Clone)]
pub struct Received {
    /// Its method.
    pub method: Method,
    /// Its path and query.
    pub uri: Uri,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, as text.
    pub body: String,
    /// When it came.
    pub at: Instant,
}

/// The server. It stops at drop.
#[derive(Debug)]
pub struct HttpTarget {
    address: SocketAddr,
    script: Arc<Script>,
    server: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Script {
    paths: Mutex<HashMap<String, Path>>,
    arrivals: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Path {
    replies: VecDeque<Reply>,
    received: Vec<Received>,
    gate: Option<Arc<Semaphore>>,
}

/// Holds every request to one path until it is opened.
#[derive(Debug)]
pub struct Gate(Arc<Semaphore>);

impl Gate {
    /// Lets all requests pass, those that wait and those to come.
    pub fn open(&self) {
        self.0.add_permits(Semaphore::MAX_PERMITS / 2);
    }
}

impl HttpTarget {
    /// Starts one, which answers 200 `{}` where nothing else was said.
    pub async fn start() -> Self {
        let script = Arc::new(Script::default());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("the loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let router = Router::new().fallback(answer).with_state(script.clone());
        let server = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Self { address, script, server }
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Answers requests to a path with these, in turn; the last one goes on for ever.
    pub fn answers(&self, path: &str, replies: impl IntoIterator<Item = Reply>) {
        self.script.path(path, |path| path.replies = replies.into_iter().collect());
    }

    /// Makes every request to a path wait.
    pub fn gate(&self, path: &str) -> Gate {
        let gate = Arc::new(Semaphore::new(0));
        self.script.path(path, |path| path.gate = Some(gate.clone()));
        Gate(gate)
    }

    /// The requests that came to a path.
    pub fn received(&self, path: &str) -> Vec<Received> {
        self.script.path(path, |path| path.received.clone())
    }

    /// Waits until so many requests have come to a path.
    pub async fn arrived(&self, path: &str, count: usize) -> Vec<Received> {
        let mut arrivals = self.script.arrivals.subscribe();
        let enough = arrivals.wait_for(|_| self.received(path).len() >= count);
        let enough = tokio::time::timeout(Duration::from_secs(60), enough).await.is_ok();
        let received = self.received(path);
        assert!(enough, "{} requests came to {path} within 60 s, not {count}", received.len());
        received
    }

    /// How often each `Idempotency-Key` came to a path.
    pub fn effects(&self, path: &str) -> BTreeMap<String, usize> {
        let mut effects = BTreeMap::new();
        for request in self.received(path) {
            let key = request
                .headers
                .get("idempotency-key")
                .and_then(|key| key.to_str().ok())
                .unwrap_or("none");
            *effects.entry(key.to_owned()).or_default() += 1;
        }
        effects
    }
}

impl Drop for HttpTarget {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Script {
    fn path<T>(&self, path: &str, act: impl FnOnce(&mut Path) -> T) -> T {
        act(self.lock().entry(path.to_owned()).or_default())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Path>> {
        self.paths.lock().expect("no holder of this lock panics")
    }
}

async fn answer(
    State(script): State<Arc<Script>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let body = String::from_utf8_lossy(&body).into_owned();
    let path = uri.path().to_owned();
    let received = Received { method, uri, headers, body, at: Instant::now() };
    let (reply, gate) = script.path(&path, |path| {
        path.received.push(received);
        let reply = if path.replies.len() > 1 {
            path.replies.pop_front()
        } else {
            path.replies.front().cloned()
        };
        (reply.unwrap_or_else(|| Reply::json(&serde_json::json!({}))), path.gate.clone())
    });
    script.arrivals.send_modify(|count| *count += 1);
    if let Some(gate) = gate {
        let _ = gate.acquire().await;
    }
    tokio::time::sleep(reply.delay).await;
    let mut response = Response::builder().status(reply.status);
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    response.body(Body::from(reply.body)).expect("a scripted answer is well-formed")
}

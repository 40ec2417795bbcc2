//! A client of the api, as small as clients are.

use std::sync::Once;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{EncodingKey, Header};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, RequestBuilder};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::events::Events;
use crate::wait::eventually;

/// Sends requests to one api, with one token.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
}

/// An HTTP answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, as text.
    pub text: String,
    /// The body, if it is JSON, else null.
    pub body: Value,
}

/// A run, as the api shows it.
#[derive(Debug, Clone, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of the api")]
pub struct Run {
    pub id: String,
    pub kind: String,
    pub pipeline: Option<String>,
    pub version: Option<i32>,
    pub state: String,
    pub input: Value,
    pub output: Value,
    pub error: Value,
    pub trigger: Value,
    pub tags: Vec<String>,
    pub created_by: String,
    pub rerun_of: Option<String>,
    #[serde(default)]
    pub parent: Value,
    pub created_at: String,
    pub started_at: Option<String>,
    pub finished_at: Option<String>,
    #[serde(default)]
    pub nodes: Vec<NodeRun>,
}

/// A node run within a run, as the api shows it.
#[derive(Debug, Clone, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of the api")]
pub struct NodeRun {
    pub id: String,
    #[serde(rename = "type")]
    pub node_type: String,
    pub state: String,
    pub attempt: i32,
    #[serde(default)]
    pub output: Value,
    #[serde(default)]
    pub output_omitted: bool,
    #[serde(default)]
    pub error: Value,
    #[serde(default)]
    pub waiting: Value,
    pub started_at: Option<String>,
    pub finished_at: Option<String>,
}

impl Run {
    /// Whether it has ended.
    pub fn is_over(&self) -> bool {
        matches!(self.state.as_str(), "completed" | "failed" | "cancelled" | "timed_out")
    }

    /// One of its node runs.
    ///
    /// # Panics
    /// When it has no such node.
    pub fn node(&self, id: &str) -> &NodeRun {
        self.nodes
            .iter()
            .find(|node| node.id == id)
            .unwrap_or_else(|| panic!("no node {id} in {self:#?}"))
    }

    /// Fails the test unless the run ended in this state.
    pub fn expect(self, state: &str) -> Self {
        assert_eq!(self.state, state, "{self:#?}");
        self
    }
}

impl Answer {
    /// Fails the test unless the answer has this status; returns the body.
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        self.body
    }

    /// Fails the test unless the answer is a problem of this status; returns it.
    pub fn problem(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{}", self.text);
        assert_eq!(self.body["status"], status, "{}", self.text);
        for field in ["type", "title"] {
            assert!(self.body[field].is_string(), "a problem has a {field}: {}", self.text);
        }
        self.body
    }

    /// Fails the test unless the answer has this status.
    pub fn expect_status(self, status: u16) {
        assert_eq!(self.status, status, "{}", self.text);
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The id of what was accepted.
    fn accepted(self) -> String {
        let location = self.header("location").unwrap_or_default().to_owned();
        let body = self.expect(202);
        let id = body["id"].as_str().unwrap_or_else(|| panic!("no id in {body}")).to_owned();
        assert_eq!(location, format!("/v1/runs/{id}"), "Location names the run");
        id
    }
}

impl Client {
    /// A client that signs its own tokens, as an admin.
    pub fn new(base: impl Into<String>, secret: &str) -> Self {
        let token = token(secret, "test", "admin", Duration::from_secs(3600));
        Self { http: http(), base: base.into(), token: Some(token) }
    }

    /// The same with another token, or none.
    #[must_use]
    pub fn with_token(&self, token: Option<String>) -> Self {
        Self { token, ..self.clone() }
    }

    /// A request that may be completed by hand.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Sends a request, and reads the answer to its end.
    pub async fn send(&self, request: RequestBuilder) -> Answer {
        self.try_send(request)
            .await
            .unwrap_or_else(|error| panic!("{} does not answer: {error:?}", self.base))
    }

    /// The same, when the api may be gone.
    pub async fn try_send(&self, request: RequestBuilder) -> reqwest::Result<Answer> {
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await?;
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Ok(Answer { status, headers, text, body })
    }

    /// `GET`.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    /// `POST` of a JSON body.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    /// `POST` of a JSON body, with an `Idempotency-Key`.
    pub async fn post_once(&self, path: &str, body: &Value, key: &str) -> Answer {
        self.send(self.request(Method::POST, path).json(body).header("idempotency-key", key)).await
    }

    /// `POST` of a body as it is.
    pub async fn post_raw(
        &self,
        path: &str,
        content_type: &str,
        body: impl Into<reqwest::Body>,
    ) -> Answer {
        self.send(self.request(Method::POST, path).header("content-type", content_type).body(body))
            .await
    }

    /// `PUT` of a JSON body.
    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::PUT, path).json(body)).await
    }

    /// `PATCH` of a JSON body.
    pub async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::PATCH, path).json(body)).await
    }

    /// The same as another: with the token or key given.
    #[must_use]
    pub fn with(&self, token: &str) -> Self {
        self.with_token(Some(token.to_owned()))
    }

    /// The token that it sends.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Signs in; returns the pair of tokens.
    pub async fn sign_in(&self, email: &str, password: &str) -> Value {
        let body = json!({"email": email, "password": password});
        self.post("/v1/auth/token", &body).await.expect(200)
    }

    /// `DELETE`.
    pub async fn delete(&self, path: &str) -> Answer {
        self.send(self.request(Method::DELETE, path)).await
    }

    /// Creates a pipeline.
    pub async fn create_pipeline(&self, definition: &Value) -> Value {
        self.post("/v1/pipelines", definition).await.expect(201)
    }

    /// Submits a run of a pipeline; returns its id.
    pub async fn submit(&self, pipeline: &str, input: Value) -> String {
        self.submit_with(pipeline, json!({"input": input})).await
    }

    /// Submits a run of a pipeline with a body of one's own; returns its id.
    pub async fn submit_with(&self, pipeline: &str, body: Value) -> String {
        self.post(&format!("/v1/pipelines/{pipeline}/runs"), &body).await.accepted()
    }

    /// Submits a single action; returns the id of its run.
    pub async fn action(&self, action: &str, input: Value) -> String {
        self.action_with(json!({"action": action, "input": input})).await
    }

    /// Submits a single action with a body of one's own; returns the id of its run.
    pub async fn action_with(&self, body: Value) -> String {
        self.post("/v1/actions", &body).await.accepted()
    }

    /// Creates a pipeline, runs it to its end, and returns the run.
    pub async fn run_pipeline(&self, definition: Value, input: Value) -> Run {
        self.create_pipeline(&definition).await;
        let id =
            self.submit(definition["name"].as_str().expect("a definition has a name"), input).await;
        self.wait(&id).await
    }

    /// A run as it is now.
    pub async fn run(&self, id: &str) -> Run {
        parse(self.get(&format!("/v1/runs/{id}")).await.expect(200))
    }

    /// A run at its end, for which it waits half a minute.
    pub async fn wait(&self, id: &str) -> Run {
        self.wait_for(id, Duration::from_secs(30)).await
    }

    /// A run at its end, for which it waits.
    pub async fn wait_for(&self, id: &str, timeout: Duration) -> Run {
        eventually(timeout, &format!("run {id} to end"), async || {
            let run: Run = parse(self.get(&format!("/v1/runs/{id}?wait=10s")).await.expect(200));
            if run.is_over() { Ok(run) } else { Err(format!("{run:#?}")) }
        })
        .await
    }

    /// A run, once a node of it is in a state.
    pub async fn wait_for_node(&self, id: &str, node: &str, state: &str) -> Run {
        eventually(Duration::from_secs(30), &format!("node {node} to be {state}"), async || {
            let run = self.run(id).await;
            if run.node(node).state == state { Ok(run) } else { Err(format!("{run:#?}")) }
        })
        .await
    }

    /// A node run with its attempts and whole output.
    pub async fn node(&self, id: &str, node: &str) -> Value {
        self.get(&format!("/v1/runs/{id}/nodes/{node}")).await.expect(200)
    }

    /// Asks a run to stop.
    pub async fn cancel(&self, id: &str) {
        self.post(&format!("/v1/runs/{id}/cancel"), &json!({})).await.expect(202);
    }

    /// Runs again, from `start` or from what `failed`; returns the id of the new run.
    pub async fn rerun(&self, id: &str, from: &str) -> String {
        self.post(&format!("/v1/runs/{id}/rerun"), &json!({"from": from})).await.accepted()
    }

    /// All items of a list, page by page.
    pub async fn list(&self, path: &str) -> Vec<Value> {
        let mut items = Vec::new();
        let mut next = path.to_owned();
        loop {
            let page = self.get(&next).await.expect(200);
            items.extend(
                page["items"]
                    .as_array()
                    .unwrap_or_else(|| panic!("no items in {page}"))
                    .iter()
                    .cloned(),
            );
            match page["next_cursor"].as_str() {
                Some(cursor) => {
                    next = format!(
                        "{path}{}cursor={cursor}",
                        if path.contains('?') { '&' } else { '?' }
                    )
                }
                None => return items,
            }
        }
    }

    /// The stream of a run's events, after the one named. The answer that there is nothing more to come (204) is an
    /// empty stream.
    pub async fn events(&self, id: &str, last_event_id: Option<&str>) -> Events {
        let mut request = self.request(Method::GET, &format!("/v1/runs/{id}/events"));
        if let Some(last) = last_event_id {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.expect("the api answers");
        assert!([200, 204].contains(&response.status().as_u16()), "{response:?}");
        let content_type =
            response.headers().get("content-type").and_then(|value| value.to_str().ok());
        let fits = content_type.is_some_and(|value| value.starts_with("text/event-stream"));
        assert!(fits || response.status() == 204, "{content_type:?}");
        Events::new(response)
    }
}

/// A run out of an answer's body.
pub fn parse(body: Value) -> Run {
    let said = body.to_string();
    serde_json::from_value(body).unwrap_or_else(|error| panic!("not a run ({error}): {said}"))
}

/// An access token, as `gathering-api token` prints them.
pub fn token(secret: &str, sub: &str, role: &str, ttl: Duration) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (iat, exp) = (now.as_secs(), (now + ttl).as_secs());
    let jti = uuid::Uuid::new_v4();
    signed(
        secret,
        &json!({"iss": "gathering", "aud": "gathering", "sub": sub, "role": role, "jti": jti, "iat": iat,
            "nbf": iat, "exp": exp}),
    )
}

/// Any claims, signed with a secret under the name that the api gives to it.
pub fn signed(secret: &str, claims: &Value) -> String {
    let header = Header { kid: Some(kid(secret)), ..Header::default() };
    signed_as(&header, secret, claims)
}

/// The same under any header.
pub fn signed_as(header: &Header, secret: &str, claims: &Value) -> String {
    jsonwebtoken::encode(header, claims, &EncodingKey::from_secret(secret.as_bytes()))
        .expect("claims can be signed")
}

/// The name of a key.
pub fn kid(secret: &str) -> String {
    let digest = Sha256::new_with_prefix(b"kid").chain_update(secret).finalize();
    URL_SAFE_NO_PAD.encode(&digest[..9])
}

/// One header for a request.
pub fn header(name: &'static str, value: &str) -> HeaderMap {
    let value = HeaderValue::from_str(value).expect("a header's value");
    HeaderMap::from_iter([(HeaderName::from_static(name), value)])
}

/// An HTTP client that speaks to the loopback only: no proxies, no certificates.
pub fn http() -> reqwest::Client {
    static CRYPTOGRAPHY: Once = Once::new();
    CRYPTOGRAPHY.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([])
        .timeout(Duration::from_secs(90))
        .build()
        .expect("a plain client can be built")
}

//! The outermost layer: what every request and every answer has.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use common::telemetry::Traceparent;
use futures::FutureExt;
use tokio_util::task::TaskTracker;
use tracing::Instrument;
use uuid::Uuid;

use crate::app::App;
use crate::error::{ApiError, Kind, Raised};
use crate::limit::{Counted, Tier};
use crate::{address, hygiene};

/// The header that names a request, taken from the client or made.
const REQUEST_ID: &str = "x-request-id";

/// The other end of the connection; the server puts it into each request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// Where a request comes from.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// The client's own address, as far as trusted proxies tell it.
    pub(crate) address: IpAddr,
    pub(crate) request_id: String,
    /// Whether the client speaks TLS.
    is_secure: bool,
    /// Events of this request that are being written.
    pub(crate) events: TaskTracker,
}

/// How long an answer waits for the record of what it tells: a killed api has then lost nothing that it had answered,
/// and a database that does not answer delays a sign-in by no more than this.
const RECORD: Duration = Duration::from_secs(1);

impl Source {
    fn of(app: &App, request: &Request, id: &HeaderValue) -> Self {
        let peer = request.extensions().get::<Peer>();
        let peer = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0.ip());
        Self {
            address: app.proxies.client(peer, request.headers()),
            request_id: id.to_str().unwrap_or_default().to_owned(),
            is_secure: app.proxies.is_secure(peer, request.headers()),
            events: TaskTracker::new(),
        }
    }

    /// Waits until the request's events are written, but not for long.
    async fn recorded(&self) {
        if self.events.is_empty() {
            return;
        }
        self.events.close();
        let _ = tokio::time::timeout(RECORD, self.events.wait()).await;
    }

    /// As whom somebody is counted who is not signed in.
    pub(crate) fn address_key(&self) -> String {
        format!("at:{}", address::counted(self.address))
    }
}

impl<S: Sync> FromRequestParts<S> for Source {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let source = parts.extensions.get::<Self>().cloned();
        source.ok_or_else(|| ApiError::internal("a request without a source"))
    }
}

/// Names the request, runs it in a span of that name, and turns whatever went wrong into a problem document.
///
/// The line for each request that may change something is at `info`, that for a mere look at `debug`. What failed for
/// our own reasons is at `error`.
pub(crate) async fn handle(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let source = Source::of(&app, &request, &id);
    let traceparent = traceparent(request.headers());
    let run = run_in(request.uri().path()).map(tracing::field::display);
    let span = tracing::info_span!("request", request_id = id.to_str().unwrap_or_default(), run);
    let method = request.method().clone();
    let path = request.extensions().get::<MatchedPath>().cloned();
    let is_ops = is_ops(request.uri().path());
    request.extensions_mut().insert(traceparent);
    request.extensions_mut().insert(source.clone());
    let began = Instant::now();
    let answering = AssertUnwindSafe(next.run(request)).catch_unwind().instrument(span.clone());
    let mut response = match tokio::time::timeout(app.request_timeout, answering).await {
        Ok(Ok(response)) => response,
        Ok(Err(panic)) => ApiError::internal(what_panicked(&*panic)).into_response(),
        Err(_) => overdue(app.request_timeout).into_response(),
    };
    if !is_ops && response.extensions_mut().remove::<Counted>().is_none() {
        response = counted(&app, &source, response).await;
    }
    source.recorded().await;
    {
        let _entered = span.enter();
        let route = path.as_ref().map_or("unknown", MatchedPath::as_str);
        let status = response.status();
        let accepted = response.headers().get(header::LOCATION);
        let run = accepted.and_then(|at| run_in(at.to_str().ok()?)).map(tracing::field::display);
        let (status_code, took) = (status.as_u16(), began.elapsed());
        if method.is_safe() {
            tracing::debug!(%method, route, status = status_code, run, ?took, "answered");
        } else {
            tracing::info!(%method, route, status = status_code, run, ?took, "answered");
        }
        count(method.as_str(), route, status, began);
        if (status.is_client_error() || status.is_server_error()) && !is_report(&response) {
            response = problem(response, &id);
        }
    }
    response.headers_mut().insert(REQUEST_ID, id);
    hygiene::add(response.headers_mut(), source.is_secure);
    response
}

/// What operators and orchestrators ask is not counted.
fn is_ops(path: &str) -> bool {
    path == "/metrics" || path.starts_with("/health/")
}

/// Counts what no route has counted: addresses and methods that there are not, and what ran out of time.
async fn counted(app: &App, source: &Source, response: Response) -> Response {
    match app.limits.charge(Tier::Read, &source.address_key()).await {
        Some(count) => {
            let refusal = count.refusal().map(IntoResponse::into_response);
            count.mark(refusal.unwrap_or(response))
        }
        None => response,
    }
}

fn overdue(limit: std::time::Duration) -> ApiError {
    ApiError::new(Kind::TooSlow, format!("The answer was not there within {limit:?}."))
}

/// The run that an address is about.
fn run_in(path: &str) -> Option<Uuid> {
    let id = path.strip_prefix("/v1/runs/")?;
    Uuid::try_parse(id.split('/').next()?).ok()
}

/// Whether it says in JSON what it has to say: `/health/ready` does, and nothing that is an error.
fn is_report(response: &Response) -> bool {
    response.headers().get(header::CONTENT_TYPE).is_some_and(|json| json == "application/json")
}

fn count(method: &str, route: &str, status: StatusCode, began: Instant) {
    let labels = [
        ("method", method.to_owned()),
        ("route", route.to_owned()),
        ("status", status.as_str().to_owned()),
    ];
    metrics::counter!("gathering_http_requests_total", &labels).increment(1);
    metrics::histogram!("gathering_http_request_seconds", "route" => route.to_owned())
        .record(began.elapsed().as_secs_f64());
}

/// Writes the body of an error, whoever answered it, and logs what caused it.
fn problem(mut response: Response, id: &HeaderValue) -> Response {
    let status = response.status();
    let raised = response.extensions_mut().remove::<Raised>().unwrap_or_else(|| {
        let kind = Kind::of_status(status);
        let detail = match kind {
            Kind::Unknown => "There is nothing at this address.",
            Kind::MethodNotAllowed => {
                "This address does not take this method; `Allow` lists those that it takes."
            }
            _ => kind.parts().1,
        };
        Raised { problem: ApiError::new(kind, detail).problem(), cause: None }
    });
    if let Some(cause) = &raised.cause {
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(cause, "a request failed");
        } else {
            tracing::warn!(cause, status = status.as_u16(), "a request could not be served");
        }
    }
    let mut problem = raised.problem;
    problem.status = status.as_u16();
    problem.request_id = id.to_str().ok().map(str::to_owned);
    let body = serde_json::to_vec(&problem).unwrap_or_default();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    *response.body_mut() = Body::from(body);
    response
}

fn what_panicked(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("panic: {}", text.unwrap_or("without a message"))
}

/// The client's id if it is short and printable, else a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let given = headers.get(REQUEST_ID).filter(|id| {
        (1..=128).contains(&id.len())
            && id.as_bytes().iter().all(|byte| matches!(byte, 0x20..=0x7e))
    });
    given.cloned().unwrap_or_else(|| {
        HeaderValue::from_str(&Uuid::now_v7().to_string()).expect("a UUID is a header's value")
    })
}

/// The client's trace context if it is one, else a new one.
fn traceparent(headers: &HeaderMap) -> Traceparent {
    let given = headers.get("traceparent").and_then(|value| value.to_str().ok()?.parse().ok());
    given.unwrap_or_else(Traceparent::generate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_is_taken_when_it_is_printable_and_short() {
        let mut headers = HeaderMap::new();
        let mut taken = |id: &[u8]| {
            headers.insert(REQUEST_ID, HeaderValue::from_bytes(id).expect("a header's value"));
            request_id(&headers).as_bytes() == id
        };
        assert!(taken(b"order 66/a"));
        assert!(taken(&[b'x'; 128]));
        assert!(!taken(&[b'x'; 129]));
        assert!(!taken("ü".as_bytes()));
        assert!(!taken(b""));
        assert!(!taken(b"a\tb"));
    }
}

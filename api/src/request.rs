//! The outermost layer: what every request and every answer has.

use std::panic::AssertUnwindSafe;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use common::telemetry::Traceparent;
use futures::FutureExt;
use tracing::Instrument;
use uuid::Uuid;

use crate::error::{ApiError, Kind, Raised};

/// The header that names a request, taken from the client or made.
const REQUEST_ID: &str = "x-request-id";

/// Names the request, runs it in a span of that name, and turns whatever went wrong into a problem document.
///
/// The line for each request that may change something is at `info`, that for a mere look at `debug`. What failed for
/// our own reasons is at `error`.
pub(crate) async fn handle(mut request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let traceparent = traceparent(request.headers());
    let run = run_in(request.uri().path()).map(tracing::field::display);
    let span = tracing::info_span!("request", request_id = id.to_str().unwrap_or_default(), run);
    let method = request.method().clone();
    let path = request.extensions().get::<MatchedPath>().cloned();
    request.extensions_mut().insert(traceparent);
    let began = Instant::now();
    let mut response = AssertUnwindSafe(next.run(request))
        .catch_unwind()
        .instrument(span.clone())
        .await
        .unwrap_or_else(|panic| ApiError::internal(what_panicked(&*panic)).into_response());
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
    response
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

//! Sending, and following redirects by hand: reqwest would hand a caller's own headers (`X-Api-Key`) to any host.

use reqwest::header::{HeaderMap, LOCATION};
use reqwest::{Client, Method, Request, Response, StatusCode};

use super::expected::Expected;
use super::{chain, label};
use crate::Failure;
use crate::http::{Http, Unsent};

/// The headers that go to another origin: those of ours, and those that hold no credential.
const HARMLESS: [&str; 7] = [
    "accept",
    "accept-language",
    "content-language",
    "content-type",
    "idempotency-key",
    "traceparent",
    "user-agent",
];

/// How far redirects are followed.
pub(super) struct Hops<'a> {
    pub(super) http: &'a Http,
    pub(super) client: &'a Client,
    pub(super) expected: &'a Expected,
    /// None: a redirect is an answer like any other.
    pub(super) most: usize,
}

impl Hops<'_> {
    /// The answer that is no redirect, or an expected one, and the name of the request that got it.
    pub(super) async fn send(&self, mut request: Request) -> Result<(String, Response), Failure> {
        for _ in 0..=self.most {
            let label = label(request.method(), request.url());
            let again = request.try_clone().expect("the bodies of call_api are held in memory");
            let sent = self.http.send(self.client, request).await;
            let response = sent.map_err(|error| failure(error, &label))?;
            let status = response.status();
            if self.most == 0 || self.expected.includes(status) || !is_redirect(status) {
                return Ok((label, response));
            }
            let Some(location) = response.headers().get(LOCATION) else {
                return Ok((label, response));
            };
            request = next(again, status, location.as_bytes()).ok_or_else(|| {
                Failure::permanent(format!("{label} redirects to what is no http(s) address"))
            })?;
        }
        Err(Failure::permanent(format!(
            "more than {} redirects, the last to {}",
            self.most,
            label(request.method(), request.url())
        )))
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// The request that a redirect asks for, as browsers read the statuses.
fn next(mut request: Request, status: StatusCode, location: &[u8]) -> Option<Request> {
    let from = request.url().clone();
    let mut to = from.join(std::str::from_utf8(location).ok()?).ok()?;
    if !matches!(to.scheme(), "http" | "https") {
        return None;
    }
    // A password that the redirecting server made up is not ours to send.
    to.set_username("").ok()?;
    to.set_password(None).ok()?;
    if to.fragment().is_none() {
        to.set_fragment(from.fragment());
    }

    let method = request.method();
    let to_get = match status.as_u16() {
        303 => !matches!(*method, Method::GET | Method::HEAD),
        301 | 302 => *method == Method::POST,
        _ => false,
    };
    if to_get {
        *request.method_mut() = Method::GET;
        *request.body_mut() = None;
        retain(request.headers_mut(), |name| !name.starts_with("content-"));
    }
    if from.origin() != to.origin() {
        retain(request.headers_mut(), |name| HARMLESS.contains(&name));
    }
    *request.url_mut() = to;
    Some(request)
}

fn retain(headers: &mut HeaderMap, keep: impl Fn(&str) -> bool) {
    let dropped: Vec<_> = headers.keys().filter(|name| !keep(name.as_str())).cloned().collect();
    for name in dropped {
        headers.remove(name);
    }
}

/// No answer. What the client refuses to send stays refused; anything else may pass.
fn failure(error: Unsent, label: &str) -> Failure {
    let error = match error {
        Unsent::Refused(refused) => return Failure::permanent(format!("{label}: {refused}")),
        Unsent::Failed(error) => error,
    };
    let refused = error.is_builder();
    let message = format!("{label}: {}", chain(&error.without_url()));
    if refused { Failure::permanent(message) } else { Failure::retryable(message) }
}

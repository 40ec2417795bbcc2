//! `call_api`: one HTTP request.
//!
//! Config: `method` (GET), `url`, `headers`, `query`, one of `json`, `text` and `form`, `auth`, `expected_status` (any
//! 2xx), `redirects` (10), `timeout` and `connect_timeout`, `root_certificates`, `response_limit` (1 MiB, at most
//! 16 MiB). Output: `{status, headers, body}`.
//!
//! - `headers` have lower-case names; a repeated one is joined by `, `, and `set-cookie` is always a list.
//! - `body` is parsed when its content type is JSON. JSON that does not parse stays a text, so that nothing of the
//!   answer is lost, and the expression that needs a field of it says so. No body is null. A text is decoded by its
//!   charset, UTF-8 if none is given; what is neither text nor UTF-8 is a permanent failure.
//! - A redirect is followed (up to `redirects`) unless its status is an expected one. Across origins only headers that cannot
//!   hold a credential go along.
//! - Connect errors, broken connections, 408, 429 and 5xx are retryable, after what `Retry-After` says; any other
//!   status that is not expected is permanent.
//!
//! Every request, each hop of a redirect included, leaves through [`Http::send`], which refuses hosts that are not public
//! and not opened by the operator.

mod expected;
mod redirect;
mod request;
mod response;
mod schema;

use std::sync::Arc;

use common::duration;
use common::tool::Spec;
use futures::FutureExt;
use futures::future::BoxFuture;
use reqwest::Url;
use reqwest::header::AUTHORIZATION;
use serde_json::Value;

use crate::http::{Http, chain};
use crate::tool::{BuiltIn, NoSettings, Shared, Tool};
use crate::{Context, Failure, Outcome, input};

pub(crate) struct CallApi {
    http: Arc<Http>,
}

impl BuiltIn for CallApi {
    type Settings = NoSettings;

    fn spec() -> Spec {
        schema::spec()
    }

    fn open(_: NoSettings, shared: &Shared) -> anyhow::Result<Self> {
        Ok(Self { http: shared.http.clone() })
    }
}

impl Tool for CallApi {
    fn execute<'a>(&'a self, input: Value, context: &'a Context) -> BoxFuture<'a, Outcome> {
        run(&self.http, input, context).boxed()
    }
}

pub(crate) async fn run(http: &Http, input: Value, context: &Context) -> Outcome {
    // Dropping the call closes its connection.
    tokio::select! {
        biased;
        () = context.cancel.cancelled() => Err(Failure::Cancelled),
        outcome = call(http, input, context) => outcome,
    }
}

async fn call(http: &Http, input: Value, context: &Context) -> Outcome {
    let mut config: request::Config = input::read("call_api", input)?;
    let client = http.client(&config.manner())?;
    let (expected, limit) = (std::mem::take(&mut config.expected_status), config.response_limit);
    let (redirects, total) = (config.redirects, config.timeout);
    let request = request::build(&client, config, context)?;
    let named = label(request.method(), request.url());
    let mask = context.mask.with(credentials(&request).into_iter());
    let exchange = async {
        let hops = redirect::Hops { http, client: &client, expected: &expected, most: redirects };
        let (label, response) = hops.send(request).await?;
        if expected.includes(response.status()) {
            response::output(response, limit, &label).await
        } else {
            Err(response::failure(response, &label, &mask).await)
        }
    };
    let outcome = match total {
        None => exchange.await,
        Some(total) => tokio::time::timeout(total, exchange).await.unwrap_or_else(|_| {
            let total = duration::text(total);
            Err(Failure::retryable(format!("{named}: no whole answer within {total}")))
        }),
    };
    outcome.map(|output| mask.value(output)).map_err(|failure| failure.masked(&mask))
}

/// How a name and a password are sent: the secret in it is not recognised any more.
fn credentials(request: &reqwest::Request) -> Option<&str> {
    request.headers().get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Basic ")
}

/// How messages name a request: without its path and query, which may hold secrets.
fn label(method: &reqwest::Method, url: &Url) -> String {
    format!("{method} {}", url.origin().ascii_serialization())
}

#[cfg(test)]
mod tests;

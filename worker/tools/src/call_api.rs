//! `call_api`: one HTTP request.
//!
//! Config: `method` (GET), `url`, `headers`, `query`, one of `json`, `text` and `form`, `expected_status` (any 2xx),
//! `response_limit` (1 MiB, at most 16 MiB). Output: `{status, headers, body}`.
//!
//! - `headers` have lower-case names; a repeated one is joined by `, `, and `set-cookie` is always a list.
//! - `body` is parsed when its content type is JSON. JSON that does not parse stays a text, so that nothing of the
//!   answer is lost, and the expression that needs a field of it says so. No body is null. A text is decoded by its
//!   charset, UTF-8 if none is given; what is neither text nor UTF-8 is a permanent failure.
//! - A redirect is followed (up to 10) unless its status is an expected one. Across origins only headers that cannot
//!   hold a credential go along.
//! - Connect errors, broken connections, 408, 429 and 5xx are retryable, after what `Retry-After` says; any other
//!   status that is not expected is permanent.
//!
//! Every request, each hop of a redirect included, leaves through `redirect::send`: a guard of addresses belongs there
//! (for URLs with an address in them) and into the client's resolver (for names).

mod expected;
mod redirect;
mod request;
mod response;
mod schema;

use common::tool::Spec;
use futures::FutureExt;
use futures::future::BoxFuture;
use reqwest::{Client, Url};
use serde_json::Value;

use crate::http::chain;
use crate::tool::{BuiltIn, NoSettings, Shared, Tool};
use crate::{Context, Failure, Outcome, input};

pub(crate) struct CallApi {
    http: Client,
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

pub(crate) async fn run(client: &Client, input: Value, context: &Context) -> Outcome {
    let call = async {
        let config: request::Config = input::read("call_api", input)?;
        let (expected, limit) = (config.expected_status.clone(), config.response_limit);
        let request = request::build(client, config, context)?;
        let (label, response) = redirect::send(client, request, &expected).await?;
        if expected.includes(response.status()) {
            response::output(response, limit, &label).await
        } else {
            Err(response::failure(response, &label, &context.mask).await)
        }
    };
    // Dropping the call closes its connection.
    tokio::select! {
        biased;
        () = context.cancel.cancelled() => Err(Failure::Cancelled),
        outcome = call => outcome,
    }
}

/// How messages name a request: without its path and query, which may hold secrets.
fn label(method: &reqwest::Method, url: &Url) -> String {
    format!("{method} {}", url.origin().ascii_serialization())
}

#[cfg(test)]
mod tests;

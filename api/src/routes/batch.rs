//! Submitting many runs in one request.

use axum::extract::State;
use serde_json::Value;

use super::submit::Origin;
use crate::accept::Reply;
use crate::app::App;
use crate::error::{ApiError, Problem};
use crate::extract::JsonBody;
use crate::fields::Fields;
use crate::submission::Submission;

/// The most that one request may submit.
const MOST: usize = 1_000;

/// Submit many runs
///
/// Up to 1,000, each accepted or refused by itself; those that are accepted are committed together. `errors` of an
/// item's problem point into the whole body.
#[utoipa::path(post, path = "/v1/runs:batch", tag = "runs",
    params(("Idempotency-Key" = Option<String>, Header)),
    request_body(content = super::openapi::BatchRequest),
    responses((status = 200, body = super::openapi::BatchAnswer), (status = 422, body = Problem)))]
pub(super) async fn submit(
    State(app): State<App>,
    origin: Origin,
    body: JsonBody,
) -> Result<Reply, ApiError> {
    let mut wanted = Vec::new();
    for (index, item) in items(body.value)?.into_iter().enumerate() {
        let read = Submission::of_item(item, &format!("/items/{index}"), &app.tools);
        wanted.push(read.map_err(|faults| ApiError::pointed(faults).problem()));
    }
    origin.submit(&app, &body.bytes, wanted, true).await
}

/// Reads `{items}`.
fn items(body: Value) -> Result<Vec<Value>, ApiError> {
    let mut fields = Fields::of(body, "");
    let items = match fields.take("items") {
        Some(Value::Array(items)) if (1..=MOST).contains(&items.len()) => items,
        _ => {
            fields.fault("items", format!("must be a list of 1 to {MOST} items"));
            Vec::new()
        }
    };
    fields.finish(items).map_err(ApiError::pointed)
}

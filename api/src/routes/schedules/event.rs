//! Events that come from outside.

use axum::extract::State;
use axum::http::StatusCode;
use common::schedule;
use common::store::Transaction;
use common::store::schedules::events;
use futures::FutureExt;
use serde_json::{Value, json};
use uuid::Uuid;

use super::super::submit::Origin;
use super::shown::{EventAnswer, EventRequest};
use crate::accept::Reply;
use crate::app::App;
use crate::error::{ApiError, Problem};
use crate::extract::JsonBody;
use crate::fields::Fields;
use crate::once::{Work, once};

/// What begins the types of the system's own events.
const OWN: [&str; 2] = ["run.", "schedule."];

/// Tell that something has happened
///
/// The event is committed when this is answered; each schedule that listens to it fires once.
#[utoipa::path(post, path = "/v1/events", tag = "schedules",
    params(("Idempotency-Key" = Option<String>, Header)),
    request_body(content = EventRequest),
    responses((status = 202, body = EventAnswer), (status = 422, body = Problem)))]
pub(in crate::routes) async fn post_event(
    State(app): State<App>,
    origin: Origin,
    body: JsonBody,
) -> Result<Reply, ApiError> {
    let key = origin.key(&body.bytes);
    let (event_type, data) = event(body.value)?;
    once(&app, key, move |tx| accept(tx, event_type, data).boxed()).await
}

async fn accept(tx: &mut Transaction, event_type: String, data: Value) -> Result<Work, ApiError> {
    let id = Uuid::now_v7();
    events::accept(tx, id, &event_type, &data).await?;
    let reply = Reply::new(StatusCode::ACCEPTED, None, json!({"id": id}));
    Ok(Work { reply, rows: Vec::new() })
}

/// Reads `{type, data}`.
fn event(body: Value) -> Result<(String, Value), ApiError> {
    let mut fields = Fields::of(body, "");
    let event_type = fields.string("type");
    let data = fields.take("data").unwrap_or_else(|| json!({}));
    match event_type.as_deref() {
        Some(text) if !schedule::is_event_type(text) => {
            fields.fault("type", schedule::type_form(text));
        }
        Some(text) if OWN.iter().any(|own| text.starts_with(own)) => {
            fields
                .fault("type", "begins as the types of the system's own events do; choose another");
        }
        None if !fields.is_faulty("type") => {
            fields.fault("type", "is missing; give a type such as `order.paid`")
        }
        _ => {}
    }
    fields.finish((event_type.unwrap_or_default(), data)).map_err(ApiError::pointed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_a_type_of_its_own() {
        let pointer =
            |body: Value| event(body).expect_err("it is wrong").problem().errors[0].pointer.clone();
        let read = event(json!({"type": "order.paid", "data": [1]})).expect("it is right");
        assert_eq!(read, ("order.paid".to_owned(), json!([1])));
        assert_eq!(event(json!({"type": "a"})).expect("it is right").1, json!({}));
        for body in [
            json!({}),
            json!({"type": 1}),
            json!({"type": "a*"}),
            json!({"type": "run.failed"}),
            json!({"type": "schedule.x"}),
            json!({"type": ""}),
        ] {
            assert_eq!(pointer(body.clone()).as_deref(), Some("/type"), "{body}");
        }
        assert_eq!(pointer(json!({"type": "a", "dat": 1})).as_deref(), Some("/dat"));
    }
}

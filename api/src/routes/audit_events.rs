//! Security events, as admins read them.

use axum::Json;
use axum::extract::State;
use common::store::audit_events::{self, Event, Filter};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::app::App;
use crate::audit::Kind;
use crate::error::{ApiError, Problem};
use crate::page::{Page, Parameters};
use crate::view::Stamp;

/// Something that happened.
#[derive(Serialize, ToSchema)]
pub(super) struct EventView {
    id: Uuid,
    kind: String,
    /// Who did it: a user's id, `key:<prefix>`, or the name in an operator's token.
    actor: Option<String>,
    /// To whom or what.
    subject: Option<String>,
    /// The client's address.
    address: String,
    request_id: String,
    detail: Value,
    at: Stamp,
}

impl From<Event> for EventView {
    fn from(event: Event) -> Self {
        Self {
            id: event.id,
            kind: event.kind,
            actor: event.actor,
            subject: event.subject,
            address: event.address,
            request_id: event.request_id,
            detail: event.detail,
            at: Stamp(event.at),
        }
    }
}

/// List security events, newest first
#[utoipa::path(get, path = "/v1/audit-events", tag = "access",
    params(
        ("kind" = Option<String>, Query, description = "Of this kind, or of one of these: `login,login_failed`"),
        ("actor" = Option<String>, Query, description = "By this user (id), key (`key:<prefix>`) or operator"),
        ("subject" = Option<String>, Query, description = "About this user, key, pipeline, run or secret"),
        ("address" = Option<String>, Query, description = "From this address"),
        ("request_id" = Option<String>, Query, description = "Of this request"),
        ("after" = Option<String>, Query, description = "After this instant"),
        ("before" = Option<String>, Query, description = "Before this instant"),
        ("limit" = Option<i64>, Query, description = "1 to 200, usually 50"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses((status = 200, body = Page<EventView>), (status = 422, body = Problem)))]
pub(super) async fn list(
    State(app): State<App>,
    mut query: Parameters,
) -> Result<Json<Page<EventView>>, ApiError> {
    let known: Vec<_> = Kind::ALL.iter().map(|kind| (kind.name(), kind.name())).collect();
    let filter = Filter {
        kinds: query.words("kind", &known).into_iter().map(str::to_owned).collect(),
        actor: query.one("actor"),
        subject: query.one("subject"),
        address: query.one("address"),
        request_id: query.one("request_id"),
        after: query.instant("after"),
        before: query.instant("before"),
        older_than: query.cursor(|key| key.parse().ok()),
    };
    let limit = query.limit();
    let filter = query.finish(filter)?;
    let rows = audit_events::list(&app.pool, &filter, limit + 1).await?;
    Ok(Json(Page::new(rows, limit, |event| event.id.to_string(), EventView::from)))
}

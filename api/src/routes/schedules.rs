//! Schedules: made, read, changed, deleted.

mod backfill;
mod control;
mod event;
mod history;
pub(super) mod shown;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use common::schedule::{self, Kind as ScheduleKind, Spec, State as ScheduleState};
use common::store::schedules::define::{self, Refused};
use common::store::schedules::read::{self as stored, Filter};
use serde_json::Value;
use uuid::Uuid;

use self::shown::{ScheduleRequest, ScheduleView};
pub(super) use self::{
    backfill::{__path_backfill, __path_backfills, backfill, backfills},
    control::{__path_pause, __path_resume, __path_trigger, pause, resume, trigger},
    event::{__path_post_event, post_event},
    history::{__path_fires, __path_preview, fires, preview},
};
use crate::app::App;
use crate::auth::Caller;
use crate::error::{ApiError, Problem};
use crate::extract::{JsonBody, Nothing, ScheduleId};
use crate::page::{Page, Parameters};

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Faults(faults) => Self::pointed(faults),
            Refused::Sql(error) => error.into(),
        }
    }
}

/// The schedule as clients see it.
async fn view(app: &App, id: Uuid) -> Result<ScheduleView, ApiError> {
    let found = stored::find(&app.pool, id).await?;
    found.map(ScheduleView::new).ok_or_else(ApiError::no_schedule)
}

/// Create a schedule
///
/// It is active at once. What it starts need not exist yet: a fire that cannot start is `refused`, and says why.
#[utoipa::path(post, path = "/v1/schedules", tag = "schedules",
    request_body(content = ScheduleRequest),
    responses((status = 201, body = ScheduleView, headers(("Location" = String))), (status = 409, body = Problem),
        (status = 422, body = Problem)))]
pub(super) async fn create(
    State(app): State<App>,
    caller: Caller,
    body: JsonBody,
) -> Result<Response, ApiError> {
    let spec = schedule::check(&body.value, &app.tools).map_err(ApiError::pointed)?;
    let id = Uuid::now_v7();
    let mut conn = app.pool.acquire().await?;
    define::create(&mut conn, id, &spec, &caller.sub).await?;
    drop(conn);
    let mut response = (StatusCode::CREATED, Json(view(&app, id).await?)).into_response();
    if let Ok(location) = HeaderValue::try_from(format!("/v1/schedules/{id}")) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// List schedules, newest first
#[utoipa::path(get, path = "/v1/schedules", tag = "schedules",
    params(
        ("state" = Option<String>, Query, description = "In this state, or in one of these: `paused,disabled`"),
        ("kind" = Option<String>, Query, description = "`cron`, `interval`, `once` or `event`"),
        ("tag" = Option<String>, Query, description = "With this tag; given more than once: with all of them"),
        ("name" = Option<String>, Query, description = "Of this name"),
        ("limit" = Option<i64>, Query, description = "1 to 200, usually 50"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses((status = 200, body = Page<ScheduleView>), (status = 422, body = Problem)))]
pub(super) async fn list(
    State(app): State<App>,
    mut query: Parameters,
) -> Result<Json<Page<ScheduleView>>, ApiError> {
    let filter = Filter {
        states: query.words("state", &ScheduleState::ALL.map(|state| (state.name(), state))),
        kinds: query.words("kind", &ScheduleKind::ALL.map(|kind| (kind.name(), kind))),
        tags: query.all("tag"),
        name: query.one("name"),
        before: query.cursor(|key| key.parse().ok()),
    };
    let limit = query.limit();
    let filter = query.finish(filter)?;
    let rows = stored::list(&app.pool, &filter, limit + 1).await?;
    Ok(Json(Page::new(rows, limit, |row| row.id.to_string(), ScheduleView::new)))
}

/// Read a schedule
#[utoipa::path(get, path = "/v1/schedules/{id}", tag = "schedules", params(("id" = Uuid, Path)),
    responses((status = 200, body = ScheduleView), (status = 404, body = Problem)))]
pub(super) async fn read(
    State(app): State<App>,
    ScheduleId(id): ScheduleId,
) -> Result<Json<ScheduleView>, ApiError> {
    view(&app, id).await.map(Json)
}

/// Change a schedule
///
/// Fields that are sent take the place of those that are there; null takes one back to what it is when it is left out.
/// With other times it goes on from now. One that had expired is active again if it has something left to fire.
#[utoipa::path(patch, path = "/v1/schedules/{id}", tag = "schedules", params(("id" = Uuid, Path)),
    request_body(content = ScheduleRequest),
    responses((status = 200, body = ScheduleView), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 422, body = Problem)))]
pub(super) async fn patch(
    State(app): State<App>,
    ScheduleId(id): ScheduleId,
    body: JsonBody,
) -> Result<Json<ScheduleView>, ApiError> {
    let mut tx = app.pool.begin().await?;
    let locked = define::lock(&mut tx, id).await?.ok_or_else(ApiError::no_schedule)?;
    let changed = changed(&locked.spec, body.value)?;
    let spec = schedule::check(&changed, &app.tools).map_err(ApiError::pointed)?;
    locked.replace(&mut tx, &spec).await?;
    tx.commit().await?;
    view(&app, id).await.map(Json)
}

/// What is said of the schedule, with what is sent in its place.
fn changed(spec: &Spec, patch: Value) -> Result<Value, ApiError> {
    let unwritable = |error| ApiError::internal(format!("a stored schedule: {error}"));
    let mut whole = serde_json::to_value(spec).map_err(unwritable)?;
    let Value::Object(patch) = patch else {
        let fault = common::problem::Pointed::new("", "must be an object");
        return Err(ApiError::pointed(vec![fault]));
    };
    let Some(fields) = whole.as_object_mut() else { return Ok(whole) };
    if patch.get("kind").is_some_and(|kind| Some(kind) != fields.get("kind")) {
        // Of another kind, what only the old one had says nothing any more.
        for field in ["cron", "timezone", "interval", "at", "event_type", "condition"] {
            fields.remove(field);
        }
    }
    for (field, value) in patch {
        fields.insert(field, value);
    }
    Ok(whole)
}

/// Delete a schedule
///
/// Its runs stay, and those that are under way go on; what waits does not start any more.
#[utoipa::path(delete, path = "/v1/schedules/{id}", tag = "schedules", params(("id" = Uuid, Path)),
    responses((status = 204), (status = 404, body = Problem)))]
pub(super) async fn delete(
    State(app): State<App>,
    ScheduleId(id): ScheduleId,
    _: Nothing,
) -> Result<StatusCode, ApiError> {
    let mut tx = app.pool.begin().await?;
    let locked = define::lock(&mut tx, id).await?.ok_or_else(ApiError::no_schedule)?;
    locked.delete(&mut tx).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_patch_takes_the_place_of_what_is_there() {
        let body = json!({"name": "a", "kind": "cron", "cron": "@daily", "max_fires": 3, "tags": ["x"],
            "start": {"pipeline": "p", "input": {"a": 1}}});
        let tools = tools::catalogue();
        let spec = schedule::check(&body, &tools).expect("it is right");
        let patched = |patch| schedule::check(&changed(&spec, patch).expect("an object"), &tools);
        let same = patched(json!({})).expect("it is right");
        assert_eq!(same, spec);
        let other = patched(json!({"max_fires": null, "tags": ["y"], "start": {"action": "echo"}}));
        let other = other.expect("it is right");
        assert_eq!((other.max_fires, other.tags), (None, vec!["y".to_owned()]));
        let kind = patched(json!({"kind": "interval", "interval": "5m"})).expect("it is right");
        assert_eq!((kind.cron, kind.kind), (None, ScheduleKind::Interval));
        assert!(patched(json!({"interval": "5m"})).is_err(), "a cron has no interval");
        assert!(changed(&spec, json!([])).is_err());
    }
}

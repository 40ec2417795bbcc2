//! Pausing, resuming, and firing now.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use common::clock;
use common::schedule::State as ScheduleState;
use common::store::Transaction;
use common::store::schedules::{define, manual};
use futures::FutureExt;
use serde_json::json;
use uuid::Uuid;

use super::super::submit::Origin;
use super::shown::{ScheduleView, TriggerAnswer};
use super::view;
use crate::accept::Reply;
use crate::app::App;
use crate::error::{ApiError, Kind, Problem};
use crate::extract::{JsonBody, Nothing, ScheduleId};
use crate::fields::Fields;
use crate::once::{Work, once};

/// Pause a schedule: nothing fires until it is resumed, and what was due meanwhile is not made up for
#[utoipa::path(post, path = "/v1/schedules/{id}/pause", tag = "schedules", params(("id" = Uuid, Path)),
    responses((status = 200, body = ScheduleView), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(in crate::routes) async fn pause(
    State(app): State<App>,
    ScheduleId(id): ScheduleId,
    _: Nothing,
) -> Result<Json<ScheduleView>, ApiError> {
    let mut tx = app.pool.begin().await?;
    let locked = define::lock(&mut tx, id).await?.ok_or_else(ApiError::no_schedule)?;
    match locked.state {
        ScheduleState::Paused => {}
        ScheduleState::Expired => return Err(nothing_left()),
        ScheduleState::Active | ScheduleState::Disabled => locked.pause(&mut tx).await?,
    }
    tx.commit().await?;
    view(&app, id).await.map(Json)
}

fn nothing_left() -> ApiError {
    let detail =
        "The schedule has nothing left to fire: change its times, its `end_at` or its `max_fires`.";
    ApiError::new(Kind::NothingLeft, detail)
}

/// Resume a schedule that is paused or disabled: it goes on from now
#[utoipa::path(post, path = "/v1/schedules/{id}/resume", tag = "schedules", params(("id" = Uuid, Path)),
    responses((status = 200, body = ScheduleView), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(in crate::routes) async fn resume(
    State(app): State<App>,
    ScheduleId(id): ScheduleId,
    _: Nothing,
) -> Result<Json<ScheduleView>, ApiError> {
    let mut tx = app.pool.begin().await?;
    let locked = define::lock(&mut tx, id).await?.ok_or_else(ApiError::no_schedule)?;
    if !locked.resume(&mut tx).await? {
        return Err(nothing_left());
    }
    tx.commit().await?;
    view(&app, id).await.map(Json)
}

/// Fire a schedule now
///
/// Whatever its state, and whatever of it is under way. Its times stay as they are.
#[utoipa::path(post, path = "/v1/schedules/{id}/trigger", tag = "schedules",
    params(("id" = Uuid, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 202, body = TriggerAnswer, headers(("Location" = String))), (status = 404, body = Problem),
        (status = 409, body = Problem)))]
pub(in crate::routes) async fn trigger(
    State(app): State<App>,
    origin: Origin,
    ScheduleId(id): ScheduleId,
    body: JsonBody,
) -> Result<Reply, ApiError> {
    let key = origin.key(&body.bytes);
    Fields::of(body.value, "").finish(()).map_err(ApiError::pointed)?;
    let by = origin.caller().to_owned();
    once(&app, key, move |tx| fire_now(tx, id, by).boxed()).await
}

/// Fires the schedule, or says why nothing was started.
async fn fire_now(tx: &mut Transaction, id: Uuid, by: String) -> Result<Work, ApiError> {
    let triggered = manual::trigger(tx, id, &by).await?.ok_or_else(ApiError::no_schedule)?;
    let Some(run) = triggered.done.run else {
        // It is rolled back, and not recorded: the caller knows.
        let why = triggered.done.reason.unwrap_or_default();
        return Err(ApiError::new(Kind::NotStarted, format!("Nothing was started: {why}.")));
    };
    let body = json!({"run": run, "fire_at": clock::text(&triggered.fire_at)});
    let location = Some(format!("/v1/runs/{run}"));
    Ok(Work { reply: Reply::new(StatusCode::ACCEPTED, location, body), rows: triggered.rows })
}

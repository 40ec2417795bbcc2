//! What a schedule has done, and what it will do.

use axum::Json;
use axum::extract::State;
use common::clock;
use common::schedule::{self, Outcome};
use common::store::schedules::{clocks, read};

use super::shown::{FireView, PreviewRequest, Previewed};
use crate::app::App;
use crate::error::{ApiError, Problem};
use crate::extract::{JsonBody, ScheduleId};
use crate::page::{Page, Parameters};
use crate::view::Stamp;

/// List a schedule's fires, newest first
#[utoipa::path(get, path = "/v1/schedules/{id}/fires", tag = "schedules",
    params(
        ("id" = Uuid, Path),
        ("outcome" = Option<String>, Query, description = "With this outcome, or with one of these: `skipped,refused`"),
        ("limit" = Option<i64>, Query, description = "1 to 200, usually 50"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses((status = 200, body = Page<FireView>), (status = 404, body = Problem), (status = 422, body = Problem)))]
pub(in crate::routes) async fn fires(
    State(app): State<App>,
    ScheduleId(id): ScheduleId,
    mut query: Parameters,
) -> Result<Json<Page<FireView>>, ApiError> {
    let outcomes = query.words("outcome", &Outcome::ALL.map(|outcome| (outcome.name(), outcome)));
    let before = query.cursor(|key| key.parse().ok());
    let limit = query.limit();
    query.finish(())?;
    if read::find(&app.pool, id).await?.is_none() {
        return Err(ApiError::no_schedule());
    }
    let rows = read::fires(&app.pool, id, &outcomes, before, limit + 1).await?;
    Ok(Json(Page::new(rows, limit, |row| clock::text(&row.fire_at), FireView::new)))
}

/// See when a rule of time would fire, before there is a schedule
#[utoipa::path(post, path = "/v1/schedules/preview", tag = "schedules",
    request_body(content = PreviewRequest),
    responses((status = 200, body = Previewed), (status = 422, body = Problem)))]
pub(in crate::routes) async fn preview(
    State(app): State<App>,
    body: JsonBody,
) -> Result<Json<Previewed>, ApiError> {
    let preview = schedule::preview(&body.value).map_err(ApiError::pointed)?;
    let after = match preview.after {
        Some(after) => after,
        None => {
            let mut conn = app.pool.acquire().await?;
            clocks::now(&mut conn).await?
        }
    };
    Ok(Json(Previewed { fires: preview.fires(after).into_iter().map(Stamp).collect() }))
}

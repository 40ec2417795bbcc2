//! Fires of the past.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use common::problem::Pointed;
use common::store::Transaction;
use common::store::schedules::backfill::{self as stored, Counted, MOST, Range};
use common::store::schedules::{clocks, read};
use futures::FutureExt;
use serde_json::{Value, json};
use uuid::Uuid;

use super::super::submit::Origin;
use super::shown::{BackfillAnswer, BackfillRequest, BackfillView};
use crate::accept::Reply;
use crate::app::App;
use crate::error::{ApiError, Problem};
use crate::extract::{JsonBody, ScheduleId};
use crate::fields::Fields;
use crate::once::{Work, once};
use crate::page::{Page, Parameters};

/// What is asked for.
struct Asked {
    range: Range,
    concurrency: i32,
    preview: bool,
}

/// Fire the moments of a range that have no run
///
/// With `preview` they are only counted. Otherwise the leader starts them in order, so many at a time, whatever the
/// schedule's state and its rule for overlaps.
#[utoipa::path(post, path = "/v1/schedules/{id}/backfills", tag = "schedules",
    params(("id" = Uuid, Path), ("Idempotency-Key" = Option<String>, Header)),
    request_body(content = BackfillRequest),
    responses((status = 200, description = "Counted", body = BackfillAnswer), (status = 202, body = BackfillAnswer),
        (status = 404, body = Problem), (status = 422, body = Problem)))]
pub(in crate::routes) async fn backfill(
    State(app): State<App>,
    origin: Origin,
    ScheduleId(id): ScheduleId,
    body: JsonBody,
) -> Result<Reply, ApiError> {
    let key = origin.key(&body.bytes);
    let asked = asked(body.value)?;
    let by = origin.caller().to_owned();
    once(&app, key, move |tx| note(tx, id, asked, by).boxed()).await
}

/// Counts the moments, and unless that is all, notes what is to be done.
async fn note(tx: &mut Transaction, id: Uuid, asked: Asked, by: String) -> Result<Work, ApiError> {
    if asked.range.to > clocks::now(tx).await? {
        return Err(fault("/to", "must not be in the future"));
    }
    let count = match stored::count(tx, id, &asked.range).await? {
        Counted::Moments(count) => count,
        Counted::Unknown => return Err(ApiError::no_schedule()),
        Counted::NoTimes => {
            return Err(fault(
                "",
                "only schedules of the kinds `cron` and `interval` have moments in a range",
            ));
        }
        Counted::TooMany => {
            return Err(fault(
                "/from",
                format!("the range has over {MOST} moments; take a smaller one"),
            ));
        }
    };
    if asked.preview {
        let reply = Reply::new(StatusCode::OK, None, json!({"count": count}));
        return Ok(Work { reply, rows: Vec::new() });
    }
    let backfill = Uuid::now_v7();
    let counted = i32::try_from(count).unwrap_or(i32::MAX);
    stored::create(tx, backfill, id, &asked.range, asked.concurrency, counted, &by).await?;
    let body = json!({"id": backfill, "count": count});
    Ok(Work { reply: Reply::new(StatusCode::ACCEPTED, None, body), rows: Vec::new() })
}

fn fault(pointer: &str, detail: impl Into<String>) -> ApiError {
    ApiError::pointed(vec![Pointed::new(pointer, detail)])
}

/// Reads `{from, to, concurrency, preview}`.
fn asked(body: Value) -> Result<Asked, ApiError> {
    let mut fields = Fields::of(body, "");
    let (from, to) = (fields.instant("from"), fields.instant("to"));
    let concurrency = fields.integer("concurrency", 1..=100).unwrap_or(1);
    let preview = fields.boolean("preview").unwrap_or(false);
    for (name, end) in [("from", from), ("to", to)] {
        if end.is_none() && !fields.is_faulty(name) {
            fields.fault(name, "is missing; give an instant such as \"2030-01-31T08:00:00Z\"");
        }
    }
    if from.zip(to).is_some_and(|(from, to)| to <= from) {
        fields.fault("to", "must be after `from`");
    }
    let range = Range { from: from.unwrap_or_default(), to: to.unwrap_or_default() };
    fields.finish(Asked { range, concurrency, preview }).map_err(ApiError::pointed)
}

/// List a schedule's backfills, newest first
#[utoipa::path(get, path = "/v1/schedules/{id}/backfills", tag = "schedules",
    params(
        ("id" = Uuid, Path),
        ("limit" = Option<i64>, Query, description = "1 to 200, usually 50"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses((status = 200, body = Page<BackfillView>), (status = 404, body = Problem), (status = 422, body = Problem)))]
pub(in crate::routes) async fn backfills(
    State(app): State<App>,
    ScheduleId(id): ScheduleId,
    mut query: Parameters,
) -> Result<Json<Page<BackfillView>>, ApiError> {
    let before = query.cursor(|key| key.parse().ok());
    let limit = query.limit();
    query.finish(())?;
    if read::find(&app.pool, id).await?.is_none() {
        return Err(ApiError::no_schedule());
    }
    let mut conn = app.pool.acquire().await?;
    let rows = stored::list(&mut conn, id, before, limit + 1).await?;
    Ok(Json(Page::new(rows, limit, |row| row.id.to_string(), BackfillView::new)))
}

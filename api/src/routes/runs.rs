//! Reading, listing and cancelling runs.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use common::broker::{Hint, HintKind};
use common::duration;
use common::run::{RunKind, RunState, StopReason};
use common::store::runs::{self, Filter, Run};
use common::store::stop::{self, Stopped};
use tokio::time::Instant;
use uuid::Uuid;

use crate::app::App;
use crate::audit::{self, Trail};
use crate::error::{ApiError, Kind, Problem};
use crate::extract::{Nothing, RunId};
use crate::page::{Page, Parameters};
use crate::view::{RunSummary, RunView};
use crate::watch::For;

/// The longest that an answer is held back for.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// List runs, newest first
#[utoipa::path(get, path = "/v1/runs", tag = "runs",
    params(
        ("pipeline" = Option<String>, Query, description = "Of this pipeline"),
        ("state" = Option<String>, Query, description = "In this state, or in one of these: `failed,timed_out`"),
        ("kind" = Option<String>, Query, description = "`pipeline` or `action`"),
        ("parent" = Option<Uuid>, Query, description = "Started by a node of this run"),
        ("tag" = Option<String>, Query, description = "With this tag; given more than once: with all of them"),
        ("created_after" = Option<String>, Query, description = "Accepted after this instant"),
        ("created_before" = Option<String>, Query, description = "Accepted before this instant"),
        ("limit" = Option<i64>, Query, description = "1 to 200, usually 50"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses((status = 200, body = Page<RunSummary>), (status = 422, body = Problem)))]
pub(super) async fn list(
    State(app): State<App>,
    mut query: Parameters,
) -> Result<Json<Page<RunSummary>>, ApiError> {
    let states: Vec<_> = RunState::ALL.iter().map(|state| (state.name(), *state)).collect();
    let kinds = [("pipeline", RunKind::Pipeline), ("action", RunKind::Action)];
    let kind = query.words("kind", &kinds);
    let filter = Filter {
        pipeline: query.one("pipeline"),
        states: query.words("state", &states),
        // Both kinds are no filter.
        kind: kind.first().copied().filter(|first| kind.iter().all(|kind| kind == first)),
        parent: query.parsed("parent", |text| {
            text.parse().map_err(|_| format!("{text:?} is not the id of a run: that is a UUID"))
        }),
        tags: query.all("tag"),
        created_after: query.instant("created_after"),
        created_before: query.instant("created_before"),
        before: query.cursor(|key| key.parse().ok()),
    };
    let limit = query.limit();
    let filter = query.finish(filter)?;
    let rows = runs::list(&app.pool, &filter, limit + 1).await?;
    Ok(Json(Page::new(rows, limit, |run| run.id.to_string(), RunSummary::from)))
}

/// Read a run
///
/// With `wait`, the answer is held back until the run ends, or for so long.
#[utoipa::path(get, path = "/v1/runs/{id}", tag = "runs",
    params(
        ("id" = Uuid, Path),
        ("wait" = Option<String>, Query, description = "How long to wait for the run's end, such as `30s`; at most 60s"),
    ),
    responses((status = 200, body = RunView), (status = 404, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn read(
    State(app): State<App>,
    RunId(id): RunId,
    mut query: Parameters,
) -> Result<Json<RunView>, ApiError> {
    let wait = query.parsed("wait", duration::parse);
    if wait.is_some_and(|wait| wait > LONGEST_WAIT) {
        query.fault("wait", "may be 60s at most");
    }
    let wait = query.finish(wait)?;
    let run = match wait {
        Some(wait) if !wait.is_zero() => ended(&app, id, wait).await?,
        _ => app.reads.run(id).await?,
    };
    view(&app, run.ok_or_else(ApiError::no_run)?).await.map(Json)
}

/// The run once it has ended, or as it is after `wait`, or when this process is to stop.
async fn ended(app: &App, id: Uuid, wait: Duration) -> Result<Option<Run>, ApiError> {
    let until = Instant::now() + wait;
    // Registered before the first look, so that no end falls between the two.
    let waiter = app.watch.wait_for(id, For::End);
    let mut waits = app.watch.is_fresh(id)
        || app.reads.state(id).await?.is_some_and(|state| !state.is_terminal());
    loop {
        if waits {
            waits = tokio::select! {
                () = waiter.woken() => true,
                () = tokio::time::sleep_until(until) => false,
                () = app.draining.cancelled() => false,
            };
        }
        let run = app.reads.run(id).await?;
        if !waits || run.as_ref().is_none_or(|run| run.state.is_terminal()) {
            return Ok(run);
        }
    }
}

async fn view(app: &App, run: Run) -> Result<RunView, ApiError> {
    let outline = app
        .outlines
        .of_run(&app.pool, run.pipeline_id.zip(run.version), run.action.as_ref())
        .await?;
    Ok(RunView::new(run, &outline))
}

/// Cancel a run
///
/// What has not begun ends at once; what runs is told to stop. A run that is stopping already stays as it is.
#[utoipa::path(post, path = "/v1/runs/{id}/cancel", tag = "runs",
    params(("id" = Uuid, Path)),
    responses((status = 202, body = RunView), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn cancel(
    State(app): State<App>,
    trail: Trail,
    RunId(id): RunId,
    _: Nothing,
) -> Result<(StatusCode, Json<RunView>), ApiError> {
    let mut tx = app.pool.begin().await?;
    let stopped = stop::stop(&mut tx, id, StopReason::Cancel).await?;
    tx.commit().await?;
    let kind = match stopped {
        Stopped::Unknown => return Err(ApiError::no_run()),
        Stopped::Ended(state) => {
            let detail = format!("The run has ended: it is {}.", state.name());
            return Err(ApiError::new(Kind::Ended, detail));
        }
        Stopped::Stopping => HintKind::Stopping,
        Stopped::Stopped(_) => HintKind::Ended,
    };
    app.outbox.hint(Hint { runs: vec![(id, kind)] });
    trail.record(audit::Kind::RunCancelled, &id.to_string(), serde_json::json!({}));
    let run = app.reads.run(id).await?.ok_or_else(ApiError::no_run)?;
    Ok((StatusCode::ACCEPTED, Json(view(&app, run).await?)))
}

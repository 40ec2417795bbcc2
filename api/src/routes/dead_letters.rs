//! Node runs that failed for good: look at them, run them again, or put them away.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use common::failure::ErrorKind;
use common::store::accept::{self, NewRun, Subject};
use common::store::dead_letters::{self, Filter, Letter, Redriven};
use common::store::runs::{self, Original};
use common::store::{Transaction, nodes};
use futures::FutureExt;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

use super::nodes::AttemptView;
use super::submit::Origin;
use crate::accept::{Reply, accepted};
use crate::app::App;
use crate::audit::{Kind as Audited, Trail};
use crate::error::{ApiError, Kind, Problem};
use crate::extract::{Id, JsonBody, Nothing};
use crate::fields::Fields;
use crate::once::{Work, once};
use crate::page::{Page, Parameters};
use crate::view::{AcceptedRun, Stamp};

/// A node run that failed for good, and with it its run.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LetterView {
    id: Uuid,
    run: Uuid,
    node: String,
    /// Null for a single action.
    pipeline: Option<String>,
    version: Option<i32>,
    /// What the node does; null when it is no action.
    action: Option<String>,
    lane: String,
    /// How many attempts it had: 0 when the condition of an edge that leads to it failed.
    attempts: i32,
    /// `{kind, message, node}`
    error: Option<Value>,
    /// The run's.
    tags: Vec<String>,
    failed_at: Stamp,
    /// The run that repeats what failed.
    redriven_as: Option<Uuid>,
    /// Who asked for that: a user's id, `key:<prefix>`, or the name in an operator's token.
    redriven_by: Option<String>,
    redriven_at: Option<Stamp>,
}

impl From<Letter> for LetterView {
    fn from(letter: Letter) -> Self {
        Self {
            id: letter.id,
            run: letter.run_id,
            node: letter.node,
            pipeline: letter.pipeline,
            version: letter.version,
            action: letter.action,
            lane: letter.lane,
            attempts: letter.attempt,
            error: letter.error,
            tags: letter.tags,
            failed_at: Stamp(letter.failed_at),
            redriven_as: letter.redriven_as,
            redriven_by: letter.redriven_by,
            redriven_at: letter.redriven_at.map(Stamp),
        }
    }
}

/// A dead letter with its history.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LetterDetail {
    #[serde(flatten)]
    letter: LetterView,
    /// The attempts that failed, first to last.
    history: Vec<AttemptView>,
}

fn no_letter() -> ApiError {
    ApiError::new(Kind::Unknown, "There is no dead letter with this id.")
}

/// List dead letters, newest first
///
/// Node runs that failed for good, and with them their run, once that has ended; not those that a failure edge took up,
/// nor those of a run that was cancelled. They are kept, with their run, until they are redriven or dismissed.
#[utoipa::path(get, path = "/v1/dead-letters", tag = "operations",
    params(
        ("state" = Option<String>, Query, description = "`open` (the default) or `redriven`"),
        ("pipeline" = Option<String>, Query, description = "Of this pipeline"),
        ("action" = Option<String>, Query, description = "Of nodes with this action"),
        ("kind" = Option<String>, Query, description = "With this kind of error, or with one of these: `permanent,timed_out`"),
        ("created_after" = Option<String>, Query, description = "Failed after this instant"),
        ("created_before" = Option<String>, Query, description = "Failed before this instant"),
        ("limit" = Option<i64>, Query, description = "1 to 200, usually 50"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses((status = 200, body = Page<LetterView>), (status = 422, body = Problem)))]
pub(super) async fn list(
    State(app): State<App>,
    mut query: Parameters,
) -> Result<Json<Page<LetterView>>, ApiError> {
    const KINDS: [ErrorKind; 4] =
        [ErrorKind::Retryable, ErrorKind::Permanent, ErrorKind::TimedOut, ErrorKind::WorkerLost];
    let state = query.words("state", &[("open", false), ("redriven", true)]);
    if state.len() > 1 {
        query.fault("state", "is one of open, redriven");
    }
    let filter = Filter {
        redriven: state.contains(&true),
        pipeline: query.one("pipeline"),
        action: query.one("action"),
        kinds: query.words("kind", &KINDS.map(|kind| (kind.name(), kind.name()))),
        after: query.instant("created_after"),
        before: query.instant("created_before"),
        older_than: query.cursor(|key| key.parse().ok()),
    };
    let limit = query.limit();
    let filter = query.finish(filter)?;
    let rows = dead_letters::list(&app.pool, &filter, limit + 1).await?;
    Ok(Json(Page::new(rows, limit, |letter| letter.id.to_string(), LetterView::from)))
}

/// Read a dead letter, with its attempts
#[utoipa::path(get, path = "/v1/dead-letters/{id}", tag = "operations", params(("id" = Uuid, Path)),
    responses((status = 200, body = LetterDetail), (status = 404, body = Problem)))]
pub(super) async fn read(
    State(app): State<App>,
    Id(id): Id,
    query: Parameters,
) -> Result<Json<LetterDetail>, ApiError> {
    query.finish(())?;
    let letter = dead_letters::read(&app.pool, id).await?.ok_or_else(no_letter)?;
    let attempts = nodes::attempts(&app.pool, letter.run_id, &letter.node).await?;
    let history = attempts.into_iter().map(AttemptView::past).collect();
    Ok(Json(LetterDetail { letter: letter.into(), history }))
}

/// Run again what failed
///
/// A new run of the same version, with the same input and tags, which keeps the completed nodes that have no
/// uncompleted ancestor: as a rerun from `failed`. All letters of the run are redriven with it, since it repeats all of
/// them.
#[utoipa::path(post, path = "/v1/dead-letters/{id}/redrive", tag = "operations",
    params(("id" = Uuid, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 202, body = AcceptedRun, headers(("Location" = String))), (status = 404, body = Problem),
        (status = 409, body = Problem)))]
pub(super) async fn redrive(
    State(app): State<App>,
    origin: Origin,
    trail: Trail,
    Id(id): Id,
    body: JsonBody,
) -> Result<Reply, ApiError> {
    let key = origin.key(&body.bytes);
    Fields::of(body.value, "").finish(()).map_err(ApiError::pointed)?;
    let letter = dead_letters::read(&app.pool, id).await?.ok_or_else(no_letter)?;
    let original = runs::original(&app.pool, letter.run_id).await?.ok_or_else(no_letter)?;
    let run = again(&letter, original, &origin)?;
    let (new, by) = (run.id, origin.caller().to_owned());
    let reply = once(&app, key, move |tx| write(tx, id, run, by).boxed()).await?;
    // An answer that was given before names another run.
    if reply.names(new) {
        let detail = json!({"failed": letter.run_id, "node": letter.node, "run": new});
        trail.record(Audited::DeadLetterRedriven, &id.to_string(), detail);
    }
    Ok(reply)
}

/// The run that repeats what failed.
fn again(letter: &Letter, original: Original, origin: &Origin) -> Result<NewRun, ApiError> {
    let subject = match (original.pipeline_id, original.pipeline, original.version, original.action)
    {
        (Some(id), Some(name), Some(version), _) => Subject::Pipeline { id, name, version },
        (_, _, _, Some(node)) => Subject::Action { node },
        _ => return Err(ApiError::internal("a run has neither a pipeline nor an action")),
    };
    let mut trigger = json!({"kind": "redrive", "dead_letter": letter.id});
    // What a schedule said of retries holds for the repetition, too.
    if let Some(retry) = original.trigger.get("retry") {
        trigger["retry"] = retry.clone();
    }
    Ok(NewRun {
        id: Uuid::now_v7(),
        subject,
        lane: original.lane,
        input: original.input,
        trigger,
        tags: original.tags,
        created_by: origin.caller().to_owned(),
        rerun_of: Some(letter.run_id),
        keep_completed: true,
        traceparent: Some(origin.traceparent().to_owned()),
        delay: None,
    })
}

/// Marks the letters and writes the run, together.
async fn write(tx: &mut Transaction, id: Uuid, run: NewRun, by: String) -> Result<Work, ApiError> {
    match dead_letters::redrive(tx, id, run.id, &by).await? {
        Redriven::Now => {}
        Redriven::Unknown => return Err(no_letter()),
        Redriven::Before(before) => {
            let detail = format!("The dead letter was redriven before, as run {before}.");
            return Err(ApiError::new(Kind::Redriven, detail));
        }
    }
    let rows = accept::accept(tx, std::slice::from_ref(&run)).await?;
    let location = Some(format!("/v1/runs/{}", run.id));
    Ok(Work { reply: Reply::new(StatusCode::ACCEPTED, location, accepted(&run)), rows })
}

/// Dismiss a dead letter: nothing is to be done about it
///
/// It is gone; its run stays until it is pruned as others are.
#[utoipa::path(delete, path = "/v1/dead-letters/{id}", tag = "operations", params(("id" = Uuid, Path)),
    responses((status = 204), (status = 404, body = Problem)))]
pub(super) async fn dismiss(
    State(app): State<App>,
    origin: Origin,
    trail: Trail,
    Id(id): Id,
    _: Nothing,
) -> Result<StatusCode, ApiError> {
    let mut conn = app.pool.acquire().await?;
    if !dead_letters::dismiss(&mut conn, id, origin.caller()).await? {
        return Err(no_letter());
    }
    trail.record(Audited::DeadLetterDismissed, &id.to_string(), json!({}));
    Ok(StatusCode::NO_CONTENT)
}

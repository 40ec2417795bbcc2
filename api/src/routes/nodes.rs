//! Reading one node run, whole.

use axum::Json;
use axum::extract::State;
use common::node_log::Stream;
use common::node_run::NodeState;
use common::store::node_logs::{self, LogLine};
use common::store::{nodes, runs};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::app::App;
use crate::error::{ApiError, Kind, Problem};
use crate::extract::NodeOfRun;
use crate::page::Parameters;
use crate::view::{Stamp, unwritten};

/// A node run, whole.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct NodeDetail {
    run: Uuid,
    id: String,
    #[serde(rename = "type")]
    node_type: String,
    #[schema(value_type = String)]
    state: NodeState,
    lane: Option<String>,
    attempt: i32,
    output: Option<Value>,
    error: Option<Value>,
    /// What it waits for, while it waits: `for` says which kind of thing, and the rest depends on that.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting: Option<Value>,
    queued_at: Option<Stamp>,
    started_at: Option<Stamp>,
    finished_at: Option<Stamp>,
    /// First to last; the last is the one that completed it, is under way, or failed for good.
    attempts: Vec<AttemptView>,
}

/// One try of a node run.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AttemptView {
    attempt: i32,
    /// `running`, `completed`, `failed`, or how else its node run stands.
    #[schema(value_type = String)]
    state: NodeState,
    error: Option<Value>,
    /// Whether it counted against `max_attempts`.
    spent: bool,
    started_at: Option<Stamp>,
    finished_at: Option<Stamp>,
    /// What it printed, first to last; the newest lines of an attempt that runs come within a second or so.
    logs: Vec<LogView>,
    /// The lines of the eight newest attempts are here; `?attempt=` reads those of another.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    logs_omitted: bool,
}

/// A line that a node printed.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LogView {
    /// Its number among all lines of the attempt.
    seq: i64,
    /// `stdout`, `stderr`, `log` (said by the tool itself), or `cut`: no line, but a note of how many are left out here.
    #[schema(value_type = String)]
    stream: Stream,
    at: Stamp,
    text: String,
}

/// Of how many attempts the lines are shown.
const LOGGED: usize = 8;

/// Read a node of a run
///
/// With its whole output, its attempts, and what they printed: of each attempt the first and the last lines, within the
/// workers' `GATHERING_LOG_LIMIT`. Lines over 8 KiB go on in another.
#[utoipa::path(get, path = "/v1/runs/{id}/nodes/{node}", tag = "runs",
    params(("id" = Uuid, Path), ("node" = String, Path),
        ("attempt" = Option<i32>, Query, description = "Only this attempt")),
    responses((status = 200, body = NodeDetail), (status = 404, body = Problem)))]
pub(super) async fn read(
    State(app): State<App>,
    NodeOfRun(id, node): NodeOfRun,
    mut query: Parameters,
) -> Result<Json<NodeDetail>, ApiError> {
    let only = query.number::<i32>("attempt");
    query.finish(())?;
    let run = runs::original(&app.pool, id).await?.ok_or_else(ApiError::no_run)?;
    let outline = app
        .outlines
        .of_run(&app.pool, run.pipeline_id.zip(run.version), run.action.as_ref())
        .await?;
    let outlined = outline
        .iter()
        .find(|outlined| outlined.id == node)
        .ok_or_else(|| ApiError::new(Kind::Unknown, format!("The run has no node {node:?}.")))?;
    // In this order: an attempt that ends in between shows in both, and is dropped from the first below.
    let found = nodes::read(&app.pool, id, &node).await?;
    let past = nodes::attempts(&app.pool, id, &node).await?;
    let mut detail = NodeDetail {
        run: id,
        id: node,
        node_type: outlined.node_type.clone(),
        state: unwritten(run.state),
        lane: None,
        attempt: 0,
        output: None,
        error: None,
        waiting: None,
        queued_at: None,
        started_at: None,
        finished_at: None,
        attempts: past.into_iter().map(AttemptView::past).collect(),
    };
    if let Some(found) = found {
        detail.attempts.extend(AttemptView::current(&found, &detail.attempts));
        detail.state = found.state;
        detail.lane = Some(found.lane);
        detail.attempt = found.attempt;
        detail.output = found.output;
        detail.error = found.error;
        detail.waiting = found.waiting;
        detail.queued_at = found.queued_at.map(Stamp);
        detail.started_at = found.started_at.map(Stamp);
        detail.finished_at = found.finished_at.map(Stamp);
    }
    if let Some(only) = only {
        detail.attempts.retain(|attempt| attempt.attempt == only);
        if detail.attempts.is_empty() {
            return Err(ApiError::new(Kind::Unknown, format!("The node has no attempt {only}.")));
        }
    }
    add_logs(&app, &mut detail).await?;
    Ok(Json(detail))
}

async fn add_logs(app: &App, detail: &mut NodeDetail) -> Result<(), ApiError> {
    let older = detail.attempts.len().saturating_sub(LOGGED);
    let (older, newest) = detail.attempts.split_at_mut(older);
    older.iter_mut().for_each(|attempt| attempt.logs_omitted = true);
    if newest.is_empty() {
        return Ok(());
    }
    let numbers: Vec<i32> = newest.iter().map(|attempt| attempt.attempt).collect();
    for line in node_logs::read(&app.pool, detail.run, &detail.id, &numbers).await? {
        if let Some(attempt) = newest.iter_mut().find(|it| it.attempt == line.attempt) {
            attempt.logs.push(LogView::from(line));
        }
    }
    Ok(())
}

impl From<LogLine> for LogView {
    fn from(line: LogLine) -> Self {
        Self { seq: line.seq, stream: line.stream, at: Stamp(line.at), text: line.text }
    }
}

impl AttemptView {
    pub(super) fn past(attempt: nodes::Attempt) -> Self {
        Self {
            attempt: attempt.attempt,
            state: match attempt.error.get("kind").and_then(Value::as_str) {
                Some("cancelled") => NodeState::Cancelled,
                _ => NodeState::Failed,
            },
            error: Some(attempt.error),
            spent: attempt.spent,
            started_at: attempt.started_at.map(Stamp),
            finished_at: Some(Stamp(attempt.finished_at)),
            logs: Vec::new(),
            logs_omitted: false,
        }
    }

    /// The newest attempt, unless it is over and noted as such, or none was made.
    fn current(run: &nodes::NodeRun, past: &[Self]) -> Option<Self> {
        if run.attempt == 0 || past.iter().any(|attempt| attempt.attempt >= run.attempt) {
            return None;
        }
        Some(Self {
            attempt: run.attempt,
            state: run.state,
            error: run.error.clone(),
            spent: false,
            started_at: run.started_at.map(Stamp),
            finished_at: run.finished_at.map(Stamp),
            logs: Vec::new(),
            logs_omitted: false,
        })
    }
}

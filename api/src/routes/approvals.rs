//! What waits for a person, and what people decide.

use axum::Json;
use axum::extract::State;
use common::broker::{Hint, HintKind};
use common::store::waits::{self, Answered, Awaited, undecided};
use common::wait::{Answer, WaitKind};
use common::{access, breakpoint, clock};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::app::App;
use crate::audit::{self, Trail};
use crate::auth::Caller;
use crate::error::{ApiError, Kind, Problem};
use crate::extract::{JsonBody, NodeOfRun};
use crate::fields::Fields;
use crate::page::{Page, Parameters};
use crate::view::Stamp;

/// The longest comment, in characters.
const LONGEST_COMMENT: usize = 4_096;

/// A node that waits for a decision.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ApprovalView {
    run: Uuid,
    node: String,
    /// The run's pipeline.
    pipeline: Option<String>,
    /// What is asked.
    message: Option<String>,
    /// The role that whoever decides must have, or one above it: `operator` or `admin`.
    role: Option<String>,
    /// What happens at the deadline: `approve`, `reject` or `fail`.
    default: Option<String>,
    deadline_at: Option<Stamp>,
    since: Stamp,
}

impl From<undecided::Undecided> for ApprovalView {
    fn from(row: undecided::Undecided) -> Self {
        let text = |name: &str| row.spec[name].as_str().map(str::to_owned);
        Self {
            message: text("message"),
            role: text("role"),
            default: row.deadline_at.and_then(|_| text("default")),
            run: row.run,
            node: row.node,
            pipeline: row.pipeline,
            deadline_at: row.deadline_at.map(Stamp),
            since: Stamp(row.created_at),
        }
    }
}

/// A decision that counts.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DecisionView {
    run: Uuid,
    node: String,
    approved: bool,
    /// A user's id, `key:<prefix>`, or the name in an operator's token.
    by: String,
    comment: Option<String>,
    at: Option<Stamp>,
}

/// List what waits for a decision, oldest runs first
#[utoipa::path(get, path = "/v1/approvals", tag = "runs",
    params(
        ("limit" = Option<i64>, Query, description = "1 to 200, usually 50"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses((status = 200, body = Page<ApprovalView>), (status = 422, body = Problem)))]
pub(super) async fn list(
    State(app): State<App>,
    mut query: Parameters,
) -> Result<Json<Page<ApprovalView>>, ApiError> {
    let after = query.cursor(|key| {
        let (run, node) = key.split_once('/')?;
        Some((run.parse().ok()?, node.to_owned()))
    });
    let limit = query.limit();
    let after = query.finish(after)?;
    let rows = undecided::list(&app.pool, after, limit + 1).await?;
    let key = |row: &undecided::Undecided| format!("{}/{}", row.run, row.node);
    Ok(Json(Page::new(rows, limit, key, ApprovalView::from)))
}

/// Decide what an approval waits for
///
/// The first decision counts, unless the deadline came before it; what has been decided is a 409 that says by whom.
#[utoipa::path(post, path = "/v1/runs/{id}/nodes/{node}/decision", tag = "runs",
    params(("id" = Uuid, Path), ("node" = String, Path)),
    request_body(content = super::openapi::DecisionRequest),
    responses((status = 200, body = DecisionView), (status = 403, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn decide(
    State(app): State<App>,
    caller: Caller,
    trail: Trail,
    NodeOfRun(id, node): NodeOfRun,
    body: JsonBody,
) -> Result<Json<DecisionView>, ApiError> {
    let (approved, comment) = decision(body.value)?;
    let mut tx = app.pool.begin().await?;
    let found = waits::read(&mut tx, id, &node).await?;
    let Some(asked) = found.filter(|wait| wait.kind == WaitKind::Approval) else {
        tx.rollback().await?;
        return Err(not_waiting(&app, id, &node).await);
    };
    may(&caller, &asked)?;
    let by = caller.sub.clone();
    let answer = Answer::Decided { approved, by: by.clone(), comment: comment.clone() };
    let rows = match waits::answer(&mut tx, id, &node, WaitKind::Approval, &answer).await? {
        Answered::Done(rows) => rows,
        Answered::Before(awaited) => return Err(decided(&awaited)),
        Answered::NotWaiting => {
            tx.rollback().await?;
            return Err(not_waiting(&app, id, &node).await);
        }
    };
    let noted = waits::read(&mut tx, id, &node).await?;
    tx.commit().await?;
    breakpoint::committed("decision").await;
    app.outbox.publish(rows);
    app.outbox.hint(Hint { runs: vec![(id, HintKind::Changed)] });
    let detail = json!({"node": node, "approved": approved, "comment": comment});
    trail.record(audit::Kind::Decision, &id.to_string(), detail);
    let at = noted.and_then(|noted| noted.answered_at).map(Stamp);
    Ok(Json(DecisionView { run: id, node, approved, by, comment, at }))
}

/// Reads `{approve, comment}`.
fn decision(body: Value) -> Result<(bool, Option<String>), ApiError> {
    let mut fields = Fields::of(body, "");
    let approve = fields.boolean("approve");
    let comment = fields.string("comment");
    if approve.is_none() && !fields.is_faulty("approve") {
        fields.fault("approve", "is missing; give true or false");
    }
    if comment.as_ref().is_some_and(|comment| comment.chars().count() > LONGEST_COMMENT) {
        fields.fault("comment", format!("may have {LONGEST_COMMENT} characters at most"));
    }
    fields.finish((approve.unwrap_or_default(), comment)).map_err(ApiError::pointed)
}

/// An approval may ask for more than the route does.
fn may(caller: &Caller, asked: &Awaited) -> Result<(), ApiError> {
    let role = asked.spec["role"].as_str();
    let role = access::Role::ALL.into_iter().find(|known| Some(known.name()) == role);
    match role.filter(|role| caller.role < *role) {
        None => Ok(()),
        Some(role) => {
            let detail = format!("This approval asks for the role `{}`.", role.name());
            Err(ApiError::new(Kind::NotAllowed, detail))
        }
    }
}

/// What has ended the wait before.
fn decided(awaited: &Awaited) -> ApiError {
    let at = awaited.answered_at.as_ref().map(clock::text).unwrap_or_default();
    let detail = match &awaited.answer {
        Some(Answer::Decided { approved, by, comment }) => {
            let what = if *approved { "approved" } else { "rejected" };
            let why = comment.as_ref().map_or_else(String::new, |why| format!(", saying {why:?}"));
            format!("It was {what} by {by} at {at}{why}.")
        }
        Some(Answer::Deadline) => format!("Its deadline came first, at {at}."),
        _ => format!("The run was stopped before, at {at}."),
    };
    ApiError::new(Kind::Decided, detail)
}

/// Why there is nothing to decide.
async fn not_waiting(app: &App, id: Uuid, node: &str) -> ApiError {
    let run = match app.reads.run(id).await {
        Ok(Some(run)) => run,
        Ok(None) => return ApiError::no_run(),
        Err(error) => return error.into(),
    };
    let version = run.pipeline_id.zip(run.version);
    let outline = match app.outlines.of_run(&app.pool, version, run.action.as_ref()).await {
        Ok(outline) => outline,
        Err(error) => return error.into(),
    };
    match outline.iter().find(|outlined| outlined.id == node) {
        None => ApiError::new(Kind::Unknown, format!("The run has no node {node:?}.")),
        Some(_) => {
            let detail = format!("The node {node:?} does not wait for a decision.");
            ApiError::new(Kind::NotWaiting, detail)
        }
    }
}

//! Submitting runs. What is answered with 202 is committed.

use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::{Extension, http};
use common::store::idempotency::NewKey;
use common::store::runs;
use common::telemetry::Traceparent;
use sha2::{Digest, Sha256};

use crate::accept::{Asked, Key, Reply};
use crate::app::App;
use crate::auth::Caller;
use crate::error::{ApiError, Kind, Problem};
use crate::extract::{JsonBody, Name, RunId};
use crate::fields::Fields;
use crate::submission::{Submission, Wanted};
use crate::view::AcceptedRun;

/// What every submission says beside its body.
#[derive(Debug)]
pub(super) struct Origin {
    caller: String,
    traceparent: String,
    path: String,
    key: Option<String>,
}

impl<S: Send + Sync> axum::extract::FromRequestParts<S> for Origin {
    type Rejection = ApiError;

    async fn from_request_parts(
        parts: &mut http::request::Parts,
        state: &S,
    ) -> Result<Self, ApiError> {
        let Caller { sub: caller, .. } = Caller::from_request_parts(parts, state).await?;
        let trace = Extension::<Traceparent>::from_request_parts(parts, state).await;
        let Extension(traceparent) =
            trace.map_err(|_| ApiError::internal("a request without a trace context"))?;
        let traceparent = traceparent.to_string();
        let path = Uri::path(&parts.uri).to_owned();
        Ok(Self { caller, traceparent, path, key: idempotency_key(&parts.headers)? })
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let mut given = headers.get_all("idempotency-key").iter();
    let Some(key) = given.next() else { return Ok(None) };
    let key =
        key.to_str().ok().filter(|key| (1..=255).contains(&key.len()) && given.next().is_none());
    let detail = "Idempotency-Key must be given once, with 1 to 255 printable ASCII characters.";
    key.map(|key| Some(key.to_owned())).ok_or_else(|| ApiError::malformed(detail))
}

impl Origin {
    /// Who asks.
    pub(super) fn caller(&self) -> &str {
        &self.caller
    }

    /// W3C trace context of the request.
    pub(super) fn traceparent(&self) -> &str {
        &self.traceparent
    }

    /// The request's idempotency key, for an answer that is to be stored.
    pub(super) fn key(&self, bytes: &[u8]) -> Option<NewKey> {
        self.key.as_ref().map(|key| NewKey {
            principal: self.caller.clone(),
            route: format!("POST {}", self.path),
            key: key.clone(),
            body_hash: Sha256::digest(bytes).to_vec(),
            answer: serde_json::Value::Null,
        })
    }

    /// Submits what was read of the body `bytes`.
    pub(super) async fn submit(
        self,
        app: &App,
        bytes: &[u8],
        wanted: Vec<Result<Submission, Problem>>,
        is_list: bool,
    ) -> Result<Reply, ApiError> {
        let route = format!("POST {}", self.path);
        let body_hash = || Sha256::digest(bytes).to_vec();
        let key = self.key.map(|key| Key { route, key, body_hash: body_hash() });
        let asked =
            Asked { caller: self.caller, traceparent: self.traceparent, key, wanted, is_list };
        app.acceptance.submit(asked).await
    }

    async fn submit_one(self, app: &App, bytes: &[u8], one: Submission) -> Result<Reply, ApiError> {
        self.submit(app, bytes, vec![Ok(one)], false).await
    }
}

/// Submit a run of a pipeline
///
/// `{input, tags, delay}`, all optional. The run is committed when this is answered, and will run.
#[utoipa::path(post, path = "/v1/pipelines/{name}/runs", tag = "runs",
    params(("name" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    request_body(content = super::openapi::RunRequest),
    responses((status = 202, body = AcceptedRun, headers(("Location" = String))), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn pipeline(
    State(app): State<App>,
    origin: Origin,
    Name(name): Name,
    body: JsonBody,
) -> Result<Reply, ApiError> {
    let submission = Submission::of_pipeline(name, body.value).map_err(ApiError::pointed)?;
    origin.submit_one(&app, &body.bytes, submission).await
}

/// Submit a single action
#[utoipa::path(post, path = "/v1/actions", tag = "runs",
    params(("Idempotency-Key" = Option<String>, Header)),
    request_body(content = super::openapi::ActionRequest),
    responses((status = 202, body = AcceptedRun, headers(("Location" = String))), (status = 422, body = Problem)))]
pub(super) async fn action(
    State(app): State<App>,
    origin: Origin,
    body: JsonBody,
) -> Result<Reply, ApiError> {
    let submission = Submission::of_action(body.value, &app.tools).map_err(ApiError::pointed)?;
    origin.submit_one(&app, &body.bytes, submission).await
}

/// Run a run again
///
/// Of the same version, with the same input and tags. `failed` keeps the completed nodes that have no uncompleted
/// ancestor; `start`, the default, keeps none.
#[utoipa::path(post, path = "/v1/runs/{id}/rerun", tag = "runs",
    params(("id" = Uuid, Path), ("Idempotency-Key" = Option<String>, Header)),
    request_body(content = super::openapi::RerunRequest),
    responses((status = 202, body = AcceptedRun, headers(("Location" = String))), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn rerun(
    State(app): State<App>,
    origin: Origin,
    RunId(id): RunId,
    body: JsonBody,
) -> Result<Reply, ApiError> {
    let keep_completed = keeps_completed(body.value)?;
    let run = runs::original(&app.pool, id).await?.ok_or_else(ApiError::no_run)?;
    if !run.state.is_terminal() {
        let detail =
            format!("The run is {}: only a run that has ended can be rerun.", run.state.name());
        return Err(ApiError::new(Kind::NotEnded, detail));
    }
    if keep_completed && run.state == common::run::RunState::Completed {
        let detail =
            "The run completed, so that nothing of it is left to run: rerun it from \"start\".";
        return Err(ApiError::new(Kind::Conflict, detail));
    }
    let subject = match (run.pipeline_id, run.pipeline, run.version, run.action) {
        (Some(id), Some(name), Some(version), _) => {
            Wanted::Version { id, name, version, lane: run.lane }
        }
        (_, _, _, Some(node)) => Wanted::Action { node, lane: run.lane },
        _ => return Err(ApiError::internal("a run has neither a pipeline nor an action")),
    };
    let submission = Submission::again(subject, run.input, run.tags, id, keep_completed);
    origin.submit_one(&app, &body.bytes, submission).await
}

/// Reads `{from}`.
fn keeps_completed(body: serde_json::Value) -> Result<bool, ApiError> {
    let mut fields = Fields::of(body, "");
    let from = fields.string("from");
    let keep = from.as_deref() == Some("failed");
    if !matches!(from.as_deref(), None | Some("start" | "failed")) {
        fields.fault("from", "must be \"start\" or \"failed\"");
    }
    fields.finish(keep).map_err(ApiError::pointed)
}

//! Registering tools that programs in any language execute.

use std::collections::HashMap;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use common::broker::tool_lane;
use common::duration;
use common::problem::Pointed;
use common::store::remote;
use common::tool::Spec;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::submit::Origin;
use crate::app::App;
use crate::audit::{Kind as Audited, Trail};
use crate::error::{ApiError, Kind, Problem};
use crate::extract::{JsonBody, Name, Nothing};
use crate::fields::Fields;
use crate::view::Stamp;

/// A tool to be registered.
#[derive(ToSchema)]
#[expect(dead_code, reason = "bodies are read strictly, by hand; this describes them")]
pub(super) struct ToolRequest {
    /// Letters, digits, `.`, `_` and `-`, 64 at most; no name of a built-in tool.
    name: String,
    description: Option<String>,
    /// JSON Schema (draft 2020-12) of its input.
    #[schema(value_type = Object)]
    schema: Option<Value>,
    /// The longest that a call may take, such as `10m`; the node's own time-out counts when it is shorter.
    timeout: Option<String>,
}

/// Where the calls of a remote tool lie.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RemoteView {
    /// The queue that its program takes calls from.
    queue: String,
    /// Calls that wait there; null when the broker does not answer, or has no such queue.
    messages: Option<u32>,
    /// Programs that take from it.
    consumers: Option<u32>,
    timeout: Option<String>,
    registered_by: String,
    created_at: Stamp,
    updated_at: Stamp,
}

/// What is answered to a registration.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RegisteredView {
    name: String,
    /// The queue that its program takes calls from.
    queue: String,
}

/// The remote tools that are registered, by name.
pub(super) async fn registered(app: &App) -> Result<HashMap<String, RemoteView>, ApiError> {
    let tools = remote::list(&app.pool).await?;
    if tools.is_empty() {
        return Ok(HashMap::new());
    }
    let topology = app.look.topology();
    let queue = |name: &str| topology.lane_queue(&tool_lane(name));
    let queues: Vec<String> = tools.iter().map(|tool| queue(&tool.name)).collect();
    let depths = app.look.at(&queues).await.unwrap_or_default();
    let timeout = |ms: i64| duration::text(std::time::Duration::from_millis(ms.unsigned_abs()));
    let view = |tool: remote::Registered| {
        let queue = queue(&tool.name);
        let depth = depths.get(&queue);
        let view = RemoteView {
            messages: depth.map(|depth| depth.messages),
            consumers: depth.map(|depth| depth.consumers),
            queue,
            timeout: tool.timeout_ms.map(timeout),
            registered_by: tool.registered_by,
            created_at: Stamp(tool.created_at),
            updated_at: Stamp(tool.updated_at),
        };
        (tool.name, view)
    };
    Ok(tools.into_iter().map(view).collect())
}

impl RemoteView {
    /// Whether something takes its calls.
    pub(super) fn is_served(&self) -> bool {
        self.consumers.is_some_and(|consumers| consumers > 0)
    }
}

/// Register a tool that a program of yours executes
///
/// In any language: it takes calls from the tool's queue in RabbitMQ, and answers each with a message. A tool that has
/// this name is replaced; names of built-in tools are taken.
#[utoipa::path(post, path = "/v1/tools", tag = "operations", request_body(content = ToolRequest),
    responses((status = 201, description = "It is new", body = RegisteredView),
        (status = 200, description = "It has replaced another", body = RegisteredView),
        (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn register(
    State(app): State<App>,
    origin: Origin,
    trail: Trail,
    body: JsonBody,
) -> Result<(StatusCode, Json<RegisteredView>), ApiError> {
    let (spec, timeout_ms) = asked(body.value).map_err(ApiError::pointed)?;
    let name = spec.name();
    if app.toolbox.built_in().get(name).is_some() {
        let detail = format!("The tool {name:?} is a part of every worker; choose another name.");
        return Err(ApiError::new(Kind::NameTaken, detail));
    }
    let mut conn = app.pool.acquire().await?;
    let tool = (name, spec.description(), spec.input_schema(), timeout_ms);
    let is_new = remote::register(&mut conn, tool, origin.caller()).await?;
    drop(conn);
    app.toolbox.forget().await;
    trail.record(Audited::ToolRegistered, name, json!({"new": is_new}));
    // So that its program finds a queue to take calls from.
    app.look.declare(&tool_lane(name)).await;
    let queue = app.look.topology().lane_queue(&tool_lane(name));
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(RegisteredView { name: name.to_owned(), queue })))
}

/// Reads `{name, description, schema, timeout}`.
fn asked(body: Value) -> Result<(Spec, Option<i64>), Vec<Pointed>> {
    let mut fields = Fields::of(body, "");
    let (name, description) = (fields.string("name"), fields.string("description"));
    let schema = fields.take("schema").unwrap_or_else(|| json!({"type": "object"}));
    let timeout = fields.duration("timeout");
    if name.is_none() {
        fields.missing("name");
    }
    if timeout.is_some_and(|timeout| timeout.is_zero()) {
        fields.fault("timeout", "must be longer than nothing");
    }
    let spec =
        Spec::new(name.clone().unwrap_or_default(), description.unwrap_or_default(), schema, None);
    let spec = match spec {
        Ok(spec) => Some(spec),
        Err(errors) => {
            let told = |error: &Pointed| error.pointer != "/name" || name.is_some();
            fields.faults(errors.into_iter().filter(told).collect());
            None
        }
    };
    let timeout = timeout.map(|timeout| i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX));
    fields.finish((spec, timeout)).and_then(|(spec, timeout)| match spec {
        Some(spec) => Ok((spec, timeout)),
        None => Err(vec![Pointed::new("/name", "is missing")]),
    })
}

/// Delete a tool that was registered
///
/// Nodes that call it fail for good. Its queue stays, with what lies in it.
#[utoipa::path(delete, path = "/v1/tools/{name}", tag = "operations", params(("name" = String, Path)),
    responses((status = 204), (status = 404, body = Problem)))]
pub(super) async fn delete(
    State(app): State<App>,
    trail: Trail,
    Name(name): Name,
    _: Nothing,
) -> Result<StatusCode, ApiError> {
    let mut conn = app.pool.acquire().await?;
    if !remote::delete(&mut conn, &name).await? {
        let detail = format!("There is no registered tool {name:?}.");
        return Err(ApiError::new(Kind::Unknown, detail));
    }
    drop(conn);
    app.toolbox.forget().await;
    trail.record(Audited::ToolDeleted, &name, json!({}));
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_is_read_strictly() {
        let pointer = |body: Value| asked(body).expect_err("it is wrong")[0].pointer.clone();
        let whole = json!({"name": "ocr", "description": "reads", "schema": {"type": "object"}, "timeout": "2m"});
        let (spec, timeout) = asked(whole).expect("it is right");
        assert_eq!((spec.name(), timeout), ("ocr", Some(120_000)));
        assert!(asked(json!({"name": "ocr"})).is_ok());
        for (body, at) in [
            (json!({}), "/name"),
            (json!({"name": "a b"}), "/name"),
            (json!({"name": "a", "schema": {"type": "objekt"}}), "/schema/type"),
            (json!({"name": "a", "timeout": "soon"}), "/timeout"),
            (json!({"name": "a", "timeout": "0s"}), "/timeout"),
            (json!({"name": "a", "max": 1}), "/max"),
        ] {
            assert_eq!(pointer(body.clone()), at, "{body}");
        }
    }
}

//! Checking definitions.

use axum::Json;
use axum::extract::State;
use common::graph::Graph;
use common::pipeline::{self, Checked, Refused};
use common::problem::Pointed;
use common::tool::Catalogue;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::pipelines::start_lane;
use crate::app::App;
use crate::error::{ApiError, Problem};
use crate::extract::DefinitionBody;

/// What is right and wrong with a definition.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Validation {
    valid: bool,
    #[schema(value_type = Vec<super::openapi::Warning>)]
    errors: Vec<Pointed>,
    #[schema(value_type = Vec<super::openapi::Warning>)]
    warnings: Vec<Pointed>,
    /// The nodes, each after all that lead to it; empty when it is not valid.
    order: Vec<String>,
}

/// Check a definition, and store nothing
#[utoipa::path(post, path = "/v1/pipelines/validate", tag = "pipelines",
    request_body(content((Value = "application/json"), (String = "application/yaml"))),
    responses((status = 200, body = Validation), (status = 400, body = Problem)))]
pub(super) async fn validate(
    State(app): State<App>,
    DefinitionBody(body): DefinitionBody,
) -> Result<Json<Validation>, ApiError> {
    let validation = off_thread(move || match check(&body, &app.tools) {
        Ok((checked, graph)) => {
            let id = |ix: &u32| graph.node(*ix).node.id.clone();
            let order = graph.order().iter().map(id).collect();
            Validation { valid: true, errors: Vec::new(), warnings: checked.warnings, order }
        }
        Err(Refused { errors, warnings }) => {
            Validation { valid: false, errors, warnings, order: Vec::new() }
        }
    });
    Ok(Json(validation.await?))
}

/// The definition, as it was read, and the lane where its runs start; or all that is wrong with it.
pub(super) async fn checked(app: &App, body: Value) -> Result<(Value, Checked, String), ApiError> {
    let tools = app.tools.clone();
    off_thread(move || match check(&body, &tools) {
        Ok((checked, graph)) => Ok((body, checked, start_lane(&graph))),
        Err(refused) => Err(ApiError::pointed(refused.errors)),
    })
    .await?
}

/// Also what only the api refuses: a name that its own addresses take.
fn check(body: &Value, tools: &Catalogue) -> Result<(Checked, Graph), Refused> {
    let mut checked = pipeline::check(body, tools);
    if body.get("name").is_some_and(|name| name == "validate") {
        let taken =
            Pointed::new("/name", "is taken by the address /v1/pipelines/validate; choose another");
        checked = match checked {
            Ok(Checked { warnings, .. }) => Err(Refused { errors: vec![taken], warnings }),
            Err(mut refused) => {
                refused.errors.insert(0, taken);
                Err(refused)
            }
        };
    }
    let checked = checked?;
    match Graph::compile(checked.definition.clone()) {
        Ok(graph) => Ok((checked, graph)),
        Err(errors) => Err(Refused { errors, warnings: checked.warnings }),
    }
}

/// Checking a large definition takes a while, in which the threads that serve requests have better to do.
async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| ApiError::internal(format!("checking a definition: {error}")))
}

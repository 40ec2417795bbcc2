//! What actions can be asked for, and where they can run.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::State;
use common::store::fleet;
use common::tool;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::app::App;
use crate::error::ApiError;
use crate::page::Parameters;

/// A tool: what an action can ask for.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ToolView {
    /// What `action` says.
    name: String,
    description: String,
    /// The JSON Schema (draft 2020-12) of its input, as it is once its templates are rendered.
    #[schema(value_type = Object)]
    schema: Value,
    /// What it needs from the operator of a worker; null: nothing.
    needs: Option<NeedsView>,
    /// Whether it is enabled on a worker that is alive.
    enabled: bool,
    /// On how many of them.
    workers: usize,
    /// The lanes that these serve.
    lanes: BTreeSet<String>,
}

/// What a tool needs from the operator of a worker.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct NeedsView {
    text: String,
    /// The worker's setting that gives it.
    setting: Option<String>,
}

/// All tools.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ToolList {
    items: Vec<ToolView>,
}

/// List the tools: what actions can ask for, and where they are enabled
#[utoipa::path(get, path = "/v1/tools", tag = "operations", responses((status = 200, body = ToolList)))]
pub(super) async fn list(
    State(app): State<App>,
    query: Parameters,
) -> Result<Json<ToolList>, ApiError> {
    query.finish(())?;
    let mut workers = fleet::workers(&app.pool).await?;
    workers.retain(|worker| worker.alive);
    let items = app.tools.specs().map(|spec| view(spec, &workers)).collect();
    Ok(Json(ToolList { items }))
}

fn view(spec: &tool::Spec, workers: &[fleet::Worker]) -> ToolView {
    let has = |worker: &&fleet::Worker| worker.tools.iter().any(|tool| tool == spec.name());
    let having: Vec<_> = workers.iter().filter(has).collect();
    ToolView {
        name: spec.name().to_owned(),
        description: spec.description().to_owned(),
        schema: spec.input_schema().clone(),
        needs: spec
            .needs()
            .map(|needs| NeedsView { text: needs.text.clone(), setting: needs.setting.clone() }),
        enabled: !having.is_empty(),
        workers: having.len(),
        lanes: having.iter().flat_map(|worker| worker.lanes.iter().cloned()).collect(),
    }
}

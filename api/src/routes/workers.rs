//! Who is in the fleet.

use axum::Json;
use axum::extract::State;
use common::store::fleet;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::app::App;
use crate::error::ApiError;
use crate::page::Parameters;
use crate::view::Stamp;

/// A worker.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WorkerView {
    id: Uuid,
    name: String,
    lanes: Vec<String>,
    /// How many node runs it executes at a time.
    slots: i32,
    /// The tools that are enabled on it.
    tools: Vec<String>,
    /// Whether its session holds its lock: if not, it is dead, or cut off from the database.
    alive: bool,
    started_at: Stamp,
}

/// All workers.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Workers {
    items: Vec<WorkerView>,
}

/// List the workers that have not said good-bye
#[utoipa::path(get, path = "/v1/workers", tag = "operations", responses((status = 200, body = Workers)))]
pub(super) async fn list(
    State(app): State<App>,
    query: Parameters,
) -> Result<Json<Workers>, ApiError> {
    query.finish(())?;
    let workers = fleet::workers(&app.pool).await?;
    let view = |worker: fleet::Worker| WorkerView {
        id: worker.id,
        name: worker.name,
        lanes: worker.lanes,
        slots: worker.slots,
        tools: worker.tools,
        alive: worker.alive,
        started_at: Stamp(worker.started_at),
    };
    Ok(Json(Workers { items: workers.into_iter().map(view).collect() }))
}

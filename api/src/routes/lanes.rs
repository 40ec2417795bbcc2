//! The lanes, and what waits in them.

use axum::Json;
use axum::extract::State;
use common::store::lanes;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::error::ApiError;
use crate::page::Parameters;

/// A lane: what the database and the broker say of it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LaneView {
    lane: String,
    /// Runs that wait for their start, but for those that are delayed.
    queued_runs: i64,
    /// Node runs that wait for a worker.
    queued: i64,
    /// Node runs that workers execute.
    running: i64,
    /// Living workers that serve it.
    workers: i64,
    /// How many node runs of it they execute at a time.
    slots: i64,
    /// Null when the broker does not answer, or has no such queue.
    queue: Option<QueueView>,
}

/// A queue of the broker.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct QueueView {
    name: String,
    /// Ready to be delivered; those at a worker are not counted.
    messages: u32,
    consumers: u32,
}

/// All lanes that a worker serves or something waits in.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Lanes {
    items: Vec<LaneView>,
    /// More runs were open than were counted (10,000): `queued_runs`, `queued` and `running` are of the oldest.
    partial: bool,
    /// The queue of messages that could not be read, each with a header that says why. It should be empty.
    dead: Option<QueueView>,
}

/// List the lanes, and what waits in them
///
/// What the broker says of its queues is at most a second old.
#[utoipa::path(get, path = "/v1/lanes", tag = "operations", responses((status = 200, body = Lanes)))]
pub(super) async fn list(
    State(app): State<App>,
    query: Parameters,
) -> Result<Json<Lanes>, ApiError> {
    query.finish(())?;
    let (lanes, partial) = lanes::list(&app.pool).await?;
    let topology = app.look.topology();
    let mut names: Vec<String> = lanes.iter().map(|lane| topology.lane_queue(&lane.lane)).collect();
    names.push(topology.dead());
    let depths = app.look.at(&names).await.unwrap_or_default();
    let queue = |name: String| {
        depths.get(&name).map(|depth| QueueView {
            name,
            messages: depth.messages,
            consumers: depth.consumers,
        })
    };
    let view = |lane: lanes::Lane| LaneView {
        queue: queue(topology.lane_queue(&lane.lane)),
        lane: lane.lane,
        queued_runs: lane.queued_runs,
        queued: lane.queued,
        running: lane.running,
        workers: lane.workers,
        slots: lane.slots,
    };
    let items = lanes.into_iter().map(view).collect();
    Ok(Json(Lanes { items, partial, dead: queue(topology.dead()) }))
}

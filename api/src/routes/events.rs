//! Following a run: Server-Sent Events.
//!
//! Events say how things stand, not each step on the way: what changes twice between two looks is told once. Each row
//! that changed carries the run's count at its change, so that a client that comes back gets what it has not seen. It
//! gets each last state at least once; `run.running` and the like may come again after a return.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use common::clock;
use common::run::RunState;
use common::store::events::{self, Changes};
use futures::{Stream, StreamExt, stream};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::app::App;
use crate::error::{ApiError, Problem};
use crate::extract::RunId;
use crate::page::Parameters;
use crate::watch::{For, Waiter};

/// How often a comment keeps a silent connection alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Follow a run
///
/// Server-Sent Events `run.<state>` and `node.<state>`, from the beginning or after `Last-Event-ID`; `data` is
/// `{run, node, state, attempt, at, error}`. The stream ends after the event of the run's end. What changes several
/// times in quick succession is told once, as it is then.
#[utoipa::path(get, path = "/v1/runs/{id}/events", tag = "runs",
    params(("id" = Uuid, Path), ("Last-Event-ID" = Option<i64>, Header)),
    responses((status = 200, content_type = "text/event-stream", body = String),
        (status = 204, description = "The run has ended, and nothing is left to tell"),
        (status = 404, body = Problem)))]
pub(super) async fn stream(
    State(app): State<App>,
    RunId(run): RunId,
    query: Parameters,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    query.finish(())?;
    let seen = last_event_id(&headers)?;
    // Registered before the first look, so that no change falls between the two.
    let waiter = app.watch.wait_for(run, For::Change);
    let changes = events::since(&app.pool, run, seen).await?.ok_or_else(ApiError::no_run)?;
    if changes.state.is_terminal() && changes.seq <= seen {
        // Tells an EventSource not to come back.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let events = follow(Follower { app, run, waiter, seen, told: None }, changes);
    let mut response =
        Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response();
    // Proxies that gather answers would hold events back.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn last_event_id(headers: &HeaderMap) -> Result<i64, ApiError> {
    let Some(given) = headers.get("last-event-id") else { return Ok(0) };
    let seen = given.to_str().ok().and_then(|text| text.parse().ok()).filter(|seen| *seen >= 0);
    seen.ok_or_else(|| {
        ApiError::malformed("Last-Event-ID must be the id of an event of this stream.")
    })
}

/// Where a stream is.
struct Follower {
    app: App,
    run: Uuid,
    waiter: Waiter,
    /// All up to this count has been told.
    seen: i64,
    /// The state of the run that was told last.
    told: Option<RunState>,
}

/// The events of `changes`, then of all that follow.
fn follow(follower: Follower, changes: Changes) -> impl Stream<Item = Result<Event, Infallible>> {
    let rounds = stream::unfold((follower, Some(changes)), async |(mut follower, next)| {
        let changes = match next {
            Some(changes) => changes,
            None => follower.changed().await?,
        };
        let told = follower.tell(&changes);
        Some((stream::iter(told), (follower, None)))
    });
    rounds.flatten().map(Ok)
}

impl Follower {
    /// What is new since the last look; none once the run's end was told, or this process is to stop.
    async fn changed(&self) -> Option<Changes> {
        let mut pause = Duration::ZERO;
        while !self.told.is_some_and(RunState::is_terminal) {
            tokio::select! {
                () = async { tokio::time::sleep(pause).await; self.waiter.woken().await } => {}
                () = self.app.draining.cancelled() => return None,
            }
            let began = Instant::now();
            match events::since(&self.app.pool, self.run, self.seen).await {
                Ok(Some(changes)) if changes.seq > self.seen => return Some(changes),
                Ok(Some(_)) => {}
                // It was pruned.
                Ok(None) => return None,
                Err(error) => tracing::debug!(%error, run = %self.run, "could not look at a run"),
            }
            // A look reads all nodes of the run: a large run is looked at less often.
            pause = began.elapsed() * 4;
        }
        None
    }

    /// The events of `changes`. An event's id says that all up to it has been told; so of several rows with one count,
    /// only the last says that count.
    fn tell(&mut self, changes: &Changes) -> Vec<Event> {
        let nodes = &changes.nodes.0;
        let mut told = Vec::with_capacity(nodes.len() + 1);
        let is_new = self.told.replace(changes.state) != Some(changes.state);
        let is_end = changes.state.is_terminal();
        if is_new && !is_end {
            let id = nodes.first().map_or(changes.seq, |node| node.seq - 1);
            told.push(self.run_event(changes, id));
        }
        for (at, node) in nodes.iter().enumerate() {
            let is_last = nodes.get(at + 1).is_none_or(|next| next.seq > node.seq);
            let data = json!({
                "run": self.run, "node": node.node, "state": node.state.name(), "attempt": node.attempt,
                "at": node.at.as_ref().map(clock::text), "error": node.error,
            });
            let id = if is_last { node.seq } else { node.seq - 1 };
            told.push(event(&format!("node.{}", node.state.name()), id, &data));
        }
        if is_new && is_end {
            told.push(self.run_event(changes, changes.seq));
        }
        self.seen = changes.seq;
        told
    }

    fn run_event(&self, changes: &Changes, id: i64) -> Event {
        let data = json!({
            "run": self.run, "node": null, "state": changes.state.name(), "attempt": null,
            "at": clock::text(&changes.at), "error": changes.error,
        });
        event(&format!("run.{}", changes.state.name()), id, &data)
    }
}

fn event(name: &str, id: i64, data: &Value) -> Event {
    Event::default().event(name).id(id.to_string()).data(data.to_string())
}

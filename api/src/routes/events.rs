//! Following a run: Server-Sent Events.
//!
//! Events say how things stand, not each step on the way: what changes twice between two looks is told once. Each row
//! that changed carries the run's count at its change, so that a client that comes back gets what it has not seen. It
//! gets each last state at least once; `run.running` and the like may come again after a return.

mod teller;

use std::convert::Infallible;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use common::store::events::{self, Changes};
use futures::{Stream, StreamExt, stream};

use self::teller::{Teller, Told};
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
/// `{run, node, state, attempt, at, error}`, `at` where it is noted. The stream ends after the event of the run's end. What changes several
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
    let events = follow(Follower { app, waiter, teller: Teller::new(run, seen) }, changes);
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

/// A stream on its way.
struct Follower {
    app: App,
    waiter: Waiter,
    teller: Teller,
}

/// The events of `changes`, then of all that follow.
fn follow(follower: Follower, changes: Changes) -> impl Stream<Item = Result<Event, Infallible>> {
    let rounds = stream::unfold((follower, Some(changes)), async |(mut follower, next)| {
        let changes = match next {
            Some(changes) => changes,
            None => follower.changed().await?,
        };
        let told = follower.teller.tell(&changes);
        Some((stream::iter(told.into_iter().map(event)), (follower, None)))
    });
    rounds.flatten().map(Ok)
}

fn event(told: Told) -> Event {
    Event::default().event(told.name).id(told.id.to_string()).data(told.data.to_string())
}

impl Follower {
    /// What is new since the last look; none once the run's end was told, or this process is to stop.
    async fn changed(&self) -> Option<Changes> {
        let (run, seen) = (self.teller.run(), self.teller.seen());
        let mut pause = Duration::ZERO;
        while !self.teller.told_the_end() {
            tokio::select! {
                () = async { tokio::time::sleep(pause).await; self.waiter.woken().await } => {}
                () = self.app.draining.cancelled() => return None,
            }
            let began = Instant::now();
            match events::since(&self.app.pool, run, seen).await {
                Ok(Some(changes)) if changes.seq > seen => return Some(changes),
                Ok(Some(_)) => {}
                // It was pruned.
                Ok(None) => return None,
                Err(error) => tracing::debug!(%error, %run, "could not look at a run"),
            }
            // A look reads all nodes of the run: a large run is looked at less often.
            pause = began.elapsed() * 4;
        }
        None
    }
}

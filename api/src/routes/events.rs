//! Following a run: Server-Sent Events.
//!
//! Events say how things stand, not each step on the way: what changes twice between two looks is told once. Each row
//! that changed carries the run's count at its change, so that a client that comes back gets what it has not seen. It
//! gets each last state at least once; `run.running` and the like may come again after a return.
//!
//! What nodes print is read from its rows: when a hint tells of it, and once a second while a node runs, so that a hint
//! that is lost delays a line and loses none. All lines of an attempt come before the event of its end.

mod reader;
mod teller;

use std::convert::Infallible;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use common::store::events::{self, Changes};
use common::store::node_logs;
use futures::{Stream, StreamExt, stream};

use self::reader::{PAGE, Reader, Whose};
use self::teller::{Teller, Told};
use crate::app::App;
use crate::error::{ApiError, Problem};
use crate::extract::RunId;
use crate::page::Parameters;
use crate::watch::{For, Waiter};

/// How often the lines of running nodes are looked for without a hint, and what could not be read is tried again.
const LOOK: Duration = Duration::from_secs(1);

/// How often a comment keeps a silent connection alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Follow a run
///
/// Server-Sent Events `run.<state>` and `node.<state>`, from the beginning or after `Last-Event-ID`; `data` is
/// `{run, node, state, attempt, at, error}`, `at` where it is noted. The stream ends after the event of the run's end. What changes several
/// times in quick succession is told once, as it is then.
///
/// What nodes print comes as events `node.log`, `{run, node, attempt, lines: [{seq, stream, at, text}]}`, all of it
/// before the event of the attempt's end. They have no id: a client that comes back gets the lines of nodes that still
/// run from the first one again, and knows them by `attempt` and `seq`. A gap in `seq` is lines that were left out.
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
    let mut reader = Reader::default();
    if seen > 0 {
        let all = events::since(&app.pool, run, 0).await?.ok_or_else(ApiError::no_run)?;
        reader.heed_running(all);
    }
    let teller = Teller::new(run, seen);
    let events = follow(Follower {
        app,
        waiter,
        teller,
        reader,
        changes: Some(changes),
        pause: Duration::ZERO,
    });
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
    reader: Reader,
    /// What is to be told next.
    changes: Option<Changes>,
    /// A look reads all nodes of the run: a large run is looked at less often.
    pause: Duration,
}

/// All events to the end.
fn follow(follower: Follower) -> impl Stream<Item = Result<Event, Infallible>> {
    let rounds = stream::unfold(follower, async |mut follower| {
        let told = follower.next().await?;
        Some((stream::iter(told.into_iter().map(event)), follower))
    });
    rounds.flatten().map(Ok)
}

fn event(told: Told) -> Event {
    let event = Event::default().event(told.name).data(told.data.to_string());
    match told.id {
        Some(id) => event.id(id.to_string()),
        None => event,
    }
}

impl Follower {
    /// What comes next; none once the run's end was told, or this process is to stop.
    async fn next(&mut self) -> Option<Vec<Told>> {
        loop {
            if let Some(changes) = &self.changes {
                self.reader.heed(changes);
                if let Some(lines) = self.lines(Whose::Ended).await? {
                    return Some(lines);
                }
                return self.changes.take().map(|changes| self.teller.tell(&changes));
            }
            if self.teller.told_the_end() {
                return None;
            }
            if let Some(lines) = self.lines(Whose::Running).await? {
                return Some(lines);
            }
            self.changes = self.changed().await?;
        }
    }

    /// A page of lines, if there are any.
    async fn lines(&mut self, whose: Whose) -> Option<Option<Vec<Told>>> {
        let run = self.teller.run();
        while self.reader.any(whose) {
            let places = self.reader.places(whose);
            match node_logs::after(&self.app.pool, run, &places, PAGE).await {
                Ok(lines) => {
                    let told = self.reader.tell(run, whose, &lines);
                    return Some((!told.is_empty()).then_some(told));
                }
                Err(error) => tracing::debug!(%error, %run, "could not read what nodes printed"),
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = self.app.draining.cancelled() => return None,
            }
        }
        Some(None)
    }

    /// Waits until there may be something new, and looks: what has changed, if anything has.
    async fn changed(&mut self) -> Option<Option<Changes>> {
        let (run, seen, pause) = (self.teller.run(), self.teller.seen(), self.pause);
        let tick = async {
            match self.reader.any(Whose::Running) {
                true => tokio::time::sleep(LOOK.max(pause)).await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            () = async { tokio::time::sleep(pause).await; self.waiter.woken().await } => {}
            () = tick => {}
            () = self.app.draining.cancelled() => return None,
        }
        let began = Instant::now();
        let looked = events::since(&self.app.pool, run, seen).await;
        self.pause = began.elapsed() * 4;
        match looked {
            // It was pruned.
            Ok(None) => None,
            Ok(Some(changes)) => Some((changes.seq > seen).then_some(changes)),
            Err(error) => {
                tracing::debug!(%error, %run, "could not look at a run");
                Some(None)
            }
        }
    }
}

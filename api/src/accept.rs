//! Accepting runs in batches: one look at what is there, one statement that writes, then the answers.

mod decide;
mod known;
mod new_runs;

use std::sync::Arc;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use common::batch::{Batcher, Work};
use common::breakpoint;
use common::outbox::{Outbox, Row};
use common::own::Own;
use common::store::idempotency;
use common::store::{self, Connects, accept};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use self::decide::Round;
use self::known::{Found, Known};
pub(crate) use self::new_runs::accepted;
use crate::error::{ApiError, Kind, Problem};
use crate::submission::Submission;
use crate::watch::Watch;

/// A request that wants runs.
pub(crate) struct Asked {
    pub(crate) caller: String,
    pub(crate) traceparent: String,
    pub(crate) key: Option<Key>,
    pub(crate) wanted: Vec<Result<Submission, Problem>>,
    /// Whether it is answered as a list, item by item.
    pub(crate) is_list: bool,
}

/// The idempotency key of a request.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) route: String,
    pub(crate) key: String,
    pub(crate) body_hash: Vec<u8>,
}

/// What is answered, and answered again under the same key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Reply {
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<String>,
    body: Value,
}

impl Reply {
    pub(crate) fn new(status: StatusCode, location: Option<String>, body: Value) -> Self {
        Self { status: status.as_u16(), location, body }
    }

    /// Whether it is about this, and not what was answered before.
    pub(crate) fn names(&self, id: Uuid) -> bool {
        self.body.get("id").and_then(Value::as_str) == Some(id.to_string().as_str())
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::OK);
        let mut response = (status, axum::Json(self.body)).into_response();
        if let Some(location) =
            self.location.and_then(|location| HeaderValue::try_from(location).ok())
        {
            response.headers_mut().insert(header::LOCATION, location);
        }
        response
    }
}

/// The way in for all runs.
pub(crate) struct Acceptance {
    /// Requests for one run each.
    ones: Batcher<Asked, Result<Reply, ApiError>>,
    /// Requests for many: of these, few go into one commit, which is large as it is.
    lists: Batcher<Asked, Result<Reply, ApiError>>,
    known: Arc<Known>,
}

impl Acceptance {
    pub(crate) fn start(own: Own, outbox: Outbox, watch: Watch) -> Self {
        let known = Arc::new(Known::default());
        let work = |known: &Arc<Known>| Accepting {
            own: own.clone(),
            outbox: outbox.clone(),
            watch: watch.clone(),
            known: known.clone(),
        };
        Self {
            ones: Batcher::start("accept", 256, work(&known)),
            lists: Batcher::start("accept_lists", 4, work(&known)),
            known,
        }
    }

    /// Commits what is asked for, and answers it; all of it is there once this returns.
    pub(crate) async fn submit(&self, mut asked: Asked) -> Result<Reply, ApiError> {
        // Here and not in the batch, where one slow schema would hold up everybody.
        for submission in asked.wanted.iter_mut().flatten() {
            self.known.check_ahead(submission);
        }
        let is_keyed = asked.key.is_some();
        let batcher = if asked.is_list { &self.lists } else { &self.ones };
        batcher.submit(asked).await.unwrap_or_else(|error| {
            let error = ApiError::from(error);
            Err(match error.kind {
                Kind::Conflict if is_keyed => ApiError::new(
                    Kind::InFlight,
                    "A request with this Idempotency-Key is still under way; try again.",
                )
                .with_header(header::RETRY_AFTER, HeaderValue::from_static("1")),
                _ => error,
            })
        })
    }
}

struct Accepting {
    own: Own,
    outbox: Outbox,
    watch: Watch,
    known: Arc<Known>,
}

impl Work for Accepting {
    type Item = Asked;
    type Answer = Result<Reply, ApiError>;
    const RETRY_OUTAGES: bool = false;

    async fn commit(&mut self, asked: &[Asked]) -> Result<Vec<Self::Answer>, store::Error> {
        let mut conn = self.own.take().await?;
        let mut round = Round::of(asked);
        if let Some(newest) = self.guess(&mut round) {
            round.decide();
            let rows = accept::accept_if_newest(&mut conn, &round.runs(), &newest).await?;
            if let Some(rows) = rows {
                self.publish(rows).await;
                conn.keep();
                return Ok(round.into_answers());
            }
            round = Round::of(asked);
        }
        if round.has_keys() {
            round.answer_given(&idempotency::given(&mut conn, round.keys()).await?);
        }
        let names = round.names();
        if !names.is_empty() {
            round.found(self.known.look_up(&mut conn, &names).await?);
        }
        round.decide();
        if round.has_keys() {
            let mut tx = conn.begin_with(idempotency::BEGIN).await?;
            let claimed = idempotency::claim(&mut tx, &round.new_keys()).await?;
            round.keep_claimed(&claimed);
            let rows = accept::accept(&mut tx, &round.runs()).await?;
            tx.commit().await?;
            self.publish(rows).await;
        } else {
            // One statement is a transaction of its own.
            let rows = accept::accept(&mut conn, &round.runs()).await?;
            self.publish(rows).await;
        }
        conn.keep();
        // It is committed: from here on nothing may fail the batch, which would be tried again.
        if round.lost_any() {
            self.answer_lost(&mut round).await;
        }
        Ok(round.into_answers())
    }
}

impl Accepting {
    /// Takes the pipelines to be as they were when they were last looked up: a look less, since the statement that writes
    /// makes sure of these versions. None where there is more to ask, or an input to be checked.
    fn guess(&self, round: &mut Round<'_>) -> Option<Vec<(Uuid, i32)>> {
        let names = round.names();
        if round.has_keys() || names.is_empty() {
            return None;
        }
        let guess = self.known.guess(&names)?;
        let newest = guess.iter().map(Found::version).collect();
        round.found(guess);
        round.is_checked().then_some(newest)
    }

    /// Publishes what has just been committed.
    async fn publish(&self, rows: Vec<Row>) {
        breakpoint::committed("accept").await;
        self.watch.accepted(rows.iter().filter_map(|row| row.job.task.run()));
        self.outbox.publish(rows);
    }

    /// Answers those whose keys were claimed elsewhere with what was answered there.
    async fn answer_lost(&self, round: &mut Round<'_>) {
        let given = async {
            let mut conn = self.own.take().await?;
            let given = idempotency::given(&mut conn, round.keys()).await?;
            conn.keep();
            Ok::<_, store::Error>(given)
        };
        match given.await {
            Ok(given) => round.answer_given(&given),
            Err(error) => {
                tracing::warn!(%error, "answers that were given elsewhere cannot be read")
            }
        }
    }
}

//! Rows that become messages: committed with the change that they announce, deleted once the broker has confirmed.

use std::time::{Duration, Instant};

use serde::Serialize;
use sqlx::PgConnection;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::broker::{BrokerConfig, Hint, Outgoing, Publisher};
use crate::job::Job;
use crate::own::Own;
use crate::store;

/// A row of `outbox`. As JSON it has the names of its columns.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Its id, and the job's.
    pub id: Uuid,
    /// The lane that the job goes to.
    pub lane: String,
    /// The message's body.
    pub job: Job,
}

impl Row {
    /// A row for `job`, which carries the row's id.
    pub fn new(lane: impl Into<String>, job: Job) -> Self {
        Self { id: job.id, lane: lane.into(), job }
    }
}

/// Writes rows, as part of the caller's transaction.
pub async fn insert(conn: &mut PgConnection, rows: &[Row]) -> Result<(), sqlx::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let columns = Columns::of(rows);
    sqlx::query!(
        "insert into outbox (id, lane, job)
         select id, lane, job::jsonb from unnest($1::uuid[], $2::text[], $3::text[]) as u (id, lane, job)",
        &columns.ids,
        &columns.lanes,
        &columns.jobs
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Writes rows that the caller does not publish: they are the leader's at once.
pub async fn leave(conn: &mut PgConnection, rows: &[Row]) -> Result<(), sqlx::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let columns = Columns::of(rows);
    sqlx::query!(
        "insert into outbox (id, lane, job, created_at)
         select id, lane, job::jsonb, clock_timestamp() - interval '1 minute'
         from unnest($1::uuid[], $2::text[], $3::text[]) as u (id, lane, job)",
        &columns.ids,
        &columns.lanes,
        &columns.jobs
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Rows as columns, for `unnest`.
#[derive(Debug, Default)]
pub struct Columns {
    /// `outbox.id`
    pub ids: Vec<Uuid>,
    /// `outbox.lane`
    pub lanes: Vec<String>,
    /// `outbox.job`, as JSON text.
    pub jobs: Vec<String>,
}

impl Columns {
    /// Turns rows into columns.
    pub fn of(rows: &[Row]) -> Self {
        let mut columns = Self::default();
        for row in rows {
            columns.ids.push(row.id);
            columns.lanes.push(row.lane.clone());
            columns.jobs.push(serde_json::to_string(&row.job).expect("a job is plain JSON"));
        }
        columns
    }
}

/// Publishes rows once they are committed, and deletes them once they are confirmed.
#[derive(Clone)]
pub struct Outbox {
    publisher: Publisher,
}

/// The tasks behind an [`Outbox`].
#[derive(Debug)]
pub struct Tasks {
    publisher: JoinHandle<()>,
    deletion: JoinHandle<()>,
}

impl Tasks {
    /// Waits until the rows that were offered are confirmed and deleted, or left to the leader. To be called once the
    /// outbox was told to shut down.
    pub async fn ended(self) {
        let both = async { tokio::join!(self.publisher, self.deletion) };
        if tokio::time::timeout(LAST_WORDS, both).await.is_err() {
            tracing::warn!("what the broker has not confirmed is left to the leader");
        }
    }
}

/// How long the end of a process waits for the last confirms.
const LAST_WORDS: Duration = Duration::from_secs(8);

/// How many confirmed rows are deleted at a time.
const DELETED_AT_ONCE: usize = 2_000;

impl Outbox {
    /// Starts the publisher, and the deletion of what it confirms, over one of these connections; both end after
    /// `shutdown`.
    pub fn start(own: Own, broker: BrokerConfig, shutdown: CancellationToken) -> (Self, Tasks) {
        let (confirmed, arrivals) = mpsc::unbounded_channel();
        let (publisher, task) = Publisher::start(broker, confirmed, shutdown);
        let deletion = tokio::spawn(delete_confirmed(own, arrivals));
        (Self { publisher }, Tasks { publisher: task, deletion })
    }

    /// Offers rows that have just been committed to the broker. Never blocks: what does not fit is the leader's.
    pub fn publish(&self, rows: Vec<Row>) {
        let committed_at = Instant::now();
        for row in rows {
            let outgoing = Outgoing { lane: row.lane, job: row.job, committed_at };
            if !self.publisher.offer(outgoing) {
                metrics::counter!("gathering_outbox_left_total").increment(1);
            }
        }
    }

    /// Tells whoever listens that runs changed. Lost without harm.
    pub fn hint(&self, hint: Hint) {
        if !hint.runs.is_empty() {
            self.publisher.hint(hint);
        }
    }

    /// The publisher itself.
    pub fn publisher(&self) -> &Publisher {
        &self.publisher
    }
}

/// How long confirmed rows wait for company. Nobody waits for their end.
const LINGER: Duration = Duration::from_millis(20);

/// Deletes confirmed rows, many at a time. What cannot be deleted is published again by the leader: a
/// duplicate, which every claim withstands.
async fn delete_confirmed(own: Own, mut confirmed: mpsc::UnboundedReceiver<Vec<Uuid>>) {
    let mut gathered = Vec::new();
    while confirmed.recv_many(&mut gathered, DELETED_AT_ONCE).await > 0 {
        tokio::time::sleep(LINGER).await;
        while gathered.len() < DELETED_AT_ONCE
            && let Ok(more) = confirmed.try_recv()
        {
            gathered.push(more);
        }
        let ids: Vec<Uuid> = gathered.drain(..).flatten().collect();
        if let Err(error) = delete(&own, &ids).await {
            tracing::debug!(%error, rows = ids.len(), "confirmed outbox rows stay for the leader");
            if store::is_outage(&error) {
                // Not at once: the next would fail like this one, and the leader sees to the rows anyway.
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

/// Not waiting for the disk: a deletion that a crash undoes is a duplicate.
async fn delete(own: &Own, ids: &[Uuid]) -> Result<(), sqlx::Error> {
    let mut conn = own.take().await?;
    sqlx::query!(
        "delete from outbox
         where id = any($1) and (select set_config('synchronous_commit', 'off', true)) = 'off'",
        ids
    )
    .execute(&mut *conn)
    .await?;
    conn.keep();
    Ok(())
}

//! The record of outcomes: each node run ends once, and what follows from it is written in the same transaction.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::advance::{End, Verdict};
use crate::clock::Instant;
use crate::context::RunContext;
use crate::failure::NodeError;
use crate::graph::{EdgeIx, NodeIx};
use crate::node_run::NodeState;
use crate::outbox;
use crate::run::{RunState, StopReason};
use crate::store::claim::Claimed;
use crate::store::follow::Keeping;
use crate::store::waits;
use crate::store::write::{self, Writes};
use crate::wait::Wait;

pub mod arrival;
mod consequence;
pub mod direct;
mod guard;

/// How an attempt ended.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// With an output.
    Completed {
        /// The output.
        output: Arc<Value>,
        /// The same as JSON text.
        text: String,
    },
    /// For good.
    Failed {
        /// Why.
        error: NodeError,
        /// Whether the attempt counts.
        spent: bool,
    },
    /// It is tried again.
    Retry {
        /// Why.
        error: NodeError,
        /// When, from now.
        after: Duration,
        /// Whether the attempt counts.
        spent: bool,
        /// The breaker that it waits for.
        breaker: Option<String>,
    },
    /// It waits without a worker.
    Waiting {
        /// For what; its executor reads it when it is resumed.
        waiting: Value,
        /// From now.
        after: Duration,
        /// Instead: until this instant.
        at: Option<Instant>,
    },
    /// It waits without a worker until it is answered.
    Awaiting {
        /// For what.
        wait: Arc<Wait>,
    },
    /// The worker stops, and gives it back: another attempt may begin at once.
    HandedBack {
        /// That it was given back.
        error: NodeError,
    },
    /// The run was told to stop, and so was the node.
    Stopped {
        /// That it was stopped.
        error: NodeError,
    },
    /// Its worker died, and the one that found it goes on with it.
    TakenOver {
        /// That the worker was lost.
        error: NodeError,
    },
    /// Its worker died, and it is queued anew.
    Requeued {
        /// That the worker was lost.
        error: NodeError,
    },
    /// Workers died under it, and it waits before it is tried alone.
    LostForNow {
        /// That the worker was lost.
        error: NodeError,
        /// How long.
        after: Duration,
    },
    /// Its worker died once too often.
    Lost {
        /// That the worker was lost.
        error: NodeError,
    },
}

/// An outcome to record.
#[derive(Debug, Clone)]
pub struct Record {
    /// The run.
    pub context: Arc<RunContext>,
    /// The node.
    pub node: NodeIx,
    /// The fence.
    pub attempt: i32,
    /// The job under which it ran, and under which what follows from it runs.
    pub job: Uuid,
    /// How it ended.
    pub outcome: Outcome,
    /// What the conditions of its outgoing edges said.
    pub verdicts: Vec<(EdgeIx, Verdict)>,
    /// Whether the slot goes on with a successor.
    pub goes_on: bool,
}

impl Record {
    /// About how many bytes of a statement it takes.
    pub fn weight(&self) -> usize {
        match &self.outcome {
            Outcome::Completed { text, .. } => text.len(),
            Outcome::Awaiting { wait } => wait.weight(),
            _ => 0,
        }
    }
}

/// What came of one outcome.
#[derive(Debug, Clone)]
pub enum RecordAnswer {
    /// It counts, and these node runs are this worker's now.
    Recorded(Vec<Claimed>),
    /// The fence does not hold: another has gone on with it, or it has ended.
    Stale,
}

/// A batch of records, with what is to be told once it is committed.
#[derive(Debug, Default)]
pub struct Recorded {
    /// One answer an item.
    pub answers: Vec<RecordAnswer>,
    /// The jobs that it wrote.
    pub jobs: Vec<outbox::Row>,
    /// The runs that changed, and how they stand.
    pub runs: Vec<(Uuid, RunState)>,
}

/// A run of the batch, locked.
#[derive(Debug, Clone)]
struct LockedRun {
    state: RunState,
    seq: i64,
    open: i32,
    stop_reason: Option<StopReason>,
    failed: bool,
}

/// Records outcomes, sorted into runs. The caller's transaction must have locked nothing yet.
pub async fn record(
    conn: &mut PgConnection,
    records: &[Arc<Record>],
    keeping: Keeping<'_>,
    spare: usize,
) -> Result<Recorded, sqlx::Error> {
    let mut runs = lock(conn, records).await?;
    let lost = guard::lost(conn, records).await?;
    let guarded = guard::guard(conn, records, &mut runs, keeping.owner).await?;
    let mut recorded = Recorded::default();
    recorded.answers.resize(records.len(), RecordAnswer::Stale);
    let mut by_run: BTreeMap<Uuid, Vec<usize>> = BTreeMap::new();
    for (place, held) in guarded.held.iter().enumerate() {
        if held.is_some() {
            by_run.entry(records[place].context.id).or_default().push(place);
        }
    }
    let mut batch = consequence::Batch {
        records,
        guarded: &guarded,
        lost: &lost,
        keeping,
        spare,
        writes: Writes::default(),
        halts: Vec::new(),
        waits: Vec::new(),
        answers: &mut recorded.answers,
    };
    for (id, places) in &by_run {
        if let Some(run) = runs.get(id) {
            batch.run(conn, run, places).await?;
        }
    }
    let (writes, halts, opened) = (batch.writes, batch.halts, batch.waits);
    recorded.jobs = writes.jobs.clone();
    recorded.runs = writes.runs.iter().map(|run| (run.id, run.state)).collect();
    write::write(conn, writes).await?;
    recorded.jobs.extend(waits::open(conn, &opened).await?);
    for (run, error) in halts {
        let stopped =
            super::stop::halt(conn, run, RunState::Running, StopReason::FailFast, Some(error))
                .await?;
        let state = match stopped {
            super::stop::Stopped::Stopped(state) => state,
            _ => RunState::Cancelling,
        };
        recorded.runs.push((run, state));
    }
    Ok(recorded)
}

async fn lock(
    conn: &mut PgConnection,
    records: &[Arc<Record>],
) -> Result<HashMap<Uuid, LockedRun>, sqlx::Error> {
    let ids: Vec<Uuid> = records.iter().map(|record| record.context.id).collect();
    let rows = sqlx::query!(
        r#"select id, state as "state: RunState", seq, open, stop_reason as "stop_reason: StopReason",
               error is not null as "failed!"
           from runs where id = any($1) order by id for no key update"#,
        &ids
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let run = LockedRun {
                state: row.state,
                seq: row.seq,
                open: row.open,
                stop_reason: row.stop_reason,
                failed: row.failed,
            };
            (row.id, run)
        })
        .collect())
}

/// The state that an outcome leads to, in a run that goes on or in one that is stopping.
pub fn next_state(outcome: &Outcome, stopping: bool) -> NodeState {
    match outcome {
        Outcome::Completed { .. } => NodeState::Completed,
        Outcome::Failed { .. } | Outcome::Lost { .. } => NodeState::Failed,
        _ if stopping => NodeState::Cancelled,
        Outcome::Retry { .. } | Outcome::LostForNow { .. } => NodeState::Retrying,
        Outcome::Waiting { .. } | Outcome::Awaiting { .. } => NodeState::Waiting,
        // Told to stop in a run that was not: given back, so that nothing hangs.
        Outcome::HandedBack { .. } | Outcome::Requeued { .. } | Outcome::Stopped { .. } => {
            NodeState::Queued
        }
        Outcome::TakenOver { .. } => NodeState::Running,
    }
}

impl Outcome {
    /// The error that it carries.
    fn error(&self) -> Option<&NodeError> {
        match self {
            Self::Completed { .. } | Self::Waiting { .. } | Self::Awaiting { .. } => None,
            Self::Failed { error, .. }
            | Self::Retry { error, .. }
            | Self::Stopped { error }
            | Self::HandedBack { error }
            | Self::TakenOver { error }
            | Self::Requeued { error }
            | Self::LostForNow { error, .. }
            | Self::Lost { error } => Some(error),
        }
    }

    /// Whether the attempt counts.
    pub fn is_spent(&self) -> bool {
        matches!(self, Self::Failed { spent: true, .. } | Self::Retry { spent: true, .. })
    }

    /// Whether the worker was lost.
    pub fn is_loss(&self) -> bool {
        matches!(
            self,
            Self::TakenOver { .. }
                | Self::Requeued { .. }
                | Self::LostForNow { .. }
                | Self::Lost { .. }
        )
    }

    /// How the node ended, for its edges.
    pub fn end(&self) -> Option<End> {
        match self {
            Self::Completed { .. } => Some(End::Completed),
            Self::Failed { error, .. } | Self::Lost { error } => Some(End::Failed(error.clone())),
            _ => None,
        }
    }
}

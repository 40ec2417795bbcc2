//! The three batched transactions of a worker: starts, claims, records. What they claim is entered among what is
//! executed before anyone is told, and what they announce is published once they are committed.

use std::sync::{self, Arc, PoisonError};
use std::time::{Duration, Instant};

use common::breakpoint;
use common::broker::{Hint, HintKind};
use common::context::RunContext;
use common::graph::NodeIx;
use common::outbox;
use common::own::Taken;
use common::run::RunState;
use common::store::claim::{self, Claim, ClaimAnswer, Claimed};
use common::store::follow::Keeping;
use common::store::record::arrival::Arrival;
use common::store::record::direct::Known;
use common::store::record::{self, Outcome, Record, RecordAnswer};
use common::store::start::{self, Start, StartAnswer};
use common::store::{self, Connects, is_outage, mine};
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::core::Core;
use crate::registry::Entry;

mod direct;

pub(crate) use direct::{DirectRecords, DirectStarts};

/// A claimed node run, entered among what is executed here.
#[derive(Debug)]
pub(crate) struct Assigned {
    pub(crate) claimed: Claimed,
    pub(crate) entry: Entry,
}

/// What came of a job.
#[derive(Debug)]
pub(crate) enum Begun {
    /// These node runs are this worker's.
    Assigned(Vec<Assigned>),
    /// There is nothing to execute, and nothing to look for.
    Over,
    /// It was not queued; what ran under the job has to be looked for.
    NotQueued,
    /// The run's definition cannot run here.
    Unreadable(String),
}

/// What came of a record.
#[derive(Debug)]
pub(crate) enum Settled {
    /// It counts, and these node runs are this worker's now.
    Recorded(Vec<Assigned>),
    /// Another has gone on with it.
    Stale,
}

impl Core {
    fn assign(&self, claimed: Vec<Claimed>) -> Vec<Assigned> {
        claimed
            .into_iter()
            .filter_map(|claimed| {
                let entry =
                    self.executing.enter(claimed.context.id, claimed.node, claimed.attempt)?;
                Some(Assigned { claimed, entry })
            })
            .collect()
    }

    pub(crate) fn announce(&self, jobs: Vec<outbox::Row>, runs: Vec<(Uuid, RunState)>) {
        self.outbox.publish(jobs);
        let runs = runs.into_iter().map(|(run, state)| (run, hint(state))).collect();
        self.outbox.hint(Hint { runs });
    }
}

fn hint(state: RunState) -> HintKind {
    match state {
        RunState::Cancelling => HintKind::Stopping,
        state if state.is_terminal() => HintKind::Ended,
        _ => HintKind::Changed,
    }
}

/// For so long after an outage a commit may have happened whose answer was lost.
const DOUBTFUL: Duration = Duration::from_secs(120);
/// A transaction that the server has not answered for so long is taken for lost: its answer is unknown.
const SILENCE: Duration = Duration::from_secs(60);

/// Remembers that the answer to a commit was lost: then nothing counts as stale before it is read again.
#[derive(Debug, Default)]
struct Doubt {
    since: sync::Mutex<Option<Instant>>,
}

/// Silence is an outage.
pub(crate) async fn bounded<T>(
    work: impl Future<Output = Result<T, store::Error>>,
) -> Result<T, store::Error> {
    tokio::time::timeout(SILENCE, work)
        .await
        .unwrap_or_else(|_| Err(store::Error::Io(std::io::ErrorKind::TimedOut.into())))
}

/// A transaction over a connection that was waited for before: connecting is no silence.
async fn over<T, F: Future<Output = Result<T, store::Error>>>(
    conn: Result<Taken, store::Error>,
    work: impl FnOnce(Taken) -> F,
) -> Result<T, store::Error> {
    bounded(work(conn?)).await
}

/// What the direct and the longer way of a kind share: they take turns, so that neither acts on what the other is about
/// to change, and what either may have committed, both doubt.
#[derive(Debug, Default)]
struct Ways {
    turn: Mutex<()>,
    doubt: Doubt,
}

impl Doubt {
    fn settle<T>(&self, result: Result<T, store::Error>) -> Result<T, store::Error> {
        if result.as_ref().is_err_and(is_outage) {
            *self.since.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
        result
    }

    fn is_open(&self) -> bool {
        let since = *self.since.lock().unwrap_or_else(PoisonError::into_inner);
        since.is_some_and(|since| since.elapsed() < DOUBTFUL)
    }
}

/// Starts runs.
pub(crate) struct Starts {
    core: Arc<Core>,
    ways: Arc<Ways>,
}

/// Claims node runs.
pub(crate) struct Claims {
    core: Arc<Core>,
    doubt: Doubt,
}

/// Records outcomes.
pub(crate) struct Records {
    core: Arc<Core>,
    ways: Arc<Ways>,
}

impl Starts {
    /// The longer way, and the direct one.
    pub(crate) fn new(core: Arc<Core>) -> (Self, DirectStarts) {
        let ways = Arc::<Ways>::default();
        let direct = DirectStarts { core: core.clone(), ways: ways.clone() };
        (Self { core, ways }, direct)
    }

    async fn try_commit(
        &self,
        mut conn: Taken,
        starts: &[Start],
    ) -> Result<Vec<Begun>, store::Error> {
        let core = &self.core;
        let mut tx = conn.begin().await?;
        let quick = |context: &RunContext, node: NodeIx| core.quickness.is_quick(context, node);
        let serves = |lane: &str| core.serves(lane);
        let keeping = Keeping { owner: Some(core.id), serves: &serves, quick: &quick };
        let started =
            start::start(&mut tx, starts, keeping, core.spare(), &core.definitions).await?;
        let mut answers = started.answers;
        if self.ways.doubt.is_open() {
            for (answer, item) in answers.iter_mut().zip(starts) {
                if matches!(answer, StartAnswer::NotQueued) {
                    let found = core.reread(&mut tx, item.run, item.job).await?;
                    if !found.is_empty() {
                        *answer = StartAnswer::Started(found);
                    }
                }
            }
        }
        tx.commit().await?;
        conn.keep();
        breakpoint::committed("start").await;
        let runs = starts.iter().zip(&answers).filter_map(|(item, answer)| match answer {
            StartAnswer::Started(_) => Some((item.run, RunState::Running)),
            StartAnswer::Ended(state) => Some((item.run, *state)),
            StartAnswer::NotQueued => None,
        });
        let runs = runs.collect();
        let begun = answers.into_iter().map(|answer| match answer {
            StartAnswer::Started(claimed) => Begun::Assigned(core.assign(claimed)),
            StartAnswer::Ended(_) => Begun::Over,
            StartAnswer::NotQueued => Begun::NotQueued,
        });
        let begun = begun.collect();
        core.announce(started.jobs, runs);
        Ok(begun)
    }
}

impl common::batch::Work for Starts {
    type Item = Start;
    type Answer = Begun;
    const RETRY_OUTAGES: bool = true;

    async fn commit(&mut self, starts: &[Start]) -> Result<Vec<Begun>, store::Error> {
        let _turn = self.ways.turn.lock().await;
        let conn = self.core.presence.held_with(&self.core.own).await;
        let result = over(conn, |conn| self.try_commit(conn, starts)).await;
        self.ways.doubt.settle(result)
    }
}

impl Claims {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core, doubt: Doubt::default() }
    }

    async fn try_commit(
        &self,
        mut conn: Taken,
        claims: &[Claim],
    ) -> Result<Vec<Begun>, store::Error> {
        let core = &self.core;
        let mut answers = claim::claim(&mut conn, claims, core.id, &core.definitions).await?;
        breakpoint::committed("claim").await;
        if self.doubt.is_open() {
            for (answer, item) in answers.iter_mut().zip(claims) {
                if matches!(answer, ClaimAnswer::NotQueued) {
                    let found = core.reread(&mut conn, item.run, item.job).await?;
                    if let Some(found) = found.into_iter().find(|it| it.id() == item.node) {
                        *answer = ClaimAnswer::Claimed(found);
                    }
                }
            }
        }
        conn.keep();
        let mut runs = Vec::new();
        let begun = answers.into_iter().zip(claims).map(|(answer, item)| match answer {
            ClaimAnswer::Claimed(claimed) => {
                runs.push((item.run, RunState::Running));
                Begun::Assigned(core.assign(vec![claimed]))
            }
            ClaimAnswer::NotQueued => Begun::NotQueued,
            ClaimAnswer::Unreadable(why) => Begun::Unreadable(why),
        });
        let begun = begun.collect();
        core.announce(Vec::new(), runs);
        Ok(begun)
    }
}

impl common::batch::Work for Claims {
    type Item = Claim;
    type Answer = Begun;
    const RETRY_OUTAGES: bool = true;

    async fn commit(&mut self, claims: &[Claim]) -> Result<Vec<Begun>, store::Error> {
        let conn = self.core.presence.held_with(&self.core.own).await;
        let result = over(conn, |conn| self.try_commit(conn, claims)).await;
        self.doubt.settle(result)
    }
}

impl Records {
    /// The longer way, and the direct ones: of what has no join before it, and of what leads to one.
    pub(crate) fn new(core: Arc<Core>) -> (Self, DirectRecords<Known>, DirectRecords<Arrival>) {
        let ways = Arc::<Ways>::default();
        let (known, arrivals) =
            (DirectRecords::new(&core, &ways), DirectRecords::new(&core, &ways));
        (Self { core, ways }, known, arrivals)
    }

    async fn try_commit(
        &self,
        mut conn: Taken,
        records: &[Arc<Record>],
    ) -> Result<Vec<Settled>, store::Error> {
        let core = &self.core;
        let mut tx = conn.begin().await?;
        let quick = |context: &RunContext, node: NodeIx| core.quickness.is_quick(context, node);
        let serves = |lane: &str| core.serves(lane);
        let owner = (core.presence.is_held() || takes_over(records)).then_some(core.id);
        let keeping = Keeping { owner, serves: &serves, quick: &quick };
        let recorded = record::record(&mut tx, records, keeping, core.spare()).await?;
        let mut answers = recorded.answers;
        if self.ways.doubt.is_open() {
            for (answer, item) in answers.iter_mut().zip(records) {
                if matches!(answer, RecordAnswer::Stale) {
                    *answer = self.reread(&mut tx, item).await?;
                }
            }
        }
        tx.commit().await?;
        conn.keep();
        breakpoint::committed("record").await;
        let settled = answers.into_iter().map(|answer| match answer {
            RecordAnswer::Recorded(claimed) => Settled::Recorded(core.assign(claimed)),
            RecordAnswer::Stale => Settled::Stale,
        });
        let settled = settled.collect();
        core.announce(recorded.jobs, recorded.runs);
        Ok(settled)
    }

    /// After a commit whose answer was lost: was it this record that moved the node run on? Then what it claimed is
    /// running under the same job, and is not executed yet.
    async fn reread(
        &self,
        conn: &mut store::Connection,
        record: &Record,
    ) -> Result<RecordAnswer, store::Error> {
        let node = &record.context.graph.node(record.node).node.id;
        // What runs here under the job is this worker's, whatever has become of the node since.
        let found = self.core.reread(conn, record.context.id, record.job).await?;
        let attempt = match record.outcome {
            Outcome::TakenOver { .. } => record.attempt + 1,
            _ => record.attempt,
        };
        let moved = !found.is_empty()
            || mine::was_moved(conn, record.context.id, node, attempt, self.core.id).await?;
        Ok(if moved { RecordAnswer::Recorded(found) } else { RecordAnswer::Stale })
    }
}

/// A take-over needs its new owner's name, whether or not its lock is known to be held at this very moment.
fn takes_over(records: &[Arc<Record>]) -> bool {
    records.iter().any(|record| matches!(record.outcome, Outcome::TakenOver { .. }))
}

impl common::batch::Work for Records {
    type Item = Arc<Record>;
    type Answer = Settled;
    const RETRY_OUTAGES: bool = true;

    fn weight(record: &Arc<Record>) -> usize {
        record.weight()
    }

    async fn commit(&mut self, records: &[Arc<Record>]) -> Result<Vec<Settled>, store::Error> {
        let _turn = self.ways.turn.lock().await;
        let result = over(self.core.own.take().await, |conn| self.try_commit(conn, records)).await;
        self.ways.doubt.settle(result)
    }
}

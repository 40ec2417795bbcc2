//! What follows from the outcomes of one run, within a batch.

use std::collections::HashMap;

use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::guard::{Executed, Guarded};
use super::{LockedRun, Outcome, Record, RecordAnswer};
use crate::advance::{Changes, Dead, End, Join, Verdict, advance};
use crate::clock::Instant;
use crate::context::RunContext;
use crate::failure::NodeError;
use crate::graph::{EdgeIx, NodeIx};
use crate::job::Reason;
use crate::node_run::NodeState;
use crate::run::{RunEvent, RunState, StopReason};
use crate::store::claim::Claimed;
use crate::store::dead_letters::Row as Letter;
use crate::store::follow::{self, Follow, Keeping, Places};
use crate::store::waits::Opened;
use crate::store::write::{AttemptRow, RunChange, TimerKind, TimerRow, Writes};
use crate::store::{outputs, verdict};

/// A batch while its consequences are put together.
pub(super) struct Batch<'a> {
    pub(super) records: &'a [std::sync::Arc<Record>],
    pub(super) guarded: &'a Guarded,
    /// Who executed what has lost its worker, and since when.
    pub(super) lost: &'a Executed,
    pub(super) keeping: Keeping<'a>,
    pub(super) spare: usize,
    pub(super) writes: Writes,
    /// Runs that fail fast, and why.
    pub(super) halts: Vec<(Uuid, NodeError)>,
    /// What node runs begin to wait for.
    pub(super) waits: Vec<Opened>,
    pub(super) answers: &'a mut Vec<RecordAnswer>,
}

impl<'a> Batch<'a> {
    /// Puts the rows of one run together; `places` are its records whose fence held.
    pub(super) async fn run(
        &mut self,
        conn: &mut PgConnection,
        run: &LockedRun,
        places: &[usize],
    ) -> Result<(), sqlx::Error> {
        let Some(first) = places.first().map(|place| &self.records[*place]) else { return Ok(()) };
        let context = &first.context;
        for &place in places {
            self.aside(place);
        }
        let mut change = RunChange {
            id: context.id,
            seq: run.seq,
            state: run.state,
            open: run.open,
            output: None,
            error: None,
            stop_reason: None,
            has_timers: run.state == RunState::Cancelling || context.graph.timeout().is_some(),
        };
        if run.state == RunState::Cancelling {
            self.stopping(run, places, &mut change)?;
        } else {
            let follow = Follow { context, job: first.job, seq: run.seq };
            self.going_on(conn, run, places, follow, &mut change).await?;
        }
        change.seq += 1;
        if change.state.is_terminal() {
            let lane = &context.graph.node(first.node).node.lane;
            self.writes.jobs.extend(follow::told(context, lane));
        }
        self.writes.runs.push(change);
        Ok(())
    }

    /// The rows beside the node run itself: the attempt's, a timer's, a job's; and the claim of a take-over.
    fn aside(&mut self, place: usize) {
        let (records, guarded) = (self.records, self.guarded);
        let record = &records[place];
        let Some(held) = &guarded.held[place] else { return };
        let node = &record.context.graph.node(record.node).node;
        let mut answer = Vec::new();
        if let Some(error) = record.outcome.error() {
            let lost = self.lost.get(&(record.context.id, node.id.clone())).copied();
            let (owner, started_at) = lost.unwrap_or((held.owner, held.started_at));
            self.writes.attempts.push(AttemptRow {
                run: record.context.id,
                node: node.id.clone(),
                attempt: record.attempt,
                owner,
                error: serde_json::to_value(error).unwrap_or(Value::Null),
                spent: record.outcome.is_spent(),
                started_at,
            });
        }
        match (&record.outcome, held.state) {
            (Outcome::Retry { after, breaker, .. }, NodeState::Retrying) => {
                self.timer(record, TimerKind::Retry, *after, None, breaker.clone());
            }
            (Outcome::LostForNow { after, .. }, NodeState::Retrying) => {
                self.timer(record, TimerKind::Retry, *after, None, None);
            }
            (Outcome::Waiting { after, at, .. }, NodeState::Waiting) => {
                self.timer(record, TimerKind::Wait, *after, *at, None);
            }
            (Outcome::Awaiting { wait }, NodeState::Waiting) => {
                if let Some(deadline) = wait.deadline {
                    self.timer(record, TimerKind::Wait, deadline, None, None);
                }
                if let Some(call) = &wait.call {
                    let row = follow::call(&record.context, &node.id, record.attempt, call);
                    self.writes.jobs.push(row);
                }
                let (run, node, wait) = (record.context.id, node.id.clone(), wait.clone());
                self.waits.push(Opened { run, node, attempt: record.attempt, wait });
            }
            (outcome, NodeState::Queued) => {
                let reason = match outcome {
                    Outcome::Requeued { .. } => Reason::Recovered,
                    _ => Reason::HandedBack,
                };
                let next = held.attempt + 1;
                self.writes.jobs.push(follow::job(
                    &record.context,
                    &node.id,
                    &node.lane,
                    next,
                    reason,
                ));
            }
            (Outcome::TakenOver { .. }, NodeState::Running) => {
                answer.push(Claimed {
                    context: record.context.clone(),
                    node: record.node,
                    attempt: held.attempt + 1,
                    spent: held.spent,
                    losses: held.losses,
                    waiting: held.waiting.clone(),
                    job: record.job,
                });
            }
            _ => {}
        }
        self.answers[place] = RecordAnswer::Recorded(answer);
    }

    fn timer(
        &mut self,
        record: &Record,
        kind: TimerKind,
        after: std::time::Duration,
        at: Option<Instant>,
        breaker: Option<String>,
    ) {
        self.writes.timers.push(TimerRow {
            run: record.context.id,
            node: record.context.graph.node(record.node).node.id.clone(),
            kind,
            after_ms: i64::try_from(after.as_millis()).unwrap_or(i64::MAX / 2),
            at,
            breaker,
        });
    }

    /// A run that was told to stop ends with the last of its running node runs.
    fn stopping(
        &mut self,
        run: &LockedRun,
        places: &[usize],
        change: &mut RunChange,
    ) -> Result<(), sqlx::Error> {
        change.open -= places.len() as i32;
        let reason = run.stop_reason.unwrap_or(StopReason::Cancel);
        if reason != StopReason::Cancel {
            self.bury(places);
        }
        if change.open <= 0 {
            change.state = next(run.state, RunEvent::LastStopped(reason))?;
            change.open = 0;
        }
        Ok(())
    }

    /// Letters for what failed while its run was stopping: no edge of it is followed.
    fn bury(&mut self, places: &[usize]) {
        for record in places.iter().map(|place| &self.records[*place]) {
            if let Some(End::Failed(error)) = record.outcome.end() {
                let dead = Dead { node: record.node, kind: error.kind };
                self.writes.letters.push(Letter::new(&record.context, &dead));
            }
        }
    }

    /// Follows the ends. What a run that fails fast leaves is ended by the halt, after the batch's rows are written.
    async fn going_on(
        &mut self,
        conn: &mut PgConnection,
        run: &LockedRun,
        places: &[usize],
        mut follow: Follow<'_>,
        change: &mut RunChange,
    ) -> Result<(), sqlx::Error> {
        let context = follow.context;
        let changes = self.changes(conn, context, places).await?;
        if let Some(error) = &changes.unhandled
            && context.graph.fails_fast()
            && run.open > changes.closed_sinks
        {
            self.halts.push((context.id, error.clone()));
            // What an edge's error would have failed is cancelled with the rest.
            let ended = |node| places.iter().any(|place| self.records[*place].node == node);
            let dead = changes.dead.iter().filter(|dead| ended(dead.node));
            self.writes.letters.extend(dead.map(|dead| Letter::new(context, dead)));
            return Ok(());
        }
        self.writes.letters.extend(changes.dead.iter().map(|dead| Letter::new(context, dead)));
        let going_on = places.iter().map(|place| &self.records[*place]).filter(|it| it.goes_on);
        let own = going_on.map(|record| record.job).collect();
        let mut room = Places { own, spare: self.spare };
        let kept = follow.apply(&changes, self.keeping, &mut room, &mut self.writes);
        self.spare = room.spare;
        self.hand_out(places, kept);
        change.seq = follow.seq;
        change.open -= changes.closed_sinks;
        let failed = run.failed || changes.unhandled.is_some();
        change.error = changes.unhandled.and_then(|error| serde_json::to_value(error).ok());
        if change.open <= 0 {
            change.open = 0;
            change.state = next(run.state, RunEvent::SinksEnded { failed })?;
            if !failed {
                change.output = self.output(conn, context, places).await?;
            }
        }
        Ok(())
    }

    /// What `advance` decides, told what it needs.
    async fn changes(
        &self,
        conn: &mut PgConnection,
        context: &std::sync::Arc<RunContext>,
        places: &[usize],
    ) -> Result<Changes, sqlx::Error> {
        let ended: Vec<(NodeIx, End)> = places
            .iter()
            .filter_map(|&place| {
                let record = &self.records[place];
                record.outcome.end().map(|end| (record.node, end))
            })
            .collect();
        let mut verdicts: HashMap<EdgeIx, Verdict> =
            places.iter().flat_map(|&place| self.records[place].verdicts.iter().cloned()).collect();
        let mut more: HashMap<NodeIx, Join> = HashMap::new();
        loop {
            let joins = |node| {
                let known = self.guarded.joins.get(&(context.id, node));
                known.or_else(|| more.get(&node)).cloned()
            };
            let needs = match advance(&context.graph, &ended, joins, &verdicts) {
                Ok(changes) => return Ok(changes),
                Err(needs) => needs,
            };
            for edge in needs.verdicts {
                verdicts.insert(edge, verdict::find(conn, context, edge).await?);
            }
            more.extend(read_joins(conn, context, &needs.joins).await?);
        }
    }

    /// What was kept goes to a slot that runs under the same job.
    fn hand_out(&mut self, places: &[usize], kept: Vec<Claimed>) {
        for one in kept {
            let place = places.iter().find(|place| self.records[**place].job == one.job);
            if let Some(RecordAnswer::Recorded(mine)) =
                place.and_then(|place| self.answers.get_mut(*place))
            {
                mine.push(one);
            }
        }
    }

    /// The run's output, from those of its completed sinks.
    async fn output(
        &self,
        conn: &mut PgConnection,
        context: &RunContext,
        places: &[usize],
    ) -> Result<Option<String>, sqlx::Error> {
        let graph = &context.graph;
        if let [sink] = graph.sinks() {
            return Ok(places.iter().find_map(|&place| match self.records[place].as_ref() {
                Record { node, outcome: Outcome::Completed { text, .. }, .. } if node == sink => {
                    Some(text.clone())
                }
                _ => None,
            }));
        }
        let ids: Vec<String> =
            graph.sinks().iter().map(|sink| graph.node(*sink).node.id.clone()).collect();
        Ok(outputs::of_run(outputs::completed(conn, context.id, &ids).await?))
    }
}

fn next(state: RunState, event: RunEvent) -> Result<RunState, sqlx::Error> {
    state.next(event).map_err(|error| sqlx::Error::Protocol(error.to_string()))
}

/// The counters of pending nodes that an end was followed to.
async fn read_joins(
    conn: &mut PgConnection,
    context: &RunContext,
    nodes: &[NodeIx],
) -> Result<Vec<(NodeIx, Join)>, sqlx::Error> {
    if nodes.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<String> =
        nodes.iter().map(|node| context.graph.node(*node).node.id.clone()).collect();
    let rows = sqlx::query!(
        "select node, open_in, taken_in, broken_in, error from node_runs where run_id = $1 and node = any($2)",
        context.id,
        &ids
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .filter_map(|row| {
            let join = Join {
                open: row.open_in,
                taken: row.taken_in,
                broken: row.broken_in,
                error: row.error.and_then(|error| serde_json::from_value(error).ok()),
            };
            context.graph.index(&row.node).map(|node| (node, join))
        })
        .collect())
}

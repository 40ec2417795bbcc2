//! *Start this run*: in one transaction all node runs are written, a root is claimed, the others are queued.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use sqlx::PgConnection;
use uuid::Uuid;

use crate::advance::{Changes, End, Join, advance, fresh};
use crate::context::{RunContext, RunRow};
use crate::failure::NodeError;
use crate::graph::{Graph, NodeIx};
use crate::node_run::NodeState;
use crate::outbox;
use crate::pipeline::NodeType;
use crate::run::{RunEvent, RunState, StopReason};
use crate::store::claim::Claimed;
use crate::store::dead_letters::Row as Letter;
use crate::store::definitions::Definitions;
use crate::store::follow::{self, Follow, Keeping, Places};
use crate::store::write::{self, RunChange, TimerKind, TimerRow, Writes};
use crate::store::{outputs, rerun, stop, verdict};

pub mod direct;

/// What a message asked for.
#[derive(Debug, Clone)]
pub struct Start {
    /// The run.
    pub run: Uuid,
    /// The job that asks.
    pub job: Uuid,
    /// The pipeline's name and version, as the message has them: a guess, which the rows have to confirm.
    pub pipeline: Option<(String, i32)>,
    /// The trace context that came with the message.
    pub traceparent: Option<String>,
}

/// What came of it.
#[derive(Debug, Clone)]
pub enum StartAnswer {
    /// It runs; these node runs are this worker's.
    Started(Vec<Claimed>),
    /// It has ended at once.
    Ended(RunState),
    /// It is not queued: started by another, stopped, or unknown.
    NotQueued,
}

/// A batch of starts, with what is to be published once it is committed.
#[derive(Debug, Default)]
pub struct Started {
    /// One answer an item.
    pub answers: Vec<StartAnswer>,
    /// The jobs that it wrote.
    pub jobs: Vec<outbox::Row>,
}

/// Starts what is still queued.
pub async fn start(
    conn: &mut PgConnection,
    starts: &[Start],
    keeping: Keeping<'_>,
    spare: usize,
    definitions: &Definitions,
) -> Result<Started, sqlx::Error> {
    let mut locked = lock(conn, starts).await?;
    let mut started = Started::default();
    let mut writes = Writes::default();
    let mut inserts = Vec::new();
    let mut halts = Vec::new();
    for item in starts {
        // A second job for the same run in one batch finds it taken.
        let Some(row) = locked.remove(&item.run) else {
            started.answers.push(StartAnswer::NotQueued);
            continue;
        };
        let seq = row.seq;
        let keep_of = row.keep_of;
        let context = match definitions.context(conn, row.run).await? {
            Ok(context) => context,
            Err(why) => {
                stop::break_off(conn, item.run, &why).await?;
                started.answers.push(StartAnswer::Ended(RunState::Failed));
                continue;
            }
        };
        let kept = match keep_of {
            Some(source) => rerun::copy_completed(conn, &context, source).await?,
            None => HashSet::new(),
        };
        let mut changes = opening(conn, &context, &kept).await?;
        let mut beginning = Beginning {
            follow: Follow { context: &context, job: item.job, seq },
            writes: Writes::default(),
            kept,
        };
        let mut places = Places { own: vec![item.job], spare };
        if let Some(error) = halting(&context, &changes) {
            halts.push((started.answers.len(), item.run, error));
            changes.ready.clear();
        }
        started.answers.push(beginning.begin(conn, changes, keeping, &mut places).await?);
        inserts.append(&mut beginning.writes.nodes);
        writes.jobs.append(&mut beginning.writes.jobs);
        writes.timers.append(&mut beginning.writes.timers);
        writes.runs.append(&mut beginning.writes.runs);
        writes.letters.append(&mut beginning.writes.letters);
    }
    started.jobs = writes.jobs.clone();
    // The run first: it starts before its nodes do.
    write::write(conn, writes).await?;
    write::insert_nodes(conn, inserts).await?;
    for (place, run, error) in halts {
        let reason = StopReason::FailFast;
        let stopped = stop::halt(conn, run, RunState::Running, reason, Some(error)).await?;
        if let stop::Stopped::Stopped(state) = stopped {
            started.answers[place] = StartAnswer::Ended(state);
        }
    }
    Ok(started)
}

/// The failure with which a run that fails fast stops as it begins: a condition could not be evaluated.
fn halting(context: &RunContext, changes: &Changes) -> Option<NodeError> {
    let graph = &context.graph;
    let open = graph.sinks().len() as i32 > changes.closed_sinks;
    let halts = open && graph.fails_fast();
    changes.unhandled.clone().filter(|_| halts)
}

struct Locked {
    run: RunRow,
    seq: i64,
    keep_of: Option<Uuid>,
}

async fn lock(
    conn: &mut PgConnection,
    starts: &[Start],
) -> Result<HashMap<Uuid, Locked>, sqlx::Error> {
    let ids: Vec<Uuid> = starts.iter().map(|start| start.run).collect();
    let rows = sqlx::query!(
        r#"select id, pipeline_id, pipeline, version, action, input, trigger, tags, created_at, traceparent, seq,
               case when keep_completed then rerun_of end as keep_of
           from runs where id = any($1) and state = 'queued' order by id for no key update"#,
        &ids
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let run = RunRow {
                id: row.id,
                pipeline_id: row.pipeline_id,
                pipeline: row.pipeline,
                version: row.version,
                action: row.action,
                input: row.input,
                trigger: row.trigger,
                tags: row.tags,
                created_at: row.created_at,
                traceparent: row.traceparent,
            };
            (row.id, Locked { run, seq: row.seq, keep_of: row.keep_of })
        })
        .collect())
}

fn is_trigger(graph: &Graph, node: NodeIx) -> bool {
    graph.node(node).node.node_type == NodeType::Trigger
}

/// The roots that have ended as the run begins, and those that are ready; without those that a rerun keeps.
fn beginning(graph: &Graph, kept: impl Fn(NodeIx) -> bool) -> (Vec<(NodeIx, End)>, Vec<NodeIx>) {
    let (mut ended, mut ready) = (Vec::new(), Vec::new());
    for &root in graph.roots().iter().filter(|root| !kept(**root)) {
        match is_trigger(graph, root) {
            true => ended.push((root, End::Completed)),
            false => ready.push(root),
        }
    }
    (ended, ready)
}

/// A trigger's output is the run's input.
fn keep_triggers(context: &RunContext) {
    for &root in context.graph.roots().iter().filter(|root| is_trigger(&context.graph, **root)) {
        context.keep_output(root, Arc::new(context.input.clone()));
    }
}

/// What is ready, pending or skipped in a run that begins: its triggers, and what a rerun keeps, have ended already.
async fn opening(
    conn: &mut PgConnection,
    context: &Arc<RunContext>,
    kept: &HashSet<NodeIx>,
) -> Result<Changes, sqlx::Error> {
    let graph = &context.graph;
    let mut ended: Vec<(NodeIx, End)> = kept.iter().map(|node| (*node, End::Completed)).collect();
    ended.sort_unstable_by_key(|(node, _)| *node);
    keep_triggers(context);
    let (triggers, mut ready) = beginning(graph, |root| kept.contains(&root));
    ended.extend(triggers);
    let mut verdicts = HashMap::new();
    loop {
        match advance(graph, &ended, |node| Some(fresh(graph, node)), &verdicts) {
            Ok(mut changes) => {
                // What a rerun keeps is found ready on the way; it has ended.
                changes.ready.retain(|node| !kept.contains(node));
                changes.pending.retain(|node, _| !kept.contains(node));
                changes.skipped.retain(|node| !kept.contains(node));
                ready.append(&mut changes.ready);
                changes.ready = ready;
                return Ok(changes);
            }
            Err(needs) => {
                for edge in needs.verdicts {
                    let said = verdict::find(conn, context, edge).await?;
                    verdicts.insert(edge, said);
                }
            }
        }
    }
}

/// One run that begins, while its rows are put together.
struct Beginning<'a> {
    follow: Follow<'a>,
    writes: Writes,
    kept: HashSet<NodeIx>,
}

impl Beginning<'_> {
    async fn begin(
        &mut self,
        conn: &mut PgConnection,
        changes: Changes,
        keeping: Keeping<'_>,
        places: &mut Places,
    ) -> Result<StartAnswer, sqlx::Error> {
        let context = self.follow.context;
        let claimed = self.follow.apply(&changes, keeping, places, &mut self.writes);
        self.write_rest();
        self.writes.letters.extend(changes.dead.iter().map(|dead| Letter::new(context, dead)));
        let open = context.graph.sinks().len() as i32 - changes.closed_sinks;
        let failed = changes.unhandled.is_some();
        self.follow.seq += 1;
        let mut run = RunChange {
            id: context.id,
            seq: self.follow.seq,
            state: RunState::Running,
            open,
            output: None,
            error: changes.unhandled.and_then(|error| serde_json::to_value(error).ok()),
            stop_reason: None,
            has_timers: false,
        };
        if open == 0 {
            run.state = run
                .state
                .next(RunEvent::SinksEnded { failed })
                .map_err(|error| sqlx::Error::Protocol(error.to_string()))?;
            run.output = self.output_at_once(conn).await?;
        } else if let Some(timeout) = context.graph.timeout() {
            self.writes.timers.push(TimerRow {
                run: context.id,
                node: String::new(),
                kind: TimerKind::Deadline,
                after_ms: i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX),
                at: None,
                breaker: None,
            });
        }
        let state = run.state;
        if let Some(node) = context.graph.order().first().filter(|_| open == 0) {
            let lane = &context.graph.node(*node).node.lane;
            self.writes.jobs.extend(follow::told(context, lane));
        }
        self.writes.runs.push(run);
        Ok(if open == 0 { StartAnswer::Ended(state) } else { StartAnswer::Started(claimed) })
    }

    /// Rows for all that `apply` did not write: triggers, which have ended, and what is pending.
    fn write_rest(&mut self) {
        let graph = &self.follow.context.graph;
        let mut written = vec![false; graph.len()];
        for row in &self.writes.nodes {
            if let Some(node) = graph.index(&row.node) {
                written[node as usize] = true;
            }
        }
        for node in &self.kept {
            written[*node as usize] = true;
        }
        for node in (0..graph.len() as NodeIx).filter(|node| !written[*node as usize]) {
            let row = if graph.node(node).node.node_type == NodeType::Trigger {
                let mut row = self.follow.row(node, NodeState::Completed, &Join::default());
                row.output = Some(self.follow.context.input.to_string());
                row
            } else {
                self.follow.row(node, NodeState::Pending, &fresh(graph, node))
            };
            self.writes.nodes.push(row);
        }
    }

    /// The output of a run that ends as it begins: its completed sinks are triggers, or were kept.
    async fn output_at_once(&self, conn: &mut PgConnection) -> Result<Option<String>, sqlx::Error> {
        let context = self.follow.context;
        let graph = &context.graph;
        let mut outputs = Vec::new();
        for &sink in graph.sinks() {
            let id = &graph.node(sink).node.id;
            if self.kept.contains(&sink) {
                let stored = outputs::read(conn, context.id, std::slice::from_ref(id)).await?;
                outputs.extend(stored);
            } else if graph.node(sink).node.node_type == NodeType::Trigger {
                outputs.push((id.clone(), context.input.clone()));
            }
        }
        Ok(outputs::of_run(outputs))
    }
}

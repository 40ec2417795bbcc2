//! Does what the verdicts ask for, a few of a kind in one transaction.

use std::collections::VecDeque;

use common::outbox::Row;
use common::run::RunState;
use common::store::definitions::Definitions;
use common::store::leader::LeaderError;
use common::store::reclaim::{self, Found};
use common::store::record::{RecordAnswer, Recorded};
use common::store::{audit, stop};
use uuid::Uuid;

use super::verdict::{Lost, Repair};
use crate::duty::Desk;

/// What a transaction of repairs has done.
#[derive(Default)]
struct Done {
    count: usize,
    rows: Vec<Row>,
    changed: Vec<Uuid>,
    stopping: Vec<Uuid>,
    ended: Vec<Uuid>,
}

impl From<Lost> for Found {
    fn from(Lost { node, attempt, losses, owner }: Lost) -> Self {
        Self { node, attempt, losses, owner }
    }
}

/// The word for metrics and logs, and how many go into one transaction.
fn kind(repair: &Repair) -> (&'static str, usize) {
    match repair {
        Repair::ResendStart(..) => ("resend_start", 500),
        Repair::ResendNode(..) => ("resend_node", 500),
        Repair::SetTimer(_) => ("set_timer", 50),
        Repair::Recover(..) => ("recover", 50),
        Repair::FinishStopping(_) => ("finish_stopping", 20),
        Repair::FailStuck(..) => ("fail_stuck", 1),
    }
}

/// Does the first of `repairs`, and those of the same kind that follow it. When they fail together, each is tried
/// alone; what fails alone is left to the next walk.
pub(super) async fn some(
    desk: &mut Desk<'_>,
    repairs: &mut VecDeque<Repair>,
    definitions: &Definitions,
) -> Result<(), LeaderError> {
    let Some((name, limit)) = repairs.front().map(kind) else { return Ok(()) };
    let same = repairs.iter().take(limit).take_while(|repair| kind(repair).0 == name).count();
    let batch: Vec<Repair> = repairs.drain(..same).collect();
    match together(desk, name, &batch, definitions).await {
        Err(error) if error.is_refusal() && batch.len() > 1 => {
            for repair in &batch {
                let alone = std::slice::from_ref(repair);
                match together(desk, name, alone, definitions).await {
                    Err(error) if error.is_refusal() => {
                        tracing::error!(?repair, %error, "a repair failed");
                    }
                    done => done?,
                }
            }
            Ok(())
        }
        done => done,
    }
}

/// One transaction, and what follows its commit.
async fn together(
    desk: &mut Desk<'_>,
    name: &'static str,
    batch: &[Repair],
    definitions: &Definitions,
) -> Result<(), LeaderError> {
    let mut tx = desk.session.begin().await?;
    let mut done = Done::default();
    let mut starts = Vec::new();
    let mut nodes = Vec::new();
    let mut lost = Vec::new();
    for repair in batch {
        match repair {
            Repair::ResendStart(run, queued_at) => starts.push((*run, *queued_at)),
            Repair::ResendNode(run, node, at) => nodes.push((*run, node.clone(), *at)),
            Repair::Recover(run, node) => lost.push((*run, Found::from(node.clone()))),
            Repair::SetTimer(timer) => {
                done.count += usize::from(audit::set_timer(&mut tx, timer).await?);
            }
            Repair::FinishStopping(run) => {
                done.end(*run, stop::finish_if_idle(&mut tx, *run).await?);
            }
            Repair::FailStuck(run, seq) => {
                done.end(*run, audit::fail_stuck(&mut tx, *run, *seq).await?);
            }
        }
    }
    if !starts.is_empty() {
        done.sent(audit::resend_starts(&mut tx, &starts).await?);
    }
    if !nodes.is_empty() {
        done.sent(audit::resend_nodes(&mut tx, &nodes).await?);
    }
    if !lost.is_empty() {
        lost.sort_unstable_by(|a, b| (a.0, &a.1.node).cmp(&(b.0, &b.1.node)));
        done.recovered(reclaim::recover(&mut tx, &lost, definitions).await?);
    }
    tx.commit().await?;
    done.tell(desk, name, batch);
    Ok(())
}

impl Done {
    fn sent(&mut self, rows: Vec<Row>) {
        self.count += rows.len();
        self.rows.extend(rows);
    }

    fn recovered(&mut self, recorded: Recorded) {
        let counts = |answer: &&RecordAnswer| matches!(answer, RecordAnswer::Recorded(_));
        self.count += recorded.answers.iter().filter(counts).count();
        self.rows.extend(recorded.jobs);
        for (run, state) in recorded.runs {
            match state {
                RunState::Cancelling => self.stopping.push(run),
                state if state.is_terminal() => self.ended.push(run),
                _ => self.changed.push(run),
            }
        }
    }

    fn end(&mut self, run: Uuid, has_ended: bool) {
        if has_ended {
            self.count += 1;
            self.ended.push(run);
        }
    }

    /// A repair is worth a line: each one stands for something that got lost.
    fn tell(self, desk: &mut Desk<'_>, name: &'static str, batch: &[Repair]) {
        if self.count > 0 {
            metrics::counter!("gathering_repairs_total", "kind" => name)
                .increment(self.count as u64);
            match batch {
                [Repair::FailStuck(run, _)] => {
                    tracing::error!(run_id = %run, "nothing moved this run on: it is failed");
                }
                _ => {
                    tracing::warn!(kind = name, count = self.count, first = ?batch.first(), "repaired")
                }
            }
        }
        desk.post.send(self.rows);
        desk.post.hint(self.changed, self.stopping, self.ended);
    }
}

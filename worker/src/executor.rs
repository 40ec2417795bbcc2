//! One node run after the other, in one slot: admit → prepare → perform → classify → judge edges → record → go on.

mod admit;
mod call;
mod classify;
mod perform;
mod prepare;
mod remote;
mod resume;
mod secrets;

pub(crate) use self::remote::Compiled;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::advance::{End, Verdict};
use common::context::RunContext;
use common::failure::{ErrorKind, NodeError};
use common::graph::{EdgeIx, NodeIx};
use common::pipeline::When;
use common::store::claim::Claimed;
use common::store::record::{Outcome, Record};
use common::store::{follow, reclaim, verdict};
use tokio::sync::OwnedSemaphorePermit;
use tracing::Instrument;

use crate::commit::{Assigned, Settled};
use crate::core::Worker;
use crate::intake;
use crate::registry::Hold;

/// How long what has to run alone waits while another does.
const TURN_PAUSE: Duration = Duration::from_secs(1);

/// Executes a node run and what follows from it, in a slot of the lane; then the share in the job is done.
pub(crate) async fn go(
    worker: Arc<Worker>,
    first: Assigned,
    hold: Hold,
    permit: Option<OwnedSemaphorePermit>,
) {
    let mut slot = permit;
    let mut next = Some(first);
    while let Some(one) = next.take() {
        let node = &one.claimed.context.graph.node(one.claimed.node).node;
        if slot.is_none() && !follow::is_control(node.node_type) {
            slot = intake::kept_slot(&worker, &node.lane, one.entry.stop.token()).await;
        }
        let span = tracing::info_span!(
            "node",
            run = %one.claimed.context.id,
            node = node.id,
            attempt = one.claimed.attempt
        );
        let Some(follows) = execute(&worker, one).instrument(span).await else { return };
        let mut follows = follows.into_iter();
        next = follows.next();
        let others: Vec<Assigned> = follows.collect();
        if !others.is_empty() {
            intake::spread(&worker, others, hold.share(), None);
        }
    }
    hold.done();
}

/// One node run. None when its outcome could not be recorded: its job goes back, and is found to be running.
async fn execute(worker: &Arc<Worker>, assigned: Assigned) -> Option<Vec<Assigned>> {
    let Assigned { claimed, entry } = assigned;
    let outcome = if reclaim::runs_alone(claimed.losses) {
        Box::pin(alone(worker, &claimed, &entry)).await
    } else {
        // Nor is anything executed that was claimed just before.
        match worker.alone.try_read() {
            Ok(_beside) => attempt(worker, &claimed, &entry).await,
            Err(_) => later(&claimed, TURN_PAUSE, "this worker executes something alone meanwhile"),
        }
    };
    let settled = record(worker, &claimed, outcome).await;
    drop(entry);
    match settled {
        Ok(Settled::Recorded(follows)) => Some(follows),
        Ok(Settled::Stale) => {
            tracing::debug!("the outcome is stale: another has gone on with it");
            metrics::counter!("gathering_records_stale_total").increment(1);
            Some(Vec::new())
        }
        Err(error) => {
            tracing::error!(%error, "the outcome could not be recorded");
            Box::pin(lose(worker, &claimed)).await
        }
    }
}

/// An outcome that cannot be recorded counts as a loss of this worker, which owns the node run: given back, it would be
/// found in living hands and left there.
async fn lose(worker: &Arc<Worker>, claimed: &Claimed) -> Option<Vec<Assigned>> {
    let found = reclaim::Found {
        node: claimed.id().to_owned(),
        attempt: claimed.attempt,
        losses: claimed.losses,
        owner: worker.core.id,
    };
    loop {
        let loss = reclaim::loss(claimed.context.clone(), &found, claimed.job, true)?;
        match worker.record(loss).await {
            Ok(Settled::Recorded(follows)) => return Some(follows),
            Ok(Settled::Stale) => return Some(Vec::new()),
            Err(error) => tracing::error!(%error, "nor could that"),
        }
        tokio::time::sleep(LOSE_AGAIN).await;
    }
}

/// How long a loss that could not be recorded waits before it is tried again.
const LOSE_AGAIN: Duration = Duration::from_secs(1);

/// What has killed two workers is tried once more, with nothing beside it.
async fn alone(worker: &Arc<Worker>, claimed: &Claimed, entry: &crate::registry::Entry) -> Outcome {
    // Nobody queues for a turn: what is claimed already would count this worker's death as a loss of its own, though it
    // was not executed.
    let Ok(_turn) = worker.turn.try_lock() else {
        return later(claimed, TURN_PAUSE, "it has to run alone, and another does so here");
    };
    // Longer with each attempt, so that it outlasts its neighbours.
    let doublings = u32::try_from(claimed.attempt - 3).unwrap_or(0).min(4);
    let patience = perform::QUIET_WITHIN * 2u32.pow(doublings);
    let write = entry.stop.token().run_until_cancelled(worker.alone.write());
    let quiet = tokio::time::timeout(patience, write).await;
    match quiet {
        // Told to stop meanwhile: the attempt is not made.
        Ok(None) => attempt(worker, claimed, entry).await,
        Ok(Some(_alone)) => {
            if !settled(worker, patience).await {
                let why =
                    "it has to run alone, and others on this worker were not recorded in time";
                return later(claimed, reclaim::LOST_PAUSE, why);
            }
            tracing::warn!(losses = claimed.losses, "executed alone: workers died under it");
            attempt(worker, claimed, entry).await
        }
        Err(_) => later(
            claimed,
            reclaim::LOST_PAUSE,
            "it has to run alone, and this worker did not become idle in time",
        ),
    }
}

/// Waits until all else that was claimed here is recorded. Says whether it is.
async fn settled(worker: &Arc<Worker>, patience: Duration) -> bool {
    let alone = async {
        while worker.core.executing.len() > 1 {
            tokio::time::sleep(SETTLED_LOOK).await;
        }
    };
    tokio::time::timeout(patience, alone).await.is_ok()
}

/// How often it is looked whether all else is recorded.
const SETTLED_LOOK: Duration = Duration::from_millis(5);

/// Back into the queue after a time, unspent.
fn later(claimed: &Claimed, after: Duration, why: &str) -> Outcome {
    let error = NodeError::new(ErrorKind::WorkerLost, why, claimed.id());
    Outcome::Retry { error, after, spent: false, breaker: None }
}

async fn attempt(
    worker: &Arc<Worker>,
    claimed: &Claimed,
    entry: &crate::registry::Entry,
) -> Outcome {
    if entry.stop.token().is_cancelled() {
        let stopped = Err(perform::Ended::Stopped);
        return classify::classify(worker, claimed, &entry.stop, stopped).await;
    }
    let admission = match admit::admit(worker, claimed).await {
        Ok(admission) => admission,
        Err(outcome) => return outcome,
    };
    let begun = Instant::now();
    let result = match prepare::prepare(worker, claimed).await {
        Ok((work, mask)) => {
            let result = perform::perform(worker, claimed, &entry.stop, work, &mask).await;
            secrets::masked(result, &mask)
        }
        Err(message) => Err(perform::Ended::Unprepared(message)),
    };
    worker.core.quickness.add(&claimed.context, claimed.node, begun.elapsed());
    admit::report(worker, claimed, admission, &result).await;
    classify::classify(worker, claimed, &entry.stop, result).await
}

/// Records an outcome. One that Postgres cannot hold is recorded as a permanent failure that says so.
async fn record(
    worker: &Arc<Worker>,
    claimed: &Claimed,
    outcome: Outcome,
) -> Result<Settled, Arc<common::store::Error>> {
    let record = judged(worker, claimed, outcome).await;
    let completed = matches!(record.outcome, Outcome::Completed { .. });
    count(&record.outcome);
    match worker.record(record).await {
        Err(error) if completed => {
            tracing::warn!(%error, "the output cannot be stored");
            let message = format!("the output cannot be stored: {error}");
            let error = NodeError::new(ErrorKind::Permanent, message, claimed.id());
            let failed = Outcome::Failed { error, spent: false };
            worker.record(judged(worker, claimed, failed).await).await
        }
        settled => settled,
    }
}

/// An outcome, with what the conditions of the outgoing edges say to it.
async fn judged(worker: &Arc<Worker>, claimed: &Claimed, outcome: Outcome) -> Record {
    let verdicts = match &outcome {
        Outcome::Completed { output, .. } => {
            claimed.context.keep_output(claimed.node, output.clone());
            judge(worker, &claimed.context, claimed.node, &End::Completed, output).await
        }
        Outcome::Failed { error, .. } => {
            let end = End::Failed(error.clone());
            judge(worker, &claimed.context, claimed.node, &end, &serde_json::Value::Null).await
        }
        _ => Vec::new(),
    };
    Record {
        context: claimed.context.clone(),
        node: claimed.node,
        attempt: claimed.attempt,
        job: claimed.job,
        outcome,
        verdicts,
        goes_on: true,
    }
}

/// Evaluates the conditions of the edges that fit the way in which the node ended. What cannot be read now is left to
/// the record, which reads it again.
async fn judge(
    worker: &Arc<Worker>,
    context: &Arc<RunContext>,
    node: NodeIx,
    end: &End,
    output: &serde_json::Value,
) -> Vec<(EdgeIx, Verdict)> {
    let graph = &context.graph;
    let fits = |edge: &&EdgeIx| {
        let edge = graph.edge(**edge);
        let asks = edge.condition.is_some() || edge.needs_result;
        asks && match edge.when {
            When::Success => *end == End::Completed,
            When::Failure => matches!(end, End::Failed(_)),
            When::Always => true,
        }
    };
    let mut verdicts = Vec::new();
    for &edge in graph.outgoing(node).iter().filter(fits) {
        let reads = &graph.edge(edge).reads;
        if prepare::load(worker, context, reads).await.is_ok() {
            let known = context.known(reads);
            verdicts.push((edge, verdict::evaluate(context, edge, output, &known)));
        }
    }
    verdicts
}

fn count(outcome: &Outcome) {
    let name = match outcome {
        Outcome::Completed { .. } => "completed",
        Outcome::Failed { .. } => "failed",
        Outcome::Retry { .. } => "retried",
        Outcome::Waiting { .. } | Outcome::Awaiting { .. } => "waiting",
        Outcome::HandedBack { .. } => "handed_back",
        Outcome::Stopped { .. } => "stopped",
        Outcome::TakenOver { .. }
        | Outcome::Requeued { .. }
        | Outcome::LostForNow { .. }
        | Outcome::Lost { .. } => "worker_lost",
    };
    metrics::counter!("gathering_attempts_total", "outcome" => name).increment(1);
}

//! From a delivery to a slot: what a job asks for is claimed, executed with all that follows from it, and acked.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::broker::{Delivery, REPLIES};
use common::job::{Job, Task};
use common::run::RunState;
use common::store::claim::Claim;
use common::store::start::Start;
use common::store::waits::children::End;
use common::store::{self, stop, workers};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use uuid::Uuid;

use crate::commit::{Assigned, Begun};
use crate::core::Worker;
use crate::registry::Hold;
use crate::{children, reclaim, replies};

/// Takes deliveries until the lanes are closed.
pub(crate) async fn take(worker: Arc<Worker>, mut deliveries: mpsc::Receiver<Delivery>) {
    while let Some(delivery) = deliveries.recv().await {
        let tracker = worker.tasks.clone();
        tracker.spawn(handle(worker.clone(), delivery));
    }
}

async fn handle(worker: Arc<Worker>, delivery: Delivery) {
    if delivery.lane == REPLIES {
        return replies::take(&worker, delivery).await;
    }
    let job = match delivery.job() {
        Ok(Job { task: Task::ToolCall { .. }, .. }) => {
            return bury(&worker, delivery, "a call of a remote tool is for that tool").await;
        }
        Ok(job) => job,
        Err(garbage) => return bury(&worker, delivery, &garbage.to_string()).await,
    };
    let span = tracing::info_span!("job", job = %job.id, run = job.task.run().map(tracing::field::display));
    let lane = delivery.lane.clone();
    let Some(hold) = worker.jobs.take(job.id, delivery) else { return };
    work(&worker, &job, &lane, hold).instrument(span).await;
}

/// What cannot be read goes to the dead queue, and is acked once it is there; else it stays where it was.
pub(crate) async fn bury(worker: &Worker, delivery: Delivery, reason: &str) {
    tracing::warn!(lane = delivery.lane, reason, "a message is no job; it goes to the dead queue");
    metrics::counter!("gathering_messages_dead_total").increment(1);
    match worker.core.outbox.publisher().dead(&delivery, reason).await {
        Ok(()) => delivery.ack(),
        Err(error) => {
            tracing::warn!(%error, "the message stays in its lane");
            delivery.requeue();
        }
    }
}

async fn work(worker: &Arc<Worker>, job: &Job, lane: &str, hold: Hold) {
    let Some(permit) = slot(worker, lane).await else { return };
    // Nothing is claimed while something runs alone, or waits to: if that takes the worker with it, what was claimed
    // would count the loss as its own.
    let Some(beside) = worker.core.draining.run_until_cancelled(worker.alone.read()).await else {
        return;
    };
    let begun = begin(worker, job).await;
    drop(beside);
    match begun {
        Err(error) => {
            tracing::error!(%error, "a job could not be begun; it goes back");
            // Not at once: the next worker would meet the same.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        Ok(assigned) => {
            hold.claimed();
            spread(worker, assigned, hold, Some(permit));
        }
    }
}

/// A slot of the lane; none once the worker stops.
async fn slot(worker: &Worker, lane: &str) -> Option<OwnedSemaphorePermit> {
    let slots = worker.core.lanes.get(lane)?.slots.clone();
    tokio::select! {
        biased;
        () = worker.core.draining.cancelled() => None,
        permit = slots.acquire_owned() => permit.ok(),
    }
}

/// Claims what the job asks for, or finds what has become of it.
async fn begin(worker: &Worker, job: &Job) -> Result<Vec<Assigned>, Arc<store::Error>> {
    let begun = match &job.task {
        Task::Probe { probe } => {
            let mut conn = Box::pin(worker.core.pool.acquire()).await?;
            workers::arrived(&mut conn, *probe).await?;
            return Ok(Vec::new());
        }
        Task::ChildEnded { run, child } => {
            worker.ends.submit(End { parent: *run, child: *child }).await?;
            return Ok(Vec::new());
        }
        Task::ChildrenStop { run } => {
            return Box::pin(children::stop(worker, *run)).await.map(|()| Vec::new());
        }
        // It went to the dead queue before.
        Task::ToolCall { .. } => return Ok(Vec::new()),
        Task::RunStart { run } => {
            let pipeline = job.pipeline.clone().zip(job.version);
            let traceparent = job.traceparent.clone();
            worker.start(Start { run: *run, job: job.id, pipeline, traceparent }).await?
        }
        Task::NodeExecute { run, node, attempt } => {
            let claim = Claim { run: *run, node: node.clone(), attempt: *attempt, job: job.id };
            worker.claims.submit(claim).await?
        }
    };
    let Some(run) = job.task.run() else { return Ok(Vec::new()) };
    match begun {
        Begun::Assigned(assigned) => Ok(assigned),
        Begun::Over => Ok(Vec::new()),
        Begun::NotQueued => Box::pin(reclaim::look(worker, run, job.id)).await,
        Begun::Unreadable(why) => Box::pin(break_off(worker, run, &why)).await.map(|()| Vec::new()),
    }
}

pub(crate) async fn break_off(
    worker: &Worker,
    run: Uuid,
    why: &str,
) -> Result<(), Arc<store::Error>> {
    tracing::error!(why, "the run cannot go on");
    let mut tx = worker.core.pool.begin().await?;
    let ended = stop::break_off(&mut tx, run, why).await?;
    tx.commit().await?;
    if ended {
        worker.core.announce(Vec::new(), vec![(run, RunState::Failed)]);
    }
    Ok(())
}

/// The first of what was assigned goes on in the slot at hand, each of the others in one of its own.
pub(crate) fn spread(
    worker: &Arc<Worker>,
    assigned: Vec<Assigned>,
    hold: Hold,
    mut permit: Option<OwnedSemaphorePermit>,
) {
    for one in assigned {
        let share = hold.share();
        let permit = permit.take();
        let task = crate::executor::go(worker.clone(), one, share, permit);
        worker.tasks.spawn(task.in_current_span());
    }
    hold.done();
}

/// A slot for a node run that was kept: it is claimed, and waits its turn. None when it is stopped meanwhile.
pub(crate) async fn kept_slot(
    worker: &Worker,
    lane: &str,
    stop: &CancellationToken,
) -> Option<OwnedSemaphorePermit> {
    let lane = worker.core.lanes.get(lane)?;
    if let Ok(permit) = lane.slots.clone().try_acquire_owned() {
        return Some(permit);
    }
    let _waits = Waits::new(&lane.waiting);
    tokio::select! {
        biased;
        () = stop.cancelled() => None,
        permit = lane.slots.clone().acquire_owned() => permit.ok(),
    }
}

/// Counts one that waits, for as long as it does.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn new(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::AcqRel);
        Self(waiting)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

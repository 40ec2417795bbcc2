//! What the worker looks after while it executes: runs that were told to stop, deliveries that grow old, slots that
//! are held without a delivery.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use common::broker::{ConsumerHandle, Hint, HintKind};
use common::store::workers;
use tokio::sync::mpsc;

use crate::core::Worker;

/// How often rows are looked at, for what hints did not tell.
const LOOK: Duration = Duration::from_secs(1);

/// Stops node runs whose runs were told to stop: by hints, and by a look at the rows each second.
pub(crate) async fn stops(worker: Arc<Worker>, mut hints: mpsc::Receiver<Hint>) {
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            hint = hints.recv() => {
                let Some(hint) = hint else { return };
                let stopping = hint.runs.iter().filter(|(_, kind)| *kind != HintKind::Changed);
                stopping.for_each(|(run, _)| worker.core.executing.stop(*run));
            }
            _ = look.tick() => look_at_rows(&worker).await,
        }
    }
}

async fn look_at_rows(worker: &Worker) {
    let runs = worker.core.executing.runs();
    if runs.is_empty() {
        return;
    }
    let read = async {
        let mut conn = worker.core.pool.acquire().await?;
        workers::stopping(&mut conn, &runs).await
    };
    match read.await {
        Ok(stopping) => stopping.into_iter().for_each(|run| worker.core.executing.stop(run)),
        Err(error) => tracing::debug!(%error, "cannot look which runs were stopped"),
    }
}

/// Acks deliveries before the broker's consumer_timeout can hit them, and keeps the prefetch of each lane at the number
/// of its slots that are not held without a delivery.
pub(crate) async fn deliveries(worker: Arc<Worker>, consumer: Arc<ConsumerHandle>) {
    let mut before: HashMap<String, usize> = HashMap::new();
    let mut look = tokio::time::interval(LOOK);
    loop {
        look.tick().await;
        worker.jobs.let_go(worker.delivery_hold);
        let without = worker.jobs.without_delivery();
        for (name, lane) in &worker.core.lanes {
            // Only what lasts from one look to the next: a consumer is not rebuilt for a moment's sake.
            let lasting = without.get(name).min(before.get(name)).copied().unwrap_or(0);
            let prefetch = lane.size.saturating_sub(lasting);
            consumer.set_prefetch(name, u16::try_from(prefetch).unwrap_or(u16::MAX));
        }
        before = without;
        gauges(&worker);
    }
}

fn gauges(worker: &Worker) {
    metrics::gauge!("gathering_node_runs_executing").set(worker.core.executing.len() as f64);
    for (name, lane) in &worker.core.lanes {
        let lane_name = name.clone();
        metrics::gauge!("gathering_slots", "lane" => lane_name.clone()).set(lane.size as f64);
        metrics::gauge!("gathering_slots_free", "lane" => lane_name)
            .set(lane.slots.available_permits() as f64);
    }
}

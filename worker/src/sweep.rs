//! Removes the folders of runs that ended long enough ago, from the workspace that this worker reaches.
//!
//! Each worker sweeps its own, since nobody else may reach it. On a shared folder they all do: what one has removed the
//! others do not find.

use std::sync::Arc;
use std::time::Duration;

use common::store::sweep;
use tools::{Found, Sweep};

use crate::core::Worker;

/// How long after a sweep the next begins; sooner, where folders stay for less.
const REST: Duration = Duration::from_secs(600);
const LEAST: Duration = Duration::from_secs(1);
/// Of how many runs the database is asked at a time.
const ASKED: usize = 1_000;

/// Sweeps until it is dropped; at once, if there is no workspace.
pub(crate) async fn keep(worker: Arc<Worker>, retention: Duration) {
    let Some(workspace) = worker.tools.sweep().cloned() else { return };
    loop {
        if let Err(error) = round(&worker, &workspace, retention).await {
            tracing::warn!(%error, "the workspace could not be swept; it is tried again");
        }
        tokio::time::sleep(retention.clamp(LEAST, REST)).await;
    }
}

async fn round(worker: &Worker, workspace: &Sweep, retention: Duration) -> anyhow::Result<()> {
    let listing = workspace.clone();
    let found = tokio::task::spawn_blocking(move || listing.folders()).await??;
    for some in found.chunks(ASKED) {
        let runs: Vec<_> = some.iter().map(|folder| folder.run).collect();
        let over = sweep::over(&worker.core.pool, &runs, retention.as_secs_f64()).await?;
        let over: Vec<Found> =
            some.iter().filter(|folder| over.contains(&folder.run)).cloned().collect();
        let workspace = workspace.clone();
        tokio::task::spawn_blocking(move || remove(&workspace, &over)).await?;
    }
    Ok(())
}

fn remove(workspace: &Sweep, folders: &[Found]) {
    for folder in folders {
        match workspace.remove(folder) {
            Ok(()) => metrics::counter!("gathering_workspace_folders_removed_total").increment(1),
            Err(error) => {
                tracing::warn!(%error, run = %folder.run, "a run's folder cannot be removed")
            }
        }
    }
}

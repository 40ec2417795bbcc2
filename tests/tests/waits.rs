//! Nodes that wait without a worker (R13), until something outside of them ends that.

use serde_json::{Value, json};
use tests::fleet::{FleetOptions, Role, TestFleet};

mod approvals;
mod children;
mod events;
mod maps;

/// Kills all workers, as `kill -9` does; the last are those that were added.
fn kill_all(fleet: &mut TestFleet, workers: usize) {
    for index in 0..workers {
        fleet.kill(Role::Worker, index);
    }
}

fn two_workers() -> FleetOptions {
    FleetOptions { workers: 2, ..FleetOptions::default() }
}

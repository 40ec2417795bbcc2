//! Nodes that wait without a worker (R13), until something outside of them ends that.

use serde_json::{Value, json};
use tests::fleet::{FleetOptions, Role, TestFleet};

mod approvals;

/// A node that asks a person.
fn approval(id: &str, config: Value) -> Value {
    json!({"id": id, "type": "approval", "config": config})
}

/// Kills all workers, as `kill -9` does; the last are those that were added.
fn kill_all(fleet: &mut TestFleet, workers: usize) {
    for index in 0..workers {
        fleet.kill(Role::Worker, index);
    }
}

fn two_workers() -> FleetOptions {
    FleetOptions { workers: 2, ..FleetOptions::default() }
}

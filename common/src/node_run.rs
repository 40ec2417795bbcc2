//! A node run's states, and the one function that moves it from one to the next.

use serde::{Deserialize, Serialize};

/// Where a node run stands, and who moves it on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "node_state", rename_all = "snake_case")]
pub enum NodeState {
    /// Its predecessors have not all ended. The worker that records the last of them moves it on.
    Pending,
    /// A job for it is in the outbox or in the broker. The worker that claims it moves it on.
    Queued,
    /// A worker executes it, and moves it on; when the worker dies, whoever finds it does.
    Running,
    /// An attempt failed, and the next is not due yet. The leader queues it when its timer is due.
    Retrying,
    /// It waits for something that holds no worker. The leader queues it when that is there.
    Waiting,
    /// It has an output. Final.
    Completed,
    /// It failed for good. Final.
    Failed,
    /// No edge led to it. Final.
    Skipped,
    /// The run was stopped before it ended. Final.
    Cancelled,
}

/// What happens to a node run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeEvent {
    /// All its edges are resolved, and it goes to a lane.
    Sent,
    /// All its edges are resolved, and the worker that found it ready keeps it; or its job was claimed; or a dead
    /// worker's attempt was taken over.
    Claimed,
    /// It ended with an output.
    Succeeded,
    /// It failed for good.
    Failed,
    /// It failed, and is to be tried again later.
    FailedForNow,
    /// It waits for something.
    Waits,
    /// What it waited for is there, or its worker gave it back.
    Due,
    /// No edge leads to it, or one is broken.
    Skipped,
    /// The run was stopped.
    Stopped,
}

/// An event that a state does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a node run that is {state:?} cannot take {event:?}")]
pub struct IllegalNodeTransition {
    /// The state.
    pub state: NodeState,
    /// The event.
    pub event: NodeEvent,
}

impl NodeState {
    /// All states, in the order of their lives.
    pub const ALL: [Self; 9] = [
        Self::Pending,
        Self::Queued,
        Self::Running,
        Self::Retrying,
        Self::Waiting,
        Self::Completed,
        Self::Failed,
        Self::Skipped,
        Self::Cancelled,
    ];

    /// Whether it has ended.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Skipped | Self::Cancelled)
    }

    /// The name in JSON, SQL and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Waiting => "waiting",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Cancelled => "cancelled",
        }
    }

    /// The state after `event`; all that is not listed is illegal.
    pub fn next(self, event: NodeEvent) -> Result<Self, IllegalNodeTransition> {
        use NodeEvent as E;
        match (self, event) {
            (Self::Pending, E::Sent) | (Self::Retrying | Self::Waiting | Self::Running, E::Due) => {
                Ok(Self::Queued)
            }
            (Self::Pending | Self::Queued | Self::Running, E::Claimed) => Ok(Self::Running),
            // A trigger has its output at once; an edge's error fails the node that it leads to.
            (Self::Pending | Self::Running, E::Succeeded) => Ok(Self::Completed),
            (Self::Pending | Self::Running, E::Failed) => Ok(Self::Failed),
            (Self::Running, E::FailedForNow) => Ok(Self::Retrying),
            (Self::Running, E::Waits) => Ok(Self::Waiting),
            (Self::Pending, E::Skipped) => Ok(Self::Skipped),
            (
                Self::Pending | Self::Queued | Self::Running | Self::Retrying | Self::Waiting,
                E::Stopped,
            ) => Ok(Self::Cancelled),
            (state, event) => Err(IllegalNodeTransition { state, event }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole table, printed: a change to it has to be meant.
    #[test]
    fn the_table_of_all_states_and_events() {
        let events = [
            ("sent", NodeEvent::Sent),
            ("claimed", NodeEvent::Claimed),
            ("succeeded", NodeEvent::Succeeded),
            ("failed", NodeEvent::Failed),
            ("failed for now", NodeEvent::FailedForNow),
            ("waits", NodeEvent::Waits),
            ("due", NodeEvent::Due),
            ("skipped", NodeEvent::Skipped),
            ("stopped", NodeEvent::Stopped),
        ];
        let mut table = String::new();
        for state in NodeState::ALL {
            for (name, event) in events {
                let next = state.next(event).map_or("-", NodeState::name);
                table.push_str(&format!("{} + {name} = {next}\n", state.name()));
            }
        }
        assert_eq!(table, include_str!("node_run/transitions.txt"));
    }
}

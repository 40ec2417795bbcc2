//! A run's states, and the one function that moves it from one to the next.

use serde::{Deserialize, Serialize};

/// What is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "run_kind", rename_all = "snake_case")]
pub enum RunKind {
    /// A version of a pipeline.
    Pipeline,
    /// One action: a run with exactly one node.
    Action,
}

/// Where a run stands, and who moves it on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "run_state", rename_all = "snake_case")]
pub enum RunState {
    /// Accepted; its node runs are not written yet. A worker starts it (the leader, when its delay is over, has it queued).
    Queued,
    /// Its node runs are written. The worker that records the last sink ends it.
    Running,
    /// It was told to stop, and node runs are still running. The worker that records the last of them ends it.
    Cancelling,
    /// Every sink ended, and no failure was left open. Final.
    Completed,
    /// A node failed, and no failure edge took it up. Final.
    Failed,
    /// A client stopped it. Final.
    Cancelled,
    /// It took longer than its time-out. Final.
    TimedOut,
}

/// Why a run began to stop. The first reason stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "stop_reason", rename_all = "snake_case")]
pub enum StopReason {
    /// A client asked for it.
    Cancel,
    /// The run's time-out passed.
    TimedOut,
    /// A node failed in a run that fails fast.
    FailFast,
}

impl StopReason {
    /// The state in which a run ends that was stopped for this reason.
    pub fn ending(self) -> RunState {
        match self {
            Self::Cancel => RunState::Cancelled,
            Self::TimedOut => RunState::TimedOut,
            Self::FailFast => RunState::Failed,
        }
    }
}

/// What happens to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunEvent {
    /// Its node runs were written.
    Started,
    /// It was told to stop; `running` node runs have yet to end.
    Stopped {
        /// Why.
        reason: StopReason,
        /// Whether any node run is still running.
        running: bool,
    },
    /// The last sink ended, in a run that was not told to stop.
    SinksEnded {
        /// Whether a failure was left that no failure edge took up.
        failed: bool,
    },
    /// The last node run ended in a run that was told to stop.
    LastStopped(StopReason),
    /// It cannot be started or continued at all: its definition cannot be read any more, or nothing moves it on.
    Broken,
}

/// An event that a state does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a run that is {state:?} cannot take {event:?}")]
pub struct IllegalRunTransition {
    /// The state.
    pub state: RunState,
    /// The event.
    pub event: RunEvent,
}

impl RunState {
    /// All states, in the order of their lives.
    pub const ALL: [Self; 7] = [
        Self::Queued,
        Self::Running,
        Self::Cancelling,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
        Self::TimedOut,
    ];

    /// Whether it has ended.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled | Self::TimedOut)
    }

    /// The name in JSON, SQL and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Cancelling => "cancelling",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
        }
    }

    /// The state after `event`; all that is not listed is illegal.
    pub fn next(self, event: RunEvent) -> Result<Self, IllegalRunTransition> {
        match (self, event) {
            (Self::Queued, RunEvent::Started) => Ok(Self::Running),
            (Self::Queued | Self::Running, RunEvent::Stopped { running: true, .. }) => {
                Ok(Self::Cancelling)
            }
            (Self::Queued | Self::Running, RunEvent::Stopped { reason, running: false }) => {
                Ok(reason.ending())
            }
            (Self::Running, RunEvent::SinksEnded { failed: false }) => Ok(Self::Completed),
            (Self::Running, RunEvent::SinksEnded { failed: true }) => Ok(Self::Failed),
            (Self::Cancelling, RunEvent::LastStopped(reason)) => Ok(reason.ending()),
            (Self::Queued | Self::Running | Self::Cancelling, RunEvent::Broken) => Ok(Self::Failed),
            (state, event) => Err(IllegalRunTransition { state, event }),
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
            ("started", RunEvent::Started),
            (
                "cancel, some running",
                RunEvent::Stopped { reason: StopReason::Cancel, running: true },
            ),
            (
                "cancel, none running",
                RunEvent::Stopped { reason: StopReason::Cancel, running: false },
            ),
            ("sinks ended", RunEvent::SinksEnded { failed: false }),
            ("sinks ended, failed", RunEvent::SinksEnded { failed: true }),
            ("last stopped, time-out", RunEvent::LastStopped(StopReason::TimedOut)),
            ("broken", RunEvent::Broken),
        ];
        let mut table = String::new();
        for state in RunState::ALL {
            for (name, event) in events {
                let next = state.next(event).map_or("-", RunState::name);
                table.push_str(&format!("{} + {name} = {next}\n", state.name()));
            }
        }
        assert_eq!(table, include_str!("run/transitions.txt"));
    }
}

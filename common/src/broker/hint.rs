//! Hints: these runs changed; look. Lost without harm.

use std::collections::HashSet;

use futures::StreamExt;
use lapin::options::{BasicConsumeOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use uuid::Uuid;

use super::connection::Link;
use super::consumer::Consumer;
use super::topology::Topology;
use super::{BrokerConfig, Status};

/// What happened to some runs: `{"runs": [["<id>", "ended"], …]}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hint {
    /// The runs, and how each changed.
    pub runs: Vec<(Uuid, HintKind)>,
}

/// How a run changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HintKind {
    /// Somehow.
    Changed,
    /// It stops: whoever executes its nodes cancels them.
    Stopping,
    /// It ended.
    Ended,
}

impl Hint {
    /// One hint for many. That a run changed goes without saying where it stops or has ended.
    pub(super) fn of(hints: Vec<Self>) -> Self {
        let mut runs: Vec<_> = hints.into_iter().flat_map(|hint| hint.runs).collect();
        let told = |kind: HintKind| kind != HintKind::Changed;
        let more: HashSet<Uuid> =
            runs.iter().filter(|(_, kind)| told(*kind)).map(|(run, _)| *run).collect();
        let mut seen = HashSet::new();
        runs.retain(|(run, kind)| told(*kind) || (!more.contains(run) && seen.insert(*run)));
        Self { runs }
    }

    /// Whether somebody is likely to wait for it: it tells of an end, or of a stop.
    pub(super) fn is_urgent(&self) -> bool {
        self.runs.iter().any(|(_, kind)| *kind != HintKind::Changed)
    }

    /// The routing key: whoever executes nodes listens only to those that may concern it.
    pub(super) fn key(&self) -> &'static str {
        match self.runs.iter().any(|(_, kind)| *kind == HintKind::Stopping) {
            true => STOPPING,
            false => "runs.changed",
        }
    }
}

/// Who listens, and to which.
#[derive(Clone)]
pub(super) struct Listener {
    pub(super) hints: mpsc::Sender<Hint>,
    pub(super) key: &'static str,
}

/// Hints of runs that stop, and perhaps of others.
pub(super) const STOPPING: &str = "runs.stopping";
/// All hints.
pub(super) const ALL: &str = "runs.*";

/// What a slow reader may be behind; the oldest are dropped.
const BACKLOG: i32 = 10_000;
const LIFE_MS: i32 = 10_000;

/// Receives the hints of the whole fleet.
pub struct HintListener;

impl HintListener {
    /// Sends each hint to `hints`, and drops it when that is full. Has a connection to consume of its own: a process
    /// that also consumes lanes passes its sender to [`Consumer::start_listening`] instead.
    pub fn start(
        config: BrokerConfig,
        hints: mpsc::Sender<Hint>,
        shutdown: CancellationToken,
    ) -> (watch::Receiver<Status>, JoinHandle<()>) {
        Consumer::listen_only(config, hints, shutdown)
    }
}

/// Listens over this connection until it is gone.
pub(super) async fn listen(
    link: &Link,
    topology: &Topology,
    listener: &Listener,
) -> lapin::Result<()> {
    let channel = link.channel().await?;
    let queue = topology.hint_queue(Uuid::now_v7());
    let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..Default::default() };
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(BACKLOG));
    arguments.insert("x-message-ttl".into(), AMQPValue::LongInt(LIFE_MS));
    channel.queue_declare(queue.as_str().into(), options, arguments).await?;
    let exchange = topology.events_exchange();
    channel
        .queue_bind(
            queue.as_str().into(),
            exchange.into(),
            listener.key.into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await?;
    let options = BasicConsumeOptions { no_ack: true, exclusive: true, ..Default::default() };
    let mut stream =
        channel.basic_consume(queue.into(), "hints".into(), options, FieldTable::default()).await?;
    while let Some(message) = stream.next().await {
        match serde_json::from_slice::<Hint>(&message?.data) {
            // Never waits: what is not read would pile up in memory.
            Ok(hint) => match listener.hints.try_send(hint) {
                Err(mpsc::error::TrySendError::Closed(_)) => return Ok(()),
                Err(mpsc::error::TrySendError::Full(_)) => {
                    debug!("a hint was dropped: its reader is behind")
                }
                Ok(()) => {}
            },
            Err(error) => warn!(%error, "a hint cannot be read"),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn many_are_one_in_which_changes_go_without_saying() {
        use HintKind::{Changed, Ended, Stopping};
        let [a, b, c] = [1, 2, 3].map(Uuid::from_u128);
        let hint = |runs: &[_]| Hint { runs: runs.to_vec() };
        assert!(
            !hint(&[(a, Changed)]).is_urgent() && hint(&[(a, Changed), (b, Ended)]).is_urgent()
        );
        let one = Hint::of(vec![
            hint(&[(a, Changed), (b, Changed)]),
            hint(&[(a, Changed), (c, Stopping)]),
            hint(&[(b, Ended), (c, Changed), (c, Ended)]),
        ]);
        assert_eq!(one, hint(&[(a, Changed), (c, Stopping), (b, Ended), (c, Ended)]));
    }

    #[test]
    fn reads_as_pairs() {
        let hint =
            Hint { runs: vec![(Uuid::nil(), HintKind::Ended), (Uuid::nil(), HintKind::Changed)] };
        let text = r#"{"runs":[["00000000-0000-0000-0000-000000000000","ended"],["00000000-0000-0000-0000-000000000000","changed"]]}"#;
        assert_eq!(serde_json::to_string(&hint).unwrap(), text);
        assert_eq!(serde_json::from_str::<Hint>(text).unwrap(), hint);
    }
}

//! The connection to publish. One actor owns it: a channel that two tasks publish on mixes up its confirms.

use std::time::{Duration, Instant};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use super::hint::Hint;
use super::seldom::Seldom;
use super::session::{Burial, Session};
use super::topology::Topology;
use super::{BrokerConfig, Delivery, Status, message, report};
use crate::job::Job;
use crate::retry::Reconnect;

/// An outbox row on its way.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// The lane whose queue gets it.
    pub lane: String,
    /// What it asks; its id is the row's.
    pub job: Job,
    /// When the row was committed. It is published within 5 s of that, or left to the leader.
    pub committed_at: Instant,
}

impl Outgoing {
    /// After that, the row is the leader's.
    const OURS_FOR: Duration = Duration::from_secs(5);

    pub(super) fn is_ours(&self) -> bool {
        self.committed_at.elapsed() < Self::OURS_FOR
    }
}

/// Why a message did not get into the dead queue. It stays where it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the broker did not confirm that it took the message into the dead queue")]
pub struct NotBuried;

/// A handle on the actor that publishes.
#[derive(Debug, Clone)]
pub struct Publisher {
    rows: mpsc::Sender<Outgoing>,
    hints: mpsc::Sender<Hint>,
    burials: mpsc::Sender<Burial>,
    status: watch::Receiver<Status>,
}

impl Publisher {
    /// How many rows may wait: all that the largest fan makes ready at once, and about what the broker takes within the
    /// 5 s for which a row is its process's own. An empty place takes no memory.
    const ROOM: usize = 32_768;

    /// Starts the actor. The ids of confirmed rows go to `confirmed`, many at a time. After `shutdown` it publishes
    /// what it was offered before, waits up to 5 s for the confirms, and ends.
    pub fn start(
        config: BrokerConfig,
        confirmed: mpsc::UnboundedSender<Vec<Uuid>>,
        shutdown: CancellationToken,
    ) -> (Self, JoinHandle<()>) {
        let (rows, row_queue) = mpsc::channel(Self::ROOM);
        let (hints, hint_queue) = mpsc::channel(1024);
        let (burials, burial_queue) = mpsc::channel(64);
        let status = watch::Sender::new(Status::Disconnected);
        let publisher = Self { rows, hints, burials, status: status.subscribe() };
        let actor = Actor {
            topology: Topology::new(config.prefix.clone()),
            inbox: Inbox {
                rows: row_queue,
                hints: hint_queue,
                burials: burial_queue,
                again: Vec::new(),
            },
            config,
            confirmed,
            status,
            shutdown,
            seldom: Seldom::default(),
        };
        (publisher, tokio::spawn(actor.run()))
    }

    /// Publishes a row, if there is room and no alarm; else (`false`) it is the leader's. Never waits.
    pub fn offer(&self, out: Outgoing) -> bool {
        let taken = *self.status.borrow() != Status::Blocked && self.rows.try_send(out).is_ok();
        if !taken {
            metrics::counter!("gathering_broker_left_to_leader_total", "why" => "no_room")
                .increment(1);
        }
        taken
    }

    /// Tells the fleet that runs changed, as far as that is possible right now.
    pub fn hint(&self, hint: Hint) {
        if self.hints.try_send(hint).is_err() {
            metrics::counter!("gathering_broker_hints_dropped_total").increment(1);
        }
    }

    /// Puts a message that is no job into the dead queue, with the reason. Once it is there, the caller acks it.
    pub async fn dead(&self, delivery: &Delivery, reason: &str) -> Result<(), NotBuried> {
        let properties = message::buried(&delivery.properties, reason, delivery.queue());
        let (done, buried) = oneshot::channel();
        let burial = Burial { body: delivery.body.clone(), properties, done };
        let bury = async {
            self.burials.send(burial).await.map_err(|_| NotBuried)?;
            buried.await.map_err(|_| NotBuried)
        };
        tokio::time::timeout(Duration::from_secs(10), bury).await.map_err(|_| NotBuried)?
    }

    /// The state of the connection.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }
}

/// What waits to be published.
pub(super) struct Inbox {
    pub(super) rows: mpsc::Receiver<Outgoing>,
    pub(super) hints: mpsc::Receiver<Hint>,
    pub(super) burials: mpsc::Receiver<Burial>,
    /// Rows that a lost connection did not confirm.
    pub(super) again: Vec<Outgoing>,
}

/// Keeps one session after another.
pub(super) struct Actor {
    pub(super) config: BrokerConfig,
    pub(super) topology: Topology,
    pub(super) inbox: Inbox,
    pub(super) confirmed: mpsc::UnboundedSender<Vec<Uuid>>,
    pub(super) status: watch::Sender<Status>,
    pub(super) shutdown: CancellationToken,
    pub(super) seldom: Seldom,
}

impl Actor {
    pub(super) const ROLE: &'static str = "publish";

    async fn run(mut self) {
        let mut reconnect = Reconnect::new();
        while !self.shutdown.is_cancelled() {
            let shutdown = self.shutdown.clone();
            let opened = tokio::select! {
                opened = Session::open(&mut self) => opened,
                () = shutdown.cancelled() => break,
            };
            match opened {
                Ok(session) => {
                    reconnect.reset();
                    info!(role = Self::ROLE, "connected to the broker");
                    if let Err(why) = session.serve(&mut self).await {
                        warn!(role = Self::ROLE, %why, "the connection to the broker is gone");
                        metrics::counter!("gathering_broker_reconnects_total", "role" => Self::ROLE).increment(1);
                    }
                }
                Err(error) => {
                    if let Some(times) = self.seldom.due(&error.to_string(), Instant::now()) {
                        warn!(role = Self::ROLE, %error, times, "cannot connect to the broker");
                    }
                }
            }
            self.report(Status::Disconnected);
            tokio::select! {
                () = sleep(reconnect.wait()) => {}
                () = self.shutdown.cancelled() => {}
            }
        }
        self.report(Status::Disconnected);
    }

    pub(super) fn report(&self, status: Status) {
        report(Self::ROLE, &self.status, status);
    }
}

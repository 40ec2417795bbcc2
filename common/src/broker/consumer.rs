//! The connection to consume: lanes and hints over it, all rebuilt together when it is gone.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::connection::Link;
use super::delivery::Delivery;
use super::hint::{self, Hint, Listener};
use super::lane::Lane;
use super::seldom::Seldom;
use super::topology::Topology;
use super::{BrokerConfig, Status, report};
use crate::retry::Reconnect;

/// Takes deliveries from lanes, one channel a lane.
pub struct Consumer;

/// What a started [`Consumer`] can be told.
pub struct ConsumerHandle {
    prefetch: HashMap<String, watch::Sender<u16>>,
    taking: watch::Receiver<usize>,
    status: watch::Receiver<Status>,
    stop: CancellationToken,
    close: CancellationToken,
    supervisor: JoinHandle<()>,
}

impl Consumer {
    /// Sends the deliveries of these lanes, each with its prefetch, to `out`.
    pub fn start(
        config: BrokerConfig,
        lanes: Vec<(String, u16)>,
        out: mpsc::Sender<Delivery>,
        shutdown: CancellationToken,
    ) -> ConsumerHandle {
        start(config, lanes, out, None, shutdown)
    }

    /// As [`Consumer::start`], and sends the hints of runs that stop to `hints` over
    /// the same connection.
    pub fn start_listening(
        config: BrokerConfig,
        lanes: Vec<(String, u16)>,
        out: mpsc::Sender<Delivery>,
        hints: mpsc::Sender<Hint>,
        shutdown: CancellationToken,
    ) -> ConsumerHandle {
        let listener = Listener { hints, key: hint::STOPPING };
        start(config, lanes, out, Some(listener), shutdown)
    }

    pub(super) fn listen_only(
        config: BrokerConfig,
        hints: mpsc::Sender<Hint>,
        shutdown: CancellationToken,
    ) -> (watch::Receiver<Status>, JoinHandle<()>) {
        let listener = Listener { hints, key: hint::ALL };
        let handle = start(config, Vec::new(), mpsc::channel(1).0, Some(listener), shutdown);
        (handle.status, handle.supervisor)
    }
}

fn start(
    config: BrokerConfig,
    lanes: Vec<(String, u16)>,
    out: mpsc::Sender<Delivery>,
    listener: Option<Listener>,
    shutdown: CancellationToken,
) -> ConsumerHandle {
    let (taking, stop, close) =
        (watch::Sender::new(0), CancellationToken::new(), shutdown.child_token());
    let topology = Topology::new(config.prefix.clone());
    let mut prefetch = HashMap::new();
    let lanes = lanes
        .into_iter()
        .map(|(name, count)| {
            let (sender, receiver) = watch::channel(count);
            prefetch.insert(name.clone(), sender);
            Lane {
                name,
                topology: topology.clone(),
                out: out.clone(),
                prefetch: receiver,
                stop: stop.clone(),
                close: close.clone(),
                taking: taking.clone(),
                unanswered: None,
            }
        })
        .collect();
    let status = watch::Sender::new(Status::Disconnected);
    let handle_status = status.subscribe();
    let taking = taking.subscribe();
    let supervisor = Supervisor {
        config,
        topology,
        lanes,
        listener,
        status,
        stop: stop.clone(),
        close: close.clone(),
    };
    let supervisor = tokio::spawn(supervisor.run());
    ConsumerHandle { prefetch, taking, status: handle_status, stop, close, supervisor }
}

impl ConsumerHandle {
    /// How many of the lane's deliveries may be open at a time; at 0 it takes none. When it shrinks, what was
    /// delivered already stays so.
    pub fn set_prefetch(&self, lane: &str, count: u16) {
        if let Some(prefetch) = self.prefetch.get(lane) {
            prefetch.send_if_modified(|old| std::mem::replace(old, count) != count);
        }
    }

    /// The state of the connection.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Takes no more deliveries. What was received but not handed out is back in its queue when this returns; what was
    /// handed out can still be acked.
    pub async fn stop_taking(&self) {
        self.stop.cancel();
        let stopped =
            async { self.taking.clone().wait_for(|taking| *taking == 0).await.map(|_| ()) };
        if tokio::time::timeout(Duration::from_secs(5), stopped).await.is_err() {
            warn!("the broker did not confirm that it sends no more jobs");
        }
    }

    /// Sends the acks that are left, and closes the connection. What is still open goes back to its queue.
    pub async fn close(self) {
        self.stop.cancel();
        self.close.cancel();
        let mut supervisor = self.supervisor;
        if tokio::time::timeout(Duration::from_secs(10), &mut supervisor).await.is_err() {
            supervisor.abort();
        }
    }
}

/// Keeps one connection open, and all that goes over it.
struct Supervisor {
    config: BrokerConfig,
    topology: Topology,
    lanes: Vec<Lane>,
    listener: Option<Listener>,
    status: watch::Sender<Status>,
    stop: CancellationToken,
    close: CancellationToken,
}

impl Supervisor {
    const ROLE: &'static str = "consume";

    async fn run(self) {
        let (mut reconnect, mut seldom) = (Reconnect::new(), Seldom::default());
        // A consumer that takes no more has no use for a new connection.
        while !self.close.is_cancelled() && !self.stop.is_cancelled() {
            let opened = tokio::select! {
                opened = self.link() => opened,
                () = self.close.cancelled() => break,
            };
            match opened {
                Ok(link) => {
                    reconnect.reset();
                    let why = self.serve(Arc::new(link)).await;
                    report(Self::ROLE, &self.status, Status::Disconnected);
                    let Some(why) = why else { break };
                    warn!(role = Self::ROLE, why, "the connection to the broker is gone");
                    metrics::counter!("gathering_broker_reconnects_total", "role" => Self::ROLE)
                        .increment(1);
                }
                Err(error) => {
                    report(Self::ROLE, &self.status, Status::Disconnected);
                    if let Some(times) = seldom.due(&error.to_string(), Instant::now()) {
                        warn!(role = Self::ROLE, %error, times, "cannot connect to the broker");
                    }
                }
            }
            tokio::select! {
                () = sleep(reconnect.wait()) => {}
                () = self.close.cancelled() => {}
            }
        }
    }

    async fn link(&self) -> lapin::Result<Link> {
        if self.lanes.is_empty() {
            return Link::open(&self.config, Self::ROLE).await;
        }
        Link::open_for_all(&self.config, Self::ROLE).await
    }

    /// Serves until the connection is gone (then says why) or it is closed.
    async fn serve(&self, link: Arc<Link>) -> Option<String> {
        let mut lanes = JoinSet::new();
        let (unanswered, mut answered) = mpsc::channel(1);
        for lane in &self.lanes {
            let lane = Lane { unanswered: Some(unanswered.clone()), ..lane.clone() };
            lanes.spawn(lane.run(link.clone()));
        }
        drop(unanswered);
        if let Some(listener) = &self.listener {
            lanes.spawn(listen(
                link.clone(),
                self.topology.clone(),
                listener.clone(),
                self.close.clone(),
            ));
        }
        let lost = async {
            // Who is ready has its queues: a lane that cannot be had says so, and holds up no other.
            tokio::select! {
                _ = answered.recv() => {
                    report(Self::ROLE, &self.status, Status::Connected);
                    info!(role = Self::ROLE, "connected to the broker");
                }
                why = link.gone() => return why,
            }
            link.gone().await
        };
        let why = tokio::select! {
            why = lost => Some(why),
            () = self.close.cancelled() => None,
        };
        if why.is_some() {
            link.cut();
        }
        let ended = async { while lanes.join_next().await.is_some() {} };
        if tokio::time::timeout(Duration::from_secs(5), ended).await.is_err() {
            lanes.abort_all();
        }
        if why.is_none() {
            link.close().await;
        }
        why
    }
}

/// Listens to hints until the connection is gone or closed.
async fn listen(link: Arc<Link>, topology: Topology, listener: Listener, close: CancellationToken) {
    let (mut reconnect, mut seldom) = (Reconnect::new(), Seldom::default());
    while link.is_open() && !close.is_cancelled() && !listener.hints.is_closed() {
        let listened = async {
            topology.declare(&link, &[]).await?;
            Ok::<_, super::topology::Undeclared>(hint::listen(&link, &topology, &listener).await?)
        };
        tokio::select! {
            listened = listened => match listened {
                Ok(()) => debug!("the queue of hints is gone; it is made anew"),
                Err(error) => if link.is_open() && seldom.due(&error.to_string(), Instant::now()).is_some() {
                    warn!(%error, "cannot listen to hints");
                },
            },
            () = close.cancelled() => return,
        }
        tokio::select! {
            () = sleep(reconnect.wait()) => {}
            () = close.cancelled() => {}
        }
    }
}

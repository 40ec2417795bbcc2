//! One lane over one connection: its channel is rebuilt when it breaks.

use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

use super::connection::Link;
use super::delivery::Delivery;
use super::intake::{Intake, Lost};
use super::seldom::Seldom;
use super::topology::Topology;
use crate::retry::Reconnect;

/// What a lane is asked to do, for as long as its consumer lives.
#[derive(Clone)]
pub(super) struct Lane {
    pub(super) name: String,
    pub(super) topology: Topology,
    pub(super) out: mpsc::Sender<Delivery>,
    /// How many deliveries may be open at a time; none at zero.
    pub(super) prefetch: watch::Receiver<u16>,
    /// Takes no more, but acks what was handed out.
    pub(super) stop: CancellationToken,
    /// Ends.
    pub(super) close: CancellationToken,
    /// Counts the lanes that take deliveries.
    pub(super) taking: watch::Sender<usize>,
    /// Dropped when the broker has first said whether jobs of the lane can be taken over this connection.
    pub(super) unanswered: Option<mpsc::Sender<()>>,
}

impl Lane {
    /// A queue that is made anew the moment it was deleted confuses the broker about the consumers
    /// that it had: they get nothing, and are not told.
    const CALM: Duration = Duration::from_millis(300);

    /// Serves the lane over this connection until it is gone, or the lane is to close.
    pub(super) async fn run(mut self, link: Arc<Link>) {
        let (mut reconnect, mut seldom) = (Reconnect::new(), Seldom::default());
        while link.is_open() && !self.close.is_cancelled() && !self.stop.is_cancelled() {
            let opened = Intake::open(&mut self, &link).await;
            self.unanswered = None;
            let why = match opened {
                Ok(intake) => {
                    reconnect.reset();
                    match intake.serve(&mut self).await {
                        Ok(()) => return,
                        Err(Lost::Quiet) => continue,
                        Err(lost) => {
                            tokio::time::sleep(Self::CALM).await;
                            lost.to_string()
                        }
                    }
                }
                Err(refused) => {
                    let text = refused.to_string();
                    if let Some(times) = seldom.due(&text, Instant::now()) {
                        error!(lane = self.name, times, "cannot take jobs: {text}");
                    }
                    text
                }
            };
            if link.is_open() {
                debug!(lane = self.name, why, "the lane's channel is rebuilt");
                metrics::counter!("gathering_broker_lane_rebuilds_total", "lane" => self.name.clone()).increment(1);
                tokio::select! {
                    () = sleep(reconnect.wait()) => {}
                    () = self.close.cancelled() => {}
                }
            }
        }
    }
}

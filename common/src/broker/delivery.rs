//! One message handed to one worker, to be given back finished or not.

use lapin::BasicProperties;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::call;
use super::message::{self, Garbage};
use crate::job::Job;
use crate::remote::Reply;

/// A delivery; dropped without [`Delivery::ack`], it goes back into its queue.
#[derive(Debug)]
pub struct Delivery {
    /// The lane that it came through.
    pub lane: String,
    /// The message's body.
    pub body: Vec<u8>,
    /// The message's properties and headers.
    pub properties: BasicProperties,
    /// Whether it may have been delivered before.
    pub redelivered: bool,
    pub(super) tag: u64,
    pub(super) origin: Arc<Origin>,
    pub(super) settled: bool,
}

/// The channel that deliveries came through; each rebuilt one is another. Tags mean nothing beyond it.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) queue: String,
    pub(super) gone: CancellationToken,
    pub(super) settle: mpsc::UnboundedSender<Settled>,
}

/// What became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settled {
    Acked(u64),
    Requeued(u64),
}

impl Delivery {
    /// What it asks; an error says what is wrong with it.
    pub fn job(&self) -> Result<Job, Garbage> {
        message::decode(&self.body, &self.properties)
    }

    /// What a remote tool has answered; an error says what is wrong with it.
    pub fn reply(&self) -> Result<Reply, Garbage> {
        call::reply(&self.body, &self.properties)
    }

    /// The queue that it came from.
    pub fn queue(&self) -> &str {
        &self.origin.queue
    }

    /// It has been dealt with: the broker may forget it.
    pub fn ack(mut self) {
        self.settle(Settled::Acked(self.tag));
    }

    /// Puts it back, for any worker to take.
    pub fn requeue(self) {}

    /// Whether its channel still lives. If not, the broker has delivered the message anew, and an ack does nothing.
    pub fn is_open(&self) -> bool {
        !self.origin.gone.is_cancelled()
    }

    /// Waits until its channel is gone.
    pub async fn closed(&self) {
        self.origin.gone.cancelled().await;
    }

    fn settle(&mut self, settled: Settled) {
        if !std::mem::replace(&mut self.settled, true) {
            // Nobody listens once the channel is gone, and then there is nothing to settle.
            let _ = self.origin.settle.send(settled);
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.settle(Settled::Requeued(self.tag));
    }
}

//! One lane's channel: hands out deliveries, and acks what is finished.

use futures::StreamExt;
use futures::future::try_join_all;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions,
    QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{Channel, message};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::connection::Link;
use super::delivery::{Delivery, Origin, Settled};
use super::lane::Lane;
use super::topology::Undeclared;
use super::tracker::Tracker;

/// Why a lane's channel has to be rebuilt.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    #[error("its queue is gone, or its consumer was cancelled")]
    Ended,
    #[error("the broker has forgotten its consumer")]
    Forgotten,
    #[error("nothing came for long")]
    Quiet,
    #[error(transparent)]
    Broker(#[from] lapin::Error),
}

/// One channel's lifetime.
pub(super) struct Intake {
    channel: Channel,
    origin: Arc<Origin>,
    settled: mpsc::UnboundedReceiver<Settled>,
    tracker: Tracker,
    /// Delivered, and not handed out yet.
    waiting: VecDeque<message::Delivery>,
    /// What is to be told to the broker, and waits for company.
    lingering: Vec<Settled>,
    consumer: Option<lapin::Consumer>,
    consumers: u32,
    /// The prefetch of the present consumer.
    prefetch: u16,
    /// The last tag delivered, and the last of an earlier consumer.
    last: u64,
    earlier: u64,
    /// What was seen at the last look, if the lane was idle although messages waited for it.
    idle_at: Option<u64>,
    /// The last tag at the last look, and how many looks ago it was another.
    quiet: (u64, u32),
    counted: Option<Taking>,
}

/// Counts a lane among those that take deliveries, for as long as it lives.
struct Taking(watch::Sender<usize>);

impl Taking {
    fn new(taking: &watch::Sender<usize>) -> Self {
        taking.send_modify(|count| *count += 1);
        Self(taking.clone())
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

impl Intake {
    const SETTLE: usize = 4096;
    /// How long acks wait for company. Nobody waits for an ack, and the broker takes as long for one as for many.
    const LINGER: Duration = Duration::from_millis(20);
    const LOOK: Duration = Duration::from_secs(2);
    /// After so many looks at which nothing had come, the lane is consumed anew.
    const QUIET: u32 = 4;

    pub(super) async fn open(lane: &mut Lane, link: &Link) -> Result<Self, Undeclared> {
        lane.topology.declare(link, &[&lane.name]).await?;
        let channel = link.channel().await?;
        let (settle, settled) = mpsc::unbounded_channel();
        let queue = lane.topology.lane_queue(&lane.name);
        let origin = Arc::new(Origin { queue, gone: CancellationToken::new(), settle });
        let mut intake = Self {
            channel,
            origin,
            settled,
            tracker: Tracker::default(),
            waiting: VecDeque::new(),
            lingering: Vec::new(),
            consumer: None,
            consumers: 0,
            prefetch: 0,
            last: 0,
            earlier: 0,
            idle_at: None,
            quiet: (0, 0),
            counted: Some(Taking::new(&lane.taking)),
        };
        let prefetch = *lane.prefetch.borrow_and_update();
        intake.consume(prefetch).await?;
        Ok(intake)
    }

    /// Hands out and acks until the lane closes (`Ok`) or the channel breaks.
    pub(super) async fn serve(mut self, lane: &mut Lane) -> Result<(), Lost> {
        let served = self.turn(lane).await;
        self.origin.gone.cancel();
        // What is still open goes back to the queue with the channel.
        if self.channel.status().connected() {
            let lingering = std::mem::take(&mut self.lingering);
            let last_words = async {
                let _ = self.tell(&lingering, lane).await;
                let _ = self.channel.close(200, "OK".into()).await;
            };
            let _ = tokio::time::timeout(Duration::from_secs(2), last_words).await;
        }
        served
    }

    async fn turn(&mut self, lane: &mut Lane) -> Result<(), Lost> {
        let mut due = None;
        let mut look = tokio::time::interval(Self::LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let stopping = self.counted.is_none();
            tokio::select! {
                biased;
                // Never ends: the origin holds a sender.
                _ = self.settled.recv_many(&mut self.lingering, Self::SETTLE) => {
                    if self.is_urgent(lane) {
                        due = None;
                        self.settle_lingering(lane).await?;
                    } else {
                        due.get_or_insert_with(|| Instant::now() + Self::LINGER);
                    }
                }
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now).into()), if due.is_some() => {
                    due = None;
                    self.settle_lingering(lane).await?;
                }
                () = lane.close.cancelled() => {
                    while let Ok(last) = self.settled.try_recv() {
                        self.lingering.push(last);
                    }
                    self.settle_lingering(lane).await?;
                    return Ok(());
                }
                () = lane.stop.cancelled(), if !stopping => self.stop(lane).await?,
                Ok(()) = lane.prefetch.changed(), if !stopping => {
                    let wanted = *lane.prefetch.borrow_and_update();
                    self.settle_lingering(lane).await?;
                    self.reconsume(wanted, lane).await?;
                }
                _ = look.tick(), if !stopping => {
                    self.look().await?;
                    self.use_room(lane, 1).await?;
                }
                permit = lane.out.reserve(), if !self.waiting.is_empty() => match permit {
                    Ok(permit) => self.hand_out(permit, lane),
                    Err(_) => return Ok(()),
                },
                message = next(&mut self.consumer), if self.waiting.is_empty() => match message {
                    Some(message) => self.receive(message?),
                    None => return Err(Lost::Ended),
                },
            }
        }
    }

    /// Whether the broker should hear of these now: something goes back, or it has little more to give before it does.
    fn is_urgent(&self, lane: &Lane) -> bool {
        self.tracker.open() * 2 >= usize::from(*lane.prefetch.borrow())
            || self.lingering.iter().any(|settled| matches!(settled, Settled::Requeued(_)))
    }

    async fn settle_lingering(&mut self, lane: &Lane) -> Result<(), Lost> {
        let lingering = std::mem::take(&mut self.lingering);
        self.settle(&lingering, lane).await
    }

    fn receive(&mut self, message: message::Delivery) {
        self.last = message.delivery_tag;
        self.tracker.deliver(message.delivery_tag);
        self.waiting.push_back(message);
    }

    fn hand_out(&mut self, permit: mpsc::Permit<'_, Delivery>, lane: &Lane) {
        if let Some(message) = self.waiting.pop_front() {
            metrics::counter!("gathering_broker_delivered_total", "lane" => lane.name.clone())
                .increment(1);
            permit.send(Delivery {
                lane: lane.name.clone(),
                body: message.data,
                properties: message.properties,
                redelivered: message.redelivered,
                tag: message.delivery_tag,
                origin: self.origin.clone(),
                settled: false,
            });
        }
    }

    async fn settle(&mut self, settled: &[Settled], lane: &Lane) -> Result<(), Lost> {
        self.tell(settled, lane).await?;
        if self.counted.is_some() {
            let enough = if self.consumer.is_some() { *lane.prefetch.borrow() / 4 } else { 1 };
            self.use_room(lane, enough.max(1)).await?;
        }
        Ok(())
    }

    /// Tells the broker what is finished, and what goes back.
    async fn tell(&mut self, settled: &[Settled], lane: &Lane) -> lapin::Result<()> {
        let words = self.tracker.settle(settled);
        let options = BasicNackOptions { multiple: false, requeue: true };
        try_join_all(words.requeue.iter().map(|tag| self.channel.basic_nack(*tag, options)))
            .await?;
        if let Some(tag) = words.ack_up_to {
            self.channel.basic_ack(tag, BasicAckOptions { multiple: true }).await?;
        }
        let options = BasicAckOptions { multiple: false };
        try_join_all(words.ack.iter().map(|tag| self.channel.basic_ack(*tag, options))).await?;
        if !words.requeue.is_empty() {
            metrics::counter!("gathering_broker_requeued_total", "lane" => lane.name.clone())
                .increment(words.requeue.len() as u64);
        }
        metrics::counter!("gathering_broker_acked_total", "lane" => lane.name.clone())
            .increment(words.acked);
        Ok(())
    }

    /// The broker counts what an earlier consumer has open apart from the present one's prefetch:
    /// as it is settled, room is left over. Fills it, when it is at least this much.
    async fn use_room(&mut self, lane: &Lane, enough: u16) -> Result<(), Lost> {
        let wanted = *lane.prefetch.borrow();
        let earlier = u16::try_from(self.tracker.open_up_to(self.earlier)).unwrap_or(u16::MAX);
        if wanted.saturating_sub(self.prefetch).saturating_sub(earlier) < enough {
            return Ok(());
        }
        self.reconsume(wanted, lane).await
    }

    /// A consumer can hang on a queue that was deleted and made anew, and nobody says so.
    async fn look(&mut self) -> Result<(), Lost> {
        if self.consumer.is_none() {
            return Ok(());
        }
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        let name = self.origin.queue.as_str().into();
        let queue = self.channel.queue_declare(name, options, FieldTable::default()).await?;
        let idle = self.tracker.open() == 0 && queue.message_count() > 0;
        let still_idle = idle && self.idle_at == Some(self.last);
        self.idle_at = idle.then_some(self.last);
        if queue.consumer_count() == 0 || still_idle {
            return Err(Lost::Forgotten);
        }
        // What the broker believes to have delivered to a hanging consumer shows nowhere: a lane that is quiet for long
        // is consumed anew, and the old channel gives back what it may hold.
        self.quiet = match self.quiet {
            (last, looks) if last == self.last && self.tracker.open() == 0 => (last, looks + 1),
            _ => (self.last, 0),
        };
        if self.quiet.1 >= Self::QUIET { Err(Lost::Quiet) } else { Ok(()) }
    }

    /// Consumes, or not, so that at most `wanted` deliveries are open.
    async fn consume(&mut self, wanted: u16) -> lapin::Result<()> {
        let open = u16::try_from(self.tracker.open()).unwrap_or(u16::MAX);
        self.prefetch = wanted.saturating_sub(open);
        self.earlier = if open > 0 { self.last } else { 0 };
        if self.prefetch == 0 {
            return Ok(());
        }
        self.channel.basic_qos(self.prefetch, BasicQosOptions { global: false }).await?;
        self.consumers += 1;
        let (queue, tag) =
            (self.origin.queue.as_str().into(), format!("lane-{}", self.consumers).into());
        let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
        let consumer = self.channel.basic_consume(queue, tag, options, arguments).await?;
        self.consumer = Some(consumer);
        Ok(())
    }

    async fn reconsume(&mut self, wanted: u16, lane: &Lane) -> Result<(), Lost> {
        debug!(lane = lane.name, wanted, open = self.tracker.open(), "the lane's prefetch changes");
        self.cancel().await?;
        self.consume(wanted).await?;
        Ok(())
    }

    /// Ends the consumer, and keeps what it had received.
    async fn cancel(&mut self) -> Result<(), Lost> {
        let Some(mut consumer) = self.consumer.take() else { return Ok(()) };
        self.channel.basic_cancel(consumer.tag(), BasicCancelOptions::default()).await?;
        while let Some(message) = consumer.next().await {
            self.receive(message?);
        }
        Ok(())
    }

    /// Takes no more: what was not handed out goes back.
    async fn stop(&mut self, lane: &Lane) -> Result<(), Lost> {
        self.cancel().await?;
        let back: Vec<_> =
            self.waiting.drain(..).map(|message| Settled::Requeued(message.delivery_tag)).collect();
        if !back.is_empty() {
            info!(lane = lane.name, count = back.len(), "hands back jobs that it had not begun");
        }
        self.counted = None;
        self.settle(&back, lane).await
    }
}

/// The consumer's next message; never, without a consumer.
async fn next(consumer: &mut Option<lapin::Consumer>) -> Option<lapin::Result<message::Delivery>> {
    match consumer {
        Some(consumer) => consumer.next().await,
        None => std::future::pending().await,
    }
}

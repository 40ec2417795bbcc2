//! The publisher's work over one connection: a window of unconfirmed messages, their confirms and returns.

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use futures::{FutureExt, Stream};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation, Event};
use std::collections::{HashMap, HashSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use thiserror::Error;
use tokio::sync::oneshot;
use tracing::{info, warn};
use uuid::Uuid;

use super::Status;
use super::connection::Link;
use super::hint::Hint;
use super::publisher::{Actor, Outgoing};
use super::topology::{REPLIES, Undeclared};

mod send;
mod settle;

/// A message for the dead queue, and whom to tell when it is there.
#[derive(Debug)]
pub(super) struct Burial {
    pub(super) body: Vec<u8>,
    pub(super) properties: BasicProperties,
    pub(super) done: oneshot::Sender<()>,
}

/// Why a session ended.
#[derive(Debug, Error)]
pub(super) enum Ended {
    #[error(transparent)]
    Broker(#[from] lapin::Error),
    #[error("the topology is not as it should be: {0}")]
    Undeclared(#[from] Undeclared),
    #[error("{0}")]
    Gone(&'static str),
    #[error("a message was not confirmed within {} s", Session::PATIENCE.as_secs())]
    Unconfirmed,
}

/// A message whose confirm is awaited.
struct Pending {
    sent_at: Instant,
    what: What,
}

enum What {
    Row(Outgoing),
    Burial(oneshot::Sender<()>),
}

/// A message's number, and what the broker says of it.
type Done = (u64, lapin::Result<Confirmation>);

/// One connection's lifetime.
pub(super) struct Session {
    link: Link,
    /// Jobs and burials, confirmed.
    jobs: Arc<Channel>,
    /// Hints, unconfirmed.
    hints: Arc<Channel>,
    events: Pin<Box<dyn Stream<Item = Event> + Send>>,
    blocked: bool,
    app: ShortString,
    work: ShortString,
    dead: ShortString,
    replies: ShortString,
    events_exchange: ShortString,
    confirms: FuturesUnordered<BoxFuture<'static, Done>>,
    pending: HashMap<u64, Pending>,
    hints_under_way: FuturesUnordered<BoxFuture<'static, ()>>,
    next: u64,
    /// The lanes whose queues are known to be there.
    declared: HashSet<String>,
    /// The lanes whose queues are not declared before that moment.
    held: HashMap<String, Instant>,
    /// The rows whose messages came back, until their confirms come too.
    returned: HashSet<Uuid>,
}

impl Session {
    const WINDOW: usize = 1000;
    const HINTS: usize = 64;
    /// How long a hint waits for company that tells neither of an end nor of a stop: only who watches each step waits for
    /// it.
    const LINGER: Duration = Duration::from_millis(20);
    /// A connection on which a confirm takes longer is dropped, frames and all, before the row is sent again.
    const PATIENCE: Duration = Duration::from_secs(5);
    /// How long a lane that lost its queue is left alone before the queue is made anew.
    const CALM: Duration = Duration::from_secs(1);

    /// Connects, declares the exchanges, and waits until the broker takes messages.
    pub(super) async fn open(actor: &mut Actor) -> Result<Self, Ended> {
        let link = Link::open(&actor.config, Actor::ROLE).await?;
        let events = link.events();
        actor.topology.declare(&link, &[]).await?;
        let channels = async {
            let (jobs, hints) = (link.channel().await?, link.channel().await?);
            jobs.confirm_select(ConfirmSelectOptions::default()).await?;
            Ok::<_, lapin::Error>((Arc::new(jobs), Arc::new(hints)))
        };
        let (jobs, hints) = tokio::time::timeout(Self::PATIENCE, channels)
            .await
            .map_err(|_| Undeclared::Silent)??;
        let mut session = Self {
            jobs,
            hints,
            link,
            events,
            blocked: false,
            app: actor.config.name.as_str().into(),
            work: actor.topology.work_exchange().into(),
            dead: actor.topology.dead().into(),
            replies: actor.topology.lane_queue(REPLIES).into(),
            events_exchange: actor.topology.events_exchange().into(),
            confirms: FuturesUnordered::new(),
            pending: HashMap::new(),
            hints_under_way: FuturesUnordered::new(),
            next: 0,
            declared: HashSet::new(),
            held: HashMap::new(),
            returned: HashSet::new(),
        };
        session.try_out(actor).await?;
        Ok(session)
    }

    /// A broker under an alarm says so only once something was published, and what was written by then goes out when
    /// the alarm is over, however late that is. So the first message is one that nobody gets.
    async fn try_out(&mut self, actor: &Actor) -> Result<(), Ended> {
        let (jobs, exchange) = (self.jobs.clone(), self.events_exchange.clone());
        let attempt = async move {
            let (options, properties) =
                (BasicPublishOptions::default(), BasicProperties::default());
            jobs.basic_publish(exchange, "ping".into(), options, b"", properties).await?.await
        };
        tokio::pin!(attempt);
        let mut tick = tokio::time::interval(Duration::from_millis(500));
        let started = Instant::now();
        loop {
            tokio::select! {
                biased;
                Some(event) = self.events.next() => self.notice(event, actor)?,
                outcome = &mut attempt => {
                    outcome?;
                    actor.report(self.status());
                    return Ok(());
                }
                _ = tick.tick() => {
                    self.check()?;
                    if !self.blocked && started.elapsed() > Self::PATIENCE {
                        return Err(Ended::Unconfirmed);
                    }
                }
            }
        }
    }

    /// Publishes until the connection is gone (the error says why), or the process stops.
    pub(super) async fn serve(mut self, actor: &mut Actor) -> Result<(), Ended> {
        let served = self.turn(actor).await;
        if served.is_ok() {
            self.link.close().await;
        } else {
            self.link.cut();
        }
        // Confirms that had come in before the end still count.
        if let Some(Some(done)) = self.confirms.next().now_or_never() {
            let done = self.all_done(done);
            let _ = self.settle(done, actor);
        }
        let rest = self.pending.into_values().filter_map(|pending| match pending.what {
            What::Row(out) => Some(out),
            What::Burial(_) => None,
        });
        let (again, left): (Vec<_>, Vec<_>) = rest.partition(Outgoing::is_ours);
        leave(left.len(), actor);
        actor.inbox.again.extend(again);
        served
    }

    async fn turn(&mut self, actor: &mut Actor) -> Result<(), Ended> {
        let (mut rows, mut hints) = (std::mem::take(&mut actor.inbox.again), Vec::new());
        self.publish(&mut rows, actor).await?;
        let mut hints_due = None;
        let mut tick = tokio::time::interval(Duration::from_millis(250));
        loop {
            let room =
                if self.blocked { 0 } else { Self::WINDOW.saturating_sub(self.pending.len()) };
            tokio::select! {
                biased;
                Some(event) = self.events.next() => self.notice(event, actor)?,
                Some(done) = self.confirms.next(), if !self.confirms.is_empty() => {
                    let done = self.all_done(done);
                    self.settle(done, actor)?;
                }
                _ = tick.tick() => self.check()?,
                Some(burial) = actor.inbox.burials.recv(), if room > 0 => self.bury(burial),
                1.. = actor.inbox.rows.recv_many(&mut rows, room), if room > 0 => self.publish(&mut rows, actor).await?,
                Some(()) = self.hints_under_way.next(), if !self.hints_under_way.is_empty() => {}
                1.. = actor.inbox.hints.recv_many(&mut hints, Self::HINTS),
                    if self.hints_under_way.len() < Self::HINTS =>
                {
                    if hints.len() >= Self::HINTS || hints.iter().any(Hint::is_urgent) {
                        hints_due = None;
                        self.send_hints(&mut hints);
                    } else {
                        hints_due.get_or_insert_with(|| Instant::now() + Self::LINGER);
                    }
                }
                () = tokio::time::sleep_until(hints_due.unwrap_or_else(Instant::now).into()), if hints_due.is_some() => {
                    hints_due = None;
                    self.send_hints(&mut hints);
                }
                () = actor.shutdown.cancelled() => return self.finish(actor).await,
            }
        }
    }

    /// Publishes what was offered before the end, and waits for the confirms.
    async fn finish(&mut self, actor: &mut Actor) -> Result<(), Ended> {
        let deadline = Instant::now() + Self::PATIENCE;
        let mut rows = Vec::new();
        while let Ok(row) = actor.inbox.rows.try_recv() {
            rows.push(row);
        }
        if !self.blocked {
            self.publish(&mut rows, actor).await?;
        }
        while !self.confirms.is_empty() {
            let next = tokio::time::timeout_at(deadline.into(), self.confirms.next());
            let Ok(Some(done)) = next.await else { break };
            let done = self.all_done(done);
            self.settle(done, actor)?;
        }
        Ok(())
    }

    fn status(&self) -> Status {
        if self.blocked { Status::Blocked } else { Status::Connected }
    }

    fn notice(&mut self, event: Event, actor: &Actor) -> Result<(), Ended> {
        match event {
            Event::ConnectionBlocked(reason) => {
                warn!(reason, "the broker takes no messages: rows stay in the outbox");
                self.blocked = true;
                actor.report(self.status());
            }
            Event::ConnectionUnblocked => {
                info!("the broker takes messages again");
                self.blocked = false;
                actor.report(self.status());
            }
            // Of any channel: a refused declaration closes only its own.
            Event::Error(error) => match self.check() {
                Err(Ended::Gone(_)) => return Err(error.into()),
                whole => return whole,
            },
            _ => {}
        }
        Ok(())
    }

    fn check(&self) -> Result<(), Ended> {
        if !self.link.is_open() {
            return Err(Ended::Gone("the connection is closed"));
        }
        if !self.jobs.status().connected() || !self.hints.status().connected() {
            return Err(Ended::Gone("a channel is closed"));
        }
        match self.pending.values().map(|pending| pending.sent_at).min() {
            Some(oldest) if oldest.elapsed() > Self::PATIENCE => Err(Ended::Unconfirmed),
            _ => Ok(()),
        }
    }
}

/// These rows were not published, or not confirmed, in time.
fn leave(count: usize, actor: &mut Actor) {
    if count > 0 {
        metrics::counter!("gathering_broker_left_to_leader_total", "why" => "late")
            .increment(count as u64);
        if actor.seldom.due("late", Instant::now()).is_some() {
            info!(count, "messages could not be sent in time: their rows are the leader's");
        }
    }
}

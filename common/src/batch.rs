//! Gather while busy: while one commit is under way, what arrives meanwhile goes into the next.
//!
//! An idle system commits at once; a busy one commits hundreds of items at a time. Nothing waits for company.

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

use crate::retry::Reconnect;
use crate::store;

/// What a batcher does with what it gathered.
pub trait Work: Send + 'static {
    /// What is submitted.
    type Item: Send + Sync + 'static;
    /// What the submitter gets back.
    type Answer: Send + 'static;
    /// Whether a batch that met an outage is tried again until the database is back; else its items fail.
    const RETRY_OUTAGES: bool;

    /// About how many bytes of a statement the item takes; what is small anyway needs not say.
    fn weight(_item: &Self::Item) -> usize {
        0
    }

    /// Commits all items, or none, and answers each in its place.
    fn commit(
        &mut self,
        items: &[Self::Item],
    ) -> impl Future<Output = Result<Vec<Self::Answer>, sqlx::Error>> + Send;
}

/// The bytes that go into one commit, unless one item alone has more: Postgres takes 1 GB in a message.
const HEAVY: usize = 64 * 1024 * 1024;

/// How many of the first items go into one commit.
fn light<W: Work>(gathered: &[(W::Item, Reply<W::Answer>)]) -> usize {
    let mut sum = 0usize;
    let fits = |(item, _): &&(W::Item, Reply<W::Answer>)| {
        sum = sum.saturating_add(W::weight(item));
        sum <= HEAVY
    };
    gathered.iter().take_while(fits).count().max(1)
}

type Reply<A> = oneshot::Sender<Result<A, Arc<sqlx::Error>>>;

/// A handle to one task that commits batches.
#[derive(Debug)]
pub struct Batcher<T, A> {
    queue: mpsc::Sender<(T, Reply<A>)>,
    _task: Arc<AbortOnDropHandle<()>>,
}

impl<T, A> Clone for Batcher<T, A> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), _task: self._task.clone() }
    }
}

impl<T: Send + Sync + 'static, A: Send + 'static> Batcher<T, A> {
    /// Starts the task; `max` items go into one commit at the most. It ends with the last handle.
    pub fn start(name: &'static str, max: usize, work: impl Work<Item = T, Answer = A>) -> Self {
        let (queue, arrivals) = mpsc::channel::<(T, Reply<A>)>(max.max(1) * 4);
        let task = tokio::spawn(run(name, max, work, arrivals));
        Self { queue, _task: Arc::new(AbortOnDropHandle::new(task)) }
    }

    /// Hands `item` over, and waits for the commit that it is part of.
    pub async fn submit(&self, item: T) -> Result<A, Arc<sqlx::Error>> {
        let (reply, answer) = oneshot::channel();
        let closed = || Arc::new(sqlx::Error::PoolClosed);
        self.queue.send((item, reply)).await.map_err(|_| closed())?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }
}

/// Commits one batch after the other, until nobody is left to submit.
async fn run<W: Work>(
    name: &'static str,
    max: usize,
    mut work: W,
    mut arrivals: mpsc::Receiver<(W::Item, Reply<W::Answer>)>,
) {
    let items_of = metrics::histogram!("gathering_batch_items", "batch" => name);
    let seconds_of = metrics::histogram!("gathering_batch_seconds", "batch" => name);
    let mut gathered = Vec::with_capacity(max);
    while !gathered.is_empty() || arrivals.recv_many(&mut gathered, max).await > 0 {
        let count = light::<W>(&gathered);
        let (items, replies): (Vec<W::Item>, Vec<_>) = gathered.drain(..count).unzip();
        items_of.record(items.len() as f64);
        let begun = Instant::now();
        settle(name, &mut work, items, replies).await;
        seconds_of.record(begun.elapsed().as_secs_f64());
    }
}

/// Commits together; what fails together, for another reason than an outage, is tried again alone and fails alone.
async fn settle<W: Work>(
    name: &'static str,
    work: &mut W,
    items: Vec<W::Item>,
    replies: Vec<Reply<W::Answer>>,
) {
    match persist(name, work, &items).await {
        Ok(answers) => {
            for (reply, answer) in replies.into_iter().zip(answers) {
                let _ = reply.send(Ok(answer));
            }
        }
        Err(error) if items.len() == 1 || store::is_outage(&error) => {
            let error = Arc::new(error);
            for reply in replies {
                let _ = reply.send(Err(error.clone()));
            }
        }
        Err(error) => {
            tracing::debug!(batch = name, %error, "a batch failed; its items are tried one by one");
            for (item, reply) in items.into_iter().zip(replies) {
                let answer = persist(name, work, std::slice::from_ref(&item)).await;
                let answer = answer.and_then(|mut one| one.pop().ok_or(sqlx::Error::RowNotFound));
                let _ = reply.send(answer.map_err(Arc::new));
            }
        }
    }
}

/// One commit; through outages as often as it takes, where the work wants that.
async fn persist<W: Work>(
    name: &'static str,
    work: &mut W,
    items: &[W::Item],
) -> Result<Vec<W::Answer>, sqlx::Error> {
    let mut conflicts = 0;
    let mut reconnect: Option<Reconnect> = None;
    loop {
        match work.commit(items).await {
            Err(error) if store::is_conflict(&error) && conflicts < 5 => conflicts += 1,
            Err(error) if W::RETRY_OUTAGES && store::is_outage(&error) => {
                if reconnect.is_none() {
                    tracing::warn!(batch = name, %error, "waiting for the database");
                }
                tokio::time::sleep(reconnect.get_or_insert_default().wait()).await;
            }
            settled => return settled,
        }
    }
}

//! What remote tools answer: it ends the call that waits for it, if one still does, and is acked after the commit.

use std::sync::Arc;

use common::batch::Work;
use common::broker::{Delivery, Hint, HintKind};
use common::outbox::Outbox;
use common::remote::Reply;
use common::store::{self, Pool, remote};

use crate::core::Worker;
use crate::intake::bury;

/// How many replies may be under way at a time.
pub(crate) const PREFETCH: u16 = 64;

/// Records replies.
pub(crate) struct Replies {
    pool: Pool,
    outbox: Outbox,
}

impl Replies {
    pub(crate) fn new(pool: Pool, outbox: Outbox) -> Self {
        Self { pool, outbox }
    }
}

impl Work for Replies {
    type Item = Reply;
    /// Whether it counts.
    type Answer = bool;
    const RETRY_OUTAGES: bool = true;

    fn weight(reply: &Reply) -> usize {
        reply.weight
    }

    async fn commit(&mut self, replies: &[Reply]) -> Result<Vec<bool>, store::Error> {
        let mut tx = self.pool.begin().await?;
        let answered = remote::answer(&mut tx, replies).await?;
        tx.commit().await?;
        self.outbox.publish(answered.rows);
        let counted = replies.iter().zip(&answered.counts).filter(|(_, counts)| **counts);
        let runs = counted.map(|(reply, _)| (reply.call.run, HintKind::Changed)).collect();
        self.outbox.hint(Hint { runs });
        Ok(answered.counts)
    }
}

/// Takes one reply.
pub(crate) async fn take(worker: &Arc<Worker>, delivery: Delivery) {
    let reply = match delivery.reply() {
        Ok(reply) => reply,
        Err(garbage) => return bury(worker, delivery, &garbage.to_string()).await,
    };
    let call = reply.call.clone();
    match worker.replies.submit(reply).await {
        Ok(counts) => {
            let outcome = if counts { "counted" } else { "stale" };
            metrics::counter!("gathering_tool_replies_total", "outcome" => outcome).increment(1);
            tracing::debug!(run = %call.run, node = call.node, attempt = call.attempt, outcome, "a remote tool replied");
            delivery.ack();
        }
        Err(error) => {
            tracing::error!(%error, run = %call.run, node = call.node, "a reply cannot be recorded");
            bury(worker, delivery, "the reply cannot be recorded").await;
        }
    }
}

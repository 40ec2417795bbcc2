//! What the broker says of the messages: taken, come back, refused.

use futures::{FutureExt, StreamExt};
use std::time::Instant;
use tracing::warn;

use super::{Actor, Done, Ended, Outgoing, Session, What};
use crate::broker::message;

impl Session {
    /// All that is done by now. A return comes with the first confirm after it, which is its own or an earlier one; taking
    /// all together, the return is seen no later than the confirm of the message that it is about.
    pub(super) fn all_done(&mut self, first: Done) -> Vec<Done> {
        let mut done = vec![first];
        while let Some(Some(next)) = self.confirms.next().now_or_never() {
            done.push(next);
        }
        done
    }

    pub(super) fn settle(&mut self, done: Vec<Done>, actor: &mut Actor) -> Result<(), Ended> {
        let mut outcomes = Vec::with_capacity(done.len());
        let mut failed = None;
        for (number, outcome) in done {
            match outcome {
                Ok(confirmation) => {
                    let acked = confirmation.is_ack();
                    if let Some(back) = confirmation.take_message() {
                        self.take_back(&back);
                    }
                    outcomes.push((number, acked));
                }
                Err(error) => failed = Some(error),
            }
        }
        let mut confirmed = Vec::with_capacity(outcomes.len());
        for (number, acked) in outcomes {
            match self.pending.remove(&number).map(|pending| pending.what) {
                Some(What::Row(row)) if self.returned.remove(&row.job.id) => {
                    self.returned(&row, actor)
                }
                Some(What::Row(row)) if acked => confirmed.push(row.job.id),
                Some(What::Row(row)) => nacked(&row, actor),
                Some(What::Burial(done)) if acked => _ = done.send(()),
                Some(What::Burial(_)) | None => {}
            }
        }
        if self.pending.is_empty() {
            self.returned.clear();
        }
        if !confirmed.is_empty() {
            metrics::counter!("gathering_broker_confirmed_total").increment(confirmed.len() as u64);
            let _ = actor.confirmed.send(confirmed);
        }
        failed.map_or(Ok(()), |error| Err(error.into()))
    }

    /// A message came back, with its own confirm or an earlier one.
    fn take_back(&mut self, back: &lapin::message::BasicReturnMessage) {
        if back.exchange == self.dead {
            // There is no telling which of the burials it was: their callers try again.
            self.pending.retain(|_, pending| matches!(pending.what, What::Row(_)));
        } else if let Some(id) = message::job_id(&back.data) {
            self.returned.insert(id);
        }
    }

    fn returned(&mut self, row: &Outgoing, actor: &mut Actor) {
        if self.declared.remove(&row.lane) {
            // Not at once: see `Lane`. Meanwhile the lane's rows are the leader's.
            self.held.insert(row.lane.clone(), Instant::now() + Self::CALM);
        }
        metrics::counter!("gathering_broker_returned_total", "lane" => row.lane.clone())
            .increment(1);
        if let Some(times) = actor.seldom.due(&format!("returned {}", row.lane), Instant::now()) {
            warn!(
                lane = row.lane,
                times, "messages came back: the lane has no queue bound to it. Their rows are kept"
            );
        }
    }
}

fn nacked(row: &Outgoing, actor: &mut Actor) {
    metrics::counter!("gathering_broker_nacked_total", "lane" => row.lane.clone()).increment(1);
    if let Some(times) = actor.seldom.due(&format!("nacked {}", row.lane), Instant::now()) {
        warn!(lane = row.lane, times, "the broker refused messages. Their rows are kept");
    }
}

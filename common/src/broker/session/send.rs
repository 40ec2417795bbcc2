//! Puts messages on the wire, each lane's queue declared before.

use lapin::BasicProperties;
use lapin::options::BasicPublishOptions;
use lapin::types::ShortString;
use std::time::Instant;
use tracing::error;

use super::{Actor, Burial, Ended, Outgoing, Pending, Session, What, leave};
use crate::broker::hint::Hint;
use crate::broker::topology::Undeclared;
use crate::broker::{call, message};

impl Session {
    pub(super) async fn publish(
        &mut self,
        rows: &mut Vec<Outgoing>,
        actor: &mut Actor,
    ) -> Result<(), Ended> {
        let (mut left, mut sent) = (0, 0);
        for row in rows.drain(..) {
            if !row.is_ours() || !self.lane_is_there(&row.lane, actor).await? {
                left += 1;
                continue;
            }
            let call = call::encode(&row.job, &self.app, &self.replies);
            let (body, properties) = call.unwrap_or_else(|| message::encode(&row.job, &self.app));
            let (exchange, key) = (self.work.clone(), row.lane.as_str().into());
            self.send(exchange, key, body, properties, What::Row(row));
            sent += 1;
        }
        leave(left, actor);
        metrics::counter!("gathering_broker_published_total").increment(sent);
        Ok(())
    }

    pub(super) fn bury(&mut self, burial: Burial) {
        let Burial { body, properties, done } = burial;
        self.send(self.dead.clone(), "".into(), body, properties, What::Burial(done));
    }

    fn send(
        &mut self,
        exchange: ShortString,
        key: ShortString,
        body: Vec<u8>,
        properties: BasicProperties,
        what: What,
    ) {
        let (number, jobs) = (self.next, self.jobs.clone());
        self.next += 1;
        self.pending.insert(number, Pending { sent_at: Instant::now(), what });
        // Only this task polls them, so a tag and its frames are queued together.
        self.confirms.push(Box::pin(async move {
            let options = BasicPublishOptions { mandatory: true, ..Default::default() };
            let confirm = async {
                jobs.basic_publish(exchange, key, options, &body, properties).await?.await
            };
            (number, confirm.await)
        }));
    }

    /// Declares a lane's queue before the first message to it, and after one came back.
    async fn lane_is_there(&mut self, lane: &str, actor: &mut Actor) -> Result<bool, Ended> {
        if self.declared.contains(lane) {
            return Ok(true);
        }
        if self.held.get(lane).is_some_and(|until| Instant::now() < *until) {
            return Ok(false);
        }
        match actor.topology.declare_lane(&self.link, lane).await {
            Ok(()) => {
                self.declared.insert(lane.to_owned());
                Ok(true)
            }
            Err(refusal @ (Undeclared::Mismatch { .. } | Undeclared::Missing { .. })) => {
                self.held.insert(lane.to_owned(), Instant::now() + Self::PATIENCE);
                if let Some(times) = actor.seldom.due(&refusal.to_string(), Instant::now()) {
                    error!(lane, times, "cannot send jobs: {refusal}. Their rows are kept");
                }
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// One message for all hints that wait.
    pub(super) fn send_hints(&mut self, hints: &mut Vec<Hint>) {
        if self.blocked {
            metrics::counter!("gathering_broker_hints_dropped_total").increment(hints.len() as u64);
            return hints.clear();
        }
        let hint = Hint::of(std::mem::take(hints));
        let (channel, exchange) = (self.hints.clone(), self.events_exchange.clone());
        self.hints_under_way.push(Box::pin(async move {
            let properties = BasicProperties::default()
                .with_content_type("application/json".into())
                .with_content_encoding("utf-8".into())
                .with_type("hint".into());
            let body = serde_json::to_vec(&hint).expect("ids and words always serialize");
            let options = BasicPublishOptions::default();
            // Lost without harm; a broken connection is noticed elsewhere.
            let _ = channel
                .basic_publish(exchange, hint.key().into(), options, &body, properties)
                .await;
        }));
    }
}

//! Which exchanges and queues there are. They are a user interface: people look at them in the console.

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, ExchangeKind};
use std::time::Duration;
use thiserror::Error;
use tracing::warn;

use super::connection::Link;

/// The lane, so to speak, of what remote tools answer. No lane can have this name.
pub const REPLIES: &str = ":replies";

/// The lane, so to speak, of what a remote tool is asked. No lane can have this name.
pub fn tool_lane(tool: &str) -> String {
    format!("tool:{tool}")
}

/// The names under a prefix.
#[derive(Debug, Clone)]
pub struct Topology {
    prefix: String,
}

/// Why a declaration failed.
#[derive(Debug, Error)]
pub(super) enum Undeclared {
    /// It exists, but made otherwise. The broker's text names it and what differs.
    #[error(
        "{text}. It was made with other arguments than GatheRing's; delete it (it must be empty), and it is made anew"
    )]
    Mismatch { text: String },
    /// It is missing, and this user may not make it.
    #[error(
        "{what} is missing, and this user may not make it; declare it with a user that may `configure` it"
    )]
    Missing { what: String },
    /// Anything else.
    #[error(transparent)]
    Broker(#[from] lapin::Error),
    /// The broker does not answer.
    #[error("the broker did not answer within {} s", Topology::PATIENCE.as_secs())]
    Silent,
}

/// One thing to declare.
enum Part {
    Exchange { name: String, kind: ExchangeKind },
    Queue { name: String, arguments: FieldTable, binding: (String, String) },
}

impl Topology {
    /// A requeue, or a look in the console, counts as a delivery; the default limit of 20 would dead-letter good work.
    const DELIVERY_LIMIT: i64 = 1_000_000;
    const PATIENCE: Duration = Duration::from_secs(5);

    /// The names under `prefix`.
    pub fn new(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into() }
    }

    /// The direct exchange to which jobs are published, with the lane as routing key.
    pub fn work_exchange(&self) -> String {
        format!("{}.work", self.prefix)
    }

    /// A lane's quorum queue.
    pub fn lane_queue(&self, lane: &str) -> String {
        match lane.split_once(':') {
            Some(("tool", tool)) => format!("{}.tool.{tool}", self.prefix),
            Some(_) => format!("{}.replies", self.prefix),
            None => format!("{}.work.{lane}", self.prefix),
        }
    }

    /// The fanout exchange, and the quorum queue bound to it, of messages that are no jobs.
    pub fn dead(&self) -> String {
        format!("{}.dead", self.prefix)
    }

    /// The topic exchange of hints.
    pub fn events_exchange(&self) -> String {
        format!("{}.events", self.prefix)
    }

    /// The name of one listener's own queue of hints.
    pub(super) fn hint_queue(&self, id: uuid::Uuid) -> String {
        format!("{}.hints.{id}", self.prefix)
    }

    /// Declares the exchanges, the dead queue and the lanes' queues. What exists equally stays as it is; for a user
    /// without the right to declare, it is enough that all is there.
    pub(super) async fn declare(&self, link: &Link, lanes: &[&str]) -> Result<(), Undeclared> {
        for part in self.parts(lanes) {
            part.declare(link).await?;
        }
        Ok(())
    }

    /// Declares one lane's queue; the exchanges are there.
    pub(super) async fn declare_lane(&self, link: &Link, lane: &str) -> Result<(), Undeclared> {
        self.lane(lane).declare(link).await
    }

    fn parts(&self, lanes: &[&str]) -> Vec<Part> {
        let mut parts = vec![
            Part::Exchange { name: self.work_exchange(), kind: ExchangeKind::Direct },
            Part::Exchange { name: self.dead(), kind: ExchangeKind::Fanout },
            Part::Exchange { name: self.events_exchange(), kind: ExchangeKind::Topic },
            Part::Queue {
                name: self.dead(),
                arguments: quorum(),
                binding: (self.dead(), String::new()),
            },
        ];
        parts.extend(lanes.iter().map(|lane| self.lane(lane)));
        parts
    }

    fn lane(&self, lane: &str) -> Part {
        let mut arguments = quorum();
        // Calls expire when nobody waits for them any more: these are no garbage.
        if !lane.starts_with("tool:") {
            arguments
                .insert("x-dead-letter-exchange".into(), AMQPValue::LongString(self.dead().into()));
        }
        Part::Queue {
            name: self.lane_queue(lane),
            arguments,
            binding: (self.work_exchange(), lane.to_owned()),
        }
    }
}

fn quorum() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(Topology::DELIVERY_LIMIT));
    arguments
}

impl Part {
    /// On a channel of its own each time, because a refusal closes the channel.
    async fn declare(&self, link: &Link) -> Result<(), Undeclared> {
        let refused = match self.attempt(link, false).await {
            Err(Undeclared::Broker(error)) if code(&error) == Some(403) => error,
            Err(Undeclared::Broker(error)) if code(&error) == Some(406) => {
                return Err(Undeclared::Mismatch { text: text(&error) });
            }
            outcome => return outcome,
        };
        match self.attempt(link, true).await {
            Ok(()) => {
                link.say_once(|| {
                    warn!(
                        reason = text(&refused),
                        "may not declare the topology; using what is there"
                    )
                });
                Ok(())
            }
            Err(Undeclared::Broker(error)) if code(&error) == Some(404) => {
                Err(Undeclared::Missing { what: self.name().to_owned() })
            }
            outcome => outcome,
        }
    }

    async fn attempt(&self, link: &Link, passive: bool) -> Result<(), Undeclared> {
        let attempt = async {
            let channel = link.channel().await?;
            self.declare_on(&channel, passive).await?;
            channel.close(200, "OK".into()).await
        };
        tokio::time::timeout(Topology::PATIENCE, attempt)
            .await
            .map_err(|_| Undeclared::Silent)?
            .map_err(Undeclared::Broker)
    }

    async fn declare_on(&self, channel: &Channel, passive: bool) -> lapin::Result<()> {
        match self {
            Self::Exchange { name, kind } => {
                let options =
                    ExchangeDeclareOptions { passive, durable: true, ..Default::default() };
                channel
                    .exchange_declare(
                        name.as_str().into(),
                        kind.clone(),
                        options,
                        FieldTable::default(),
                    )
                    .await
            }
            Self::Queue { name, arguments, binding: (exchange, key) } => {
                let queue = || ShortString::from(name.as_str());
                let options = QueueDeclareOptions { passive, durable: true, ..Default::default() };
                channel.queue_declare(queue(), options, arguments.clone()).await?;
                if passive {
                    return Ok(());
                }
                let (exchange, key) = (exchange.as_str().into(), key.as_str().into());
                channel
                    .queue_bind(
                        queue(),
                        exchange,
                        key,
                        QueueBindOptions::default(),
                        FieldTable::default(),
                    )
                    .await
            }
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Exchange { name, .. } | Self::Queue { name, .. } => name,
        }
    }
}

/// The reply code of an error that the broker sent.
fn code(error: &lapin::Error) -> Option<u16> {
    match error.kind() {
        lapin::ErrorKind::ProtocolError(error) => Some(error.get_id()),
        _ => None,
    }
}

fn text(error: &lapin::Error) -> String {
    match error.kind() {
        lapin::ErrorKind::ProtocolError(error) => error.get_message().to_string(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_under_the_prefix() {
        let topology = Topology::new("gathering");
        assert_eq!(topology.work_exchange(), "gathering.work");
        assert_eq!(topology.lane_queue("gpu"), "gathering.work.gpu");
        assert_eq!(topology.lane_queue(&tool_lane("ocr")), "gathering.tool.ocr");
        assert_eq!(topology.lane_queue(REPLIES), "gathering.replies");
        assert_eq!(topology.dead(), "gathering.dead");
        assert_eq!(topology.events_exchange(), "gathering.events");
    }
}

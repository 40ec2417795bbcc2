//! How much lies in queues, as the broker tells it to anybody who may look at them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use tokio::sync::Mutex;
use tracing::{debug, info};

use super::BrokerConfig;
use super::connection::Link;
use super::topology::{Topology, Undeclared};

/// A queue at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    /// Messages that are ready to be delivered; those that lie at a consumer are not counted.
    pub messages: u32,
    /// Who takes from it.
    pub consumers: u32,
}

/// What was seen: queues by name. One that is missing does not exist, or may not be looked at.
pub type Depths = HashMap<String, Depth>;

/// Looks at queues over a connection that lasts as long as the look. Looks within a second share one.
pub struct Look {
    config: BrokerConfig,
    last: Mutex<Option<(Instant, Vec<String>, Option<Depths>)>>,
}

impl Look {
    const FRESH: Duration = Duration::from_secs(1);
    const PATIENCE: Duration = Duration::from_secs(3);
    const ROLE: &'static str = "look";

    /// Looks at the broker of `config`.
    pub fn new(config: BrokerConfig) -> Self {
        Self { config, last: Mutex::default() }
    }

    /// Declares a lane's queue, as far as that can be done within 3 s: else it is made before its first message.
    pub async fn declare(&self, lane: &str) {
        let declare = async {
            let link = Link::open(&self.config, Self::ROLE).await?;
            let topology = self.topology();
            topology.declare(&link, &[lane]).await?;
            link.close().await;
            Ok::<_, Undeclared>(())
        };
        match tokio::time::timeout(Self::PATIENCE, declare).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => info!(%error, lane, "the queue is not declared yet"),
            Err(_) => info!(lane, "the queue is not declared yet: the broker does not answer"),
        }
    }

    /// The names of what it looks at.
    pub fn topology(&self) -> Topology {
        Topology::new(self.config.prefix.as_str())
    }

    /// The depths of these queues; none when the broker does not answer within 3 s.
    pub async fn at(&self, queues: &[String]) -> Option<Depths> {
        let mut last = self.last.lock().await;
        if let Some((at, seen, depths)) = last.as_ref()
            && at.elapsed() < Self::FRESH
            && queues.iter().all(|queue| seen.contains(queue))
        {
            return depths.clone();
        }
        let looking = tokio::time::timeout(Self::PATIENCE, look(&self.config, queues)).await;
        let depths = match looking {
            Ok(Ok(depths)) => Some(depths),
            Ok(Err(error)) => {
                debug!(%error, "queues cannot be looked at");
                None
            }
            Err(_) => None,
        };
        *last = Some((Instant::now(), queues.to_vec(), depths.clone()));
        depths
    }
}

async fn look(config: &BrokerConfig, queues: &[String]) -> lapin::Result<Depths> {
    let link = Link::open(config, Look::ROLE).await?;
    let mut depths = Depths::new();
    let mut channel = link.channel().await?;
    for queue in queues {
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        match channel.queue_declare(queue.as_str().into(), options, FieldTable::default()).await {
            Ok(found) => {
                let (messages, consumers) = (found.message_count(), found.consumer_count());
                depths.insert(queue.clone(), Depth { messages, consumers });
            }
            // A refusal closes the channel, and only that.
            Err(error) if link.is_open() => {
                debug!(%error, queue, "the queue cannot be looked at");
                channel = link.channel().await?;
            }
            Err(error) => return Err(error),
        }
    }
    link.close().await;
    Ok(depths)
}

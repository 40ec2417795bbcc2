//! All that speaks AMQP: what messages look like, where they go, and who carries them.
//!
//! Each process has one connection to publish ([`Publisher`]) and one to consume ([`Consumer`]), because a broker under
//! an alarm stops reading from a connection that has published, acks included. Neither recovers by itself: its
//! supervisor drops everything and rebuilds connection, channels and consumers, with a full-jitter back-off from 0.2 to
//! 5 s, without end.

mod call;
mod connection;
mod consumer;
mod delivery;
mod depths;
mod hint;
mod intake;
mod lane;
mod message;
mod publisher;
mod seldom;
mod session;
mod topology;
mod tracker;

use tokio::sync::watch;

pub use consumer::{Consumer, ConsumerHandle};
pub use delivery::Delivery;
pub use depths::{Depth, Depths, Look};
pub use hint::{Hint, HintKind, HintListener};
pub use message::Garbage;
pub use publisher::{NotBuried, Outgoing, Publisher};
pub use topology::{REPLIES, Topology, tool_lane};

/// How to reach the broker, and under which name.
#[derive(Clone)]
pub struct BrokerConfig {
    /// `amqp://user:password@host:port/vhost`, or `amqps://…`. Holds a secret.
    pub url: String,
    /// The prefix of all exchanges and queues; several fleets can share a broker under different ones.
    pub prefix: String,
    /// The process's name, shown in the console as the connection's name and as `app_id` of each message.
    pub name: String,
}

impl std::fmt::Debug for BrokerConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BrokerConfig")
            .field("prefix", &self.prefix)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// What a connection is worth at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// There is none; its supervisor keeps trying.
    Disconnected,
    /// It works.
    Connected,
    /// The broker is under a memory or disk alarm, and takes no messages.
    Blocked,
}

impl Status {
    /// The word for health checks and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Disconnected => "disconnected",
            Self::Connected => "connected",
            Self::Blocked => "blocked",
        }
    }
}

/// Sets the status where those who watch see it, and the gauge that shows it (0 gone, 1 connected, 2 blocked).
fn report(role: &'static str, sender: &watch::Sender<Status>, status: Status) {
    sender.send_if_modified(|old| std::mem::replace(old, status) != status);
    let value = match status {
        Status::Disconnected => 0.0,
        Status::Connected => 1.0,
        Status::Blocked => 2.0,
    };
    metrics::gauge!("gathering_broker_connection_state", "role" => role).set(value);
}

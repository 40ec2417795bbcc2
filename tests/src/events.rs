//! Server-Sent Events.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use serde_json::Value;

/// One event of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The run's sequence number.
    pub id: String,
    /// `run.<state>` or `node.<state>`.
    pub name: String,
    /// What the event says.
    pub data: Value,
}

/// The events of one answer, as they come.
pub struct Events {
    bytes: BoxStream<'static, reqwest::Result<axum::body::Bytes>>,
    buffer: String,
}

impl Events {
    pub(crate) fn new(response: reqwest::Response) -> Self {
        Self { bytes: response.bytes_stream().boxed(), buffer: String::new() }
    }

    /// The next event; none when the stream has ended.
    ///
    /// # Panics
    /// When nothing comes for half a minute.
    pub async fn next(&mut self) -> Option<Event> {
        let next = tokio::time::timeout(Duration::from_secs(30), self.read());
        next.await.unwrap_or_else(|_| panic!("no event for 30 s; unread: {:?}", self.buffer))
    }

    /// All events to the end of the stream.
    pub async fn rest(mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }

    async fn read(&mut self) -> Option<Event> {
        loop {
            while let Some((block, rest)) = self.buffer.split_once("\n\n") {
                let event = parse(block);
                self.buffer = rest.to_owned();
                if event.is_some() {
                    return event;
                }
            }
            let chunk = self.bytes.next().await?.ok()?;
            self.buffer.push_str(&String::from_utf8_lossy(&chunk).replace('\r', ""));
        }
    }
}

/// An event, or none for a comment that keeps the connection alive.
fn parse(block: &str) -> Option<Event> {
    let field = |name: &str| {
        let lines = block.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let values: Vec<_> = lines.map(|value| value.strip_prefix(' ').unwrap_or(value)).collect();
        (!values.is_empty()).then(|| values.join("\n"))
    };
    let data = field("data")?;
    let data =
        serde_json::from_str(&data).unwrap_or_else(|error| panic!("not JSON ({error}): {data}"));
    Some(Event {
        id: field("id").unwrap_or_default(),
        name: field("event").unwrap_or_default(),
        data,
    })
}

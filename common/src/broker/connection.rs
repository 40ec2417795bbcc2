//! One connection to the broker, its socket within reach.

use futures::{Stream, StreamExt};
use lapin::tcp::{AsyncTcpStream, OwnedTLSConfig};
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Channel, Connection, ConnectionProperties, Event};
use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tracing::debug;

use super::BrokerConfig;

/// An open connection. Dropped without [`Link::close`], its socket is cut.
pub(super) struct Link {
    connection: Connection,
    socket: Arc<Socket>,
    said: AtomicBool,
}

impl Link {
    const PATIENCE: Duration = Duration::from_secs(10);

    /// Connects under the name `<process> <role>`, for what we send ourselves.
    pub(super) async fn open(config: &BrokerConfig, role: &str) -> lapin::Result<Self> {
        Self::open_with(config, role, OURS).await
    }

    /// As [`Link::open`], for messages that others may have sent, too.
    pub(super) async fn open_for_all(config: &BrokerConfig, role: &str) -> lapin::Result<Self> {
        Self::open_with(config, role, ANYBODYS).await
    }

    async fn open_with(config: &BrokerConfig, role: &str, frame: u32) -> lapin::Result<Self> {
        let uri: AMQPUri = with_usual(&config.url, frame).parse().map_err(io::Error::other)?;
        let name = format!("{} {role}", config.name);
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let socket = Arc::new(Socket::default());
        let kept = socket.clone();
        let connect = Connection::connector(
            uri,
            lapin::runtime::default_runtime()?,
            async move |uri: AMQPUri, runtime| {
                let mut stream =
                    Err(io::Error::new(io::ErrorKind::NotFound, "the host has no address"));
                for address in
                    tokio::net::lookup_host((uri.authority.host.as_str(), uri.authority.port))
                        .await?
                {
                    stream = AsyncTcpStream::connect(&runtime, address).await;
                    if stream.is_ok() {
                        break;
                    }
                }
                let stream = stream?;
                if let AsyncTcpStream::Plain(plain) = &stream {
                    kept.keep(plain.get_ref().as_fd().try_clone_to_owned()?.into());
                }
                Ok(match uri.scheme {
                    AMQPScheme::AMQP => stream,
                    AMQPScheme::AMQPS => {
                        stream
                            .into_tls(&uri.authority.host, OwnedTLSConfig::default().as_ref())
                            .await?
                    }
                })
            },
            properties,
        );
        match tokio::time::timeout(Self::PATIENCE, connect).await {
            Ok(connection) => {
                Ok(Self { connection: connection?, socket, said: AtomicBool::new(false) })
            }
            Err(_) => {
                // Its thread would wait for a frozen broker for ever.
                socket.cut();
                Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the broker took the connection, but does not answer",
                )
                .into())
            }
        }
    }

    pub(super) async fn channel(&self) -> lapin::Result<Channel> {
        self.connection.create_channel().await
    }

    pub(super) fn is_open(&self) -> bool {
        self.connection.status().connected()
    }

    pub(super) fn events(&self) -> Pin<Box<dyn Stream<Item = Event> + Send>> {
        Box::pin(self.connection.events_listener())
    }

    /// Waits until the connection is gone, and says why.
    pub(super) async fn gone(&self) -> String {
        let mut events = self.events();
        let mut tick = tokio::time::interval(Duration::from_millis(250));
        let mut why = None;
        loop {
            tokio::select! {
                Some(event) = events.next() => if let Event::Error(error) = event { why = Some(error.to_string()) },
                _ = tick.tick() => {}
            }
            if !self.is_open() {
                return why.unwrap_or_else(|| "the connection is closed".to_owned());
            }
        }
    }

    /// Says something once a connection.
    pub(super) fn say_once(&self, say: impl FnOnce()) {
        if !self.said.swap(true, Ordering::Relaxed) {
            say();
        }
    }

    /// Takes leave of the broker, if it listens.
    pub(super) async fn close(&self) {
        let close = self.connection.close(200, "OK".into());
        if let Ok(Err(error)) = tokio::time::timeout(Duration::from_secs(2), close).await {
            debug!(%error, "closing the connection");
        }
        self.socket.cut();
    }

    /// Drops the connection with all frames that were not sent yet.
    pub(super) fn cut(&self) {
        self.socket.cut();
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.socket.cut();
    }
}

/// A second handle on the socket, since the client library has no way to drop a connection with its frames.
#[derive(Default)]
struct Socket(Mutex<Option<std::net::TcpStream>>);

impl Socket {
    fn keep(&self, stream: std::net::TcpStream) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream);
    }

    /// What the kernel has not sent yet is thrown away, and both ends learn of it at once.
    fn cut(&self) {
        let Some(stream) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return;
        };
        if let Ok(twin) = stream.try_clone()
            && tokio::runtime::Handle::try_current().is_ok()
            && let Ok(twin) = tokio::net::TcpStream::from_std(twin)
        {
            let _ = twin.set_zero_linger();
        }
        let _ = stream.shutdown(Shutdown::Both);
    }
}

/// The largest frame on a connection over which only our own messages come and go. The client holds 64 frames of that
/// size for each connection, and goes round them: with 128 KiB that is 8 MiB for messages that have less than 1 KiB.
const OURS: u32 = 16 * 1024;
/// The broker's own limit. A message's headers are one frame: what anybody could send must fit.
const ANYBODYS: u32 = 128 * 1024;

/// Adds what the URL does not say. A frozen broker is found after two heartbeats.
fn with_usual(url: &str, frame: u32) -> String {
    [("heartbeat", 10), ("frame_max", frame)].iter().fold(url.to_owned(), |url, (name, value)| {
        if url.contains(&format!("{name}=")) {
            return url;
        }
        let joint = if url.contains('?') { '&' } else { '?' };
        format!("{url}{joint}{name}={value}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_url_does_not_say_is_added() {
        assert_eq!(with_usual("amqp://h/%2f", OURS), "amqp://h/%2f?heartbeat=10&frame_max=16384");
        assert_eq!(
            with_usual("amqp://h/%2f?frame_max=8192", OURS),
            "amqp://h/%2f?frame_max=8192&heartbeat=10"
        );
        let said = "amqp://h/%2f?heartbeat=30&frame_max=131072";
        assert_eq!(with_usual(said, OURS), said);
    }
}

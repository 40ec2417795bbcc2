//! A TCP proxy on the loopback that fails as links fail, switched at run time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::Url;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How the link behaves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mode {
    /// As it should.
    Forward,
    /// New connections are closed at once, and those that exist are cut.
    Refuse,
    /// Half open: sockets stay, nothing is forwarded, and nothing is lost, either.
    Hold,
    /// Each piece is forwarded after a time.
    Delay(Duration),
    /// A few bytes at a time.
    Trickle(usize, Duration),
    /// What the client sends is lost.
    SwallowRequests,
    /// What the server sends is lost.
    SwallowAnswers,
}

/// The proxy. Its links end at drop.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    state: watch::Sender<State>,
    open: Arc<AtomicUsize>,
    listener: JoinHandle<()>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    mode: Mode,
    /// Raised to cut all links that exist.
    generation: u64,
}

#[derive(Debug, Clone, Copy)]
enum Direction {
    Requests,
    Answers,
}

impl Proxy {
    /// Starts one before the server that a URL names.
    pub async fn before(url: &str) -> Self {
        let url = Url::parse(url).expect("servers have URLs");
        let default_port = if url.scheme().starts_with("amqp") { 5672 } else { 5432 };
        let server = format!(
            "{}:{}",
            url.host_str().unwrap_or("127.0.0.1"),
            url.port().unwrap_or(default_port)
        );
        let listener =
            TcpListener::bind("127.0.0.1:0").await.expect("the loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let (state, watched) = watch::channel(State { mode: Mode::Forward, generation: 0 });
        let open = Arc::new(AtomicUsize::new(0));
        let listener = tokio::spawn(accept(listener, server, watched, open.clone()));
        Self { address, state, open, listener }
    }

    /// A server's URL, by way of this proxy.
    pub fn url(&self, url: &str) -> String {
        let mut url = Url::parse(url).expect("servers have URLs");
        url.set_host(Some("127.0.0.1")).expect("such a URL has a host");
        url.set_port(Some(self.address.port())).expect("such a URL has a port");
        url.into()
    }

    /// Switches the link.
    pub fn set(&self, mode: Mode) {
        self.state.send_modify(|state| {
            state.mode = mode;
            state.generation += u64::from(mode == Mode::Refuse);
        });
    }

    /// Cuts the links that exist; new ones behave as before.
    pub fn cut(&self) {
        self.state.send_modify(|state| state.generation += 1);
    }

    /// Cuts the links that exist; new ones are sound. After bytes were swallowed, there is no other way back.
    pub fn heal(&self) {
        self.state.send_modify(|state| {
            *state = State { mode: Mode::Forward, generation: state.generation + 1 }
        });
    }

    /// How many links there are.
    pub fn links(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listener.abort();
        self.cut();
    }
}

async fn accept(
    listener: TcpListener,
    server: String,
    state: watch::Receiver<State>,
    open: Arc<AtomicUsize>,
) {
    while let Ok((client, _)) = listener.accept().await {
        if state.borrow().mode == Mode::Refuse {
            continue;
        }
        let (server, state, open) = (server.clone(), state.clone(), open.clone());
        tokio::spawn(async move {
            open.fetch_add(1, Ordering::SeqCst);
            link(client, &server, state).await;
            open.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

/// Lives until either side closes, or the link is cut.
async fn link(client: TcpStream, server: &str, state: watch::Receiver<State>) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let generation = state.borrow().generation;
    let mut cut = state.clone();
    tokio::select! {
        () = pump(from_client, to_server, Direction::Requests, state.clone()) => {}
        () = pump(from_server, to_client, Direction::Answers, state) => {}
        _ = cut.wait_for(|state| state.generation != generation) => {}
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    direction: Direction,
    state: watch::Receiver<State>,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if forward(&buffer[..length], &mut to, direction, state.clone()).await.is_err() {
            return;
        }
    }
}

async fn forward(
    bytes: &[u8],
    to: &mut OwnedWriteHalf,
    direction: Direction,
    mut state: watch::Receiver<State>,
) -> std::io::Result<()> {
    let mode = match state.wait_for(|state| state.mode != Mode::Hold).await {
        Ok(state) => state.mode,
        Err(_) => return Err(std::io::ErrorKind::ConnectionAborted.into()),
    };
    match (mode, direction) {
        (Mode::SwallowRequests, Direction::Requests)
        | (Mode::SwallowAnswers, Direction::Answers) => Ok(()),
        (Mode::Delay(time), _) => {
            tokio::time::sleep(time).await;
            to.write_all(bytes).await
        }
        (Mode::Trickle(size, time), _) => {
            for piece in bytes.chunks(size.max(1)) {
                to.write_all(piece).await?;
                tokio::time::sleep(time).await;
            }
            Ok(())
        }
        _ => to.write_all(bytes).await,
    }
}

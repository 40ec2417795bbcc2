//! HTTP/1.1 over one connection that stays open, in as few cycles as possible: the client shares the machine with
//! what it measures.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// One connection.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// A request, written out.
pub(crate) struct Request(Vec<u8>);

impl Request {
    pub(crate) fn post(path: &str, token: &str, body: &str) -> Self {
        Self(
            format!(
                "POST {path} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {token}\r\n\
                 content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            )
            .into_bytes(),
        )
    }

    pub(crate) fn get(path: &str, token: &str) -> Self {
        Self(
            format!("GET {path} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {token}\r\n\r\n")
                .into_bytes(),
        )
    }
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("the api takes connections");
        stream.set_nodelay(true).expect("a socket of TCP");
        Self { stream, buffer: Vec::with_capacity(64 * 1024) }
    }

    /// Sends a request, and returns the status and the body of its answer.
    pub(crate) async fn send(&mut self, request: &Request) -> (u16, &[u8]) {
        self.stream.write_all(&request.0).await.expect("the api keeps its connections");
        self.buffer.clear();
        let mut end = None;
        loop {
            if let Some((from, to)) = end.or_else(|| extent(&self.buffer)) {
                end = Some((from, to));
                if self.buffer.len() >= to {
                    return (status(&self.buffer), &self.buffer[from..to]);
                }
            }
            let read = self
                .stream
                .read_buf(&mut self.buffer)
                .await
                .expect("the api keeps its connections");
            assert!(
                read > 0,
                "the api closed a connection: {:?}",
                String::from_utf8_lossy(&self.buffer)
            );
        }
    }

    /// The same, for requests that must be answered with this status.
    pub(crate) async fn expect(&mut self, request: &Request, status: u16) -> &[u8] {
        let (got, body) = self.send(request).await;
        assert_eq!(got, status, "{}", String::from_utf8_lossy(body));
        body
    }
}

fn status(head: &[u8]) -> u16 {
    std::str::from_utf8(&head[9..12]).ok().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// Where the body begins and ends, once the head is complete.
fn extent(buffer: &[u8]) -> Option<(usize, usize)> {
    let head = buffer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let text = std::str::from_utf8(&buffer[..head]).expect("a head is text");
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        if name.eq_ignore_ascii_case("content-length") { value.trim().parse().ok() } else { None }
    });
    let length: usize =
        length.unwrap_or_else(|| panic!("the bench reads answers of a known length only: {text}"));
    Some((head + 4, head + 4 + length))
}

/// The `id` of the JSON object that an answer holds.
pub(crate) fn id(body: &[u8]) -> &str {
    let text = std::str::from_utf8(body).expect("an answer is text");
    let from = text.find("\"id\":\"").expect("an answer names the run") + 6;
    &text[from..from + 36]
}

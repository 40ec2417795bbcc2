//! A server on the loopback that answers every request after the same time, as cheaply as possible.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";

/// It stops at drop.
pub(crate) struct SlowServer {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl SlowServer {
    pub(crate) async fn start(delay: Duration) -> Self {
        let listener =
            TcpListener::bind("127.0.0.1:0").await.expect("the loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, delay));
            }
        });
        Self { address, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }
}

impl Drop for SlowServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Requests without a body, one at a time.
async fn serve(mut stream: TcpStream, delay: Duration) {
    let mut request = Vec::with_capacity(1024);
    while let Ok(1..) = stream.read_buf(&mut request).await {
        if request.ends_with(b"\r\n\r\n") {
            request.clear();
            tokio::time::sleep(delay).await;
            if stream.write_all(ANSWER).await.is_err() {
                return;
            }
        }
    }
}

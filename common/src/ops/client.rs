//! The other side of `/health/ready`, for container images that have no HTTP client.

use anyhow::{Context, bail};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PATIENCE: Duration = Duration::from_secs(5);
const LONGEST: u64 = 1 << 20;

/// Asks the process that listens on `addr` whether it is ready.
///
/// # Errors
/// Says why it is not, or that it does not answer.
pub async fn probe(addr: SocketAddr) -> anyhow::Result<()> {
    let answer = tokio::time::timeout(PATIENCE, fetch(addr, "/health/ready"))
        .await
        .with_context(|| format!("no answer from {addr} within {} s", PATIENCE.as_secs()))??;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    match head.split(' ').nth(1) {
        Some("200") => Ok(()),
        Some(code) => bail!("not ready ({code}): {}", body.trim()),
        None => bail!("{addr} does not speak HTTP"),
    }
}

/// The whole answer to a `GET`. An address of all interfaces is asked on this machine.
pub(super) async fn fetch(mut addr: SocketAddr, path: &str) -> anyhow::Result<String> {
    if addr.ip().is_unspecified() {
        addr.set_ip(if addr.is_ipv4() {
            [127, 0, 0, 1].into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        });
    }
    let mut stream =
        TcpStream::connect(addr).await.with_context(|| format!("nobody listens on {addr}"))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {addr}\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.take(LONGEST).read_to_string(&mut answer).await?;
    Ok(answer)
}

//! The bytes of a connection. What the HTTP library answers by itself, to what is not HTTP, becomes a problem document
//! on its way out.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::error::{ApiError, Kind};

/// The connection.
#[derive(Debug)]
pub(super) struct Wire<T> {
    inner: T,
    /// What is to go out in place of the library's own answer.
    instead: Vec<u8>,
    sent: usize,
}

impl<T> Wire<T> {
    pub(super) fn new(inner: T) -> Self {
        Self { inner, instead: Vec::new(), sent: 0 }
    }
}

/// Whether these are the head of an answer that no handler gave: theirs all name their request.
fn is_bare(bytes: &[u8]) -> bool {
    bytes.starts_with(b"HTTP/1.")
        && bytes.get(8..10) == Some(b" 4")
        && bytes.ends_with(b"\r\n\r\n")
        && !bytes.windows(12).any(|part| part.eq_ignore_ascii_case(b"x-request-id"))
}

/// What is sent instead.
fn problem(bytes: &[u8]) -> Vec<u8> {
    let status = std::str::from_utf8(bytes.get(9..12).unwrap_or_default()).unwrap_or("400");
    let (kind, reason, detail) = match status {
        "408" => {
            (Kind::TooSlow, "408 Request Timeout", "The request's head did not arrive in time.")
        }
        "414" => (Kind::Malformed, "414 URI Too Long", "The address is too long."),
        "431" => (
            Kind::Malformed,
            "431 Request Header Fields Too Large",
            "The request has too many headers, or too large ones.",
        ),
        _ => (Kind::Malformed, "400 Bad Request", "This is not HTTP/1.1 as it is understood here."),
    };
    let mut problem = ApiError::new(kind, detail).problem();
    problem.status = status.parse().unwrap_or(400);
    let body = serde_json::to_string(&problem).unwrap_or_default();
    let head = format!(
        "HTTP/1.1 {reason}\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\n\
         x-content-type-options: nosniff\r\nconnection: close\r\n\r\n",
        body.len()
    );
    [head, body].concat().into_bytes()
}

impl<T: AsyncRead + Unpin> AsyncRead for Wire<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Wire<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.instead.is_empty() {
            if !is_bare(bytes) {
                return Pin::new(&mut this.inner).poll_write(cx, bytes);
            }
            this.instead = problem(bytes);
        }
        while this.sent < this.instead.len() {
            let rest = &this.instead[this.sent..];
            this.sent += ready!(Pin::new(&mut this.inner).poll_write(cx, rest))?;
        }
        // The library closes the connection after such an answer; nothing else follows.
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_no_handler_answered_is_replaced() {
        assert!(is_bare(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"));
        assert!(!is_bare(b"HTTP/1.1 400 Bad Request\r\nX-Request-Id: a\r\n\r\n"));
        assert!(!is_bare(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"));
        let text = String::from_utf8(problem(b"HTTP/1.1 431 x\r\n\r\n")).expect("it is text");
        assert!(text.starts_with("HTTP/1.1 431 ") && text.contains("\"status\":431"), "{text}");
    }
}

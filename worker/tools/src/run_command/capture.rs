//! What a program writes, up to a limit.

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::Log;

pub(super) struct Capture {
    bytes: Vec<u8>,
    limit: usize,
    truncated: bool,
}

/// A stream as text.
pub(super) struct Stream {
    pub(super) text: String,
    pub(super) truncated: bool,
    /// It was not UTF-8: what was not is replaced.
    pub(super) lossy: bool,
}

impl Capture {
    pub(super) fn new(limit: usize) -> Self {
        Self { bytes: Vec::new(), limit, truncated: false }
    }

    /// Reads to the end, and prints all of it. Beyond the limit it only drains: the program must neither block nor die
    /// of a closed pipe.
    pub(super) async fn fill(
        &mut self,
        pipe: Option<impl AsyncRead + Unpin>,
        log: &Log,
        stream: common::node_log::Stream,
    ) {
        let Some(mut pipe) = pipe else { return };
        let mut chunk = vec![0; 16 << 10];
        while let Ok(read @ 1..) = pipe.read(&mut chunk).await {
            log.print(stream, &chunk[..read]);
            let kept = read.min(self.limit - self.bytes.len());
            self.bytes.extend_from_slice(&chunk[..kept]);
            self.truncated |= kept < read;
        }
    }

    /// Any JSON value: `wc -l < file` makes a number.
    pub(super) fn json(&self) -> Option<Value> {
        if self.truncated { None } else { serde_json::from_slice(&self.bytes).ok() }
    }

    pub(super) fn into_text(mut self) -> Stream {
        let truncated = self.truncated;
        if truncated
            && let Err(error) = std::str::from_utf8(&self.bytes)
            && error.error_len().is_none()
        {
            // The limit fell into a character.
            self.bytes.truncate(error.valid_up_to());
        }
        match String::from_utf8(self.bytes) {
            Ok(text) => Stream { text, truncated, lossy: false },
            Err(error) => {
                let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
                Stream { text, truncated, lossy: true }
            }
        }
    }
}

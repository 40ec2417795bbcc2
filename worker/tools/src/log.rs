//! The log of one attempt: tools print into it, the worker stores what they printed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use common::node_log::{Book, Page, Stream};
use common::secret::Mask;
use tokio::sync::Notify;

/// So much that waits is stored at once, in bytes.
const PAGE: usize = 16 * 1024;

/// A handle to the log. Whatever is printed is masked and bounded; nothing of this ever blocks or fails.
#[derive(Debug, Clone, Default)]
pub struct Log(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    limit: usize,
    mask: Mask,
    state: Mutex<State>,
    /// Something was printed for the first time, a page is full, or nothing more comes.
    due: Notify,
}

#[derive(Debug, Default)]
struct State {
    book: Option<Box<Book>>,
    closed: bool,
}

impl Log {
    /// One that keeps up to `limit` bytes. The default keeps nothing.
    pub fn new(limit: usize, mask: Mask) -> Self {
        let state = Mutex::default();
        Self(Some(Arc::new(Inner { limit, mask, state, due: Notify::new() })))
    }

    /// Prints bytes, as a program does: lines end where they have an end.
    pub fn print(&self, stream: Stream, bytes: &[u8]) {
        let Some(inner) = &self.0 else { return };
        let mut state = inner.lock();
        if state.closed || bytes.is_empty() || inner.limit == 0 {
            return;
        }
        let is_first = state.book.is_none();
        let book = state.book.get_or_insert_with(|| Box::new(Book::new(inner.limit, &inner.mask)));
        let before = book.waiting();
        book.write(stream, bytes, Instant::now());
        // What only turns in the tail waits for its time.
        let is_full = before < PAGE && book.waiting() >= PAGE && !book.is_turning();
        drop(state);
        if is_first || is_full {
            inner.due.notify_one();
        }
    }

    /// Says a sentence of the tool's own.
    pub fn say(&self, text: impl AsRef<str>) {
        if self.0.is_some() {
            self.print(Stream::Log, format!("{}\n", text.as_ref()).as_bytes());
        }
    }

    /// What is to be stored now; none when nothing is new.
    pub fn take(&self) -> Option<Page> {
        self.0.as_ref()?.lock().book.as_mut()?.take(Instant::now())
    }

    /// Nothing more is taken; what has no line end is a line now.
    pub fn close(&self) {
        let Some(inner) = &self.0 else { return };
        let mut state = inner.lock();
        if std::mem::replace(&mut state.closed, true) {
            return;
        }
        if let Some(book) = &mut state.book {
            book.finish(Instant::now());
        }
        drop(state);
        inner.due.notify_one();
    }

    /// Whether nothing more is taken.
    pub fn is_closed(&self) -> bool {
        self.0.as_ref().is_none_or(|inner| inner.lock().closed)
    }

    /// Returns when something was printed for the first time, a page is full, or nothing more comes.
    pub async fn due(&self) {
        if let Some(inner) = &self.0 {
            inner.due.notified().await;
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn log(limit: usize) -> Log {
        Log::new(limit, Mask::default())
    }

    fn is_due(log: &Log) -> bool {
        log.due().now_or_never().is_some()
    }

    #[test]
    fn the_first_line_a_full_page_and_the_end_are_told() {
        let log = log(100_000);
        assert!(!is_due(&log) && log.take().is_none());
        log.say("one");
        assert!(is_due(&log));
        log.print(Stream::Stdout, b"two, without an end");
        assert!(!is_due(&log));
        log.print(Stream::Stdout, &[b"\n", vec![b'x'; PAGE].as_slice(), b"\n"].concat());
        assert!(is_due(&log));
        log.print(Stream::Stderr, b"three");
        log.close();
        assert!(is_due(&log) && log.is_closed());
        log.say("too late");
        let lines = log.take().expect("what came before").lines;
        let short: Vec<_> =
            lines.iter().map(|l| l.text.as_str()).filter(|t| t.len() < 50).collect();
        assert_eq!(short, ["one", "two, without an end", "three"]);
    }

    #[test]
    fn one_that_nothing_was_printed_into_ends_without_a_page() {
        for log in [log(1_000), log(0)] {
            log.print(Stream::Log, b"");
            log.close();
            assert!(is_due(&log) && log.take().is_none());
        }
        let nobody = Log::default();
        nobody.say("nothing");
        assert!(nobody.is_closed() && nobody.take().is_none());
    }
}

//! A stop right after a chosen commit, before anything that follows from it: no ack, no publishing. Tests use it to see
//! what a stop at any moment leaves behind. In a fleet nothing is armed, and asking costs one load.

use std::str::FromStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// After which commit, and how: `record:3`, `any:7`, or with `:hold` behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breakpoint {
    kind: String,
    nth: u64,
    holds: bool,
}

static ARMED: OnceLock<(Breakpoint, AtomicU64)> = OnceLock::new();

impl FromStr for Breakpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(':');
        let (kind, nth) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let holds = match parts.next() {
            None => Some(false),
            Some("hold") => Some(true),
            Some(_) => None,
        };
        match (nth.parse().ok().filter(|nth| *nth > 0), holds) {
            (Some(nth), Some(holds)) => Ok(Self { kind: kind.to_owned(), nth, holds }),
            _ => Err("it wants a kind of commit and its number, as in `record:3`".to_owned()),
        }
    }
}

impl Breakpoint {
    /// Has this process stop there. Only the first call counts.
    pub fn arm(self) {
        let _ = ARMED.set((self, AtomicU64::new(0)));
    }
}

/// Says that a transaction of this kind is committed, and nobody told of it yet. At the armed one the process ends
/// abruptly, or does not go on until it is killed.
pub async fn committed(kind: &'static str) {
    let Some((armed, count)) = ARMED.get() else { return };
    if armed.kind != "any" && armed.kind != kind {
        return;
    }
    let count = count.fetch_add(1, Ordering::AcqRel) + 1;
    if count < armed.nth {
        return;
    }
    if !armed.holds {
        std::process::abort();
    }
    tracing::warn!(kind, count, "held at a breakpoint");
    std::future::pending::<()>().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_from_text() {
        let read = |text: &str| text.parse::<Breakpoint>();
        let point = |kind: &str, nth, holds| Ok(Breakpoint { kind: kind.to_owned(), nth, holds });
        assert_eq!(read("any:7"), point("any", 7, false));
        assert_eq!(read("record:1:hold"), point("record", 1, true));
        for wrong in ["", "record", "record:0", "record:x", "record:1:later"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}

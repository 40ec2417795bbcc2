//! Waiting for conditions, never for time.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// Asks `probe` until it answers `Ok`, and returns what it said.
///
/// # Panics
/// After `timeout`, saying what was awaited and what was last seen instead.
pub async fn eventually<T, E: Display>(
    timeout: Duration,
    what: &str,
    mut probe: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let began = Instant::now();
    let mut pause = Duration::from_millis(5);
    loop {
        let left = timeout.saturating_sub(began.elapsed());
        let last_seen =
            match tokio::time::timeout(left.max(Duration::from_millis(100)), probe()).await {
                Ok(Ok(value)) => return value,
                Ok(Err(seen)) => seen.to_string(),
                Err(_) => "no answer".to_owned(),
            };
        assert!(began.elapsed() < timeout, "waited {timeout:?} for {what}; last seen: {last_seen}");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// `Ok` when the condition holds, else what was seen.
pub fn seen<T: std::fmt::Debug>(holds: bool, value: T) -> Result<T, String> {
    if holds { Ok(value) } else { Err(format!("{value:?}")) }
}

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cron;
mod plan;
mod read;
mod start;

use crate::clock::Instant;

fn at(text: &str) -> Instant {
    text.parse().unwrap()
}

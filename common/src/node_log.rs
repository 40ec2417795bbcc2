//! What a node prints: lines of an attempt, of which the first and the last are kept. Pure.
//!
//! A [`Book`] takes what comes, as it comes, and gives it out in pages to be stored: from time to time while the
//! attempt runs, and once more before its outcome is recorded.

mod book;
mod lines;

use std::time::Instant;

use serde::{Deserialize, Serialize};

pub use self::book::Book;

/// A line longer than this, in bytes, goes on in another.
pub const LONGEST_LINE: usize = 8 * 1024;

/// What a line weighs besides its bytes, so that very many short lines have an end, too.
pub const LINE_WEIGHT: usize = 32;

/// Where a line comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "log_stream", rename_all = "snake_case")]
pub enum Stream {
    /// A program's standard output.
    Stdout,
    /// A program's standard error.
    Stderr,
    /// What a tool says of its own.
    Log,
    /// No line: lines were left out here, and the text says how many.
    Cut,
}

impl Stream {
    /// Its name in JSON and in the database.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Log => "log",
            Self::Cut => "cut",
        }
    }
}

/// One line that is to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its number among all lines of the attempt, from 1.
    pub seq: i64,
    /// Where it comes from.
    pub stream: Stream,
    /// When it ended, by this process's steady clock.
    pub at: Instant,
    /// Without its line end, without null characters; what was not UTF-8 is replaced by U+FFFD.
    pub text: String,
}

/// What is to be stored next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// New lines, and the note of what was left out, which may replace one of the same number.
    pub lines: Vec<Line>,
    /// Lines that were stored, and are left out now: those with a number between these two, without the two.
    pub forgotten: Option<(i64, i64)>,
}

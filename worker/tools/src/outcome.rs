//! How an attempt ends.

use std::time::Duration;

use common::secret::Mask;
use serde_json::Value;

/// Failures are typed by consequence.
#[derive(Debug, Clone, PartialEq)]
pub enum Failure {
    /// Another attempt may end otherwise.
    Retryable {
        /// What was wanted, and what came.
        message: String,
        /// When the other side said to come back.
        retry_after: Option<Duration>,
    },
    /// Another attempt would end the same way.
    Permanent {
        /// What was wanted, what came, and how to mend it.
        message: String,
    },
    /// [`Context::cancel`](crate::Context::cancel) was raised.
    Cancelled,
}

impl Failure {
    /// Another attempt may end otherwise.
    pub fn retryable(message: impl Into<String>) -> Self {
        Self::Retryable { message: message.into(), retry_after: None }
    }

    /// Another attempt would end the same way.
    pub fn permanent(message: impl Into<String>) -> Self {
        Self::Permanent { message: message.into() }
    }

    /// Without what must not show.
    #[must_use]
    pub fn masked(self, mask: &Mask) -> Self {
        match self {
            Self::Permanent { message } => Self::Permanent { message: mask.text(&message) },
            Self::Retryable { message, retry_after } => {
                Self::Retryable { message: mask.text(&message), retry_after }
            }
            Self::Cancelled => Self::Cancelled,
        }
    }
}

/// An output, or why there is none.
pub type Outcome = Result<Value, Failure>;

/// At most `most` characters from the start of `text`.
pub(crate) fn head(text: &str, most: usize) -> &str {
    text.char_indices().nth(most).map_or(text, |(end, _)| &text[..end])
}

/// At most `most` characters from the end of `text`.
pub(crate) fn tail(text: &str, most: usize) -> &str {
    let skipped = text.chars().count().saturating_sub(most);
    text.char_indices().nth(skipped).map_or("", |(start, _)| &text[start..])
}

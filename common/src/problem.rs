//! One thing that is wrong with what a client sent, and where.

use serde::{Deserialize, Serialize};

/// An error or a warning that names its place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Pointed {
    /// An RFC 6901 JSON pointer into the document that was sent; `""` is the whole of it.
    pub pointer: String,
    /// One sentence: what is wrong, and how to mend it.
    pub detail: String,
}

impl Pointed {
    /// Names `pointer`, and says `detail` about it.
    pub fn new(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), detail: detail.into() }
    }
}

/// One more reference token for a JSON pointer, escaped as RFC 6901 wants it.
pub fn token(text: &str) -> String {
    text.replace('~', "~0").replace('/', "~1")
}

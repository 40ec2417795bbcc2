//! One thing that is wrong with what a client sent, and where.

use serde::{Deserialize, Serialize};
use serde_json::Value;

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

/// A text in backquotes, but not all of it when it is long.
pub(crate) fn quoted(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("`{}…`", &text[..end]),
        None => format!("`{text}`"),
    }
}

/// The pointer of the first string or key that Postgres cannot hold: its `jsonb` has no U+0000.
pub fn unstorable(value: &Value) -> Option<String> {
    let mut path = Vec::new();
    find_nul(value, &mut path).then(|| path.iter().rev().map(|part| format!("/{part}")).collect())
}

/// Collects the path from the inside out, and only once something was found.
fn find_nul(value: &Value, path: &mut Vec<String>) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().enumerate().any(|(index, item)| {
            let found = find_nul(item, path);
            if found {
                path.push(index.to_string());
            }
            found
        }),
        Value::Object(fields) => fields.iter().any(|(key, field)| {
            let found = key.contains('\0') || find_nul(field, path);
            if found {
                path.push(token(key));
            }
            found
        }),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_postgres_cannot_hold_is_found() {
        for (value, pointer) in [
            (json!({"a": [1, "b", {"c/d": "x\0y"}]}), Some("/a/2/c~1d")),
            (json!("\0"), Some("")),
            (json!({"a\0": 1}), Some("/a\0")),
            (json!({"a": [null, true, 1.5, "x"]}), None),
            (json!({"a": {"b~": ["\0", "\0"]}}), Some("/a/b~0/0")),
        ] {
            assert_eq!(unstorable(&value).as_deref(), pointer, "{value}");
        }
    }
}

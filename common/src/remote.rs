//! Tools that programs in any language execute: what they are called with, and what they answer. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::duration;
use crate::problem::unstorable;

/// The largest rendered input, as JSON text, in bytes: it travels in a message.
pub const LARGEST_INPUT: usize = 256 * 1024;
/// The largest reply, in bytes: an output may have as many.
pub const LARGEST_REPLY: usize = 16 * 1024 * 1024;

/// A call of a tool, beside the node run that makes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// The tool.
    pub tool: String,
    /// What it is given.
    pub input: Value,
    /// How long a reply is waited for.
    pub timeout_ms: i64,
}

/// Which call a reply is about: `<run>/<node>/<attempt>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CallId {
    /// The run.
    pub run: Uuid,
    /// The node.
    pub node: String,
    /// The fence.
    pub attempt: i32,
}

impl CallId {
    /// Out of a `correlation_id`.
    pub fn parse(text: &str) -> Option<Self> {
        let (run, rest) = text.split_once('/')?;
        let (node, attempt) = rest.rsplit_once('/')?;
        let (run, attempt) = (Uuid::try_parse(run).ok()?, attempt.parse().ok()?);
        (!node.is_empty() && !node.contains('\0')).then(|| Self {
            run,
            node: node.to_owned(),
            attempt,
        })
    }
}

/// What a program has answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// To which call.
    pub call: CallId,
    /// What.
    pub said: Said,
    /// About how many bytes it has.
    pub weight: usize,
}

/// A reply's body.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Said {
    /// The tool has done what it was asked.
    Output(Value),
    /// It has not.
    Error(Refusal),
}

/// Why a tool has not done what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// By consequence.
    pub kind: RefusalKind,
    /// For people.
    pub message: String,
    /// How long to wait before another attempt, at least.
    #[serde(default, with = "pause", skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<Duration>,
}

/// What a refusal means for other attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalKind {
    /// Another one may succeed.
    Retryable,
    /// None can.
    Permanent,
}

impl Said {
    /// Reads a reply's body; an error says what is wrong with it.
    pub fn read(body: &[u8]) -> Result<Self, String> {
        if body.len() > LARGEST_REPLY {
            let message =
                format!("the reply has {} bytes; {LARGEST_REPLY} are the most", body.len());
            return Ok(Self::Error(Refusal {
                kind: RefusalKind::Permanent,
                message,
                retry_after: None,
            }));
        }
        let value: Value = serde_json::from_slice(body)
            .map_err(|error| format!("the body is no JSON: {error}"))?;
        if let Some(pointer) = unstorable(&value) {
            return Err(format!("{pointer} has a character U+0000, which cannot be stored"));
        }
        serde_json::from_value(value).map_err(|error| {
            format!(
                "the body is no reply, which is {{\"output\": …}} or {{\"error\": {{…}}}}: {error}"
            )
        })
    }
}

/// A duration as text, or none.
mod pause {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::duration;

    pub(super) fn serialize<S: Serializer>(
        pause: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        pause.map(duration::text).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| duration::parse(&text).map_err(serde::de::Error::custom)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_call_is_named_by_run_node_and_attempt() {
        let run = Uuid::from_u128(7);
        let id = CallId::parse(&format!("{run}/a.b-c/3")).expect("it is one");
        assert_eq!((id.run, id.node.as_str(), id.attempt), (run, "a.b-c", 3));
        for wrong in ["", "a/b/1", &format!("{run}/1"), &format!("{run}/a/x"), &format!("{run}//1")]
        {
            assert_eq!(CallId::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_reply_is_an_output_or_an_error_and_nothing_else() {
        let read = |body: Value| Said::read(body.to_string().as_bytes());
        assert_eq!(read(json!({"output": null})), Ok(Said::Output(Value::Null)));
        let error = json!({"kind": "retryable", "message": "busy", "retry_after": "2s"});
        let refusal = Refusal {
            kind: RefusalKind::Retryable,
            message: "busy".into(),
            retry_after: Some(Duration::from_secs(2)),
        };
        assert_eq!(read(json!({"error": error})), Ok(Said::Error(refusal)));
        for wrong in [
            json!({}),
            json!([]),
            json!({"output": 1, "error": {"kind": "permanent", "message": ""}}),
            json!({"output": "\0"}),
            json!({"error": "no"}),
            json!({"error": {"kind": "lost", "message": ""}}),
            json!({"error": {"kind": "retryable", "message": "", "retry_after": 5}}),
            json!({"error": {"kind": "permanent", "message": "", "more": 1}}),
            json!({"result": 1}),
        ] {
            assert!(read(wrong.clone()).is_err(), "{wrong}");
        }
        assert!(Said::read(b"hello").is_err());
    }

    #[test]
    fn what_was_said_is_read_back() {
        let refusal =
            Refusal { kind: RefusalKind::Permanent, message: "no".into(), retry_after: None };
        for said in [Said::Output(json!([1])), Said::Error(refusal)] {
            let body = serde_json::to_vec(&said).expect("it is JSON");
            assert_eq!(Said::read(&body), Ok(said));
        }
    }

    #[test]
    fn a_reply_that_is_too_large_fails_its_call() {
        let said = Said::read(&vec![b'x'; LARGEST_REPLY + 1]);
        assert!(matches!(said, Ok(Said::Error(Refusal { kind: RefusalKind::Permanent, .. }))));
    }
}

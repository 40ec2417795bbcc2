//! The statuses that a caller counts as success.

use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::Value;

/// `200`, `"2xx"`, or a list of these.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "Value")]
pub(super) struct Expected(Vec<Pattern>);

#[derive(Debug, Clone, Copy)]
enum Pattern {
    Exactly(u64),
    Hundred(u64),
}

impl Default for Expected {
    fn default() -> Self {
        Self(vec![Pattern::Hundred(2)])
    }
}

impl Expected {
    pub(super) fn includes(&self, status: StatusCode) -> bool {
        let code = u64::from(status.as_u16());
        self.0.iter().any(|pattern| match *pattern {
            Pattern::Exactly(wanted) => wanted == code,
            Pattern::Hundred(wanted) => wanted == code / 100,
        })
    }
}

impl TryFrom<Value> for Expected {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let patterns = match value {
            Value::Array(list) => list.iter().map(pattern).collect(),
            one => pattern(&one).map(|pattern| vec![pattern]),
        };
        let patterns: Option<Vec<_>> = patterns;
        patterns
            .filter(|patterns| !patterns.is_empty())
            .map(Self)
            .ok_or_else(|| "expected a status like 200, \"2xx\", or a list of these".to_owned())
    }
}

fn pattern(value: &Value) -> Option<Pattern> {
    let exactly = |code| (100..1000).contains(&code).then_some(Pattern::Exactly(code));
    match value {
        Value::Number(number) => number.as_u64().and_then(exactly),
        Value::String(text) => match text.strip_suffix("xx") {
            Some(digit) => digit.parse().ok().filter(|d| (1..10).contains(d)).map(Pattern::Hundred),
            None => text.parse().ok().and_then(exactly),
        },
        _ => None,
    }
}

//! What a client asks to be run, read from a body.

use std::time::Duration;

use common::pipeline;
use common::problem::Pointed;
use common::tool::Catalogue;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::fields::Fields;

/// Something to be run, as far as it can be checked without the database.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) subject: Wanted,
    pub(crate) input: Value,
    pub(crate) tags: Vec<String>,
    pub(crate) delay: Option<Duration>,
    pub(crate) rerun_of: Option<Uuid>,
    pub(crate) keep_completed: bool,
    /// Where in the body the input is, for what its schema finds.
    pub(crate) input_at: String,
    /// The version for which its input has been checked already.
    pub(crate) checked_for: Option<(Uuid, i32)>,
}

/// What to run.
#[derive(Debug)]
pub(crate) enum Wanted {
    /// The newest version of the pipeline of this name.
    Newest { name: String },
    /// Exactly this version, deleted or not: for reruns.
    Version { id: Uuid, name: String, version: i32, lane: String },
    /// One action: its node, complete.
    Action { node: Value, lane: String },
}

/// How many tags a run may have, and how long each may be.
const TAGS: (usize, usize) = (32, 128);

impl Submission {
    fn new(subject: Wanted, input: Value) -> Self {
        Self {
            subject,
            input,
            tags: Vec::new(),
            delay: None,
            rerun_of: None,
            keep_completed: false,
            input_at: String::new(),
            checked_for: None,
        }
    }

    /// A run like an earlier one.
    pub(crate) fn again(
        subject: Wanted,
        input: Value,
        tags: Vec<String>,
        of: Uuid,
        keep_completed: bool,
    ) -> Self {
        Self { tags, rerun_of: Some(of), keep_completed, ..Self::new(subject, input) }
    }

    /// `{input, tags, delay}` for the pipeline of this name.
    pub(crate) fn of_pipeline(name: String, body: Value) -> Result<Self, Vec<Pointed>> {
        Self::read_pipeline(Some(name), Fields::of(body, ""), "")
    }

    /// `{action, input, retry, timeout, lane, tags, delay}`.
    pub(crate) fn of_action(body: Value, tools: &Catalogue) -> Result<Self, Vec<Pointed>> {
        Self::read_action(Fields::of(body, ""), "", tools)
    }

    /// One item of a batch: either of the two.
    pub(crate) fn of_item(item: Value, at: &str, tools: &Catalogue) -> Result<Self, Vec<Pointed>> {
        let named = |field| item.get(field).is_some_and(|value| !value.is_null());
        match (named("pipeline"), named("action")) {
            (true, false) => Self::read_pipeline(None, Fields::of(item, at), at),
            (false, true) => Self::read_action(Fields::of(item, at), at, tools),
            _ => Err(vec![Pointed::new(at, "must have `pipeline` or `action`, and not both")]),
        }
    }

    fn read_pipeline(
        name: Option<String>,
        mut fields: Fields,
        at: &str,
    ) -> Result<Self, Vec<Pointed>> {
        let name = match name {
            Some(name) => name,
            None => fields.string("pipeline").unwrap_or_default(),
        };
        let input = fields.take("input").unwrap_or_else(|| json!({}));
        let (tags, delay) = read_common(&mut fields);
        let submission = Self::new(Wanted::Newest { name }, input);
        fields.finish(Self { tags, delay, input_at: format!("{at}/input"), ..submission })
    }

    fn read_action(mut fields: Fields, at: &str, tools: &Catalogue) -> Result<Self, Vec<Pointed>> {
        let mut action = Map::new();
        for field in ["action", "input", "retry", "timeout", "lane"] {
            if let Some(value) = fields.take(field) {
                action.insert(field.to_owned(), value);
            }
        }
        let (tags, delay) = read_common(&mut fields);
        let input = action.get("input").cloned().unwrap_or_else(|| json!({}));
        let read = pipeline::check_action(&Value::Object(action), tools);
        let subject = match read {
            Ok(node) => match serde_json::to_value(&node) {
                Ok(value) => Wanted::Action { node: value, lane: node.lane },
                Err(error) => return Err(vec![Pointed::new(at, error.to_string())]),
            },
            Err(faults) => {
                let moved =
                    |fault: Pointed| Pointed::new(format!("{at}{}", fault.pointer), fault.detail);
                fields.faults(faults.into_iter().map(moved).collect());
                Wanted::Newest { name: String::new() }
            }
        };
        fields.finish(Self { tags, delay, ..Self::new(subject, input) })
    }
}

/// What a pipeline's run and an action's have in common.
fn read_common(fields: &mut Fields) -> (Vec<String>, Option<Duration>) {
    let (most, longest) = TAGS;
    let tags = fields.strings("tags", most, longest);
    let delay = fields.duration("delay").filter(|delay| !delay.is_zero());
    (tags, delay)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointers(read: Result<Submission, Vec<Pointed>>) -> Vec<String> {
        read.expect_err("it is wrong").into_iter().map(|fault| fault.pointer).collect()
    }

    #[test]
    fn a_submission_is_read_with_its_defaults() {
        let submission = Submission::of_pipeline("a".into(), json!({})).expect("it is right");
        assert_eq!(submission.input, json!({}));
        assert!(submission.tags.is_empty() && submission.delay.is_none());
        let whole = json!({"input": [1], "tags": ["x", "x", "y"], "delay": "24h"});
        let submission = Submission::of_pipeline("a".into(), whole).expect("it is right");
        assert_eq!(submission.input, json!([1]));
        assert_eq!(submission.tags, ["x", "y"]);
        assert_eq!(submission.delay, Some(Duration::from_secs(86_400)));
    }

    #[test]
    fn an_action_becomes_a_node() {
        let body = json!({"action": "echo", "input": {"a": 1}, "tags": ["x"]});
        let submission = Submission::of_action(body, &tools::catalogue()).expect("it is right");
        let Wanted::Action { node, lane } = submission.subject else { panic!("it is an action") };
        assert_eq!((&node["config"]["a"], lane.as_str()), (&json!(1), "default"));
        assert_eq!(submission.input, json!({"a": 1}));
    }

    #[test]
    fn pointers_lead_into_the_whole_body() {
        let of_item = |item, at| pointers(Submission::of_item(item, at, &tools::catalogue()));
        let item = json!({"pipeline": "a", "tags": 1, "lane": "gpu"});
        assert_eq!(of_item(item, "/items/3"), ["/items/3/tags", "/items/3/lane"]);
        assert_eq!(of_item(json!({}), "/items/0"), ["/items/0"]);
        assert_eq!(of_item(json!({"action": 1}), "/items/0"), ["/items/0/action"]);
        assert_eq!(pointers(Submission::of_pipeline("a".into(), json!([]))), [""]);
    }
}

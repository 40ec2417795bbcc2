//! The configs of nodes that wait without a worker: for a decision, for an event, for runs that they start.
//!
//! Each is read twice: when it is defined, where what a template will come to is not known yet, and rendered.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::findings::{Fields, Findings};
use super::read::LONGEST_NAME;
use crate::access::Role;
use crate::expression::{Expression, is_marked};
use crate::problem::Pointed;
use crate::schedule;
use crate::tool::Spec;
use crate::wait::{MOST_CHILDREN, OnItemFailure};

/// The action that starts runs and waits for them. It is the engine's own, and no tool.
pub const EXECUTE_PIPELINE: &str = "execute_pipeline";

/// What is said of [`EXECUTE_PIPELINE`] beside the tools.
///
/// # Panics
/// Never: a test compiles it.
pub fn execute_pipeline() -> Spec {
    let schema = json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["pipeline"],
        "properties": {
            "pipeline": {"type": "string", "description": "the name of the pipeline to run"},
            "input": {"description": "the input of the run; with `for_each` it sees `item` and `index`"},
            "for_each": {
                "type": "array", "maxItems": MOST_CHILDREN,
                "description": "a list of up to 10,000 items: one run is started for each",
            },
            "max_concurrency": {
                "type": "integer", "minimum": 1, "maximum": MOST_CHILDREN,
                "description": "how many of them may be under way at a time, from 1 to 10000; usually 100",
            },
            "on_item_failure": {"enum": ["fail", "collect"], "description": "`fail` or `collect`"},
            "timeout": {"type": "string", "description": "how long to wait for all of it, such as \"1h\""},
        },
    });
    let description = "Runs another pipeline, or one run of it for each item of a list, and waits for the end without \
                       holding a worker.";
    Spec::new(EXECUTE_PIPELINE, description, schema, None)
        .expect("a schema of ours is valid, which a test pins")
}

/// What a person is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// What to decide.
    pub message: Option<String>,
    /// Who may: somebody of this role, or of one above it.
    pub role: Role,
    /// How long it waits.
    pub deadline: Option<Duration>,
    /// What happens then.
    pub default: Undecided,
    /// What a rejection means to the node.
    pub on_reject: OnReject,
}

/// What happens when nobody has decided in time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Undecided {
    /// As if it was approved.
    Approve,
    /// As if it was rejected.
    Reject,
    /// The node fails: it timed out.
    #[default]
    Fail,
}

/// What a rejection means to the node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnReject {
    /// It fails for good.
    #[default]
    Fail,
    /// It completes, and its output says so.
    Continue,
}

/// Which event a node waits for.
#[derive(Debug, Clone, PartialEq)]
pub struct EventWait {
    /// Its type; `*` is any text, `?` any one character.
    pub event_type: String,
    /// What its data must hold.
    pub matching: Option<Value>,
    /// What must be true of it besides.
    pub condition: Option<String>,
    /// How long to wait.
    pub timeout: Option<Duration>,
    /// Whether the node then completes with null; else it fails.
    pub continues: bool,
}

/// Which runs a node starts.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// The pipeline's name.
    pub pipeline: String,
    /// The input of its run; with `for_each` it is rendered for each item, and is not here.
    pub input: Option<Value>,
    /// One run an item.
    pub for_each: Option<Vec<Value>>,
    /// How many of these may be under way at a time.
    pub max_concurrency: i32,
    /// What the failure of one means.
    pub on_item_failure: OnItemFailure,
    /// How long to wait for all of it.
    pub timeout: Option<Duration>,
}

impl Approval {
    /// Reads a rendered config.
    pub fn read(config: &Value) -> Result<Self, String> {
        rendered(config, approval)
    }
}

impl EventWait {
    /// Reads a rendered config.
    pub fn read(config: &Value) -> Result<Self, String> {
        rendered(config, event)
    }
}

impl Call {
    /// Reads a rendered config.
    pub fn read(config: &Value) -> Result<Self, String> {
        rendered(config, call)
    }
}

/// All that is wrong, in one sentence; the first of it is enough where nobody mends it on the spot.
fn rendered<T>(config: &Value, read: fn(Fields<'_, '_>) -> T) -> Result<T, String> {
    let mut findings = Findings::default();
    let found = findings.fields(config, String::new()).map(read);
    match (findings.errors.into_iter().next(), found) {
        (None, Some(found)) => Ok(found),
        (Some(Pointed { pointer, detail }), _) if pointer.is_empty() => Err(detail),
        (Some(Pointed { pointer, detail }), _) => Err(format!("{pointer}: {detail}")),
        (None, None) => Err("the config must be an object".to_owned()),
    }
}

/// Checks a config that is being defined: what is wrong with a template is not known before it is rendered.
fn defined<T>(
    config: &Map<String, Value>,
    pointer: &str,
    findings: &mut Findings,
    read: fn(Fields<'_, '_>) -> T,
) {
    let config = Value::Object(config.clone());
    let mut found = Findings::default();
    found.fields(&config, String::new()).map(read);
    for error in found.errors {
        let value = config.pointer(&error.pointer).and_then(Value::as_str);
        if !value.is_some_and(is_marked) {
            findings.error(format!("{pointer}{}", error.pointer), error.detail);
        }
    }
}

pub(super) fn check_approval(config: &Map<String, Value>, pointer: &str, findings: &mut Findings) {
    defined(config, pointer, findings, approval);
}

pub(super) fn check_event(config: &Map<String, Value>, pointer: &str, findings: &mut Findings) {
    defined(config, pointer, findings, event);
    let condition = config.get("condition").and_then(Value::as_str);
    if let Some(Err(why)) = condition.map(Expression::compile_event) {
        findings.error(format!("{pointer}/condition"), why);
    }
}

/// Checks the config of [`EXECUTE_PIPELINE`], without `action`.
pub(super) fn check_call(config: &Map<String, Value>, pointer: &str, findings: &mut Findings) {
    defined(config, pointer, findings, call);
}

fn approval(mut fields: Fields<'_, '_>) -> Approval {
    fields.only(&["message", "role", "deadline", "default", "on_reject"]);
    let defaults =
        [("approve", Undecided::Approve), ("reject", Undecided::Reject), ("fail", Undecided::Fail)];
    let read = Approval {
        message: fields.text("message").map(str::to_owned),
        role: fields
            .word("role", &[("operator", Role::Operator), ("admin", Role::Admin)])
            .unwrap_or(Role::Operator),
        deadline: fields.positive_duration("deadline"),
        default: fields.word("default", &defaults).unwrap_or_default(),
        on_reject: fields
            .word("on_reject", &[("fail", OnReject::Fail), ("continue", OnReject::Continue)])
            .unwrap_or_default(),
    };
    if fields.get("default").is_some() && fields.get("deadline").is_none() {
        fields.error("default", "is what happens at the `deadline`; give one, or leave this out");
    }
    read
}

fn event(mut fields: Fields<'_, '_>) -> EventWait {
    fields.only(&["type", "match", "condition", "timeout", "on_timeout"]);
    if fields.get("type").is_none() {
        fields.missing("type", "the type of an event, such as `order.paid`, or a pattern of types");
    }
    let event_type = fields.text("type").unwrap_or_default();
    let plain = event_type.replace(['*', '?'], "x");
    if !event_type.is_empty() && !schedule::is_event_type(&plain) {
        let form = schedule::type_form(event_type);
        fields.error("type", form);
    }
    if fields.get("match").is_some_and(|value| !value.is_object()) {
        fields.error("match", "must be an object: what the event's data must hold");
    }
    let on_timeout = fields.word("on_timeout", &[("fail", false), ("continue", true)]);
    if on_timeout.is_some() && fields.get("timeout").is_none() {
        fields.error("on_timeout", "is what happens after the `timeout`; give one");
    }
    EventWait {
        event_type: event_type.to_owned(),
        matching: fields.get("match").cloned(),
        condition: fields.text("condition").map(str::to_owned),
        timeout: fields.positive_duration("timeout"),
        continues: on_timeout.unwrap_or_default(),
    }
}

fn call(mut fields: Fields<'_, '_>) -> Call {
    fields.only(&[
        "pipeline",
        "input",
        "for_each",
        "max_concurrency",
        "on_item_failure",
        "timeout",
    ]);
    if fields.get("pipeline").is_none() {
        fields.missing("pipeline", "the name of the pipeline to run");
    }
    let words = [("fail", OnItemFailure::Fail), ("collect", OnItemFailure::Collect)];
    let most = MOST_CHILDREN as u32;
    let read = Call {
        pipeline: fields.name("pipeline", LONGEST_NAME).unwrap_or_default().to_owned(),
        input: fields.get("input").cloned(),
        for_each: fields.get("for_each").is_some().then(|| fields.list("for_each").to_vec()),
        max_concurrency: fields.integer("max_concurrency", 1..=most).unwrap_or(100) as i32,
        on_item_failure: fields.word("on_item_failure", &words).unwrap_or_default(),
        timeout: fields.positive_duration("timeout"),
    };
    let items = read.for_each.as_ref().map_or(0, Vec::len);
    if items > MOST_CHILDREN {
        let detail = format!("has {items} items, where at most {MOST_CHILDREN} may be");
        fields.error("for_each", detail);
    }
    for key in ["max_concurrency", "on_item_failure"] {
        if fields.get(key).is_some() && fields.get("for_each").is_none() {
            fields.error(key, "is for `for_each` only; give a list, or leave this out");
        }
    }
    read
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(config: Value, check: fn(&Map<String, Value>, &str, &mut Findings)) -> Vec<String> {
        let mut findings = Findings::default();
        check(config.as_object().expect("an object"), "", &mut findings);
        findings.errors.into_iter().map(|error| error.pointer).collect()
    }

    #[test]
    fn an_approval_has_its_usual_values() {
        let read =
            Approval::read(&json!({"message": "Ship it?", "deadline": "24h"})).expect("it is one");
        assert_eq!((read.role, read.default), (Role::Operator, Undecided::Fail));
        assert_eq!(read.deadline, Some(Duration::from_secs(86_400)));
        for (config, pointer) in [
            (json!({"role": "viewer"}), "/role"),
            (json!({"default": "approve"}), "/default"),
            (json!({"deadline": "soon"}), "/deadline"),
            (json!({"messsage": "a"}), "/messsage"),
        ] {
            assert_eq!(wrong(config, check_approval), [pointer]);
        }
        assert!(wrong(json!({"deadline": "{{ input.by }}"}), check_approval).is_empty());
    }

    #[test]
    fn an_event_is_named_by_a_pattern_and_a_condition_over_it() {
        let config = json!({"type": "order.*", "condition": "event.data.total > 5", "match": {"id": "{{ input.id }}"}});
        assert!(wrong(config, check_event).is_empty());
        for (config, pointer) in [
            (json!({}), "/type"),
            (json!({"type": "a b"}), "/type"),
            (json!({"type": "a", "condition": "input.x"}), "/condition"),
            (json!({"type": "a", "match": 1}), "/match"),
            (json!({"type": "a", "on_timeout": "continue"}), "/on_timeout"),
        ] {
            assert_eq!(wrong(config, check_event), [pointer]);
        }
    }

    #[test]
    fn a_call_names_a_pipeline() {
        assert_eq!(execute_pipeline().name(), EXECUTE_PIPELINE);
        let read = Call::read(&json!({"pipeline": "a", "for_each": [1, 2]})).expect("it is one");
        assert_eq!((read.max_concurrency, read.for_each.map(|it| it.len())), (100, Some(2)));
        for (config, pointer) in [
            (json!({}), "/pipeline"),
            (json!({"pipeline": "a", "for_each": 3}), "/for_each"),
            (json!({"pipeline": "a", "max_concurrency": 3}), "/max_concurrency"),
            (json!({"pipeline": "a", "for_each": [], "max_concurrency": 0}), "/max_concurrency"),
        ] {
            assert_eq!(wrong(config, check_call), [pointer]);
        }
        assert!(
            wrong(json!({"pipeline": "{{ input.p }}", "for_each": "{{ input.l }}"}), check_call)
                .is_empty()
        );
    }
}

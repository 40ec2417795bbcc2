//! A node's config, by JSON Schema: one for each type and each action.

use std::sync::LazyLock;
use std::time::Duration;

use jsonschema::Validator;
use serde_json::{Map, Value, json};

use super::delay::{self, Delay};
use super::findings::Findings;
use super::{ACTIONS, EXECUTE_PIPELINE, Node, NodeType, schema, waits};
use crate::duration;
use crate::expression::is_marked;
use crate::problem::{Pointed, quoted};

/// A schema whose `description`s complete the sentence "must be …".
struct Schema {
    text: Value,
    validator: Validator,
}

impl Schema {
    fn new(text: Value) -> Self {
        let validator =
            schema::compile(&text).expect("a schema of ours is valid, which a test pins");
        Self { text, validator }
    }

    /// Templates are not known before they are rendered: what is wrong with one is not an error here.
    fn check(&self, config: &Value, pointer: &str, findings: &mut Findings) {
        if self.validator.is_valid(config) {
            return;
        }
        for error in self.validator.iter_errors(config) {
            if error.instance().as_str().is_some_and(is_marked) {
                continue;
            }
            for Pointed { pointer: below, detail } in schema::pointed(&error, Some(&self.text)) {
                findings.error(format!("{pointer}{below}"), detail);
            }
        }
    }
}

static CALL_API: LazyLock<Schema> = LazyLock::new(|| {
    let scalars = json!({
        "type": "object",
        "description": "an object of strings, numbers, booleans or lists of these",
        "additionalProperties": {
            "type": ["string", "number", "boolean", "array"],
            "description": "a string, a number, a boolean or a list of these",
            "items": {"type": ["string", "number", "boolean"], "description": "a string, a number or a boolean"},
        },
    });
    let status = json!({
        "type": ["integer", "string", "array"],
        "description": "a status such as 200, \"2xx\", or a list of these",
        "minimum": 100, "maximum": 999, "pattern": "^[1-9](xx|[0-9][0-9])$", "minItems": 1,
        "items": {
            "type": ["integer", "string"],
            "description": "a status such as 200 or \"2xx\"",
            "minimum": 100, "maximum": 999, "pattern": "^[1-9](xx|[0-9][0-9])$",
        },
    });
    let mut form = scalars.clone();
    form["type"] = json!(["object", "null"]);
    Schema::new(json!({
        "type": "object",
        "required": ["url"],
        "additionalProperties": false,
        "properties": {
            "method": {
                "type": "string", "pattern": "^(?i)(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS|TRACE)$",
                "description": "one of GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS and TRACE",
            },
            "url": {
                "type": "string", "pattern": "^(?i)(https?://.|.*\\{[{%])",
                "description": "a URL that begins with http:// or https://",
            },
            "headers": scalars.clone(),
            "query": scalars,
            "json": {},
            "text": {"type": ["string", "number", "boolean", "null"], "description": "a string"},
            "form": form,
            "expected_status": status,
            "response_limit": {
                "type": "integer", "minimum": 0, "maximum": 16 << 20,
                "description": "a number of bytes up to 16777216 (16 MiB)",
            },
        },
    }))
});

static RUN_COMMAND: LazyLock<Schema> = LazyLock::new(|| {
    let scalar = json!({"type": ["string", "number", "boolean"], "description": "a string, a number or a boolean"});
    Schema::new(json!({
        "type": "object",
        "required": ["argv"],
        "additionalProperties": false,
        "properties": {
            "argv": {
                "type": "array", "minItems": 1, "items": scalar.clone(),
                "description": "a list: the program, and its arguments",
            },
            "env": {"type": "object", "additionalProperties": scalar, "description": "an object of strings"},
            "stdin": {"type": ["string", "number", "boolean", "null"], "description": "a string"},
            "cwd": {"type": ["string", "null"], "pattern": "^/|\\{[{%]", "description": "an absolute path"},
            "output_limit": {
                "type": "integer", "minimum": 0, "maximum": 16 << 20,
                "description": "a number of bytes up to 16777216 (16 MiB)",
            },
            "ok_exit_codes": {
                "type": "array", "description": "a list of exit codes",
                "items": {"type": "integer", "minimum": 0, "maximum": 255, "description": "an exit code from 0 to 255"},
            },
        },
    }))
});

static CONDITION: LazyLock<Schema> = LazyLock::new(|| {
    let expression = json!({"type": "string", "minLength": 1, "description": "an expression that is true or false"});
    Schema::new(json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {"expression": expression.clone(), "condition": expression},
    }))
});

/// Checks the config of a node of a pipeline at `pointer`, whose runs may take `most`.
pub(super) fn check(node: &Node, pointer: &str, most: Option<Duration>, findings: &mut Findings) {
    match node.node_type {
        NodeType::Action => match node.config.get("action") {
            Some(Value::String(name)) => {
                let mut config = node.config.clone();
                config.remove("action");
                action(name, &format!("{pointer}/action"), config, pointer, findings);
            }
            Some(_) => findings.error(format!("{pointer}/action"), "must be the name of an action"),
            None => findings.error(
                format!("{pointer}/action"),
                format!("`action` is missing; the actions that run here are {}", actions()),
            ),
        },
        NodeType::Condition => condition(node, pointer, findings),
        NodeType::Delay => delay(&node.config, pointer, most, findings),
        NodeType::Approval => waits::check_approval(&node.config, pointer, findings),
        NodeType::WaitForEvent => waits::check_event(&node.config, pointer, findings),
        NodeType::Trigger | NodeType::Parallel | NodeType::Agent => {}
    }
}

/// Checks what an action is given; `named_at` is where it is named, `pointer` where its input is.
pub(super) fn action(
    name: &str,
    named_at: &str,
    input: Map<String, Value>,
    pointer: &str,
    findings: &mut Findings,
) {
    let schema = match name {
        "echo" => return,
        EXECUTE_PIPELINE => return waits::check_call(&input, pointer, findings),
        "call_api" => &CALL_API,
        "run_command" => &RUN_COMMAND,
        _ => {
            let detail = format!(
                "the action {} cannot run here; those that can are {}",
                quoted(name),
                actions()
            );
            return findings.error(named_at, detail);
        }
    };
    let bodies: Vec<_> =
        ["json", "text", "form"].into_iter().filter(|key| input.contains_key(*key)).collect();
    if name == "call_api" && bodies.len() > 1 {
        findings.error(
            pointer,
            format!("a request has one body: keep one of `{}`", bodies.join("`, `")),
        );
    }
    schema.check(&Value::Object(input), pointer, findings);
}

/// The actions that run here, for messages.
pub(super) fn actions() -> String {
    format!("`{}`", ACTIONS.join("`, `"))
}

fn condition(node: &Node, pointer: &str, findings: &mut Findings) {
    let is_given = |key| node.config.contains_key(key);
    if is_given("expression") && is_given("condition") {
        let detail = "`condition` is the older name of `expression`; keep one of them";
        findings.error(format!("{pointer}/condition"), detail);
    }
    if !is_given("expression") && !is_given("condition") {
        let detail = "`expression` is missing; give an expression that is true or false";
        findings.error(format!("{pointer}/expression"), detail);
    }
    CONDITION.check(&Value::Object(node.config.clone()), pointer, findings);
}

fn delay(
    config: &Map<String, Value>,
    pointer: &str,
    most: Option<Duration>,
    findings: &mut Findings,
) {
    for key in config.keys().filter(|key| !delay::FIELDS.contains(&key.as_str())) {
        let detail = super::findings::unknown(key, &delay::FIELDS);
        findings.error(format!("{pointer}/{}", crate::problem::token(key)), detail);
    }
    let given: Vec<_> = delay::FIELDS.into_iter().filter(|key| config.contains_key(*key)).collect();
    let place = match given.as_slice() {
        [key] if config.get(*key).and_then(Value::as_str).is_some_and(is_marked) => return,
        [key] => format!("{pointer}/{key}"),
        _ => pointer.to_owned(),
    };
    match (Delay::read(&Value::Object(config.clone())), most) {
        (Err(detail), _) => findings.error(place, detail),
        (Ok(Delay::For(wait)), Some(most)) if wait >= most => {
            let detail = format!(
                "the delay of {} is not shorter than the run's time-out of {}, so that no run could complete; \
                 shorten it, or raise /timeout",
                duration::text(wait),
                duration::text(most)
            );
            findings.error(place, detail);
        }
        _ => {}
    }
}

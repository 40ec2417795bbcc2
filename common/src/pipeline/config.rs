//! A node's config: what its type wants, or its tool.

use std::sync::LazyLock;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::delay::{self, Delay};
use super::findings::Findings;
use super::schema::Schema;
use super::{EXECUTE_PIPELINE, Node, NodeType, waits};
use crate::duration;
use crate::expression::{Template, is_marked};
use crate::problem::quoted;
use crate::tool::Catalogue;

static CONDITION: LazyLock<Schema> = LazyLock::new(|| {
    let expression = json!({"type": "string", "minLength": 1, "description": "an expression that is true or false"});
    let schema = Schema::new(json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {"expression": expression.clone(), "condition": expression},
    }));
    schema.expect("a schema of ours is valid, which a test pins")
});

/// Checks the config of a node of a pipeline at `pointer`, whose runs may take `most`. Without `tools`, what an action is
/// given is taken on trust.
pub(super) fn check(
    node: &Node,
    pointer: &str,
    most: Option<Duration>,
    tools: Option<&Catalogue>,
    findings: &mut Findings,
) {
    match node.node_type {
        NodeType::Action => match (node.config.get("action"), tools) {
            (Some(Value::String(name)), Some(tools)) => {
                let mut config = node.config.clone();
                config.remove("action");
                let named_at = format!("{pointer}/action");
                action(tools, name, &named_at, config, pointer, findings);
            }
            (Some(Value::String(_)), None) => {}
            (Some(_), _) => {
                findings.error(format!("{pointer}/action"), "must be the name of an action");
            }
            (None, tools) => findings.error(
                format!("{pointer}/action"),
                format!("`action` is missing; the actions that run here are {}", actions(tools)),
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
    tools: &Catalogue,
    name: &str,
    named_at: &str,
    input: Map<String, Value>,
    pointer: &str,
    findings: &mut Findings,
) {
    match tools.get(name) {
        Some(_) if name == EXECUTE_PIPELINE => waits::check_call(&input, pointer, findings),
        Some(spec) => {
            let input = Value::Object(input);
            if spec.is_remote() {
                without_secrets(&input, pointer, findings);
            }
            spec.schema().check(&input, pointer, findings);
        }
        None => {
            let (name, known) = (quoted(name), actions(Some(tools)));
            let detail = format!("the action {name} cannot run here; those that can are {known}");
            findings.error(named_at, detail);
        }
    }
}

/// A remote tool is given nothing secret: what it is given lies in the broker.
fn without_secrets(input: &Value, pointer: &str, findings: &mut Findings) {
    // What cannot be read is told elsewhere.
    let Ok(template) = Template::compile(input) else { return };
    for spot in template.spots().iter().filter(|spot| !spot.secrets.is_empty()) {
        findings.error(
            format!("{pointer}{}", spot.pointer),
            "`secrets` cannot be handed to a remote tool: its calls lie in the broker, where they could be read; give \
             the tool's program its own secrets",
        );
    }
}

/// The actions that run here, for messages.
pub(super) fn actions(tools: Option<&Catalogue>) -> String {
    match tools {
        Some(tools) => format!("`{}`", tools.names().collect::<Vec<_>>().join("`, `")),
        None => "those of GET /v1/tools".to_owned(),
    }
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

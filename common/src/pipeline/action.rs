//! A single action, as a client asks for it.

use serde_json::Value;

use super::check::UNSTORABLE;
use super::findings::Findings;
use super::schema::holds_mark;
use super::{Node, NodeType, config, read};
use crate::expression::{Names, Template};
use crate::graph::no_other_node;
use crate::problem::{Pointed, unstorable};
use crate::tool::Catalogue;

/// Reads the body `{action, input, retry, timeout, lane}` into the node that does it. Pointers lead into the body.
///
/// What else the body may hold (`tags`, `delay`, …) is the caller's to read, and to take out before.
pub fn check_action(body: &Value, tools: &Catalogue) -> Result<Node, Vec<Pointed>> {
    check_action_in(body, Names::Run, Some(tools))
}

/// As [`check_action`], for an action whose templates see `names`. Without `tools`, the action's name and what it is
/// given are taken on trust.
pub fn check_action_in(
    body: &Value,
    names: Names,
    tools: Option<&Catalogue>,
) -> Result<Node, Vec<Pointed>> {
    let mut findings = Findings::default();
    if let Some(pointer) = unstorable(body) {
        findings.error(pointer, UNSTORABLE);
    }
    let node = read_action(body, names, tools, &mut findings);
    match node {
        Some(node) if findings.errors.is_empty() => Ok(node),
        _ => Err(findings.errors),
    }
}

fn read_action(
    body: &Value,
    names: Names,
    tools: Option<&Catalogue>,
    findings: &mut Findings,
) -> Option<Node> {
    let mut fields = findings.fields(body, String::new())?;
    fields.only(&["action", "input", "retry", "timeout", "lane"]);
    if fields.get("action").is_none() {
        fields.missing("action", &format!("one of {}", config::actions(tools)));
    }
    let action = fields.text("action").unwrap_or_default();
    let mut node = Node::new(action, NodeType::Action);
    read::rules(&mut fields, &mut node);
    if let Some(input) = fields.get("input") {
        fields.findings.fields(input, "/input".to_owned())?;
        node.config = input.as_object().cloned().unwrap_or_default();
    }
    if node.config.contains_key("action") {
        let detail = "the action is named beside its input, not in it; leave it out";
        findings.error("/input/action", detail);
    }
    if let Some(tools) = tools.filter(|_| !action.is_empty()) {
        config::action(tools, action, "/action", node.config.clone(), "/input", findings);
    }
    templates(&node, names, findings);
    node.config.insert("action".to_owned(), Value::String(action.to_owned()));
    Some(node)
}

/// Templates see `run`, and `input`, which is null for a single action: there is nothing else.
fn templates(node: &Node, names: Names, findings: &mut Findings) {
    if !node.config.values().any(holds_mark) {
        return;
    }
    match Template::compile_in(&Value::Object(node.config.clone()), names) {
        Err(errors) => {
            for error in errors {
                findings.error(format!("/input{}", error.pointer), error.detail);
            }
        }
        Ok(template) => {
            for spot in template.spots() {
                let pointer = format!("/input{}", spot.pointer);
                if let Some(name) = spot.names.first() {
                    findings.error(pointer, no_other_node(name));
                } else if spot.names_output {
                    findings.error(pointer, "`output` is there only in the condition of an edge");
                }
            }
        }
    }
}

//! A single action, as a client asks for it.

use serde_json::Value;

use super::{Node, NodeType};
use crate::problem::Pointed;

/// Reads the body `{action, input, retry, timeout, lane}` into the node that does it. Pointers lead into the body.
pub fn check_action(value: &Value) -> Result<Node, Vec<Pointed>> {
    let action = value.get("action").and_then(Value::as_str);
    let action = action.ok_or_else(|| vec![Pointed::new("/action", "is missing")])?;
    let mut node = Node::new(action, NodeType::Action);
    node.config = value.get("input").and_then(Value::as_object).cloned().unwrap_or_default();
    node.config.insert("action".to_owned(), Value::String(action.to_owned()));
    Ok(node)
}

//! Definitions that tests have in common.

use serde_json::{Value, json};

/// A node that returns `input`.
pub(crate) fn echo(id: &str, input: Value) -> Value {
    action(id, "echo", input)
}

/// A node that does one action.
pub(crate) fn action(id: &str, action: &str, mut config: Value) -> Value {
    config["action"] = json!(action);
    json!({"id": id, "type": "action", "config": config})
}

/// A node that calls a URL.
pub(crate) fn call(id: &str, url: &str) -> Value {
    action(id, "call_api", json!({"method": "POST", "url": url, "json": {}}))
}

/// A node that runs a shell script.
pub(crate) fn shell(id: &str, script: &str) -> Value {
    action(id, "run_command", json!({"argv": ["sh", "-c", script]}))
}

/// A node that fails for good when it runs: it reads a name that its run's input does not have.
pub(crate) fn failing(id: &str) -> Value {
    echo(id, json!({"value": "{{ input.there_is_no_such_thing }}"}))
}

/// A node that waits.
pub(crate) fn delay(id: &str, duration: &str) -> Value {
    json!({"id": id, "type": "delay", "config": {"duration": duration}})
}

/// A node that asks a person.
pub(crate) fn approval(id: &str, config: Value) -> Value {
    json!({"id": id, "type": "approval", "config": config})
}

/// A node that starts another pipeline, and waits for it.
pub(crate) fn calls(id: &str, pipeline: &str, input: Value) -> Value {
    action(id, "execute_pipeline", json!({"pipeline": pipeline, "input": input}))
}

/// A node that waits for an event.
pub(crate) fn awaits(id: &str, config: Value) -> Value {
    json!({"id": id, "type": "wait_for_event", "config": config})
}

/// A node that decides.
pub(crate) fn condition(id: &str, expression: &str) -> Value {
    json!({"id": id, "type": "condition", "config": {"expression": expression}})
}

/// A node with more members.
pub(crate) fn with(mut node: Value, name: &str, value: Value) -> Value {
    node[name] = value;
    node
}

/// A retry rule that does not keep tests waiting.
pub(crate) fn quick_retry(max_attempts: u32) -> Value {
    json!({"max_attempts": max_attempts, "initial_interval": "20ms", "max_interval": "100ms"})
}

/// An edge.
pub(crate) fn edge(from: &str, to: &str) -> Value {
    json!({"from": from, "to": to})
}

/// An edge with a `when`.
pub(crate) fn edge_when(from: &str, to: &str, when: &str) -> Value {
    json!({"from": from, "to": to, "when": when})
}

/// An edge with a condition.
pub(crate) fn edge_if(from: &str, to: &str, condition: &str) -> Value {
    json!({"from": from, "to": to, "condition": condition})
}

/// A pipeline.
pub(crate) fn pipeline(
    name: &str,
    nodes: impl IntoIterator<Item = Value>,
    edges: impl IntoIterator<Item = Value>,
) -> Value {
    let (nodes, edges): (Vec<_>, Vec<_>) =
        (nodes.into_iter().collect(), edges.into_iter().collect());
    json!({"name": name, "nodes": nodes, "edges": edges})
}

/// A pipeline of `n0` → `n1` → …, each of which returns its number.
pub(crate) fn chain(name: &str, length: usize) -> Value {
    pipeline(
        name,
        (0..length).map(|n| echo(&format!("n{n}"), json!({"value": n}))),
        (1..length).map(|n| edge(&format!("n{}", n - 1), &format!("n{n}"))),
    )
}

/// A pipeline of `start` → `b0`, `b1`, … → `end`.
pub(crate) fn fan(name: &str, width: usize) -> Value {
    let branches = || (0..width).map(|n| format!("b{n}"));
    let mut nodes = vec![echo("start", json!({"value": 0})), echo("end", json!({"value": -1}))];
    nodes.extend(branches().enumerate().map(|(n, id)| echo(&id, json!({"value": n}))));
    pipeline(name, nodes, branches().flat_map(|id| [edge("start", &id), edge(&id, "end")]))
}

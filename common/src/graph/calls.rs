//! Which pipelines a run of a definition starts whatever happens, as long as nothing fails: a chain of these that leads
//! back to its beginning would not end.

use serde_json::Value;

use super::{Graph, NodeIx};
use crate::expression::is_marked;
use crate::pipeline::{EXECUTE_PIPELINE, Node, When};

impl Graph {
    /// The pipelines that are started without a condition, and the nodes that start them.
    pub fn calls(&self) -> Vec<(String, NodeIx)> {
        let mut sure = vec![false; self.len()];
        let mut calls = Vec::new();
        for &ix in self.order() {
            let incoming = self.incoming(ix);
            sure[ix as usize] = incoming.is_empty()
                || incoming.iter().map(|edge| self.edge(*edge)).any(|edge| {
                    let is_free = edge.condition.is_none() && !edge.needs_result;
                    is_free
                        && match edge.when {
                            When::Success => sure[edge.from as usize],
                            When::Always => true,
                            When::Failure => false,
                        }
                });
            let called = called(&self.node(ix).node).filter(|_| sure[ix as usize]);
            calls.extend(called.map(|name| (name.to_owned(), ix)));
        }
        calls
    }
}

/// The pipeline that a node is sure to start: a template may come to another, and a list to an empty one.
fn called(node: &Node) -> Option<&str> {
    if node.action() != Some(EXECUTE_PIPELINE) {
        return None;
    }
    let starts = match node.config.get("for_each") {
        None | Some(Value::Null) => true,
        Some(Value::Array(items)) => !items.is_empty(),
        Some(_) => false,
    };
    node.config.get("pipeline")?.as_str().filter(|name| starts && !is_marked(name))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pipeline::stored_graph;

    fn calls(extra: Value, edges: Value) -> Vec<String> {
        let mut config = json!({"action": "execute_pipeline", "pipeline": "b"});
        config
            .as_object_mut()
            .expect("it is one")
            .extend(extra.as_object().cloned().unwrap_or_default());
        let definition = json!({
            "name": "a", "edges": edges,
            "nodes": [
                {"id": "start", "type": "trigger"},
                {"id": "if", "type": "condition", "config": {"expression": "input.x"}},
                {"id": "call", "type": "action", "config": config},
            ],
        });
        let graph = stored_graph(&definition.to_string()).expect("it is right");
        graph.calls().into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn what_hangs_on_a_condition_is_not_sure() {
        let free = json!([{"from": "start", "to": "call"}]);
        let guarded = json!([{"from": "start", "to": "if"}, {"from": "if", "to": "call"}]);
        let edge = json!([{"from": "start", "to": "call", "condition": "input.x"}]);
        let failure = json!([{"from": "start", "to": "call", "when": "failure"}]);
        let always =
            json!([{"from": "start", "to": "if"}, {"from": "if", "to": "call", "when": "always"}]);
        assert_eq!(calls(json!({}), free.clone()), ["b"]);
        assert_eq!(calls(json!({}), always), ["b"]);
        for edges in [guarded, edge, failure] {
            assert!(calls(json!({}), edges).is_empty());
        }
        assert!(calls(json!({"pipeline": "{{ input.p }}"}), free.clone()).is_empty());
        assert!(calls(json!({"for_each": "{{ input.l }}"}), free.clone()).is_empty());
        assert!(calls(json!({"for_each": []}), free.clone()).is_empty());
        assert_eq!(calls(json!({"for_each": [1]}), free), ["b"]);
    }

    #[test]
    fn a_pipeline_that_starts_itself_is_refused() {
        let definition = json!({"name": "a", "nodes": [
            {"id": "call", "type": "action", "config": {"action": "execute_pipeline", "pipeline": "a"}},
        ]});
        let refused = stored_graph(&definition.to_string()).expect_err("it would not end");
        assert_eq!(refused[0].pointer, "/nodes/0/config/pipeline");
    }
}

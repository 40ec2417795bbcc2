//! Single actions.

use serde_json::{Value, json};

use crate::expression::Names;
use crate::graph::Graph;
use crate::pipeline::*;
use crate::tool::tests::catalogue;

#[test]
fn a_single_action_becomes_a_node() {
    let tools = catalogue();
    let body = json!({
        "action": "call_api", "input": {"url": "https://a/{{ run.id }}"}, "retry": {"max_attempts": 1},
        "timeout": "3s", "lane": "web",
    });
    let node = check_action(&body, &tools).unwrap();
    assert_eq!((node.id.as_str(), node.node_type), ("call_api", NodeType::Action));
    assert_eq!((node.action(), node.lane.as_str()), (Some("call_api"), "web"));
    assert_eq!(
        (node.timeout, node.retry.as_ref().map(|retry| retry.max_attempts)),
        (Duration::from_secs(3), Some(1))
    );
    assert_eq!(
        Value::Object(node.config.clone()),
        json!({"action": "call_api", "url": "https://a/{{ run.id }}"})
    );
    let stored = serde_json::to_value(&node).unwrap();
    assert_eq!(serde_json::from_value::<Node>(stored).unwrap(), node);
    let graph = Graph::single(node).unwrap();
    assert_eq!((graph.len(), graph.roots(), graph.sinks()), (1, &[0][..], &[0][..]));
    assert!(check_action(&json!({"action": "echo"}), &tools).is_ok());
    assert!(check_action(&json!({"action": "echo", "input": null}), &tools).is_ok());
    let unknown = json!({"action": "send_pigeon", "input": {"to": 1}});
    assert!(check_action(&unknown, &tools).is_err());
    assert!(check_action_in(&unknown, Names::Run, None).is_ok(), "on trust");
}

#[test]
fn a_wrong_action_is_named_in_the_request() {
    for (body, pointer, words) in [
        (json!([]), "", "must be an object"),
        (json!({}), "/action", "missing; give one of `call_api`, `echo`"),
        (json!({"action": 1}), "/action", "must be a string"),
        (json!({"action": "run_task"}), "/action", "`run_task` cannot run here"),
        (json!({"action": "echo", "input": [1]}), "/input", "must be an object"),
        (json!({"action": "echo", "input": {"action": "x"}}), "/input/action", "beside its input"),
        (json!({"action": "call_api"}), "/input/url", "missing"),
        (json!({"action": "call_api", "input": {"url": 1}}), "/input/url", "http://"),
        (
            json!({"action": "echo", "retry": {"max_attempts": 0}}),
            "/retry/max_attempts",
            "from 1 to 1000",
        ),
        (json!({"action": "echo", "timeout": "1"}), "/timeout", "duration"),
        (json!({"action": "echo", "lane": ""}), "/lane", "letters"),
        (json!({"action": "echo", "inputs": {}}), "/inputs", "no field `inputs`"),
        (json!({"action": "echo", "input": {"x": ["a\0"]}}), "/input/x/0", "U+0000"),
        (json!({"action": "echo", "input": {"x": ["{{ 1 + }}"]}}), "/input/x/0", "does not parse"),
        (json!({"action": "echo", "input": {"x": "{{ nodes.a.output }}"}}), "/input/x", "no"),
        (json!({"action": "echo", "input": {"x": "{{ output }}"}}), "/input/x", "edge"),
        (
            json!({"action": "echo", "input": {"x": "{{ secrets['a b'] }}"}}),
            "/input/x",
            "must be followed by a name",
        ),
    ] {
        let found = check_action(&body, &catalogue()).unwrap_err();
        assert!(
            found.iter().any(|error| error.pointer == pointer && error.detail.contains(words)),
            "{body}: {found:#?}"
        );
    }
}

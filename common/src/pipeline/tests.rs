#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod action;
mod input;
mod mistakes;
mod sizes;
mod yaml;

use serde_json::{Value, json};

use super::*;
use crate::problem::Pointed;
use crate::tool::tests::catalogue;

/// A definition that is right, with one place of it changed.
fn with(pointer: &str, value: Value) -> Value {
    let mut definition = json!({
        "name": "nightly",
        "timeout": "1h",
        "nodes": [
            {"id": "start", "type": "trigger"},
            {"id": "fetch", "type": "action", "config": {"action": "call_api", "url": "https://example.com"}},
            {"id": "big", "type": "condition", "config": {"expression": "nodes.fetch.output.body.n > 10"}},
            {"id": "wait", "type": "delay", "config": {"duration": "10m"}},
            {"id": "run", "type": "action", "config": {"action": "run_command", "argv": ["true", "{{ input.x }}"]}},
        ],
        "edges": [
            {"from": "start", "to": "fetch"},
            {"from": "fetch", "to": "big", "when": "always"},
            {"from": "big", "to": "wait"},
            {"from": "big", "to": "run", "condition": "not output.result"},
        ],
    });
    if pointer.is_empty() {
        return value;
    }
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    match definition.pointer_mut(parent).unwrap() {
        Value::Object(fields) => drop(fields.insert(key.to_owned(), value)),
        Value::Array(items) if key == "-" => items.push(value),
        Value::Array(items) => items[key.parse::<usize>().unwrap()] = value,
        _ => panic!("{parent} holds nothing"),
    }
    definition
}

fn errors(value: &Value) -> Vec<Pointed> {
    check(value, &catalogue()).map_or_else(|refused| refused.errors, |_| Vec::new())
}

fn warnings(value: &Value) -> Vec<Pointed> {
    check(value, &catalogue()).unwrap_or_else(|refused| panic!("{:?}", refused.errors)).warnings
}

#[test]
fn a_definition_is_read_whole() {
    let definition = json!({
        "name": "n.1", "description": "d", "input_schema": {"type": "object"}, "timeout": "2h", "fail_fast": true,
        "nodes": [{
            "id": "a", "type": "action", "name": "A", "config": {"action": "echo", "x": 1}, "timeout": "10s",
            "retry": {"max_attempts": 5, "initial_interval": "2s", "multiplier": 1.5, "max_interval": "9s", "max_elapsed": "1m"},
            "breaker": {"failure_threshold": 2}, "on_worker_lost": "fail", "lane": "gpu", "position": {"x": 1, "y": 2},
        }, {"id": "b", "type": "parallel"}],
        "edges": [{"id": "e", "from": "a", "to": "b", "when": "failure", "condition": "run.id != ''"}],
    });
    let checked = check(&definition, &catalogue()).unwrap();
    assert_eq!(checked.warnings, []);
    let definition = checked.definition;
    assert_eq!((definition.name.as_str(), definition.fail_fast), ("n.1", true));
    assert_eq!(definition.timeout, Some(Duration::from_secs(7200)));
    let node = &definition.nodes[0];
    assert_eq!(
        node.retry,
        Some(RetryPolicy {
            max_attempts: 5,
            initial_interval: Duration::from_secs(2),
            multiplier: 1.5,
            max_interval: Duration::from_secs(9),
            max_elapsed: Some(Duration::from_secs(60)),
        })
    );
    assert_eq!(
        node.breaker,
        Some(Breaker { failure_threshold: 2, recovery: Duration::from_secs(60) })
    );
    assert_eq!((node.on_worker_lost, node.lane.as_str()), (OnWorkerLost::Fail, "gpu"));
    assert_eq!((node.timeout, node.action()), (Duration::from_secs(10), Some("echo")));
    let other = &definition.nodes[1];
    assert_eq!(other, &Node::new("b", NodeType::Parallel));
    assert_eq!((other.timeout, other.lane.as_str()), (Duration::from_secs(300), "default"));
    let edge = &definition.edges[0];
    assert_eq!((edge.when, edge.condition.as_deref()), (When::Failure, Some("run.id != ''")));
    let stored = serde_json::to_value(&definition).unwrap();
    assert_eq!(serde_json::from_value::<Definition>(stored.clone()).unwrap(), definition);
    let again = check(&stored, &catalogue()).unwrap().definition;
    assert_eq!(again, definition, "what is written can be sent again");
    let graph = stored_graph(&stored.to_string()).unwrap();
    assert_eq!(graph.into_definition(), definition, "and needs no tools to be read back");
}

#[test]
fn a_stored_definition_reads_back_as_it_was_checked() {
    let sent = with("/description", json!("as the client sent it"));
    let checked = check(&sent, &catalogue()).unwrap().definition;
    assert_eq!(serde_json::from_value::<Definition>(sent).unwrap(), checked);
}

#[test]
fn a_stored_definition_reads_as_one_that_is_sent_item_by_item_and_plainly_or_not() {
    let retry = json!({"max_attempts": 2, "initial_interval": "2m"});
    for (place, value) in [
        ("/nodes/1/retry", retry),
        ("/nodes/1/breaker", json!({"failure_threshold": 1})),
        ("/nodes/1/timeout", json!("3s")),
        ("/nodes/1/timeout", Value::Null),
        ("/nodes/1/config/x", json!({"y": [null, 1.5, "{{ input }}"]})),
        ("/nodes/1/lane", json!("gpu")),
        ("/nodes/1/name", json!("for people")),
        ("/nodes/1/position", json!({"x": 1, "y": 2})),
        ("/nodes/0/next", json!(["fetch"])),
        ("/edges/0/id", json!("first")),
        ("/edges/0/condition", json!(" ")),
        ("/edges/0/condition", json!("input.x")),
        ("/edges/0/when", json!("always")),
        ("/edges/0/when", Value::Null),
    ] {
        let sent = with(place, value);
        let read = stored_graph(&sent.to_string()).unwrap().into_definition();
        let with_care = super::read::definition(&sent, &mut findings::Findings::default()).unwrap();
        assert_eq!(read, with_care, "{place}");
    }
}

#[test]
fn what_is_only_suspicious_is_a_warning() {
    for (place, value, pointer, words) in [
        ("/nodes/0/next", json!(["fetch"]), "/nodes/0/next", "edges say what comes next"),
        ("/nodes/1/next", json!("big"), "/nodes/1/next", "ignored"),
        (
            "/nodes/0/config",
            json!({"cron": "* * * * *", "x": "{{ what }}"}),
            "/nodes/0/config/cron",
            "schedules",
        ),
        ("/nodes/0/trigger_type", json!("webhook"), "/nodes/0/trigger_type", "schedules"),
        (
            "/nodes/-",
            json!({"id": "alone", "type": "parallel"}),
            "/nodes/5",
            "no edge joins `alone`",
        ),
        (
            "/nodes/-",
            json!({"id": "p", "type": "parallel", "config": {"b/c": 1}}),
            "/nodes/5/config/b~1c",
            "ignored",
        ),
        ("/edges/-", json!({"from": "start", "to": "fetch"}), "/edges/4", "says the same"),
    ] {
        let found = warnings(&with(place, value));
        assert!(
            found
                .iter()
                .any(|warning| warning.pointer == pointer && warning.detail.contains(words)),
            "{place}: {found:#?}"
        );
    }
    let one = json!({"name": "one", "nodes": [{"id": "a", "type": "parallel"}]});
    assert_eq!(warnings(&one), [], "a node on its own is no loose end");
}

#[test]
fn what_looks_odd_is_right() {
    for (place, value) in [
        (
            "/nodes/1/config",
            json!({"action": "call_api", "url": "{{ input.url }}", "either": "{{ input.s }}"}),
        ),
        (
            "/nodes/1/config",
            json!({"action": "call_api", "url": "{{ input.base }}/x", "headers": "{{ input.h }}"}),
        ),
        ("/nodes/1/config", json!({"action": "call_api", "url": "HTTP://a", "json": null})),
        ("/nodes/1/config", json!({"action": "echo", "anything": ["goes"]})),
        ("/nodes/2/config", json!({"condition": "true"})),
        ("/nodes/2/config", json!({"expression": "{{ input.n > 1 }}"})),
        ("/nodes/3/config", json!({"seconds": 0.5})),
        ("/nodes/3/config", json!({"until": "2026-01-31T06:00:00+02:00"})),
        ("/nodes/3/config", json!({"duration": "{{ input.wait }}"})),
        ("/nodes/3/config", json!({"seconds": "{{ nodes.fetch.output.body.retry }}"})),
        (
            "/nodes/4/config",
            json!({"action": "run_command", "argv": ["sleep", 5, "{{ nodes.fetch.output }}"]}),
        ),
        ("/nodes/4/config", json!({"action": "run_command", "argv": "{{ input.argv }}"})),
        ("/edges/0/condition", json!("")),
        ("/edges/2/condition", json!("nodes.start.output.x == nodes.big.output.result")),
        ("/description", json!("é\u{1F600} \\u0000")),
        ("/nodes/1/retry", json!({"initial_interval": "2m"})),
        ("/nodes/1/position", json!([1, "anything"])),
    ] {
        assert_eq!(errors(&with(place, value.clone())), [], "{place} = {value}");
    }
}

#[test]
fn a_delay_is_read_after_its_templates_were_rendered() {
    let instant = "2026-01-31T04:00:00Z".parse().unwrap();
    for (config, delay) in [
        (json!({"duration": "24h"}), Delay::For(Duration::from_secs(86_400))),
        (json!({"seconds": 1.5}), Delay::For(Duration::from_millis(1_500))),
        (json!({"seconds": 0}), Delay::For(Duration::ZERO)),
        (json!({"until": "2026-01-31T06:00:00+02:00"}), Delay::Until(instant)),
    ] {
        assert_eq!(Delay::read(&config), Ok(delay), "{config}");
    }
    for config in
        [json!({}), json!(null), json!({"seconds": null}), json!({"duration": "1h", "seconds": 1})]
    {
        assert!(Delay::read(&config).is_err(), "{config}");
    }
}

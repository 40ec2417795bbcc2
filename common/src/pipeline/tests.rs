#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Instant;

use serde_json::{Value, json};

use super::*;
use crate::graph::Graph;
use crate::problem::Pointed;

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
    check(value).map_or_else(|refused| refused.errors, |_| Vec::new())
}

fn warnings(value: &Value) -> Vec<Pointed> {
    check(value).unwrap_or_else(|refused| panic!("{:?}", refused.errors)).warnings
}

#[test]
fn a_definition_is_read_whole() {
    let checked = check(&json!({
        "name": "n.1", "description": "d", "input_schema": {"type": "object"}, "timeout": "2h", "fail_fast": true,
        "nodes": [{
            "id": "a", "type": "action", "name": "A", "config": {"action": "echo", "x": 1}, "timeout": "10s",
            "retry": {"max_attempts": 5, "initial_interval": "2s", "multiplier": 1.5, "max_interval": "9s", "max_elapsed": "1m"},
            "breaker": {"failure_threshold": 2}, "on_worker_lost": "fail", "lane": "gpu", "position": {"x": 1, "y": 2},
        }, {"id": "b", "type": "parallel"}],
        "edges": [{"id": "e", "from": "a", "to": "b", "when": "failure", "condition": "run.id != ''"}],
    }))
    .unwrap();
    assert_eq!(checked.warnings, []);
    let definition = checked.definition;
    assert_eq!((definition.name.as_str(), definition.fail_fast), ("n.1", true));
    assert_eq!(definition.timeout, Some(Duration::from_secs(7200)));
    let node = &definition.nodes[0];
    assert_eq!(node.retry, RetryPolicy {
        max_attempts: 5,
        initial_interval: Duration::from_secs(2),
        multiplier: 1.5,
        max_interval: Duration::from_secs(9),
        max_elapsed: Some(Duration::from_secs(60)),
    });
    assert_eq!(node.breaker, Some(Breaker { failure_threshold: 2, recovery: Duration::from_secs(60) }));
    assert_eq!((node.on_worker_lost, node.lane.as_str()), (OnWorkerLost::Fail, "gpu"));
    assert_eq!((node.timeout, node.action()), (Duration::from_secs(10), Some("echo")));
    let other = &definition.nodes[1];
    assert_eq!(other, &Node::new("b", NodeType::Parallel));
    assert_eq!((other.timeout, other.lane.as_str()), (Duration::from_secs(300), "default"));
    let edge = &definition.edges[0];
    assert_eq!((edge.when, edge.condition.as_deref()), (When::Failure, Some("run.id != ''")));
    let stored = serde_json::to_value(&definition).unwrap();
    assert_eq!(serde_json::from_value::<Definition>(stored.clone()).unwrap(), definition);
    assert_eq!(check(&stored).unwrap().definition, definition, "what is written can be sent again");
}

#[test]
fn a_stored_definition_reads_back_as_it_was_checked() {
    let sent = with("/description", json!("as the client sent it"));
    let checked = check(&sent).unwrap().definition;
    assert_eq!(serde_json::from_value::<Definition>(sent).unwrap(), checked);
}

/// Each error: where it is made, what is put there, where it is reported, and words of it.
fn mistakes() -> Vec<(&'static str, Value, &'static str, &'static str)> {
    let node = |id: &str| json!({"id": id, "type": "parallel"});
    vec![
        ("", json!([]), "", "must be an object"),
        ("", json!("x"), "", "must be an object"),
        ("/name", json!(null), "/name", "missing"),
        ("/name", json!(7), "/name", "must be a string, and is 7"),
        ("/name", json!(""), "/name", "letters, digits"),
        ("/name", json!("a b"), "/name", "and is `a b`"),
        ("/name", json!("-a"), "/name", "a letter or digit first"),
        ("/name", json!("é"), "/name", "letters, digits"),
        ("/name", json!("x".repeat(129)), "/name", "at most 128"),
        ("/description", json!(1), "/description", "must be a string"),
        ("/description", json!("a\0b"), "/description", "U+0000"),
        ("/fail_fast", json!("yes"), "/fail_fast", "true or false"),
        ("/timeout", json!(60), "/timeout", "\"1h30m\""),
        ("/timeout", json!("60"), "/timeout", "\"1h30m\""),
        ("/timeout", json!("0s"), "/timeout", "longer than 0s"),
        ("/nope", json!(1), "/nope", "no field `nope`; there are `name`"),
        ("/Nodes", json!([]), "/Nodes", "did you mean `nodes`?"),
        ("/nodes", json!([]), "/nodes", "at least one"),
        ("/nodes", json!({}), "/nodes", "must be a list"),
        ("/nodes/0", json!(3), "/nodes/0", "must be an object, and is a number"),
        ("/nodes/0/id", json!(null), "/nodes/0/id", "missing"),
        ("/nodes/0/id", json!(5), "/nodes/0/id", "must be a string"),
        ("/nodes/0/id", json!("a/b"), "/nodes/0/id", "letters, digits"),
        ("/nodes/0/id", json!("fetch"), "/nodes/1/id", "taken by /nodes/0"),
        ("/nodes/-", node("run"), "/nodes/5/id", "taken by /nodes/4"),
        ("/nodes/0/type", json!(null), "/nodes/0/type", "missing"),
        ("/nodes/0/type", json!("loop"), "/nodes/0/type", "one of `trigger`, `action`"),
        ("/nodes/1/type", json!("agent"), "/nodes/1/type", "agents cannot run here yet"),
        ("/nodes/1/typ", json!("x"), "/nodes/1/typ", "no field `typ`"),
        ("/nodes/1/on-worker-lost", json!("x"), "/nodes/1/on-worker-lost", "did you mean `on_worker_lost`?"),
        ("/nodes/1/name", json!([]), "/nodes/1/name", "must be a string, and is a list"),
        ("/nodes/1/config", json!([]), "/nodes/1/config", "must be an object"),
        ("/nodes/1/timeout", json!("5 minutes"), "/nodes/1/timeout", "`5 minutes` is not a duration"),
        ("/nodes/1/lane", json!("gpu 1"), "/nodes/1/lane", "letters, digits"),
        ("/nodes/1/lane", json!("l".repeat(65)), "/nodes/1/lane", "at most 64"),
        ("/nodes/1/on_worker_lost", json!("panic"), "/nodes/1/on_worker_lost", "one of `retry`, `fail`"),
        ("/nodes/1/retry", json!(3), "/nodes/1/retry", "must be an object"),
        ("/nodes/1/retry", json!({"attempts": 3}), "/nodes/1/retry/attempts", "no field `attempts`"),
        ("/nodes/1/retry", json!({"max_attempts": 0}), "/nodes/1/retry/max_attempts", "from 1 to 1000"),
        ("/nodes/1/retry", json!({"max_attempts": 1.5}), "/nodes/1/retry/max_attempts", "whole number"),
        ("/nodes/1/retry", json!({"multiplier": 0.5}), "/nodes/1/retry/multiplier", "from 1 to 1000"),
        ("/nodes/1/retry", json!({"max_elapsed": -1}), "/nodes/1/retry/max_elapsed", "duration"),
        (
            "/nodes/1/retry",
            json!({"initial_interval": "2m", "max_interval": "1m"}),
            "/nodes/1/retry/initial_interval",
            "not be longer than `max_interval`",
        ),
        ("/nodes/1/breaker", json!({"recovery": "0s"}), "/nodes/1/breaker/recovery", "longer than 0s"),
        ("/nodes/1/breaker", json!({"failure_threshold": 0}), "/nodes/1/breaker/failure_threshold", "from 1"),
        ("/edges", json!(1), "/edges", "must be a list"),
        ("/edges/0", json!("a"), "/edges/0", "must be an object"),
        ("/edges/0/to", json!(null), "/edges/0/to", "missing"),
        ("/edges/0/to", json!(1), "/edges/0/to", "must be a string"),
        ("/edges/0/to", json!("fetsh"), "/edges/0/to", "no node `fetsh`; did you mean `fetch`?"),
        ("/edges/0/from", json!("nowhere"), "/edges/0/from", "no node `nowhere`"),
        ("/edges/0/when", json!("maybe"), "/edges/0/when", "one of `success`, `failure`, `always`"),
        ("/edges/0/label", json!("x"), "/edges/0/label", "no field `label`"),
        ("/edges/0/to", json!("start"), "/edges/0", "leads from `start` to itself"),
        ("/edges/-", json!({"from": "run", "to": "start"}), "/edges/4/to", "is a trigger"),
        ("/edges/-", json!({"from": "run", "to": "fetch"}), "/edges/4", "cycle: fetch → big → run → fetch"),
        ("/edges/0/condition", json!(true), "/edges/0/condition", "must be a string"),
        ("/edges/0/condition", json!("1 +"), "/edges/0/condition", "does not parse"),
        ("/edges/0/condition", json!("nodes.big.output"), "/edges/0/condition", "does not come before `start`"),
        ("/edges/0/condition", json!("nodes.bog.output"), "/edges/0/condition", "did you mean `big`?"),
        ("/edges/0/condition", json!("secrets.x"), "/edges/0/condition", "not available yet"),
    ]
}

/// The same for configs.
fn mistakes_in_configs() -> Vec<(&'static str, Value, &'static str, &'static str)> {
    let call = |field: &str, value: Value| {
        let mut config = json!({"action": "call_api", "url": "http://a"});
        config[field] = value;
        config
    };
    let command = |field: &str, value: Value| {
        let mut config = json!({"action": "run_command", "argv": ["true"]});
        config[field] = value;
        config
    };
    let (c1, c2, c3, c4) = ("/nodes/1/config", "/nodes/2/config", "/nodes/3/config", "/nodes/4/config");
    vec![
        (c1, json!({}), "/nodes/1/config/action", "`echo`, `call_api`, `run_command`"),
        (c1, json!({"action": 1}), "/nodes/1/config/action", "name of an action"),
        (c1, json!({"action": "send_notification"}), "/nodes/1/config/action", "`send_notification` cannot run here; those"),
        (c1, json!({"action": "execute_pipeline"}), "/nodes/1/config/action", "cannot run here"),
        (c1, json!({"action": "{{ input.x }}"}), "/nodes/1/config/action", "cannot run here"),
        (c1, json!({"action": "call_api"}), "/nodes/1/config/url", "`url` is missing; give a URL"),
        (c1, call("url", json!(7)), "/nodes/1/config/url", "a URL that begins with http:// or https://, and is 7"),
        (c1, call("url", json!("ftp://x")), "/nodes/1/config/url", "and is `ftp://x`"),
        (c1, call("method", json!("FETCH")), "/nodes/1/config/method", "one of GET"),
        (c1, call("body", json!("x")), "/nodes/1/config/body", "no field `body`; there are"),
        (c1, call("headers", json!("x")), "/nodes/1/config/headers", "an object of strings"),
        (c1, call("headers", json!({"a/b": {}})), "/nodes/1/config/headers/a~1b", "a string, a number"),
        (c1, call("query", json!({"a": [1, []]})), "/nodes/1/config/query/a/1", "a string, a number"),
        (c1, call("expected_status", json!(99)), "/nodes/1/config/expected_status", "a status such as 200"),
        (c1, call("expected_status", json!(["2xx", "x"])), "/nodes/1/config/expected_status/1", "a status"),
        (c1, call("response_limit", json!(1 << 30)), "/nodes/1/config/response_limit", "16 MiB"),
        (
            c1,
            json!({"action": "call_api", "url": "http://a", "json": 1, "text": "x"}),
            "/nodes/1/config",
            "one body: keep one of `json`, `text`",
        ),
        (c1, call("json", json!("{{ nodes.nope.output }}")), "/nodes/1/config/json", "no such node"),
        (c1, call("json", json!({"a": ["{{ nodes.fetch.output }}"]})), "/nodes/1/config/json/a/0", "its own output"),
        (c1, call("json", json!("{{ nodes.run.output }}")), "/nodes/1/config/json", "does not come before `fetch`"),
        (c1, call("text", json!("x {{ output }}")), "/nodes/1/config/text", "only in the condition of an edge"),
        (c1, call("text", json!("x {{ 1 + }}")), "/nodes/1/config/text", "does not parse"),
        (c1, call("text", json!("x {{ nope.y }}")), "/nodes/1/config/text", "`nope` is not defined"),
        (c2, json!({}), "/nodes/2/config/expression", "missing"),
        (c2, json!({"expression": 1}), "/nodes/2/config/expression", "true or false, and is 1"),
        (c2, json!({"expression": ""}), "/nodes/2/config/expression", "empty"),
        (c2, json!({"expression": "true", "condition": "true"}), "/nodes/2/config/condition", "keep one"),
        (c2, json!({"expression": "true", "else": "x"}), "/nodes/2/config/else", "no field `else`"),
        (c2, json!({"expression": "output.x"}), "/nodes/2/config/expression", "only in the condition of an edge"),
        (c2, json!({"expression": "nodes.run.output"}), "/nodes/2/config/expression", "does not come before `big`"),
        (c2, json!({"expression": "nodes.big.output"}), "/nodes/2/config/expression", "its own output"),
        (c2, json!({"condition": "1 +"}), "/nodes/2/config/condition", "does not parse"),
        (c3, json!({}), "/nodes/3/config", "exactly one of"),
        (c3, json!({"seconds": 1, "duration": "1s"}), "/nodes/3/config", "exactly one of"),
        (c3, json!({"seconds": -1}), "/nodes/3/config/seconds", "from 0"),
        (c3, json!({"seconds": 1e300}), "/nodes/3/config/seconds", "from 0"),
        (c3, json!({"seconds": "1"}), "/nodes/3/config/seconds", "from 0"),
        (c3, json!({"duration": 5}), "/nodes/3/config/duration", "duration"),
        (c3, json!({"duration": "5"}), "/nodes/3/config/duration", "`5` is not a duration"),
        (c3, json!({"until": "tomorrow"}), "/nodes/3/config/until", "and is `tomorrow`"),
        (c3, json!({"minutes": 5, "seconds": 1}), "/nodes/3/config/minutes", "no field `minutes`"),
        (c3, json!({"duration": "1h"}), "/nodes/3/config/duration", "1h is not shorter than the run's time-out of 1h"),
        (c3, json!({"seconds": 7200}), "/nodes/3/config/seconds", "not shorter than"),
        (c3, json!({"duration": "{{ nodes.run.output }}"}), "/nodes/3/config/duration", "does not come before"),
        (c4, command("argv", json!([])), "/nodes/4/config/argv", "a list: the program"),
        (c4, command("argv", json!("ls -l")), "/nodes/4/config/argv", "a list: the program"),
        (c4, command("argv", json!(["ls", null])), "/nodes/4/config/argv/1", "a string"),
        (c4, command("env", json!({"A": []})), "/nodes/4/config/env/A", "a string"),
        (c4, command("cwd", json!("tmp")), "/nodes/4/config/cwd", "an absolute path"),
        (c4, command("ok_exit_codes", json!([256])), "/nodes/4/config/ok_exit_codes/0", "from 0 to 255"),
        (c4, command("shell", json!(true)), "/nodes/4/config/shell", "no field `shell`"),
    ]
}

#[test]
fn each_mistake_is_named_where_it_is() {
    assert_eq!(errors(&with("/description", json!("right"))), []);
    for (place, value, pointer, words) in mistakes().into_iter().chain(mistakes_in_configs()) {
        let found = errors(&with(place, value.clone()));
        assert!(
            found.iter().any(|error| error.pointer == pointer && error.detail.contains(words)),
            "{place} = {value}: wanted {pointer}: {words}, found {found:#?}"
        );
    }
}

#[test]
fn one_mistake_is_one_error() {
    // Those that make an end of an edge, or an expression, unknown have consequences of their own.
    for (place, value, pointer, words) in mistakes_in_configs() {
        let found = errors(&with(place, value.clone()));
        let with_words = found.iter().filter(|error| error.pointer == pointer).count();
        assert!(with_words == 1 || value["expression"] == "", "{place} = {value} ({words}): {found:#?}");
    }
}

#[test]
fn all_mistakes_are_found_in_one_go() {
    let found = errors(&json!({
        "name": "a b", "timeout": "x", "nope": 1, "input_schema": {"type": "objekt"},
        "nodes": [
            {"id": "a", "type": "action", "config": {"action": "nope"}, "retry": {"max_attempts": 0}},
            {"id": "a", "type": "delay", "config": {}},
            {"type": "condition", "config": {"expression": "1 +"}},
            {"id": "c", "type": "parallel"}, {"id": "d", "type": "parallel"},
            {"id": "e", "type": "parallel"}, {"id": "f", "type": "parallel"},
            {"id": "g", "type": "action", "config": {"action": "echo", "x": "{{ nodes.h.output }}", "y": ["{{ nope }}"]}},
            "not a node",
        ],
        "edges": [
            {"from": "c", "to": "d"}, {"from": "d", "to": "c"},
            {"from": "e", "to": "f"}, {"from": "f", "to": "e"},
            {"from": "x", "to": "y"}, {"from": "c", "to": "c", "when": 1},
        ],
    }));
    let mut pointers: Vec<_> = found.iter().map(|error| error.pointer.as_str()).collect();
    pointers.sort_unstable();
    assert_eq!(pointers, [
        "/edges/1", "/edges/3", "/edges/4/from", "/edges/4/to", "/edges/5", "/edges/5/when", "/input_schema/type",
        "/name", "/nodes/0/config/action", "/nodes/0/retry/max_attempts", "/nodes/1/config", "/nodes/1/id",
        "/nodes/2/config/expression", "/nodes/2/id", "/nodes/7/config/y/0", "/nodes/8", "/nope", "/timeout",
    ], "{found:#?}");
}

#[test]
fn what_is_only_suspicious_is_a_warning() {
    for (place, value, pointer, words) in [
        ("/nodes/0/next", json!(["fetch"]), "/nodes/0/next", "edges say what comes next"),
        ("/nodes/1/next", json!("big"), "/nodes/1/next", "ignored"),
        ("/nodes/0/config", json!({"cron": "* * * * *", "x": "{{ what }}"}), "/nodes/0/config/cron", "schedules"),
        ("/nodes/0/trigger_type", json!("webhook"), "/nodes/0/trigger_type", "schedules"),
        ("/nodes/-", json!({"id": "alone", "type": "parallel"}), "/nodes/5", "no edge joins `alone`"),
        ("/nodes/-", json!({"id": "p", "type": "parallel", "config": {"b/c": 1}}), "/nodes/5/config/b~1c", "ignored"),
        ("/edges/-", json!({"from": "start", "to": "fetch"}), "/edges/4", "says the same"),
    ] {
        let found = warnings(&with(place, value));
        assert!(
            found.iter().any(|warning| warning.pointer == pointer && warning.detail.contains(words)),
            "{place}: {found:#?}"
        );
    }
    let one = json!({"name": "one", "nodes": [{"id": "a", "type": "parallel"}]});
    assert_eq!(warnings(&one), [], "a node on its own is no loose end");
}

#[test]
fn what_looks_odd_is_right() {
    for (place, value) in [
        ("/nodes/1/config", json!({"action": "call_api", "url": "{{ input.url }}", "expected_status": "{{ input.s }}"})),
        ("/nodes/1/config", json!({"action": "call_api", "url": "{{ input.base }}/x", "headers": "{{ input.h }}"})),
        ("/nodes/1/config", json!({"action": "call_api", "url": "HTTP://a", "method": "post", "json": null})),
        ("/nodes/1/config", json!({"action": "call_api", "url": "http://a", "expected_status": [200, "3xx"]})),
        ("/nodes/1/config", json!({"action": "echo", "anything": ["goes"]})),
        ("/nodes/2/config", json!({"condition": "true"})),
        ("/nodes/2/config", json!({"expression": "{{ input.n > 1 }}"})),
        ("/nodes/3/config", json!({"seconds": 0.5})),
        ("/nodes/3/config", json!({"until": "2026-01-31T06:00:00+02:00"})),
        ("/nodes/3/config", json!({"duration": "{{ input.wait }}"})),
        ("/nodes/3/config", json!({"seconds": "{{ nodes.fetch.output.body.retry }}"})),
        ("/nodes/4/config", json!({"action": "run_command", "argv": ["sleep", 5, "{{ nodes.fetch.output }}"]})),
        ("/nodes/4/config", json!({"action": "run_command", "argv": "{{ input.argv }}", "cwd": null})),
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
fn limits_are_kept() {
    let nodes = |count: usize| -> Value {
        (0..count).map(|n| json!({"id": format!("n{n}"), "type": "parallel"})).collect()
    };
    let found = errors(&json!({"name": "n", "nodes": nodes(20_001)}));
    assert!(found[0].pointer == "/nodes" && found[0].detail.contains("at most 20000"), "{found:?}");
    let edges: Value = (0..50_001).map(|_| json!({"from": "n0", "to": "n1"})).collect();
    let found = errors(&json!({"name": "n", "nodes": nodes(2), "edges": edges}));
    assert!(found[0].pointer == "/edges" && found[0].detail.contains("at most 50000"), "{found:?}");
    let found = errors(&with("/description", json!("x".repeat(4 << 20))));
    assert!(found.len() == 1 && found[0].pointer.is_empty() && found[0].detail.contains("4 MiB"), "{found:?}");
}

#[test]
fn large_definitions_are_checked_quickly() {
    let count = 20_000;
    let id = |n: usize| format!("n{n}");
    // Each node names one far before it, and its direct predecessor.
    let chain: Value = (0..count)
        .map(|n| {
            let mut config = json!({"action": "echo"});
            if n > 1 {
                config["x"] = json!(format!("{{{{ nodes.{}.output.x }}}}", id(n / 2)));
                config["y"] = json!(format!("a {{{{ nodes.{}.output }}}}", id(n - 1)));
            }
            json!({"id": id(n), "type": "action", "config": config})
        })
        .collect();
    let direct = (1..count).map(|n| (n - 1, n));
    let far = (1..count).flat_map(|n| [(n / 2, n), (n / 3, n)]).filter(|(from, to)| from + 1 < *to);
    let edges: Value = direct
        .chain(far)
        .take(50_000)
        .map(|(from, to)| json!({"from": id(from), "to": id(to)}))
        .collect();
    let mut definition = json!({"name": "big", "nodes": chain, "edges": edges});
    let time = |definition: &Value| {
        let started = Instant::now();
        let outcome = check(definition);
        (outcome, started.elapsed())
    };
    let (outcome, taken) = time(&definition);
    assert_eq!(outcome.map(|checked| checked.definition.nodes.len()).map_err(|r| r.errors), Ok(count));
    // Unoptimised, on a busy machine; a quadratic algorithm would take minutes.
    assert!(taken.as_secs() < 10, "took {taken:?}");
    println!("20,000 nodes and 50,000 edges were checked in {taken:?}");

    definition["edges"].as_array_mut().unwrap()[0] = json!({"from": id(count - 1), "to": id(0)});
    let (outcome, taken) = time(&definition);
    let errors = outcome.unwrap_err().errors;
    assert!(errors.iter().any(|error| error.detail.contains("cycle")), "{:?}", errors.first());
    assert!(errors.iter().all(|error| error.detail.len() < 1000));
    assert!(taken.as_secs() < 10, "took {taken:?}");

    for edge in definition["edges"].as_array_mut().unwrap() {
        edge["to"] = json!("n999999x");
    }
    let (outcome, taken) = time(&definition);
    let errors = outcome.unwrap_err().errors;
    assert!(errors.len() == 1001 && errors[1000].detail.contains("more errors"), "{:?}", errors.last());
    assert!(taken.as_secs() < 10, "took {taken:?}");
}

#[test]
fn a_single_action_becomes_a_node() {
    let node = check_action(&json!({
        "action": "call_api", "input": {"url": "https://a/{{ run.id }}"}, "retry": {"max_attempts": 1},
        "timeout": "3s", "lane": "web",
    }))
    .unwrap();
    assert_eq!((node.id.as_str(), node.node_type), ("call_api", NodeType::Action));
    assert_eq!((node.action(), node.lane.as_str()), (Some("call_api"), "web"));
    assert_eq!((node.timeout, node.retry.max_attempts), (Duration::from_secs(3), 1));
    assert_eq!(Value::Object(node.config.clone()), json!({"action": "call_api", "url": "https://a/{{ run.id }}"}));
    let stored = serde_json::to_value(&node).unwrap();
    assert_eq!(serde_json::from_value::<Node>(stored).unwrap(), node);
    let graph = Graph::single(node).unwrap();
    assert_eq!((graph.len(), graph.roots(), graph.sinks()), (1, &[0][..], &[0][..]));
    assert!(check_action(&json!({"action": "echo"})).is_ok());
    assert!(check_action(&json!({"action": "echo", "input": null})).is_ok());
}

#[test]
fn a_wrong_action_is_named_in_the_request() {
    for (body, pointer, words) in [
        (json!([]), "", "must be an object"),
        (json!({}), "/action", "missing; give one of `echo`"),
        (json!({"action": 1}), "/action", "must be a string"),
        (json!({"action": "run_task"}), "/action", "`run_task` cannot run here"),
        (json!({"action": "echo", "input": [1]}), "/input", "must be an object"),
        (json!({"action": "echo", "input": {"action": "x"}}), "/input/action", "beside its input"),
        (json!({"action": "call_api"}), "/input/url", "missing"),
        (json!({"action": "call_api", "input": {"url": 1}}), "/input/url", "http://"),
        (json!({"action": "echo", "retry": {"max_attempts": 0}}), "/retry/max_attempts", "from 1 to 1000"),
        (json!({"action": "echo", "timeout": "1"}), "/timeout", "duration"),
        (json!({"action": "echo", "lane": ""}), "/lane", "letters"),
        (json!({"action": "echo", "inputs": {}}), "/inputs", "no field `inputs`"),
        (json!({"action": "echo", "input": {"x": ["a\0"]}}), "/input/x/0", "U+0000"),
        (json!({"action": "echo", "input": {"x": ["{{ 1 + }}"]}}), "/input/x/0", "does not parse"),
        (json!({"action": "echo", "input": {"x": "{{ nodes.a.output }}"}}), "/input/x", "no"),
        (json!({"action": "echo", "input": {"x": "{{ output }}"}}), "/input/x", "edge"),
        (json!({"action": "echo", "input": {"x": "{{ secrets.a }}"}}), "/input/x", "not available yet"),
    ] {
        let found = check_action(&body).unwrap_err();
        assert!(
            found.iter().any(|error| error.pointer == pointer && error.detail.contains(words)),
            "{body}: {found:#?}"
        );
    }
}

#[test]
fn yaml_is_the_json_that_it_stands_for() {
    let text = "name: nightly\nnodes:\n  - &a {id: a, type: parallel}\n  - <<: *a\n    id: b\n\
                edges:\n  - {from: a, to: b, when: always}\ntimeout: 1h\nfail_fast: no\n";
    let value = from_yaml(text).unwrap();
    assert_eq!(value["nodes"][1], json!({"id": "b", "type": "parallel"}));
    assert_eq!(value["timeout"], json!("1h"));
    let fast = from_yaml("a: true\nb: 'no'\nc: 1.5\nd: 007\ne: ~\nf: 18446744073709551615").unwrap();
    assert_eq!((&fast["a"], &fast["b"], &fast["c"]), (&json!(true), &json!("no"), &json!(1.5)));
    assert_eq!((&fast["e"], &fast["f"]), (&json!(null), &json!(u64::MAX)));
}

#[test]
fn yaml_that_is_wrong_or_a_bomb_is_refused() {
    let bomb = {
        let mut text = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for n in 1..12 {
            let alias = vec![format!("*a{}", n - 1); 10].join(",");
            text.push_str(&format!("a{n}: &a{n} [{alias}]\n"));
        }
        text
    };
    for text in [
        "a: [", "a: 1\na: 2", "a: 1\n---\nb: 2", "? {a: 1}\n: 2", &bomb, &"[".repeat(100_000),
        &"- ".repeat(100_000), &format!("a: {}", "x".repeat(20 << 20)), "a: !!binary x y", "a: .nan", "a: *b",
    ] {
        let started = Instant::now();
        let refused = from_yaml(text);
        let begin: String = text.chars().take(30).collect();
        assert!(refused.is_err(), "{begin}: {refused:?}");
        assert!(refused.unwrap_err().len() < 1000, "{begin}");
        assert!(started.elapsed().as_secs() < 5, "{begin} took {:?}", started.elapsed());
    }
}

#[test]
fn an_input_is_checked_against_its_schema() {
    let schema = InputSchema::compile(&json!({
        "type": "object", "required": ["n"], "additionalProperties": false,
        "properties": {
            "n": {"type": "integer", "minimum": 1}, "c": {"enum": ["red", "blue"]}, "k": {"const": 1},
            "s": {"type": "string", "maxLength": 3}, "p": {"pattern": "^a"}, "l": {"$ref": "#/$defs/l"},
            "never": false, "o": {"oneOf": [{"type": "string"}, {"type": "null"}]},
        },
        "$defs": {"l": {"type": "array", "items": {"type": "integer"}, "prefixItems": [{"type": "string"}]}},
    }))
    .unwrap();
    assert_eq!(schema.check(&json!({"n": 1, "c": "red", "k": 1, "s": "abc", "p": "a", "l": ["x", 1], "o": null})), []);
    for (input, pointer, words) in [
        (json!([]), "", "must be of type object, and is a list"),
        (json!({}), "/n", "`n` is missing"),
        (json!({"n": "x"}), "/n", "must be of type integer, and is a string"),
        (json!({"n": 0}), "/n", "minimum of 1"),
        (json!({"n": 1, "a/b": 1}), "/a~1b", "no field `a/b`"),
        (json!({"n": 1, "c": "green"}), "/c", "must be one of [\"red\",\"blue\"], and is `green`"),
        (json!({"n": 1, "k": 2}), "/k", "must be 1, and is 2"),
        (json!({"n": 1, "s": "x".repeat(100_000)}), "/s", "longer than 3"),
        (json!({"n": 1, "p": "b"}), "/p", "must match the pattern `^a`, and is `b`"),
        (json!({"n": 1, "l": [1, "x"]}), "/l/1", "integer"),
        (json!({"n": 1, "never": 1}), "/never", "nothing is allowed"),
        (json!({"n": 1, "o": 7}), "/o", "the value"),
    ] {
        let found = schema.check(&input);
        assert!(
            found.iter().any(|e| e.pointer == pointer && e.detail.contains(words) && e.detail.len() < 1000),
            "{pointer} {words}: {found:#?}"
        );
    }
    let many = json!({"n": 1, "l": (0..10_000).map(|_| "x").collect::<Vec<_>>()});
    assert_eq!(schema.check(&many).len(), 100);
}

#[test]
fn a_wrong_input_schema_is_an_error_of_the_definition() {
    for (schema, pointer, words) in [
        (json!({"type": "objekt"}), "/input_schema/type", ""),
        (json!({"properties": {"a": {"minimum": "1"}}}), "/input_schema/properties/a/minimum", "number"),
        (json!([]), "/input_schema", ""),
        (json!({"pattern": "("}), "/input_schema/pattern", ""),
        (json!({"$ref": "https://example.com/schema.json"}), "/input_schema", "only references within the schema"),
        (json!({"$ref": "file:///etc/passwd"}), "/input_schema", "only references within the schema"),
        (json!({"$ref": "#/$defs/nope"}), "/input_schema", ""),
        (json!({"properties": {"a": {"$ref": "http://127.0.0.1:1/x"}}}), "/input_schema", "only references"),
        (json!({"$schema": "https://example.com/mine"}), "/input_schema", ""),
    ] {
        let found = errors(&with("/input_schema", schema.clone()));
        assert!(
            found.iter().any(|error| error.pointer.starts_with(pointer) && error.detail.contains(words)),
            "{schema}: {found:#?}"
        );
    }
    for schema in [json!(true), json!({}), json!({"$schema": "http://json-schema.org/draft-07/schema#"})] {
        assert_eq!(errors(&with("/input_schema", schema)), []);
    }
}

#[test]
fn a_hostile_input_schema_does_no_harm() {
    let run = || {
        let chain = |n: usize| (0..n).fold(json!({}), |schema, _| json!({"properties": {"a": schema}}));
        for schema in [
            json!({"$ref": "#"}),
            json!({"allOf": [{"$ref": "#"}, {"$ref": "#"}]}),
            json!({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}),
            json!({"not": {"$ref": "#"}}),
            json!({"anyOf": [{"$dynamicRef": "#x"}], "$dynamicAnchor": "x"}),
            json!({"pattern": "^(a+)+$"}),
            json!({"pattern": "(?:a{1000}){1000}"}),
            json!({"pattern": "(".repeat(10_000)}),
            chain(40),
        ] {
            if let Ok(schema) = InputSchema::compile(&schema) {
                schema.check(&json!("a".repeat(50) + "!"));
                schema.check(&json!({"a": {"a": {"a": 1}}}));
            }
        }
    };
    std::thread::Builder::new().stack_size(2 << 20).spawn(run).unwrap().join().unwrap();
}

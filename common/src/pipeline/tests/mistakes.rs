//! Each kind of mistake, where it is named, and how.

use serde_json::{Value, json};

use super::{errors, with};

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
        (
            "/nodes/1/on-worker-lost",
            json!("x"),
            "/nodes/1/on-worker-lost",
            "did you mean `on_worker_lost`?",
        ),
        ("/nodes/1/name", json!([]), "/nodes/1/name", "must be a string, and is a list"),
        ("/nodes/1/config", json!([]), "/nodes/1/config", "must be an object"),
        (
            "/nodes/1/timeout",
            json!("5 minutes"),
            "/nodes/1/timeout",
            "`5 minutes` is not a duration",
        ),
        ("/nodes/1/lane", json!("gpu 1"), "/nodes/1/lane", "letters, digits"),
        ("/nodes/1/lane", json!("l".repeat(65)), "/nodes/1/lane", "at most 64"),
        (
            "/nodes/1/on_worker_lost",
            json!("panic"),
            "/nodes/1/on_worker_lost",
            "one of `retry`, `fail`",
        ),
        ("/nodes/1/retry", json!(3), "/nodes/1/retry", "must be an object"),
        (
            "/nodes/1/retry",
            json!({"attempts": 3}),
            "/nodes/1/retry/attempts",
            "no field `attempts`",
        ),
        (
            "/nodes/1/retry",
            json!({"max_attempts": 0}),
            "/nodes/1/retry/max_attempts",
            "from 1 to 1000",
        ),
        (
            "/nodes/1/retry",
            json!({"max_attempts": 1.5}),
            "/nodes/1/retry/max_attempts",
            "whole number",
        ),
        (
            "/nodes/1/retry",
            json!({"multiplier": 0.5}),
            "/nodes/1/retry/multiplier",
            "from 1 to 1000",
        ),
        ("/nodes/1/retry", json!({"max_elapsed": -1}), "/nodes/1/retry/max_elapsed", "duration"),
        (
            "/nodes/1/retry",
            json!({"initial_interval": "2m", "max_interval": "1m"}),
            "/nodes/1/retry/initial_interval",
            "not be longer than `max_interval`",
        ),
        (
            "/nodes/1/breaker",
            json!({"recovery": "0s"}),
            "/nodes/1/breaker/recovery",
            "longer than 0s",
        ),
        (
            "/nodes/1/breaker",
            json!({"failure_threshold": 0}),
            "/nodes/1/breaker/failure_threshold",
            "from 1",
        ),
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
        (
            "/edges/-",
            json!({"from": "run", "to": "fetch"}),
            "/edges/4",
            "cycle: fetch → big → run → fetch",
        ),
        ("/edges/0/condition", json!(true), "/edges/0/condition", "must be a string"),
        ("/edges/0/condition", json!("1 +"), "/edges/0/condition", "does not parse"),
        (
            "/edges/0/condition",
            json!("nodes.big.output"),
            "/edges/0/condition",
            "does not come before `start`",
        ),
        (
            "/edges/0/condition",
            json!("nodes.bog.output"),
            "/edges/0/condition",
            "did you mean `big`?",
        ),
        (
            "/edges/0/condition",
            json!("secrets.x"),
            "/edges/0/condition",
            "only in the config of an action",
        ),
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
    let (c1, c2, c3, c4) =
        ("/nodes/1/config", "/nodes/2/config", "/nodes/3/config", "/nodes/4/config");
    vec![
        (c1, json!({}), "/nodes/1/config/action", "`call_api`, `echo`, `run_command`"),
        (c1, json!({"action": 1}), "/nodes/1/config/action", "name of an action"),
        (
            c1,
            json!({"action": "send_notification"}),
            "/nodes/1/config/action",
            "`send_notification` cannot run here; those",
        ),
        (c1, json!({"action": "execute_pipeline"}), "/nodes/1/config/action", "cannot run here"),
        (c1, json!({"action": "{{ input.x }}"}), "/nodes/1/config/action", "cannot run here"),
        (c1, json!({"action": "call_api"}), "/nodes/1/config/url", "`url` is missing; give a URL"),
        (
            c1,
            call("url", json!(7)),
            "/nodes/1/config/url",
            "a URL that begins with http:// or https://, and is 7",
        ),
        (c1, call("url", json!("ftp://x")), "/nodes/1/config/url", "and is `ftp://x`"),
        (c1, call("body", json!("x")), "/nodes/1/config/body", "no field `body`; there are"),
        (c1, call("headers", json!("x")), "/nodes/1/config/headers", "an object of strings"),
        (
            c1,
            call("headers", json!({"a/b": {}})),
            "/nodes/1/config/headers/a~1b",
            "a string, a number",
        ),
        (
            c1,
            json!({"action": "call_api", "url": "http://a", "json": 1, "text": "x"}),
            "/nodes/1/config",
            "one body: keep one of `json`, `text`",
        ),
        (
            c1,
            call("json", json!("{{ nodes.nope.output }}")),
            "/nodes/1/config/json",
            "no such node",
        ),
        (
            c1,
            call("json", json!({"a": ["{{ nodes.fetch.output }}"]})),
            "/nodes/1/config/json/a/0",
            "its own output",
        ),
        (
            c1,
            call("json", json!("{{ nodes.run.output }}")),
            "/nodes/1/config/json",
            "does not come before `fetch`",
        ),
        (
            c1,
            call("text", json!("x {{ output }}")),
            "/nodes/1/config/text",
            "only in the condition of an edge",
        ),
        (c1, call("text", json!("x {{ 1 + }}")), "/nodes/1/config/text", "does not parse"),
        (
            c1,
            call("text", json!("x {{ nope.y }}")),
            "/nodes/1/config/text",
            "`nope` is not defined",
        ),
        (c2, json!({}), "/nodes/2/config/expression", "missing"),
        (c2, json!({"expression": 1}), "/nodes/2/config/expression", "true or false, and is 1"),
        (c2, json!({"expression": ""}), "/nodes/2/config/expression", "empty"),
        (
            c2,
            json!({"expression": "true", "condition": "true"}),
            "/nodes/2/config/condition",
            "keep one",
        ),
        (c2, json!({"expression": "true", "else": "x"}), "/nodes/2/config/else", "no field `else`"),
        (
            c2,
            json!({"expression": "output.x"}),
            "/nodes/2/config/expression",
            "only in the condition of an edge",
        ),
        (
            c2,
            json!({"expression": "nodes.run.output"}),
            "/nodes/2/config/expression",
            "does not come before `big`",
        ),
        (
            c2,
            json!({"expression": "nodes.big.output"}),
            "/nodes/2/config/expression",
            "its own output",
        ),
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
        (
            c3,
            json!({"duration": "1h"}),
            "/nodes/3/config/duration",
            "1h is not shorter than the run's time-out of 1h",
        ),
        (c3, json!({"seconds": 7200}), "/nodes/3/config/seconds", "not shorter than"),
        (
            c3,
            json!({"duration": "{{ nodes.run.output }}"}),
            "/nodes/3/config/duration",
            "does not come before",
        ),
        (c4, command("argv", json!([])), "/nodes/4/config/argv", "a list: the program"),
        (c4, command("argv", json!("ls -l")), "/nodes/4/config/argv", "a list: the program"),
        (c4, command("argv", json!(["ls", null])), "/nodes/4/config/argv/1", "a string"),
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
        assert!(
            with_words == 1 || value["expression"] == "",
            "{place} = {value} ({words}): {found:#?}"
        );
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
    assert_eq!(
        pointers,
        [
            "/edges/1",
            "/edges/3",
            "/edges/4/from",
            "/edges/4/to",
            "/edges/5",
            "/edges/5/when",
            "/input_schema/type",
            "/name",
            "/nodes/0/config/action",
            "/nodes/0/retry/max_attempts",
            "/nodes/1/config",
            "/nodes/1/id",
            "/nodes/2/config/expression",
            "/nodes/2/id",
            "/nodes/7/config/y/0",
            "/nodes/8",
            "/nope",
            "/timeout",
        ],
        "{found:#?}"
    );
}

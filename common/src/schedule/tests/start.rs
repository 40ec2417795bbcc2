//! What a fire starts.

use serde_json::{Value, json};
use uuid::Uuid;

use super::at;
use crate::expression::{NoOutputs, Scope, Template};
use crate::schedule::{Occasion, Started, check, compile, is_met};
use crate::tool::tests::catalogue;

fn start(body: Value, event: Value) -> Result<Started, String> {
    let spec = check(&body, &catalogue()).unwrap();
    let (_, _, starter) = compile(&spec, Some(&catalogue())).unwrap();
    let occasion =
        Occasion { schedule: Uuid::nil(), fire_at: at("2026-01-02T03:04:05Z"), event: &event };
    starter.start(&spec, occasion)
}

fn listener(start: Value) -> Value {
    json!({"name": "l", "kind": "event", "event_type": "*", "tags": ["t"], "start": start})
}

#[test]
fn templates_see_the_schedule_the_moment_and_the_event() {
    let input = json!({
        "name": "{{ schedule.name }}", "day": "{{ fire_at[:10] }}", "sum": "{{ data.a + event.data.b }}",
        "said": "it was {{ event.type }}", "all": "{{ event.data }}", "n": 1,
    });
    let event = json!({"id": "e", "type": "x.y", "data": {"a": 1, "b": 2}});
    let started = start(listener(json!({"pipeline": "p", "input": input})), event).unwrap();
    let Started::Pipeline { name, input } = started else { panic!("{started:?}") };
    assert_eq!(name, "p");
    assert_eq!(
        input,
        json!({"name": "l", "day": "2026-01-02", "sum": 3, "said": "it was x.y", "all": {"a": 1, "b": 2}, "n": 1})
    );
}

#[test]
fn what_an_event_carries_is_never_rendered_again() {
    let tricky = "{{ run.id }} \" \\ {% set x = 1 %}\n}} ü";
    let event = json!({"type": "x", "data": {"text": tricky}});
    let body = listener(
        json!({"action": "echo", "input": {"t": "{{ data.text }}", "deep": ["{{ data }}"]}}),
    );
    let Started::Action { node, input } = start(body, event).unwrap() else { panic!("an action") };
    assert_eq!(input["t"], tricky);
    // As a worker renders it.
    let config = Template::compile(&Value::Object(node.config)).unwrap();
    let run = json!({"id": "secret"});
    let scope =
        Scope { input: &Value::Null, outputs: &NoOutputs, run: &run, output: None, secrets: None };
    let rendered = config.render(&scope).unwrap();
    assert_eq!((&rendered["t"], &rendered["deep"][0]["text"]), (&json!(tricky), &json!(tricky)));
}

#[test]
fn what_cannot_be_started_says_why() {
    let body = listener(json!({"pipeline": "p", "input": "{{ data.missing }}"}));
    let error = start(body, json!({"data": {}})).unwrap_err();
    assert!(error.contains("`data.missing` is undefined"), "{error}");
    let body = listener(json!({"action": "call_api", "input": {"url": "{{ data.url }}"}}));
    let error = start(body.clone(), json!({"data": {"url": "nowhere"}})).unwrap_err();
    assert!(error.contains("/input/url") && error.contains("http://"), "{error}");
    let error = start(body, json!({"data": {"url": "http://a\u{0}"}})).unwrap_err();
    assert!(error.contains("U+0000"), "{error}");
    let body = listener(json!({"pipeline": "p", "input": "{{ data * 200000 }}"}));
    let error = start(body, json!({"data": "long text"})).unwrap_err();
    assert!(error.contains("bytes") || error.contains("too much data"), "{error}");
}

#[test]
fn a_condition_is_over_the_event() {
    let met = |condition: &str, data: Value| {
        let mut body = listener(json!({"pipeline": "p"}));
        body["condition"] = json!(condition);
        let spec = check(&body, &catalogue()).unwrap();
        let (_, condition, _) = compile(&spec, Some(&catalogue())).unwrap();
        let event = json!({"type": "x", "data": data});
        let occasion =
            Occasion { schedule: Uuid::nil(), fire_at: at("2026-01-02T03:04:05Z"), event: &event };
        is_met(condition.as_ref(), &spec, occasion)
    };
    assert_eq!(met("data.n > 3", json!({"n": 4})), Ok(true));
    assert_eq!(met("{{ event.data.n > 3 }}", json!({"n": 3})), Ok(false));
    assert_eq!(met("event.type == 'x' and data.ok", json!({"ok": true})), Ok(true));
    assert!(met("data.n > 3", json!({})).unwrap_err().contains("undefined"));
    assert!(met("data.n", json!({"n": 1})).unwrap_err().contains("true or false"));
}

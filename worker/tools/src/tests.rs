#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use clap::{Args, Command, FromArgMatches};
use common::pipeline::{check, check_action};
use common::problem::Pointed;
use common::secret::Mask;
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::outcome::{head, tail};

pub(crate) fn context() -> Context {
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned();
    Context { traceparent: Some(traceparent), ..Context::of(Uuid::now_v7(), "n", 1) }
}

/// The message of a permanent failure.
#[track_caller]
pub(crate) fn permanent(outcome: Outcome) -> String {
    match outcome {
        Err(Failure::Permanent { message }) => message,
        other => panic!("not a permanent failure: {other:?}"),
    }
}

/// The message of a retryable failure.
#[track_caller]
pub(crate) fn retryable(outcome: Outcome) -> String {
    match outcome {
        Err(Failure::Retryable { message, .. }) => message,
        other => panic!("not a retryable failure: {other:?}"),
    }
}

/// The tools of a worker with these settings, whatever the environment of the test holds.
pub(crate) fn opened(arguments: &[&str]) -> Tools {
    let command = Settings::augment_args(Command::new("worker"));
    let command = command.mut_args(|argument| argument.env(None::<&str>));
    let matches = command.try_get_matches_from([&["worker"], arguments].concat()).unwrap();
    Tools::open(Settings::from_arg_matches(&matches).unwrap()).unwrap()
}

#[tokio::test]
async fn echo_returns_its_input() {
    let input = json!({ "a": [1, null, "ä"] });
    assert_eq!(opened(&[]).execute("echo", input.clone(), &context()).await, Ok(input));
}

#[tokio::test]
async fn r12_an_unknown_action_fails_and_says_what_there_is() {
    let message = permanent(opened(&[]).execute("send_pigeon", Value::Null, &context()).await);
    assert!(message.contains("send_pigeon") && message.contains("run_command"), "{message}");
}

#[tokio::test]
async fn r12_a_disabled_tool_says_why_and_how_to_enable_it() {
    let (without, with) = (opened(&[]), opened(&["--commands", "true"]));
    assert!(!without.enabled().contains(&"run_command".to_owned()));
    assert!(with.enabled().contains(&"run_command".to_owned()));
    let input = json!({ "argv": ["true"] });
    let message = permanent(without.execute("run_command", input.clone(), &context()).await);
    assert!(message.contains("disabled") && message.contains("GATHERING_COMMANDS"), "{message}");
    assert!(with.execute("run_command", input, &context()).await.is_ok());
}

#[test]
fn every_tool_is_in_the_catalogue_under_its_own_name_and_says_what_it_does() {
    // And the engine's own.
    assert_eq!(catalogue().names().count(), BUILT_IN.len() + 1, "a name is taken twice");
    for spec in catalogue().specs() {
        assert!(spec.description().ends_with('.'), "{}", spec.name());
        assert_eq!(spec.input_schema()["type"], "object", "{}", spec.name());
    }
    Settings::augment_args(Command::new("worker")).debug_assert();
}

#[tokio::test]
async fn what_templates_came_to_is_checked_again_and_named_by_its_pointer() {
    let tools = opened(&["--commands", "*"]);
    for (action, input, place) in [
        ("call_api", json!({}), "/url: `url` is missing; give a URL"),
        (
            "call_api",
            json!({ "url": "http://x", "metod": "GET" }),
            "/metod: there is no field `metod`",
        ),
        (
            "call_api",
            json!({ "url": "{{ x }}ftp://x" , "headers": { "a": {} } }),
            "/headers/a: must be a string",
        ),
        ("call_api", json!({ "url": "http://x", "response_limit": 16_777_217 }), "16 MiB"),
        (
            "call_api",
            json!({ "url": "http://x", "json": 1, "form": {} }),
            "keep one of `json`, `form`",
        ),
        ("run_command", json!({ "argv": "{{ ls }}" }), "/argv: must be a list"),
        ("run_command", json!({ "argv": ["ls", []] }), "/argv/1: must be a string"),
        ("run_command", json!({ "argv": [] }), "/argv: must be a list"),
    ] {
        let message = permanent(tools.execute(action, input.clone(), &context()).await);
        assert!(message.contains(action) && message.contains(place), "{input}: {message}");
    }
    let secret = "ftp://a-secret-that-is-longer-than-what-a-message-quotes-of-a-value-at-the-most";
    let context = Context { mask: Mask::new([secret].into_iter()), ..context() };
    let message = permanent(tools.execute("call_api", json!({ "url": secret }), &context).await);
    assert!(message.contains("`***`") && !message.contains("a-secret"), "{message}");
}

/// What is wrong with a definition that has one node, with this config.
fn errors(config: Value) -> Vec<Pointed> {
    let definition =
        json!({"name": "n", "nodes": [{"id": "a", "type": "action", "config": config}]});
    check(&definition, &catalogue()).map_or_else(|refused| refused.errors, |_| Vec::new())
}

#[test]
fn each_mistake_in_a_definition_is_one_error_where_it_is() {
    let of = |action: &str, mut fields: Value, field: &str, value: Value| {
        fields["action"] = json!(action);
        fields[field] = value;
        fields
    };
    let call = |field, value| of("call_api", json!({"url": "http://a"}), field, value);
    let command = |field, value| of("run_command", json!({"argv": ["true"]}), field, value);
    for (config, pointer, words) in [
        (json!({"action": "call_api"}), "/url", "`url` is missing; give a URL"),
        (call("url", json!(7)), "/url", "a URL that begins with http:// or https://, and is 7"),
        (call("url", json!("ftp://x")), "/url", "and is `ftp://x`"),
        (call("method", json!("FETCH")), "/method", "one of GET"),
        (call("body", json!("x")), "/body", "no field `body`; there are"),
        (call("headers", json!("x")), "/headers", "an object of strings"),
        (call("headers", json!({"a/b": {}})), "/headers/a~1b", "a string, a number"),
        (call("query", json!({"a": [1, []]})), "/query/a/1", "a string, a number"),
        (call("expected_status", json!(99)), "/expected_status", "a status such as 200"),
        (call("expected_status", json!(["2xx", "x"])), "/expected_status/1", "a status"),
        (call("response_limit", json!(1 << 30)), "/response_limit", "16 MiB"),
        (
            of("call_api", json!({"url": "http://a", "json": 1}), "text", json!("x")),
            "",
            "one body: keep one of `json`, `text`",
        ),
        (command("argv", json!([])), "/argv", "a list: the program"),
        (command("argv", json!("ls -l")), "/argv", "a list: the program"),
        (command("argv", json!(["ls", null])), "/argv/1", "a string"),
        (command("env", json!({"A": []})), "/env/A", "a string"),
        (command("cwd", json!("tmp")), "/cwd", "an absolute path"),
        (command("ok_exit_codes", json!([256])), "/ok_exit_codes/0", "from 0 to 255"),
        (command("shell", json!(true)), "/shell", "no field `shell`"),
    ] {
        let found = errors(config.clone());
        assert_eq!(found.len(), 1, "{config}: {found:#?}");
        assert_eq!(found[0].pointer, format!("/nodes/0/config{pointer}"), "{config}");
        assert!(found[0].detail.contains(words), "{config}: {found:#?}");
    }
}

#[test]
fn what_holds_templates_is_not_judged_before_it_is_rendered() {
    for config in [
        json!({"action": "call_api", "url": "{{ input.url }}", "expected_status": "{{ input.s }}"}),
        json!({"action": "call_api", "url": "{{ input.base }}/x", "headers": "{{ input.h }}"}),
        json!({"action": "call_api", "url": "HTTP://a", "method": "post", "json": null}),
        json!({"action": "call_api", "url": "http://a", "expected_status": [200, "3xx"]}),
        json!({"action": "run_command", "argv": ["sleep", 5, "{{ input.x }}"]}),
        json!({"action": "run_command", "argv": "{{ input.argv }}", "cwd": null}),
        json!({"action": "echo", "anything": ["goes"]}),
    ] {
        assert_eq!(errors(config.clone()), [], "{config}");
    }
    let body = json!({"action": "call_api", "input": {"url": 1}});
    assert_eq!(check_action(&body, &catalogue()).unwrap_err()[0].pointer, "/input/url");
}

#[test]
fn quotes_are_cut_between_characters() {
    assert_eq!((head("äöü", 2), head("ä", 2), head("", 2)), ("äö", "ä", ""));
    assert_eq!((tail("äöü", 2), tail("ä", 2), tail("", 2)), ("öü", "ä", ""));
}

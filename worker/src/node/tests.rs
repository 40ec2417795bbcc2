#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::json;

use super::*;

pub(super) fn context() -> Context {
    let run = Uuid::now_v7();
    Context {
        run,
        node: "n".to_owned(),
        attempt: 1,
        idempotency_key: format!("{run}/n"),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
        cancel: CancellationToken::new(),
        log: Default::default(),
    }
}

/// The message of a permanent failure.
#[track_caller]
pub(super) fn permanent(outcome: Outcome) -> String {
    match outcome {
        Err(Failure::Permanent { message }) => message,
        other => panic!("not a permanent failure: {other:?}"),
    }
}

/// The message of a retryable failure.
#[track_caller]
pub(super) fn retryable(outcome: Outcome) -> String {
    match outcome {
        Err(Failure::Retryable { message, .. }) => message,
        other => panic!("not a retryable failure: {other:?}"),
    }
}

#[tokio::test]
async fn echo_returns_its_input() {
    let tools = Tools::new(Commands::None).unwrap();
    let input = json!({ "a": [1, null, "ä"] });
    assert_eq!(execute(&tools, "echo", input.clone(), &context()).await, Ok(input));
}

#[tokio::test]
async fn r12_an_unknown_action_fails_and_says_what_there_is() {
    let tools = Tools::new(Commands::None).unwrap();
    let message = permanent(execute(&tools, "send_pigeon", Value::Null, &context()).await);
    assert!(message.contains("send_pigeon") && message.contains("run_command"), "{message}");
}

#[tokio::test]
async fn a_mistake_in_a_config_names_its_place() {
    let tools = Tools::new(Commands::All).unwrap();
    for (action, input, place) in [
        ("call_api", json!({}), "`url`"),
        ("call_api", json!({ "url": "http://x", "metod": "GET" }), "`metod`"),
        ("call_api", json!({ "url": "http://x", "headers": { "a": {} } }), "`headers.a`"),
        ("call_api", json!({ "url": "http://x", "response_limit": 16_777_217 }), "16 MiB"),
        ("run_command", json!({ "argv": "ls" }), "`argv`"),
        ("run_command", json!({ "argv": ["ls", []] }), "`argv[1]`"),
        ("run_command", json!({ "argv": [] }), "`argv`"),
    ] {
        let message = permanent(execute(&tools, action, input.clone(), &context()).await);
        assert!(message.contains(action) && message.contains(place), "{input}: {message}");
    }
}

#[test]
fn quotes_are_cut_between_characters() {
    assert_eq!((head("äöü", 2), head("ä", 2), head("", 2)), ("äö", "ä", ""));
    assert_eq!((tail("äöü", 2), tail("ä", 2), tail("", 2)), ("öü", "ä", ""));
}

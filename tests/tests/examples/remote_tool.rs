//! The remote tool of `examples/remote-tool`, in each of its languages.

use std::process::Command;

use serde_json::json;
use tests::fleet::{FleetOptions, TestFleet};
use tests::process::{Process, binary, command};
use tests::servers::workspace;

use crate::remote_tools::register;

/// Runs the program, and calls it as its comment says.
async fn counts(mut program: Command) {
    let fleet = TestFleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    register(&client, "30s").await;
    program.env("AMQP_URL", fleet.amqp_url()).env("GATHERING_PREFIX", fleet.prefix());
    let mut process = Process::spawn("count-words", program, fleet.folder());
    let call = async |input| {
        let body = json!({"action": "count-words", "input": input,
            "retry": {"initial_interval": "20ms"}});
        let id = client.action_with(body).await;
        client.wait(&id).await
    };
    let ended = call(json!({"text": "to be or not to be"})).await;
    assert_eq!(ended.state, "completed", "{ended:#?}\n{}", process.log());
    assert_eq!(ended.output, json!({"words": 6, "longest": "not"}));
    let ended = call(json!({"text": "a", "unlucky": true})).await.expect("completed");
    assert!(ended.nodes[0].attempt > 1, "the first attempt failed: {ended:#?}");
    let ended = call(json!({"text": " "})).await.expect("failed");
    assert_eq!(ended.error["message"], "the text has no words");
    assert!(process.ended().is_none(), "{}", process.log());
    drop(process);
    fleet.finish().await;
}

#[tokio::test]
async fn the_remote_tool_in_python() {
    let python = std::env::var_os("GATHERING_PYTHON").unwrap_or_else(|| "python3".into());
    let mut program = command(python.as_ref());
    program.arg(workspace().join("examples/remote-tool/count_words.py"));
    counts(program).await;
}

#[tokio::test]
async fn the_remote_tool_in_rust() {
    counts(command(&binary("example-count-words"))).await;
}

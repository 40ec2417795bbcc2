//! The pipelines of `examples/`, run as their comments say, and the definitions in `docs/`.

mod api_watch;
mod documentation;
mod nightly_backup;
mod remote_tool;
mod word_count;

use serde_json::Value;
use tests::client::Client;
use tests::fleet::{FleetOptions, Role, TestFleet};
use tests::servers::workspace;

/// The text of an example.
fn example(name: &str) -> String {
    let path = workspace().join("examples").join(format!("{name}.yaml"));
    std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("no example {}: {error}", path.display()))
}

/// Two workers that may run what the example's comment says, and nothing else.
fn options(example: &str) -> FleetOptions {
    let listed = example.split_once("GATHERING_COMMANDS=").map_or("", |(_, rest)| rest);
    let listed = listed.split(char::is_whitespace).next().unwrap_or_default();
    FleetOptions { workers: 2, ..FleetOptions::default() }.with(
        Role::Worker,
        "GATHERING_COMMANDS",
        listed,
    )
}

/// Stores the definition, which must be without fault.
async fn store(client: &Client, text: &str) {
    let verdict = client
        .post_raw("/v1/pipelines/validate", "application/yaml", text.to_owned())
        .await
        .expect(200);
    assert_eq!((&verdict["valid"], &verdict["warnings"]), (&true.into(), &Value::Array(vec![])));
    client.post_raw("/v1/pipelines", "application/yaml", text.to_owned()).await.expect(201);
}

/// A fleet that holds the example.
async fn fleet_with(name: &str) -> TestFleet {
    let text = example(name);
    let fleet = TestFleet::start(options(&text)).await;
    store(&fleet.client(), &text).await;
    fleet
}

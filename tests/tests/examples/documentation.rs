//! What the documentation shows is accepted.

use serde_json::json;
use tests::fleet::{FleetOptions, TestFleet};
use tests::servers::workspace;

/// The blocks of a Markdown text that are fenced with this language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    let after = text.split(&fence).skip(1);
    after.filter_map(|rest| Some(rest.split_once("\n```")?.0.to_owned())).collect()
}

#[tokio::test]
async fn definitions_in_the_documentation_are_valid() {
    let options = FleetOptions { workers: 0, schedulers: 0, ..FleetOptions::default() };
    let fleet = TestFleet::start(options).await;
    let mut definitions = 0;
    for file in ["README.md", "docs/pipelines.md", "docs/waits.md"] {
        let text = std::fs::read_to_string(workspace().join(file)).expect("the file is there");
        for block in blocks(&text, "yaml").into_iter().filter(|block| block.starts_with("name:")) {
            let verdict = fleet
                .client()
                .post_raw("/v1/pipelines/validate", "application/yaml", block.clone())
                .await
                .expect(200);
            assert_eq!(verdict["errors"], json!([]), "in {file}:\n{block}");
            assert_eq!(verdict["warnings"], json!([]), "in {file}:\n{block}");
            definitions += 1;
        }
    }
    assert!(definitions > 5, "{definitions} definitions were found");
    fleet.finish().await;
}

#[tokio::test]
async fn schedules_in_the_documentation_are_accepted() {
    let options = FleetOptions { workers: 0, schedulers: 0, ..FleetOptions::default() };
    let fleet = TestFleet::start(options).await;
    let mut accepted = 0;
    for file in ["README.md", "docs/schedules.md"] {
        let text = std::fs::read_to_string(workspace().join(file)).expect("the file is there");
        for block in blocks(&text, "json").into_iter().filter(|block| block.contains("\"kind\"")) {
            let body = serde_json::from_str(&block).expect("the block is JSON");
            fleet.client().post("/v1/schedules", &body).await.expect(201);
            accepted += 1;
        }
    }
    assert!(accepted >= 5, "{accepted} schedules were found");
    fleet.finish().await;
}

#[tokio::test]
async fn every_example_is_valid() {
    let options = FleetOptions { workers: 0, schedulers: 0, ..FleetOptions::default() };
    let fleet = TestFleet::start(options).await;
    let files = std::fs::read_dir(workspace().join("examples")).expect("there are examples");
    let mut names = Vec::new();
    for file in files.map(|file| file.expect("the folder can be read").path()) {
        if file.extension().is_some_and(|extension| extension == "yaml") {
            let text = std::fs::read_to_string(&file).expect("the file can be read");
            super::store(&fleet.client(), &text).await;
            names.push(file.file_stem().map(|name| name.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    let stored = fleet.client().list("/v1/pipelines").await;
    let stored: Vec<_> =
        stored.iter().map(|item| item["name"].as_str().map(str::to_owned)).collect();
    assert_eq!(stored, names, "a pipeline is named as its file");
    fleet.finish().await;
}

//! `word-count`, against a count of our own.

use std::collections::HashMap;
use std::path::Path;

use serde_json::{Value, json};

use super::fleet_with;

/// What the pipeline is to report, counted in another way.
fn counted(folder: &Path, top: usize) -> Value {
    let mut counts: HashMap<String, u64> = HashMap::new();
    let mut files = 0;
    for file in std::fs::read_dir(folder).expect("the folder is there") {
        let path = file.expect("the folder can be read").path();
        if path.extension().is_none_or(|extension| extension != "txt") {
            continue;
        }
        files += 1;
        let text = std::fs::read_to_string(path).expect("the file can be read");
        let separates =
            |c: char| c.is_ascii_whitespace() || c.is_ascii_punctuation() || c.is_ascii_control();
        for word in text.split(separates).filter(|word| !word.is_empty()) {
            *counts.entry(word.to_ascii_lowercase()).or_default() += 1;
        }
    }
    let mut ranked: Vec<_> = counts.iter().collect();
    ranked.sort_by_key(|(word, count)| (std::cmp::Reverse(**count), word.as_bytes()));
    let rows = ranked.iter().take(top).map(|(word, count)| json!({"word": word, "count": count}));
    json!({
        "files": files,
        "words": counts.values().sum::<u64>(),
        "distinct": counts.len(),
        "top": rows.collect::<Vec<_>>(),
    })
}

#[tokio::test]
async fn words_are_counted_and_ranked() {
    let fleet = fleet_with("word-count").await;
    let client = fleet.client();
    let folder = fleet.folder().join("texts");
    std::fs::create_dir(&folder).expect("a folder can be made");
    let texts = [
        ("first file.txt", "The sea, the sea! Über \"das\" Meer; it's 20% blue.\n"),
        ("second.txt", "the SEA\tis\\not blue\nand the\r\nend has no line break"),
        ("third.txt", ""),
        ("-n.txt", "naïve — naïve"),
        ("fifth=1.txt", "one more, for a branch with two files: sea"),
        ("not counted.md", "sea sea sea sea"),
    ];
    for (name, text) in texts {
        std::fs::write(folder.join(name), text).expect("a file can be written");
    }
    let input = |pattern: &str| json!({"folder": folder, "pattern": pattern, "top": 4});

    let id = client.submit("word-count", input("*.txt")).await;
    let run = client.wait(&id).await.expect("completed");
    assert_eq!(run.output, counted(&folder, 4));
    assert_eq!(run.output["top"][0], json!({"word": "sea", "count": 4}));
    assert_eq!(run.node("nothing").state, "skipped");

    let id = client.submit("word-count", input("*.none")).await;
    let run = client.wait(&id).await.expect("completed");
    assert_eq!(run.output, json!({"files": 0, "words": 0, "distinct": 0, "top": []}));
    assert_eq!(run.node("count_1").state, "skipped");
    fleet.finish().await;
}

#[tokio::test]
async fn a_large_folder_is_counted_like_a_small_one() {
    let fleet = fleet_with("word-count").await;
    let folder = fleet.folder().join("texts");
    std::fs::create_dir(&folder).expect("a folder can be made");
    for file in 0..300 {
        let words: Vec<_> = (0..200).map(|n| format!("w{}", (file * 7 + n * n) % 997)).collect();
        std::fs::write(folder.join(format!("{file}.txt")), words.join(" ")).expect("written");
    }
    let client = fleet.client();
    let id = client
        .submit("word-count", json!({"folder": folder, "pattern": "*.txt", "top": 1000}))
        .await;
    let run = client.wait(&id).await.expect("completed");
    assert_eq!(run.output, counted(&folder, 1000));
    fleet.finish().await;
}

#[tokio::test]
async fn a_missing_folder_fails_the_run() {
    let fleet = fleet_with("word-count").await;
    let client = fleet.client();
    let folder = fleet.folder().join("missing");
    let id =
        client.submit("word-count", json!({"folder": folder, "pattern": "*.txt", "top": 4})).await;
    let run = client.wait(&id).await.expect("failed");
    assert_eq!(run.error["node"], "list");
    fleet.finish().await;
}

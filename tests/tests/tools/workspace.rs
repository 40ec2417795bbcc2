//! Files that the nodes of a run hand to each other.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde_json::json;
use tests::fleet::{FleetOptions, Role, TestFleet};
use tests::wait::{eventually, seen};

use crate::definitions::*;

/// Workers that share a folder, which the test removes.
struct Shared(std::path::PathBuf);

impl Shared {
    fn new() -> Self {
        Self(std::env::temp_dir().join(format!("gathering-shared-{:016x}", rand::random::<u64>())))
    }

    fn options(&self, workers: usize) -> FleetOptions {
        let path = self.0.display().to_string();
        FleetOptions { workers, ..FleetOptions::default() }.with(
            Role::Worker,
            "GATHERING_WORKSPACE",
            path,
        )
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn files_go_from_node_to_node_across_workers() {
    let shared = Shared::new();
    let fleet = TestFleet::start(shared.options(2)).await;
    let sort = action(
        "sort",
        "run_command",
        json!({"argv": ["sh", "-c", "sort in.txt > sorted/out.txt; pwd"], "cwd": "."}),
    );
    let definition = pipeline(
        "files",
        [
            action("write", "write_file", json!({"path": "in.txt", "content": "b\na\n"})),
            action("make", "write_file", json!({"path": "sorted/.keep", "content": ""})),
            sort,
            action("read", "read_file", json!({"path": "sorted/out.txt"})),
            action("list", "list_files", json!({"recursive": true})),
            echo(
                "all",
                json!({"text": "{{ nodes.read.output.content }}", "files": "{{ nodes.list.output.entries | length }}"}),
            ),
        ],
        [
            edge("write", "sort"),
            edge("make", "sort"),
            edge("sort", "read"),
            edge("read", "list"),
            edge("list", "all"),
        ],
    );
    let run = fleet.client().run_pipeline(definition, json!({})).await.expect("completed");
    assert_eq!(run.output, json!({"text": "a\nb\n", "files": 4}));
    let folder = shared.0.join("files").join(&run.id);
    assert_eq!(run.node("sort").output["stdout"], format!("{}\n", folder.display()));
    assert_eq!(folder.metadata().expect("the folder").permissions().mode() & 0o777, 0o700);
    fleet.finish().await;
}

#[tokio::test]
async fn what_leads_out_fails_for_good() {
    let shared = Shared::new();
    let fleet = TestFleet::start(shared.options(1)).await;
    let client = fleet.client();
    for (action, input) in [
        ("read_file", json!({"path": "../../../etc/passwd"})),
        ("write_file", json!({"path": "%2e%2e/x", "content": ""})),
        ("list_files", json!({"path": "/"})),
        ("run_command", json!({"argv": ["pwd"], "cwd": "/usr"})),
        ("run_command", json!({"argv": ["pwd"], "cwd": "a/../../.."})),
    ] {
        let id = client.action(action, input.clone()).await;
        let run = client.wait(&id).await;
        let error = run.node(action).error.to_string();
        assert_eq!((run.state.as_str(), run.node(action).attempt), ("failed", 1), "{input}");
        assert!(
            error.contains("leads out of the workspace") && error.contains("permanent"),
            "{error}"
        );
    }
    // A link that a program made.
    let node = shell("link", "ln -s /etc outside; ln -s .. up");
    let read = |id: &str, path: &str| action(id, "read_file", json!({ "path": path }));
    let definition = pipeline(
        "links",
        [node, read("a", "outside/passwd"), read("b", "up/up/x")],
        [edge("link", "a"), edge("link", "b")],
    );
    let run = client.run_pipeline(definition, json!({})).await;
    for node in ["a", "b"] {
        let error = run.node(node).error.to_string();
        assert!(error.contains("leads out of the workspace"), "{error}");
    }
    fleet.finish().await;
}

#[tokio::test]
async fn folders_are_removed_after_their_runs_and_not_before() {
    let shared = Shared::new();
    let options = shared.options(2).with(Role::Worker, "GATHERING_WORKSPACE_RETENTION", "1s");
    let fleet = TestFleet::start(options).await;
    let (client, file) = (fleet.client(), fleet.folder().join("go"));
    let wait = format!("touch mine; while [ ! -e {} ]; do sleep 0.05; done; ls", file.display());
    let under_way = client.action("run_command", json!({"argv": ["sh", "-c", wait]})).await;
    let folder = |id: &str| shared.0.join("_actions").join(id);
    eventually(Duration::from_secs(30), "the first run to have a file", async || {
        seen(folder(&under_way).join("mine").exists(), ())
    })
    .await;
    let mut ended = Vec::new();
    for number in 0..3 {
        let id = client.action("write_file", json!({"path": "a/b", "content": number})).await;
        client.wait(&id).await.expect("completed");
        ended.push(id);
    }
    eventually(Duration::from_secs(30), "ended runs to lose their folders", async || {
        let left: Vec<_> = ended.iter().filter(|id| folder(id).exists()).collect();
        seen(left.is_empty(), left.len())
    })
    .await;
    std::fs::write(&file, "").expect("the test's folder takes a file");
    let run = client.wait(&under_way).await.expect("completed");
    assert_eq!(run.output["stdout"], "mine\n", "its files were there to the end");
    eventually(Duration::from_secs(30), "nothing to be left", async || {
        let left = std::fs::read_dir(&shared.0).expect("the workspace").count();
        seen(left == 0, left)
    })
    .await;
    fleet.finish().await;
}

#[tokio::test]
async fn r12_without_a_workspace_the_tools_say_what_is_missing() {
    let fleet = TestFleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    let id = client.action("read_file", json!({"path": "a"})).await;
    let run = client.wait(&id).await;
    let error = run.node("read_file").error.to_string();
    assert_eq!((run.state.as_str(), run.node("read_file").attempt), ("failed", 1));
    assert!(error.contains("GATHERING_WORKSPACE"), "{error}");
    fleet.finish().await;
}

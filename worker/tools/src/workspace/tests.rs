#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use super::path::tests::OUT;
use crate::tests::{context, opened, permanent};
use crate::{Context, Outcome, Tools};

/// A workspace of the test's own; removed at drop.
struct Bench {
    root: PathBuf,
    tools: Tools,
    context: Context,
}

impl Bench {
    fn new() -> Self {
        let root = std::env::temp_dir().join(format!("gathering-workspace-{}", Uuid::now_v7()));
        let tools = opened(&["--workspace", root.to_str().unwrap()]);
        let context = Context { pipeline: Some("nightly".to_owned()), ..context() };
        Self { root, tools, context }
    }

    fn folder(&self) -> PathBuf {
        self.root.join("nightly").join(self.context.run.to_string())
    }

    async fn asks(&self, tool: &str, input: Value) -> Outcome {
        self.tools.execute(tool, input, &self.context).await
    }

    async fn writes(&self, path: &str, content: &str) -> Outcome {
        self.asks("write_file", json!({"path": path, "content": content})).await
    }

    async fn reads(&self, path: &str) -> Outcome {
        self.asks("read_file", json!({ "path": path })).await
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

#[tokio::test]
async fn what_is_written_is_read_and_listed() {
    let bench = Bench::new();
    let written = bench.writes("out/a.txt", "grüße").await.unwrap();
    assert_eq!(written, json!({"path": "out/a.txt", "size": 7}));
    let read = bench.reads("./out//a.txt").await.unwrap();
    assert_eq!(
        read,
        json!({"path": "out/a.txt", "size": 7, "offset": 0, "length": 7, "encoding": "text", "content": "grüße", "end": true})
    );
    bench.writes("out/a.txt", "new").await.unwrap();
    assert_eq!(bench.reads("out/a.txt").await.unwrap()["content"], "new");
    let more = json!({"path": "out/a.txt", "content": "+", "append": true});
    assert_eq!(bench.asks("write_file", more).await.unwrap()["size"], 4);
    let binary = json!({"path": "b", "content": "AP8=", "encoding": "base64"});
    assert_eq!(bench.asks("write_file", binary).await.unwrap()["size"], 2);
    assert_eq!(std::fs::read(bench.folder().join("b")).unwrap(), [0, 255]);
    let message = permanent(bench.reads("b").await);
    assert!(message.contains("base64"), "{message}");
    let read = bench.asks("read_file", json!({"path": "b", "encoding": "base64"})).await.unwrap();
    assert_eq!(read["content"], "AP8=");

    let listed = bench.asks("list_files", json!({"recursive": true})).await.unwrap();
    let entries: Vec<_> = listed["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| (&e["path"], &e["type"], &e["size"]))
        .collect();
    assert_eq!(
        entries,
        [
            (&json!("b"), &json!("file"), &json!(2)),
            (&json!("out"), &json!("folder"), &json!(null)),
            (&json!("out/a.txt"), &json!("file"), &json!(4)),
        ]
    );
    let listed = bench.asks("list_files", json!({"path": "out"})).await.unwrap();
    assert_eq!(
        (&listed["entries"][0]["path"], &listed["truncated"]),
        (&json!("out/a.txt"), &json!(false))
    );
    for folder in [bench.root.clone(), bench.root.join("nightly"), bench.folder()] {
        assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o777, 0o700, "{folder:?}");
    }
}

#[tokio::test]
async fn another_run_has_another_folder() {
    let bench = Bench::new();
    bench.writes("a", "mine").await.unwrap();
    let other = Context { pipeline: None, ..context() };
    let missing = bench.tools.execute("read_file", json!({"path": "a"}), &other).await;
    assert!(permanent(missing).contains("there is no `a`"));
    assert!(bench.root.join("_actions").join(other.run.to_string()).is_dir());
}

#[tokio::test]
async fn no_path_leads_out() {
    let bench = Bench::new();
    bench.writes("a/b", "inside").await.unwrap();
    for path in OUT {
        for (tool, input) in [
            ("read_file", json!({"path": path})),
            ("write_file", json!({"path": path, "content": "x"})),
            ("write_file", json!({"path": path, "content": "x", "append": true})),
            ("list_files", json!({"path": path})),
        ] {
            let message = permanent(bench.asks(tool, input).await);
            assert!(message.contains("leads out of the workspace"), "{tool} {path}: {message}");
        }
    }
}

/// Links that a program may have made.
#[tokio::test]
async fn no_link_leads_out() {
    let bench = Bench::new();
    bench.writes("sub/file", "inside").await.unwrap();
    let secret = bench.root.join("secret");
    std::fs::write(&secret, "outside").unwrap();
    let at = |name: &str| bench.folder().join(name);
    symlink("/etc", at("absolute")).unwrap();
    symlink("../../..", at("relative")).unwrap();
    symlink("../../secret", at("file")).unwrap();
    symlink(&secret, at("sub/deep")).unwrap();
    symlink("file", at("chain")).unwrap();
    symlink("/proc/self/root", at("magic")).unwrap();
    symlink("sub/file", at("good")).unwrap();
    symlink("loop", at("loop")).unwrap();
    for path in [
        "absolute/passwd",
        "relative/secret",
        "file",
        "sub/deep",
        "chain",
        "magic/etc/passwd",
        "sub/../file",
    ] {
        let message = permanent(bench.reads(path).await);
        assert!(message.contains("leads out of the workspace"), "{path}: {message}");
    }
    permanent(bench.reads("loop").await);
    assert_eq!(bench.reads("good").await.unwrap()["content"], "inside");
    for path in ["absolute/x", "relative/x", "magic/tmp/x"] {
        let message = permanent(bench.writes(path, "x").await);
        assert!(message.contains("leads out of the workspace"), "{path}: {message}");
        permanent(bench.asks("list_files", json!({"path": path.split('/').next()})).await);
    }
    let append = json!({"path": "file", "content": "x", "append": true});
    permanent(bench.asks("write_file", append).await);
    // A link in the file's own place is replaced.
    bench.writes("file", "now a file").await.unwrap();
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "outside");
    let listed =
        bench.asks("list_files", json!({"recursive": true, "limit": 10_000})).await.unwrap();
    assert!(!listed.to_string().contains("passwd"), "links are not followed: {listed}");
}

#[tokio::test]
async fn a_run_s_folder_is_no_link() {
    let bench = Bench::new();
    std::fs::create_dir_all(bench.root.join("nightly")).unwrap();
    symlink("/tmp", bench.folder()).unwrap();
    let outcome = bench.reads("x").await;
    assert!(format!("{outcome:?}").contains("is a link"), "{outcome:?}");
}

#[tokio::test]
async fn what_is_no_file_is_refused_and_not_waited_for() {
    let bench = Bench::new();
    bench.writes("sub/file", "").await.unwrap();
    let fifo = bench.folder().join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    for (tool, path) in [
        ("read_file", "fifo"),
        ("read_file", "sub"),
        ("write_file", "sub"),
        ("list_files", "sub/file"),
    ] {
        let mut input = json!({ "path": path });
        if tool == "write_file" {
            input["content"] = json!("x");
        }
        let asked = tokio::time::timeout(Duration::from_secs(5), bench.asks(tool, input)).await;
        permanent(asked.expect("it does not wait"));
    }
    let append = json!({"path": "fifo", "content": "x", "append": true});
    let asked =
        tokio::time::timeout(Duration::from_secs(5), bench.asks("write_file", append)).await;
    permanent(asked.expect("it does not wait"));
}

#[tokio::test]
async fn limits_are_kept_and_say_how_to_go_on() {
    let bench = Bench::new();
    bench.writes("large", "").await.unwrap();
    let large = std::fs::File::options().write(true).open(bench.folder().join("large")).unwrap();
    large.set_len((8 << 20) + 1).unwrap();
    let message = permanent(bench.reads("large").await);
    assert!(message.contains("8388609") && message.contains("`offset` and `length`"), "{message}");
    bench.writes("text", "äöü").await.unwrap();
    let mut pieces = String::new();
    let (mut offset, mut end) = (0, false);
    while !end {
        let piece = json!({"path": "text", "offset": offset, "length": 3});
        let piece = bench.asks("read_file", piece).await.unwrap();
        pieces.push_str(piece["content"].as_str().unwrap());
        offset += piece["length"].as_u64().unwrap();
        end = piece["end"] == true;
    }
    assert_eq!(pieces, "äöü");
    for number in 0..20 {
        bench.writes(&format!("many/{number:02}"), "").await.unwrap();
    }
    let listed = bench.asks("list_files", json!({"path": "many", "limit": 5})).await.unwrap();
    assert_eq!(
        (listed["entries"].as_array().unwrap().len(), &listed["truncated"]),
        (5, &json!(true))
    );
    let message = permanent(
        bench.asks("write_file", json!({"path": "x", "content": "?", "encoding": "base64"})).await,
    );
    assert!(message.contains("no base64"), "{message}");
}

#[tokio::test]
async fn readers_see_all_of_the_old_file_or_all_of_the_new_one() {
    let bench = Bench::new();
    let (a, b) = ("a".repeat(200_000), "b".repeat(300_000));
    bench.writes("f", &a).await.unwrap();
    let path = bench.folder().join("f");
    let reader = tokio::task::spawn_blocking(move || {
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..300 {
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.bytes().all(|byte| byte == text.as_bytes()[0]));
            seen.insert(text.len());
        }
        seen
    });
    for _ in 0..10 {
        bench.writes("f", &b).await.unwrap();
        bench.writes("f", &a).await.unwrap();
    }
    let seen = reader.await.unwrap();
    assert!(seen.iter().all(|length| [200_000, 300_000].contains(length)), "{seen:?}");
    let left = std::fs::read_dir(bench.folder()).unwrap().count();
    assert_eq!(left, 1, "nothing unfinished is left");
}

#[tokio::test]
async fn r12_without_a_workspace_they_say_what_to_set() {
    let tools = opened(&[]);
    for (tool, input) in [
        ("read_file", json!({"path": "a"})),
        ("write_file", json!({"path": "a", "content": ""})),
        ("list_files", json!({})),
    ] {
        let message = permanent(tools.execute(tool, input, &context()).await);
        assert!(message.contains("GATHERING_WORKSPACE"), "{message}");
    }
}

#[tokio::test]
async fn a_sweep_lists_folders_of_runs_and_removes_one_with_all_that_is_in_it() {
    let bench = Bench::new();
    bench.writes("a/b/c", "x").await.unwrap();
    symlink("/etc", bench.folder().join("link")).unwrap();
    std::fs::create_dir_all(bench.root.join("not-ours/folder")).unwrap();
    let sweep = super::Workspace::new(&bench.root, None).unwrap().sweep();
    let found = sweep.folders().unwrap();
    assert_eq!(found.iter().map(|folder| folder.run).collect::<Vec<_>>(), [bench.context.run]);
    sweep.remove(&found[0]).unwrap();
    sweep.remove(&found[0]).unwrap();
    assert!(!bench.root.join("nightly").exists() && bench.root.join("not-ours/folder").exists());
    assert!(std::path::Path::new("/etc/passwd").exists());
    assert_eq!(sweep.folders().unwrap(), []);
}

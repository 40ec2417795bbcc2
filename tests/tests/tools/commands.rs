//! `run_command` within limits.

use std::process::Command;

use serde_json::{Value, json};
use tests::client::Run;
use tests::fleet::{FleetOptions, Role, TestFleet};

use crate::definitions::*;

fn options(limits: &str) -> FleetOptions {
    FleetOptions::default().with(Role::Worker, "GATHERING_COMMAND_LIMITS", limits)
}

/// Runs one command, up to three times.
async fn run(fleet: &TestFleet, name: &str, config: Value) -> Run {
    let node = with(action("c", "run_command", config), "retry", quick_retry(3));
    fleet.client().run_pipeline(pipeline(name, [node], []), json!({})).await
}

fn error(run: &Run) -> (String, String, i64) {
    let node = run.node("c");
    let text = |field: &str| node.error[field].as_str().unwrap_or_default().to_owned();
    (text("kind"), text("message"), node.attempt.into())
}

#[tokio::test]
async fn the_tighter_of_each_limit_is_set() {
    let fleet = TestFleet::start(options(
        "cpu=20s,memory=1GiB,file_size=64KiB,open_files=32,processes=4000",
    ))
    .await;
    let script =
        "ulimit -t; ulimit -v; ulimit -f; ulimit -n; ulimit -c; ulimit -St; cat /proc/self/limits";
    let shown = |run: &Run| {
        let text = run.node("c").output["stdout"].as_str().unwrap_or_default().to_owned();
        text.lines().take(5).map(str::to_owned).collect::<Vec<_>>()
    };
    let config = |limits: Value| json!({"argv": ["sh", "-c", script], "limits": limits});
    let operator = run(&fleet, "operator", config(json!({}))).await.expect("completed");
    assert_eq!(shown(&operator), ["20", "1048576", "128", "32", "0"]);
    let all = operator.node("c").output["stdout"].as_str().unwrap_or_default();
    let processes = all.lines().find(|line| line.starts_with("Max processes")).unwrap_or_default();
    assert!(processes.split_whitespace().any(|word| word == "4000"), "{processes}");
    let asked = json!({"cpu": "5s", "memory": "2GiB", "open_files": 16});
    let node = run(&fleet, "node", config(asked)).await.expect("completed");
    assert_eq!(shown(&node), ["5", "1048576", "128", "16", "0"]);
    fleet.finish().await;
}

#[tokio::test]
async fn a_limit_that_is_met_is_a_failure_that_names_it() {
    let fleet = TestFleet::start(options("")).await;
    let burn = json!({"argv": ["sh", "-c", "while :; do :; done"], "limits": {"cpu": "1s"}});
    let (kind, message, attempts) = error(&run(&fleet, "cpu", burn).await);
    assert_eq!((kind.as_str(), attempts), ("permanent", 1), "{message}");
    assert!(message.contains("its limit `cpu`"), "{message}");
    let file = fleet.folder().join("large").display().to_string();
    let fill = json!({
        "argv": ["dd", "if=/dev/zero", format!("of={file}"), "bs=1024", "count=1000"], "limits": {"file_size": "100KiB"},
    });
    let (kind, message, attempts) = error(&run(&fleet, "file", fill).await);
    assert_eq!((kind.as_str(), attempts), ("permanent", 1), "{message}");
    assert!(message.contains("its limit `file_size`"), "{message}");
    assert_eq!(std::fs::metadata(&file).expect("the file").len(), 100 * 1024);
    fleet.finish().await;
}

#[tokio::test]
async fn exit_codes_say_what_is_tried_again() {
    let fleet = TestFleet::start(FleetOptions::default()).await;
    let exit = |script: &str| {
        json!({
            "argv": ["sh", "-c", script], "ok_exit_codes": [0, 4], "retry_exit_codes": [75],
        })
    };
    let passed = run(&fleet, "passes", exit("exit $((GATHERING_ATTEMPT < 3 ? 75 : 4))"))
        .await
        .expect("completed");
    assert_eq!((passed.node("c").attempt, &passed.node("c").output["exit_code"]), (3, &json!(4)));
    let (kind, message, attempts) = error(&run(&fleet, "fails", exit("exit 3")).await);
    assert_eq!((kind.as_str(), attempts), ("permanent", 1), "{message}");
    assert!(message.contains("exited with 3"), "{message}");
    fleet.finish().await;
}

/// The process that becomes the program reports what the worker itself would have.
#[tokio::test]
async fn what_cannot_be_executed_fails_for_good() {
    let fleet = TestFleet::start(FleetOptions::default()).await;
    let file = fleet.folder().join("no-program");
    std::fs::write(&file, "echo a shell has run this\n").expect("the test's folder takes a file");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&file, mode).expect("the file is the test's");
    let (kind, message, attempts) =
        error(&run(&fleet, "p", json!({"argv": [file.display().to_string()]})).await);
    assert_eq!((kind.as_str(), attempts), ("permanent", 1), "{message}");
    assert!(
        message.contains("cannot be started") && !message.contains("shell has run"),
        "{message}"
    );
    fleet.finish().await;
}

/// As root, another user; else the worker does not start, and says why.
#[tokio::test]
async fn programs_run_under_another_user_where_the_worker_may_say_so() {
    let id = Command::new("id").arg("-u").output().expect("there is an `id`").stdout;
    let folder =
        std::env::temp_dir().join(format!("gathering-user-{:016x}", rand::random::<u64>()));
    let options = FleetOptions::default()
        .with(Role::Worker, "GATHERING_COMMAND_USER", "65534:65533")
        .with(Role::Worker, "GATHERING_WORKSPACE", folder.display().to_string());
    if id != b"0\n" {
        let mut fleet = TestFleet::spawn(FleetOptions { apis: 0, schedulers: 0, ..options }).await;
        let worker = fleet.process(Role::Worker, 0);
        let status = worker.exit(std::time::Duration::from_secs(30)).await;
        assert!(!status.success());
        let log = worker.log();
        assert!(log.contains("GATHERING_COMMAND_USER") && log.contains("as root"), "{log}");
        return;
    }
    let fleet = TestFleet::start(options).await;
    let definition = pipeline(
        "p",
        [
            action("write", "write_file", json!({"path": "sub/in", "content": "from the worker"})),
            shell(
                "use",
                "id -u; id -g; id -G; cat sub/in; echo more > sub/out; echo; echo $HOME; pwd",
            ),
            action("read", "read_file", json!({"path": "sub/out"})),
        ],
        [edge("write", "use"), edge("use", "read")],
    );
    let run = fleet.client().run_pipeline(definition, json!({})).await.expect("completed");
    let home = folder.join("p").join(&run.id).display().to_string();
    let expected = format!("65534\n65533\n65533\nfrom the worker\n{home}\n{home}\n");
    assert_eq!(run.node("use").output["stdout"], expected);
    assert_eq!(run.node("read").output["content"], "more\n");
    // Root's own program would load it.
    let loads = json!({"argv": ["true"], "env": {"LD_PRELOAD": "/tmp/x.so"}});
    let (kind, message, _) = error(&self::run(&fleet, "loads", loads).await);
    assert!(kind == "permanent" && message.contains("GATHERING_COMMAND_USER"), "{message}");
    fleet.finish().await;
    let _ = std::fs::remove_dir_all(&folder);
}

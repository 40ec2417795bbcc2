#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::{Commands, Limits, Programs};
use crate::tests::{context, permanent, retryable};
use crate::tool::{Shared, SharedSettings};
use crate::{Context, Failure, GRACE, Outcome};

/// Without limits, which only a worker can set, and without a workspace.
fn programs(commands: Commands) -> Programs {
    let allowed_hosts = "".parse().unwrap();
    let shared = SharedSettings { allowed_hosts, workspace: None, command_user: None };
    Programs::new(commands, Limits::default(), &Shared::open(shared, None).unwrap())
}

async fn run(input: Value) -> Outcome {
    run_in(input, &context()).await
}

async fn run_in(input: Value, context: &Context) -> Outcome {
    super::run(&programs(Commands::All), input, context).await
}

async fn sh(script: &str) -> Outcome {
    run(json!({ "argv": ["sh", "-c", script] })).await
}

/// Where a script writes the id of a process that it starts.
struct Note(std::path::PathBuf);

impl Note {
    fn new() -> Self {
        Self(std::env::temp_dir().join(format!("gathering-{}", Uuid::now_v7())))
    }

    async fn pid(&self) -> u32 {
        loop {
            let text = std::fs::read_to_string(&self.0).unwrap_or_default();
            if let Some(pid) = text.strip_suffix('\n') {
                return pid.parse().unwrap();
            }
            sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Gone, or a zombie that its new parent has yet to bury.
async fn dies(pid: u32) {
    let dead = async {
        while let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) {
            if stat.rsplit(") ").next().unwrap().starts_with('Z') {
                break;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(5), dead).await.expect("the process goes on");
}

#[tokio::test]
async fn the_good_way() {
    let output = sh("echo out; echo err >&2").await.unwrap();
    assert_eq!(output, json!({ "exit_code": 0, "stdout": "out\n", "stderr": "err\n" }));
    let output = run(json!({ "argv": ["expr", 40, "+", "2"] })).await.unwrap();
    assert_eq!(output["json"], 42);
    let output = run(json!({ "argv": ["pwd"], "cwd": "/usr" })).await.unwrap();
    assert_eq!(output["stdout"], "/usr\n");
}

#[tokio::test]
async fn no_shell_reads_the_arguments() {
    let output = run(json!({ "argv": ["echo", "$HOME; `id` *", ""] })).await.unwrap();
    assert_eq!(output["stdout"], "$HOME; `id` * \n");
}

#[tokio::test]
async fn the_environment_is_clean() {
    let context = context();
    let input = json!({ "argv": ["env"], "env": { "A": 1, "TZ": "Asia/Tokyo" } });
    let output = run_in(input, &context).await.unwrap();
    let lines: Vec<_> = output["stdout"].as_str().unwrap().lines().collect();
    let allowed = super::commands::INHERITED.map(|name| format!("{name}="));
    for line in &lines {
        let ours = ["A=1", "TRACEPARENT=", "GATHERING_"].iter().any(|p| line.starts_with(p));
        assert!(ours || allowed.iter().any(|name| line.starts_with(name)), "{line}");
    }
    assert!(lines.contains(&"TZ=Asia/Tokyo") && lines.contains(&"A=1"));
    let key = format!("GATHERING_IDEMPOTENCY_KEY={}", context.idempotency_key);
    assert!(lines.contains(&key.as_str()), "{lines:?}");
    assert!(lines.contains(&"GATHERING_ATTEMPT=1") && lines.contains(&"GATHERING_NODE_ID=n"));
}

#[tokio::test]
async fn large_streams_in_all_directions_do_not_block() {
    let text = "0123456789abcde\n".repeat(1 << 16);
    let input = json!({
        "argv": ["sh", "-c", "tee /dev/stderr"], "stdin": text, "output_limit": 1 << 20,
    });
    let output = run(input).await.unwrap();
    assert_eq!(output["stdout"].as_str().unwrap().len(), 1 << 20);
    assert_eq!(output["stdout"], output["stderr"]);
    assert!(output.get("truncated").is_none());
    // A program that does not read.
    let output = run(json!({ "argv": ["true"], "stdin": text })).await.unwrap();
    assert_eq!(output["exit_code"], 0);
    // No stdin is an empty one.
    assert_eq!(run(json!({ "argv": ["cat"] })).await.unwrap()["stdout"], "");
}

#[tokio::test]
async fn output_over_the_limit_is_cut_between_characters_and_said_to_be() {
    let script = "printf ää; echo 12 >&2; head -c 1000000 /dev/zero";
    let input = json!({ "argv": ["sh", "-c", script], "output_limit": 3 });
    let output = run(input).await.unwrap();
    let cut = json!({ "exit_code": 0, "stdout": "ä", "stderr": "12\n", "truncated": ["stdout"] });
    assert_eq!(output, cut);
    let none = run(json!({ "argv": ["sh", "-c", "echo 1; echo 2 >&2"], "output_limit": 0 })).await;
    assert_eq!(none.unwrap()["truncated"], json!(["stdout", "stderr"]));
    permanent(run(json!({ "argv": ["true"], "output_limit": 16_777_217 })).await);
}

#[tokio::test]
async fn output_that_is_not_utf_8_is_said_to_be() {
    let output = sh(r"printf 'a\377'").await.unwrap();
    assert_eq!(output["stdout"], "a\u{fffd}");
    assert_eq!(output["lossy"], json!(["stdout"]));
}

#[tokio::test]
async fn a_bad_exit_code_is_retryable_and_quotes_the_end_of_what_was_said() {
    let message = retryable(sh("seq 1000 >&2; echo why >&2; exit 3").await);
    assert!(message.starts_with("`sh` exited with 3: ") && message.ends_with("why"), "{message}");
    assert!(message.len() < 550, "{message}");
    let message = retryable(sh("echo only out; exit 1").await);
    assert!(message.ends_with("only out"), "{message}");
    let message = retryable(sh("kill -9 $$").await);
    assert_eq!(message, "`sh` was killed by signal 9");

    let input = json!({ "argv": ["sh", "-c", "exit 3"], "ok_exit_codes": [0, 3] });
    assert_eq!(run(input).await.unwrap()["exit_code"], 3);
    retryable(run(json!({ "argv": ["true"], "ok_exit_codes": [3] })).await);
}

#[tokio::test]
async fn what_cannot_be_started_is_permanent() {
    for (input, named) in [
        (json!({ "argv": ["no-such-program"] }), "PATH"),
        (json!({ "argv": ["/no/such/program"] }), "No such file"),
        (json!({ "argv": ["./x"] }), "absolute"),
        (json!({ "argv": ["/etc/passwd"] }), "Permission denied"),
        (json!({ "argv": ["/tmp"] }), "`/tmp` cannot be started"),
        (json!({ "argv": ["echo", "a\0b"] }), "null character"),
        (json!({ "argv": ["echo", "x".repeat(3 << 20)] }), "cannot be started"),
        (json!({ "argv": ["pwd"], "cwd": "/no/such/folder" }), "/no/such/folder"),
        (json!({ "argv": ["pwd"], "cwd": "usr" }), "absolute"),
        (json!({ "argv": ["env"], "env": { "A=B": "c" } }), "A=B"),
        (json!({ "argv": ["env"], "env": { "A": "b\0" } }), "`A`"),
        (json!({ "argv": [""] }), "PATH"),
    ] {
        let message = permanent(run(input).await);
        assert!(message.contains(named), "{named}: {message}");
    }
}

#[tokio::test]
async fn r12_a_program_that_is_not_listed_does_not_run_and_the_message_names_the_setting() {
    let try_with = async |commands: &str, input: Value| {
        super::run(&programs(commands.parse().unwrap()), input, &context()).await
    };
    for (commands, program, runs) in [
        ("", "echo", false),
        ("cat, echo", "echo", true),
        ("cat", "echo", false),
        ("echo", "/bin/echo", false),
        ("/bin/echo", "/bin/echo", true),
        ("/bin/echo", "echo", true),
        ("/bin/echo", "/tmp/echo", false),
        ("/bin/echo", "/bin/../bin/echo", false),
        ("cat,*", "/bin/echo", true),
    ] {
        let outcome = try_with(commands, json!({ "argv": [program, "a"] })).await;
        if runs {
            assert_eq!(outcome.unwrap()["stdout"], "a\n", "{commands}: {program}");
        } else {
            assert!(permanent(outcome).contains("GATHERING_COMMANDS"), "{commands}: {program}");
        }
    }
    // Neither the search path nor the loader lets another program take a listed one's place.
    let message = permanent(
        try_with("env", json!({ "argv": ["env"], "env": { "LD_PRELOAD": "/tmp/x.so" } })).await,
    );
    assert!(message.contains("LD_PRELOAD"), "{message}");
    let folder = std::env::temp_dir().join(format!("gathering-{}", Uuid::now_v7()));
    std::fs::create_dir(&folder).unwrap();
    std::os::unix::fs::symlink("/bin/false", folder.join("env")).unwrap();
    let input = json!({ "argv": ["env"], "env": { "PATH": folder } });
    assert!(try_with("env", input).await.is_ok());
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_wrong_setting_names_the_variable_and_the_form_it_wants() {
    assert_eq!("".parse(), Ok(Commands::None));
    assert_eq!(" , ".parse(), Ok(Commands::None));
    assert_eq!("*".parse(), Ok(Commands::All));
    let error = "ls,bin/x".parse::<Commands>().unwrap_err();
    assert!(error.contains("GATHERING_COMMANDS") && error.contains("bin/x"), "{error}");
}

/// Starts `script` (`$0` is where it notes a process id) and returns that id when it runs.
async fn started(script: &str, context: &Context) -> (tokio::task::JoinHandle<Outcome>, u32) {
    let note = Note::new();
    let (input, context) = (json!({ "argv": ["sh", "-c", script, note.0] }), context.clone());
    let task = tokio::spawn(async move { run_in(input, &context).await });
    let pid = timeout(Duration::from_secs(5), note.pid()).await.unwrap();
    (task, pid)
}

#[tokio::test]
async fn a_cancel_asks_the_whole_group_to_end() {
    let context = context();
    let (task, grandchild) = started("sleep 300 & echo $! > $0; wait", &context).await;
    let since = Instant::now();
    context.cancel.cancel();
    assert_eq!(task.await.unwrap(), Err(Failure::Cancelled));
    assert!(since.elapsed() < GRACE, "SIGTERM was enough");
    dies(grandchild).await;
    // Before the start, too.
    let outcome = run_in(json!({ "argv": ["sleep", "300"] }), &context).await;
    assert_eq!(outcome, Err(Failure::Cancelled));
}

#[tokio::test]
async fn a_cancelled_group_has_a_grace_to_end_in_order_and_is_read_meanwhile() {
    let context = context();
    // More than a pipe holds: it ends only if somebody reads.
    let script = "trap 'head -c 200000 /dev/zero; echo done > $0.end; exit' TERM
                  echo $$ > $0; while :; do sleep 0.01; done";
    let note = Note::new();
    let input = json!({ "argv": ["sh", "-c", script, note.0] });
    let cancel = async {
        note.pid().await;
        context.cancel.cancel();
    };
    let (outcome, ()) = tokio::join!(run_in(input, &context), cancel);
    assert_eq!(outcome, Err(Failure::Cancelled));
    let end = Note(note.0.with_extension("end"));
    assert_eq!(std::fs::read_to_string(&end.0).unwrap(), "done\n");
}

#[tokio::test]
async fn a_group_that_ignores_sigterm_is_killed_after_the_grace() {
    let context = context();
    let (task, grandchild) =
        started("trap '' TERM; sleep 300 & echo $! > $0; wait", &context).await;
    let since = Instant::now();
    context.cancel.cancel();
    assert_eq!(task.await.unwrap(), Err(Failure::Cancelled));
    assert!((GRACE..GRACE * 2).contains(&since.elapsed()), "{:?}", since.elapsed());
    dies(grandchild).await;
}

#[tokio::test]
async fn a_dropped_node_leaves_nothing_behind() {
    let (task, grandchild) =
        started("trap '' TERM; sleep 300 & echo $! > $0; wait", &context()).await;
    task.abort();
    dies(grandchild).await;
}

#[tokio::test]
async fn what_holds_the_streams_after_the_end_is_waited_for_briefly_then_killed() {
    let note = Note::new();
    let since = Instant::now();
    let script = "(sleep 0.1; echo late; exec sleep 300) & echo $! > $0; echo early";
    let output = run(json!({ "argv": ["sh", "-c", script, note.0] })).await.unwrap();
    assert_eq!(output["stdout"], "early\nlate\n");
    assert!(since.elapsed() < Duration::from_secs(3));
    dies(note.pid().await).await;
}

#[tokio::test]
async fn what_left_the_group_and_holds_the_streams_does_not_hang_the_node() {
    let note = Note::new();
    let script = "setsid sh -c 'echo $$ > $0; exec sleep 300' $0 & while ! test -s $0; do :; done";
    let outcome =
        timeout(Duration::from_secs(5), run(json!({ "argv": ["sh", "-c", script, note.0] })));
    assert_eq!(outcome.await.unwrap().unwrap()["exit_code"], 0);
    let pid = rustix::process::Pid::from_raw(note.pid().await.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[tokio::test]
async fn what_stays_in_the_background_ends_with_the_program() {
    let note = Note::new();
    let script = "sleep 300 >/dev/null 2>&1 & echo $! > $0";
    run(json!({ "argv": ["sh", "-c", script, note.0] })).await.unwrap();
    dies(note.pid().await).await;
}

#[tokio::test]
async fn the_warden_kills_what_runs_when_the_worker_dies_and_nothing_else() {
    let sleeper =
        || tokio::process::Command::new("sleep").arg("300").process_group(0).spawn().unwrap();
    let id = |child: &tokio::process::Child| {
        rustix::process::Pid::from_raw(child.id().unwrap().cast_signed()).unwrap()
    };
    let warden = super::warden::Warden::default();
    // The later ones could inherit the line to the warden, and keep it open.
    let mut children = [(); 3].map(|()| {
        let child = sleeper();
        warden.guard(id(&child));
        child
    });
    warden.release(id(&children[1]));
    warden.release(id(&children[1]));
    // As the kernel does with the sockets of a killed worker.
    drop(warden);
    for ix in [0, 2] {
        let status = timeout(Duration::from_secs(5), children[ix].wait()).await.unwrap().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    }
    assert_eq!(children[1].try_wait().unwrap(), None);
    children[1].kill().await.unwrap();
}

#[tokio::test]
async fn many_at_once() {
    let programs = programs(Commands::All);
    let context = context();
    let calls = (0..64).map(|n| super::run(&programs, json!({ "argv": ["echo", n] }), &context));
    for (n, outcome) in futures::future::join_all(calls).await.into_iter().enumerate() {
        assert_eq!(outcome.unwrap()["json"], n);
    }
}

/// The worker that the next test kills: it runs a command that notes a process of its and never ends.
#[tokio::test]
async fn victim() {
    if let Some(note) = std::env::var_os("GATHERING_TEST_VICTIM") {
        let script = "trap '' TERM; sleep 300 & echo $! > $0; wait";
        let _ = run(json!({ "argv": ["sh", "-c", script, note.to_str()] })).await;
    }
}

#[tokio::test]
async fn a_worker_killed_by_sigkill_takes_its_commands_along() {
    let note = Note::new();
    let mut worker = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "run_command::tests::victim"])
        .env("GATHERING_TEST_VICTIM", &note.0)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let grandchild = timeout(Duration::from_secs(5), note.pid()).await.unwrap();
    worker.kill().await.unwrap();
    dies(grandchild).await;
}

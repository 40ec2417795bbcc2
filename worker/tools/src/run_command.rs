//! `run_command`: one program, and all that it starts.
//!
//! Config: `argv` (at least the program), `env`, `stdin`, `cwd` (absolute; the worker's own by default),
//! `output_limit` (bytes of each stream, 1 MiB, at most 16 MiB), `ok_exit_codes` (`[0]`). Output:
//! `{exit_code, stdout, stderr}`, and where they apply `json` (stdout, when it is JSON) and `truncated` and `lossy`:
//! lists of the streams that were cut at the limit, or were not UTF-8 and had the rest replaced by U+FFFD.
//!
//! - No shell, unless the program is one. Which programs may run is the operator's choice ([`Commands`]).
//! - The environment is clean: `PATH`, `HOME`, `USER`, `LANG`, `LC_ALL`, `TZ` and `TMPDIR` of the worker;
//!   `GATHERING_RUN_ID`, `GATHERING_NODE_ID`, `GATHERING_ATTEMPT`, `GATHERING_IDEMPOTENCY_KEY`, `TRACEPARENT`; and
//!   `env` on top.
//! - The program leads a process group, and nothing of that group outlives it: [`group`] says how.
//! - A bad exit code or a signal is retryable, as the retry policy says: most commands fail for reasons that pass.
//!   What cannot be started as it stands (not listed, not there, not a program) is permanent.

mod capture;
mod commands;
mod group;
mod warden;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use common::node_log::Stream;
use common::secret::Mask;
use common::tool::{Needs, Spec};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::timeout;

use self::capture::Capture;
use self::commands::{Commands, Programs};
use self::group::Group;
use crate::input::{self, Scalar};
use crate::outcome::tail;
use crate::tool::{Availability, BuiltIn, Shared, Tool, spec};
use crate::{Context, Failure, Outcome};

/// The settings of `run_command`.
#[derive(Debug, clap::Args)]
pub(crate) struct RunCommandSettings {
    /// The programs that run_command may run: names or paths, separated by commas; `*` for all; none by default
    #[arg(long, env = "GATHERING_COMMANDS", default_value = "", value_name = "PROGRAMS")]
    commands: Commands,
}

pub(crate) struct RunCommand {
    programs: Programs,
}

impl Tool for RunCommand {
    fn availability(&self) -> Availability {
        if self.programs.are_none() {
            return Availability::Disabled {
                why: "no program may run on it".to_owned(),
                mend: "its operator lists those that may in GATHERING_COMMANDS".to_owned(),
            };
        }
        Availability::Enabled
    }

    fn execute<'a>(&'a self, input: Value, context: &'a Context) -> BoxFuture<'a, Outcome> {
        run(&self.programs, input, context).boxed()
    }
}

impl BuiltIn for RunCommand {
    type Settings = RunCommandSettings;

    fn spec() -> Spec {
        let scalar = json!({"type": ["string", "number", "boolean"], "description": "a string, a number or a boolean"});
        let schema = json!({
            "type": "object",
            "required": ["argv"],
            "additionalProperties": false,
            "properties": {
                "argv": {
                    "type": "array", "minItems": 1, "items": scalar,
                    "description": "a list: the program, and its arguments",
                },
                "env": {"type": "object", "additionalProperties": scalar, "description": "an object of strings"},
                "stdin": {"type": ["string", "number", "boolean", "null"], "description": "a string"},
                "cwd": {"type": ["string", "null"], "pattern": "^/|\\{[{%]", "description": "an absolute path"},
                "output_limit": {
                    "type": "integer", "minimum": 0, "maximum": 16 * MIB,
                    "description": "a number of bytes up to 16777216 (16 MiB)",
                },
                "ok_exit_codes": {
                    "type": "array", "description": "a list of exit codes",
                    "items": {"type": "integer", "minimum": 0, "maximum": 255, "description": "an exit code from 0 to 255"},
                },
            },
        });
        let needs = Needs::setting(
            "GATHERING_COMMANDS",
            "the operator of a worker lists the programs that may run on it; none by default",
        );
        spec("run_command", DESCRIPTION, schema, Some(needs))
    }

    fn open(settings: RunCommandSettings, _: &Shared) -> anyhow::Result<Self> {
        Ok(Self { programs: Programs::new(settings.commands) })
    }
}

const DESCRIPTION: &str = "Runs one program, without a shell, and returns `{exit_code, stdout, stderr}`, and `json` when \
     stdout is JSON. Any other exit code than those that are fine is retried.";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    argv: Vec<Scalar>,
    #[serde(default)]
    env: BTreeMap<String, Scalar>,
    stdin: Option<Scalar>,
    cwd: Option<PathBuf>,
    #[serde(default = "default_limit")]
    output_limit: usize,
    #[serde(default = "zero")]
    ok_exit_codes: Vec<i32>,
}

const MIB: usize = 1 << 20;

fn default_limit() -> usize {
    MIB
}

fn zero() -> Vec<i32> {
    vec![0]
}

/// How long the streams are read on after the program's end, when something that it started holds them open.
const AFTERMATH: Duration = Duration::from_secs(1);
/// How much of a failed program's words a message quotes, in characters.
const QUOTED: usize = 500;

async fn run(programs: &Programs, input: Value, context: &Context) -> Outcome {
    let config: Config = input::read("run_command", input)?;
    let Config { argv, env, stdin, cwd, output_limit, ok_exit_codes } = config;
    let argv: Vec<_> = argv.into_iter().map(Scalar::into_text).collect();
    let env: Vec<_> = env.into_iter().map(|(name, value)| (name, value.into_text())).collect();
    if output_limit > 16 * MIB {
        return Err(Failure::permanent("`output_limit` of run_command is at most 16 MiB"));
    }
    if context.cancel.is_cancelled() {
        return Err(Failure::Cancelled);
    }
    let mut command = command(programs, &argv, &env, cwd.as_deref(), context)?;
    command.stdin(if stdin.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child = command.spawn().map_err(|error| not_started(&argv[0], &error))?;
    let group = Group::of(&child, programs);

    let mut stdout = Capture::new(output_limit);
    let mut stderr = Capture::new(output_limit);
    let feed = feed(child.stdin.take(), stdin.map(Scalar::into_text).unwrap_or_default());
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let streams = async {
        let out = stdout.fill(out, &context.log, Stream::Stdout);
        let err = stderr.fill(err, &context.log, Stream::Stderr);
        tokio::join!(feed, out, err)
    };
    let status = follow(&mut child, group, streams, context).await?;
    outcome(&argv[0], status, &ok_exit_codes, [stdout, stderr], &context.mask)
}

fn command(
    programs: &Programs,
    argv: &[String],
    env: &[(String, String)],
    cwd: Option<&Path>,
    context: &Context,
) -> Result<Command, Failure> {
    let [name, arguments @ ..] = argv else {
        return Err(Failure::permanent("`argv` of run_command is empty"));
    };
    if argv.iter().any(|text| text.contains('\0')) {
        return Err(Failure::permanent("`argv` of run_command has a null character"));
    }
    let program = programs.find(name).map_err(Failure::permanent)?;
    programs.check_env(env).map_err(Failure::permanent)?;
    let mut command = Command::new(program);
    command.arg0(name).args(arguments).env_clear().envs(programs.environment());
    command.env("GATHERING_RUN_ID", context.run.to_string());
    command.env("GATHERING_NODE_ID", &context.node);
    command.env("GATHERING_ATTEMPT", context.attempt.to_string());
    command.env("GATHERING_IDEMPOTENCY_KEY", &context.idempotency_key);
    command.envs(context.traceparent.as_ref().map(|parent| ("TRACEPARENT", parent)));
    command.envs(env.iter().map(|(name, value)| (name, value)));
    if let Some(cwd) = cwd {
        // Else a folder that is missing would look like a program that is.
        if !cwd.is_absolute() || !cwd.is_dir() {
            let cwd = cwd.display();
            return Err(Failure::permanent(format!(
                "`cwd` {cwd} is no absolute path of a folder here"
            )));
        }
        command.current_dir(cwd);
    }
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    Ok(command)
}

/// Kinds that pass (no memory, too many processes or files) are retryable.
fn not_started(name: &str, error: &std::io::Error) -> Failure {
    let message = format!("`{name}` cannot be started: {error}");
    match error.kind() {
        ErrorKind::NotFound
        | ErrorKind::PermissionDenied
        | ErrorKind::ArgumentListTooLong
        | ErrorKind::IsADirectory
        | ErrorKind::NotADirectory
        | ErrorKind::InvalidInput => Failure::permanent(message),
        _ if error.raw_os_error() == Some(rustix::io::Errno::NOEXEC.raw_os_error()) => {
            Failure::permanent(message)
        }
        _ => Failure::retryable(message),
    }
}

/// A program that does not read its input is no failure.
async fn feed(pipe: Option<ChildStdin>, text: String) {
    if let Some(mut pipe) = pipe {
        let _ = pipe.write_all(text.as_bytes()).await;
    }
}

/// Waits for the program while its streams move, so that no full pipe stops it. The group ends with this call.
async fn follow(
    child: &mut Child,
    group: Group<'_>,
    streams: impl Future,
    context: &Context,
) -> Result<ExitStatus, Failure> {
    let mut streams = pin!(streams);
    let mut open = true;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            _ = &mut streams, if open => open = false,
            () = context.cancel.cancelled() => {
                let mut ending = pin!(group.terminate(child));
                loop {
                    tokio::select! {
                        () = &mut ending => return Err(Failure::Cancelled),
                        _ = &mut streams, if open => open = false,
                    }
                }
            }
        }
    };
    // Something that the program started may hold its streams, and still write.
    if open && timeout(AFTERMATH, &mut streams).await.is_err() {
        group.kill();
        // What left the group is not waited for.
        let _ = timeout(AFTERMATH, streams).await;
    }
    status.map_err(|error| Failure::retryable(format!("the program's end was missed: {error}")))
}

fn outcome(
    name: &str,
    status: ExitStatus,
    ok: &[i32],
    [stdout, stderr]: [Capture; 2],
    mask: &Mask,
) -> Outcome {
    let json = stdout.json();
    let streams = [("stdout", stdout.into_text()), ("stderr", stderr.into_text())];
    let Some(code) = status.code().filter(|code| ok.contains(code)) else {
        let words = streams.iter().rev().map(|(_, stream)| stream.text.trim());
        let words = words.into_iter().find(|words| !words.is_empty());
        let end = match status.signal() {
            Some(signal) => format!("was killed by signal {signal}"),
            None => format!("exited with {}", status.code().unwrap_or_default()),
        };
        // Masked before it is cut: half a secret would not be found afterwards.
        let words = words.map(|words| mask.text(words)).unwrap_or_default();
        let words = if words.is_empty() { words } else { format!(": {}", tail(&words, QUOTED)) };
        return Err(Failure::retryable(format!(
            "`{name}` {end}{}",
            words.replace('\0', "\u{fffd}")
        )));
    };
    let mut output = json!({ "exit_code": code });
    for (name, stream) in streams {
        for (flag, raised) in [("truncated", stream.truncated), ("lossy", stream.lossy)] {
            if raised {
                let flags = output[flag].as_array().cloned().unwrap_or_default();
                output[flag] = flags.into_iter().chain([json!(name)]).collect();
            }
        }
        output[name] = Value::String(stream.text);
    }
    if let Some(json) = json {
        output["json"] = json;
    }
    Ok(output)
}

#[cfg(test)]
mod tests;

//! `run_command`: one program, and all that it starts.
//!
//! Config: `argv` (at least the program), `env`, `stdin`, `cwd` (a folder of the run's workspace, which is the default; on
//! a worker without one an absolute path, or the worker's own), `output_limit` (bytes of each stream, 1 MiB, at most
//! 16 MiB), `ok_exit_codes` (`[0]`), `retry_exit_codes`, `limits`. Output: `{exit_code, stdout, stderr}`, and where they
//! apply `json` (stdout, when it is JSON) and `truncated` and `lossy`: lists of the streams that were cut at the limit, or
//! were not UTF-8 and had the rest replaced by U+FFFD.
//!
//! - No shell, unless the program is one. Which programs may run is the operator's choice ([`Commands`]).
//! - The environment is clean: `PATH`, `HOME`, `USER`, `LANG`, `LC_ALL`, `TZ` and `TMPDIR` of the worker;
//!   `GATHERING_RUN_ID`, `GATHERING_NODE_ID`, `GATHERING_ATTEMPT`, `GATHERING_IDEMPOTENCY_KEY`, `TRACEPARENT`; and
//!   `env` on top.
//! - The kernel keeps its limits: the tighter of the operator's and the node's ([`limits`]). It dumps no core.
//! - The program leads a process group, and nothing of that group outlives it: [`group`] says how.
//! - A bad exit code or a signal is retryable, as the retry policy says: most commands fail for reasons that pass. With
//!   `retry_exit_codes` only those codes are. A limit that is met, and what cannot be started as it stands (not listed,
//!   not there, not a program), is permanent.

mod capture;
mod commands;
mod config;
mod confine;
mod ending;
mod group;
mod limits;
mod warden;

use std::path::Path;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use cap_std::fs::Dir;
use common::node_log::Stream;
use common::tool::Spec;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::timeout;

use self::capture::Capture;
use self::commands::{Commands, Programs};
use self::config::Config;
use self::ending::{not_started, outcome};
use self::group::Group;
use self::limits::Limits;
use crate::tool::{Availability, BuiltIn, Shared, Tool};
use crate::workspace::{Folder, Inside, blocking, of_run};
use crate::{Context, Failure, Outcome};

pub use self::confine::confine;
pub(crate) use self::limits::User;

/// The settings of `run_command`.
#[derive(Debug, clap::Args)]
pub(crate) struct RunCommandSettings {
    /// The programs that run_command may run: names or paths, separated by commas; `*` for all; none by default
    #[arg(long, env = "GATHERING_COMMANDS", default_value = "", value_name = "PROGRAMS")]
    commands: Commands,
    /// What each of their processes may use at the most, such as
    /// `cpu=60s,memory=2GiB,file_size=1GiB,open_files=1024,processes=256`; what is left out has no limit
    #[arg(long, env = "GATHERING_COMMAND_LIMITS", default_value = "", value_name = "LIMITS")]
    command_limits: Limits,
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
        config::schema()
    }

    fn open(settings: RunCommandSettings, shared: &Shared) -> anyhow::Result<Self> {
        Ok(Self { programs: Programs::new(settings.commands, settings.command_limits, shared) })
    }
}

/// How long the streams are read on after the program's end, when something that it started holds them open.
const AFTERMATH: Duration = Duration::from_secs(1);

async fn run(programs: &Programs, input: Value, context: &Context) -> Outcome {
    let config = Config::read(input)?;
    if context.cancel.is_cancelled() {
        return Err(Failure::Cancelled);
    }
    let place = Place::of(programs, config.cwd.as_deref(), context).await?;
    let mut command = command(programs, &config, &place, context)?;
    let mut child = command.spawn().map_err(|error| not_started(&config.argv[0], &error))?;
    drop(place);
    let group = Group::of(&child, programs);

    let mut stdout = Capture::new(config.output_limit);
    let mut stderr = Capture::new(config.output_limit);
    let feed = feed(child.stdin.take(), config.stdin.unwrap_or_default());
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let streams = async {
        let out = stdout.fill(out, &context.log, Stream::Stdout);
        let err = stderr.fill(err, &context.log, Stream::Stderr);
        tokio::join!(feed, out, err)
    };
    let status = follow(&mut child, group, streams, context).await?;
    outcome(&config.argv[0], status, &config.codes, [stdout, stderr], &context.mask)
}

/// Where a program works.
enum Place {
    /// A folder of the workspace, held open: whatever happens to its name, this is the one.
    Workspace { folder: Folder, cwd: Dir },
    /// Any other folder, on a worker without a workspace.
    Absolute(String),
    /// Where the worker does.
    Own,
}

impl Place {
    async fn of(
        programs: &Programs,
        cwd: Option<&str>,
        context: &Context,
    ) -> Result<Self, Failure> {
        if programs.workspace.is_none() {
            return match cwd {
                None => Ok(Self::Own),
                Some(cwd) if cwd.starts_with('/') && Path::new(cwd).is_dir() => {
                    Ok(Self::Absolute(cwd.to_owned()))
                }
                // Else a folder that is missing would look like a program that is.
                Some(cwd) => Err(Failure::permanent(format!(
                    "`cwd` {cwd} is no absolute path of a folder here, and this worker has no workspace \
                     (GATHERING_WORKSPACE) for relative ones"
                ))),
            };
        }
        let folder = of_run(programs.workspace.as_ref(), context).await?;
        let path = Inside::read(cwd.unwrap_or_default())?;
        blocking(context, move || {
            let cwd = folder.dir.open_dir(&path).map_err(|error| path.failed("entered", &error))?;
            Ok(Self::Workspace { folder, cwd })
        })
        .await
    }
}

fn command(
    programs: &Programs,
    config: &Config,
    place: &Place,
    context: &Context,
) -> Result<Command, Failure> {
    let name = &config.argv[0];
    let program = programs.find(name).map_err(Failure::permanent)?;
    programs.check_env(&config.env).map_err(Failure::permanent)?;
    let command = programs.command(&program, name, config.limits).map_err(Failure::permanent)?;
    let mut command = Command::from(command);
    command.args(&config.argv[1..]).env_clear().envs(programs.environment());
    match place {
        Place::Workspace { folder, cwd } => {
            // The child has the folder open, too, until it becomes the program.
            let held = std::os::fd::AsRawFd::as_raw_fd(cwd);
            command.current_dir(format!("/proc/self/fd/{held}"));
            if programs.user.is_some() {
                command.env("HOME", folder.path());
            }
        }
        Place::Absolute(cwd) => _ = command.current_dir(cwd),
        Place::Own => {}
    }
    command.env("GATHERING_RUN_ID", context.run.to_string());
    command.env("GATHERING_NODE_ID", &context.node);
    command.env("GATHERING_ATTEMPT", context.attempt.to_string());
    command.env("GATHERING_IDEMPOTENCY_KEY", &context.idempotency_key);
    command.envs(context.traceparent.as_ref().map(|parent| ("TRACEPARENT", parent)));
    command.envs(config.env.iter().map(|(name, value)| (name, value)));
    command.stdin(if config.stdin.is_some() { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    Ok(command)
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

#[cfg(test)]
mod tests;

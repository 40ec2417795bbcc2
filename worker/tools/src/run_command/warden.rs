//! Kills what runs when the worker itself is killed.
//!
//! A worker that dies by SIGKILL can clean up nothing, and its nodes are taken over within milliseconds: a command of
//! its must not go on beside the next attempt. Linux's parent-death signal cannot be set without `unsafe`, and would
//! reach only the program, not its group. So a small shell, in a group of its own, holds one end of a socket whose
//! other end nobody but the worker has. The worker tells it which groups live; when the socket ends, it kills them.
//!
//! Not covered: a kill between the start of a program and the line that names it, some 50 µs.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};

use rustix::process::Pid;
use tokio::process::{Child, Command};

const SCRIPT: &str = r#"
trap '' TERM INT HUP
live=' '
while read -r sign group; do
  case "$sign$live" in
    +*) live="$live$group " ;;
    -*" $group "*) live="${live%% "$group" *} ${live#* "$group" }" ;;
  esac
done
for group in $live; do kill -s KILL -- "-$group"; done
"#;

/// Starts its shell with the first program, and again should it be gone.
#[derive(Default)]
pub(super) struct Warden {
    line: Mutex<Option<(UnixStream, Child)>>,
}

impl Warden {
    pub(super) fn guard(&self, group: Pid) {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        if line.as_ref().is_some_and(|(line, _)| tell(line, '+', group).is_ok()) {
            return;
        }
        *line = start().and_then(|new| tell(&new.0, '+', group).map(|()| new)).inspect_err(|error| {
            tracing::warn!(%error, "no /bin/sh to guard commands: if this worker is killed, they go on");
        }).ok();
    }

    pub(super) fn release(&self, group: Pid) {
        let line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((line, _)) = line.as_ref() {
            // It is gone: the next `guard` sees that.
            let _ = tell(line, '-', group);
        }
    }
}

/// The worker's end never blocks: a warden that does not read is one that is gone.
fn tell(mut line: &UnixStream, sign: char, group: Pid) -> std::io::Result<()> {
    line.write_all(format!("{sign} {}\n", group.as_raw_nonzero()).as_bytes())
}

fn start() -> std::io::Result<(UnixStream, Child)> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let shell = Command::new("/bin/sh")
        .args(["-c", SCRIPT, "gathering-warden"])
        .env_clear()
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/")
        .process_group(0)
        .spawn()?;
    Ok((ours, shell))
}

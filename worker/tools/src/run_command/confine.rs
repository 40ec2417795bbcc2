//! Sets limits, then becomes the program.
//!
//! Limits and the user of a process have to be set between its start and its program's, where code of ours runs only
//! with `unsafe`. So the worker starts itself once more, as `gathering-worker confine LIMITS PROGRAM NAME ARGUMENT…`: that
//! sets the limits of its own process, drops its user and groups, and executes the program in its place. The process
//! id and group stay the same.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rustix::process::{Resource, Rlimit, setrlimit};
use serde::{Deserialize, Serialize};

use super::limits::{Limits, User};

/// The word that makes a worker do this.
const WORD: &str = "confine";
/// How it says that the program could not be executed; its error's number follows.
const SAID: &str = "gathering-worker confine: the program cannot be executed: ";
/// With which exit code.
const CODE: i32 = 125;

/// What is set.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    cpu: Option<u64>,
    memory: Option<u64>,
    file_size: Option<u64>,
    open_files: Option<u64>,
    processes: Option<u64>,
    user: Option<(u32, u32)>,
}

/// The command that becomes `program`, within limits.
pub(super) fn command(
    worker: &Path,
    program: &Path,
    name: &str,
    limits: Limits,
    user: Option<User>,
) -> Command {
    let Limits { cpu, memory, file_size, open_files, processes } = limits;
    let user = user.map(|user| (user.uid, user.gid));
    let order = Order { cpu, memory, file_size, open_files, processes, user };
    let order = serde_json::to_string(&order).expect("numbers are JSON");
    let mut command = Command::new(worker);
    command.arg(WORD).arg(order).arg(program).arg(name);
    command
}

/// The error with which the program could not be executed, if that is what this end means.
pub(super) fn not_executed(code: Option<i32>, stderr: &str) -> Option<io::Error> {
    let number = stderr.strip_prefix(SAID).filter(|_| code == Some(CODE))?;
    let number = number.split_whitespace().next()?.parse().ok()?;
    Some(io::Error::from_raw_os_error(number))
}

/// Becomes the program, if the command line says so: for the first line of a worker's `main`. Returns when it does not.
pub fn confine() {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_none_or(|word| word != WORD) {
        return;
    }
    let arguments: Vec<OsString> = arguments.collect();
    let error = match arguments.as_slice() {
        [order, program, name, rest @ ..] => become_program(order, program, name, rest),
        _ => io::Error::from(rustix::io::Errno::INVAL),
    };
    let number = error.raw_os_error().unwrap_or(rustix::io::Errno::INVAL.raw_os_error());
    let _ = writeln!(io::stderr(), "{SAID}{number} ({error})");
    std::process::exit(CODE);
}

/// Returns only what went wrong.
fn become_program(order: &OsStr, program: &OsStr, name: &OsStr, rest: &[OsString]) -> io::Error {
    let order: Option<Order> = order.to_str().and_then(|text| serde_json::from_str(text).ok());
    let Some(order) = order else { return io::Error::from(rustix::io::Errno::INVAL) };
    if let Err(error) = is_program(Path::new(program)).and_then(|()| limit(&order)) {
        return error;
    }
    let mut command = Command::new(program);
    command.arg0(name).args(rest);
    if let Some((uid, gid)) = order.user {
        // Other groups are dropped with the user.
        command.uid(uid).gid(gid);
    }
    command.exec()
}

/// What is neither an executable nor a script would be given to a shell by the C library.
fn is_program(file: &Path) -> io::Result<()> {
    let mut head = [0; 4];
    // What cannot be read is for the system to judge.
    let read = std::fs::File::open(file).and_then(|mut file| file.read(&mut head));
    match read {
        Ok(read) if !head[..read].starts_with(b"#!") && head != *b"\x7fELF" => {
            Err(rustix::io::Errno::NOEXEC.into())
        }
        _ => Ok(()),
    }
}

fn limit(order: &Order) -> io::Result<()> {
    // A second more, after which a program that ignores the signal is killed.
    set(Resource::Cpu, order.cpu, 1)?;
    set(Resource::Fsize, order.file_size, 0)?;
    set(Resource::Nofile, order.open_files, 0)?;
    set(Resource::Nproc, order.processes, 0)?;
    set(Resource::Core, Some(0), 0)?;
    // The last: nothing else has to fit into it.
    set(Resource::As, order.memory, 0)
}

fn set(resource: Resource, limit: Option<u64>, more: u64) -> io::Result<()> {
    let Some(limit) = limit else { return Ok(()) };
    let now = rustix::process::getrlimit(resource);
    // What the worker itself may not exceed stays.
    let most = |limit: u64| now.maximum.map_or(limit, |maximum| limit.min(maximum));
    let rlimit = Rlimit { current: Some(most(limit)), maximum: Some(most(limit + more)) };
    Ok(setrlimit(resource, rlimit)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_executed_is_told_apart_from_a_program_that_ends_badly() {
        let kind = |code, text: &str| not_executed(code, text).map(|error| error.kind());
        assert_eq!(kind(Some(CODE), &format!("{SAID}2 (x)\n")), Some(io::ErrorKind::NotFound));
        assert_eq!(kind(Some(1), &format!("{SAID}2 (x)\n")), None);
        assert_eq!(kind(Some(CODE), "something else"), None);
        assert_eq!(kind(None, ""), None);
    }
}

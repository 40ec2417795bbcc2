//! From how a program ended to what its node leaves.

use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use common::secret::Mask;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::capture::Capture;
use super::config::Codes;
use super::confine;
use crate::outcome::tail;
use crate::{Failure, Outcome};

/// How much of a failed program's words a message quotes, in characters.
const QUOTED: usize = 500;

/// Kinds that pass (no memory, too many processes or files) are retryable.
pub(super) fn not_started(name: &str, error: &std::io::Error) -> Failure {
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

/// The output, or why there is none.
pub(super) fn outcome(
    name: &str,
    status: ExitStatus,
    codes: &Codes,
    [stdout, stderr]: [Capture; 2],
    mask: &Mask,
) -> Outcome {
    let json = stdout.json();
    let streams = [("stdout", stdout.into_text()), ("stderr", stderr.into_text())];
    if let Some(error) = confine::not_executed(status.code(), &streams[1].1.text) {
        return Err(not_started(name, &error));
    }
    let Some(code) = status.code().filter(|code| codes.ok.contains(code)) else {
        let words = streams.iter().rev().map(|(_, stream)| stream.text.trim());
        let words = words.into_iter().find(|words| !words.is_empty());
        // Masked before it is cut: half a secret would not be found afterwards.
        let words = words.map(|words| mask.text(words)).unwrap_or_default();
        let words = if words.is_empty() { words } else { format!(": {}", tail(&words, QUOTED)) };
        return Err(bad(name, status, codes, &words.replace('\0', "\u{fffd}")));
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

/// A limit that was met would be met again. Any other signal passes, as the retry policy says, and so do exit codes
/// unless the node lists those that do.
fn bad(name: &str, status: ExitStatus, codes: &Codes, words: &str) -> Failure {
    let signal = status.signal();
    if signal == Some(Signal::XCPU.as_raw()) {
        return Failure::permanent(format!(
            "`{name}` used all the processor time of its limit `cpu`{words}"
        ));
    }
    if signal == Some(Signal::XFSZ.as_raw()) {
        return Failure::permanent(format!(
            "`{name}` wrote a file beyond its limit `file_size`{words}"
        ));
    }
    match (signal, status.code()) {
        (None, Some(code)) => {
            let message = format!("`{name}` exited with {code}{words}");
            match &codes.retry {
                Some(retry) if !retry.contains(&code) => Failure::permanent(message),
                _ => Failure::retryable(message),
            }
        }
        (signal, _) => {
            let signal = signal.unwrap_or_default();
            Failure::retryable(format!("`{name}` was killed by signal {signal}{words}"))
        }
    }
}

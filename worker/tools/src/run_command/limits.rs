//! What a program may use: limits that the kernel keeps, and the user under whom it runs.

use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

use crate::Failure;

/// Limits of one process, each none unless it is given. Those of a node can only be tighter than the operator's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Limits {
    /// Seconds of a processor.
    pub(super) cpu: Option<u64>,
    /// Bytes of address space.
    pub(super) memory: Option<u64>,
    /// Bytes of a file that it writes.
    pub(super) file_size: Option<u64>,
    pub(super) open_files: Option<u64>,
    /// Processes of its user; for root there is no such limit.
    pub(super) processes: Option<u64>,
}

const FORM: &str = "GATHERING_COMMAND_LIMITS wants limits between commas, of cpu, memory, file_size, open_files and processes, \
     such as `cpu=60s,memory=2GiB,file_size=1GiB,open_files=1024,processes=256`";

impl FromStr for Limits {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut limits = Self::default();
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let wrong = || format!("{FORM}; `{item}` is none");
            let (name, value) = item.split_once('=').ok_or_else(wrong)?;
            let (place, value) = match name.trim() {
                "cpu" => (&mut limits.cpu, seconds(value.trim())),
                "memory" => (&mut limits.memory, common::size::parse(value)),
                "file_size" => (&mut limits.file_size, common::size::parse(value)),
                "open_files" => (&mut limits.open_files, number(value)),
                "processes" => (&mut limits.processes, number(value)),
                _ => return Err(wrong()),
            };
            if place.replace(value.map_err(|_| wrong())?).is_some() {
                return Err(format!("{FORM}; `{}` is given twice", name.trim()));
            }
        }
        Ok(limits)
    }
}

/// Whole seconds, rounded up: the kernel counts those.
fn seconds(text: &str) -> Result<u64, String> {
    let duration: Duration = common::duration::parse(text).map_err(|error| error.to_string())?;
    Ok(duration.as_secs() + u64::from(duration.subsec_nanos() > 0))
}

fn number(text: &str) -> Result<u64, String> {
    text.trim().parse().map_err(|error| format!("{error}"))
}

impl Limits {
    /// The tighter of each.
    pub(super) fn within(self, operator: Self) -> Self {
        let tighter = |a: Option<u64>, b: Option<u64>| match (a, b) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (one, other) => one.or(other),
        };
        Self {
            cpu: tighter(self.cpu, operator.cpu),
            memory: tighter(self.memory, operator.memory),
            file_size: tighter(self.file_size, operator.file_size),
            open_files: tighter(self.open_files, operator.open_files),
            processes: tighter(self.processes, operator.processes),
        }
    }

    pub(super) fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// The limits of a node, as its config has them.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    cpu: Option<String>,
    memory: Option<String>,
    file_size: Option<String>,
    open_files: Option<u64>,
    processes: Option<u64>,
}

impl Asked {
    pub(super) fn read(self) -> Result<Limits, Failure> {
        let wrong = |error| Failure::permanent(format!("config of run_command, `limits`: {error}"));
        let size = |text: Option<String>| text.map(|text| common::size::parse(&text)).transpose();
        Ok(Limits {
            cpu: self.cpu.map(|text| seconds(&text)).transpose().map_err(wrong)?,
            memory: size(self.memory).map_err(wrong)?,
            file_size: size(self.file_size).map_err(wrong)?,
            open_files: self.open_files,
            processes: self.processes,
        })
    }
}

/// `GATHERING_COMMAND_USER`: under whom programs run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl FromStr for User {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            "GATHERING_COMMAND_USER wants the number of a user, or of a user and a group, such as `1000:1000`, \
             not root's"
                .to_owned()
        };
        let (uid, gid) = text.split_once(':').unwrap_or((text, text));
        let number = |text: &str| text.parse().ok().filter(|id| *id != 0 && *id != u32::MAX);
        Ok(Self { uid: number(uid).ok_or_else(wrong)?, gid: number(gid).ok_or_else(wrong)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_and_the_tighter_counts() {
        let limits: Limits = "cpu=1500ms, memory=2GiB,file_size=10,open_files=64,processes=9"
            .parse()
            .expect("limits");
        let whole = Limits {
            cpu: Some(2),
            memory: Some(2 << 30),
            file_size: Some(10),
            open_files: Some(64),
            processes: Some(9),
        };
        assert_eq!(limits, whole);
        let asked = Limits { cpu: Some(9), memory: Some(1), ..Limits::default() };
        assert_eq!(asked.within(whole), Limits { memory: Some(1), ..whole });
        assert_eq!(Limits::default().within(whole), whole);
        assert!("".parse::<Limits>().expect("none").is_none());
        for text in
            ["cpu", "cpu=", "cpu=5", "cpu=1s,cpu=2s", "memory=1x", "disk=1", "open_files=-1"]
        {
            let error = text.parse::<Limits>().expect_err(text);
            assert!(error.contains("GATHERING_COMMAND_LIMITS"), "{error}");
        }
    }

    #[test]
    fn a_user_is_a_number_and_never_root() {
        assert_eq!("1000".parse(), Ok(User { uid: 1000, gid: 1000 }));
        assert_eq!("1000:100".parse(), Ok(User { uid: 1000, gid: 100 }));
        for text in ["", "0", "1:0", "nobody", "1000:", "-1", "4294967295"] {
            let error = text.parse::<User>().expect_err(text);
            assert!(error.contains("GATHERING_COMMAND_USER"), "{error}");
        }
    }
}

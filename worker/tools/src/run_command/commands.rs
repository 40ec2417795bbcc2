//! Which programs may run, where they are, and what they see of the worker's environment.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use super::confine;
use super::limits::{Limits, User};
use super::warden::Warden;
use crate::tool::Shared;
use crate::workspace::Workspace;

/// `GATHERING_COMMANDS`: nothing (the default), `*` for all programs, or names and absolute paths between commas.
///
/// A name stands for the program of that name on the worker's `PATH`. A path stands for itself, by its path or by its
/// last part.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) enum Commands {
    #[default]
    None,
    Listed(Vec<String>),
    All,
}

impl FromStr for Commands {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let entries: Vec<_> = text.split(',').map(str::trim).filter(|e| !e.is_empty()).collect();
        if entries.contains(&"*") {
            return Ok(Self::All);
        }
        if let Some(wrong) = entries.iter().find(|e| e.contains('/') && !e.starts_with('/')) {
            return Err(format!(
                "GATHERING_COMMANDS takes `*`, or program names and absolute paths between commas, like \
                 `pg_dump,/usr/bin/gzip`; `{wrong}` is neither"
            ));
        }
        Ok(match entries.as_slice() {
            [] => Self::None,
            entries => Self::Listed(entries.iter().map(|entry| (*entry).to_owned()).collect()),
        })
    }
}

/// The worker's own values that every program gets.
pub(super) const INHERITED: [&str; 7] = ["PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR"];
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// The programs of this worker.
pub(crate) struct Programs {
    commands: Commands,
    environment: Vec<(OsString, OsString)>,
    pub(super) limits: Limits,
    pub(super) user: Option<User>,
    /// What sets limits. Only tests do without.
    confiner: Option<PathBuf>,
    pub(super) workspace: Option<Workspace>,
    pub(super) warden: Warden,
}

impl Programs {
    pub(super) fn new(commands: Commands, limits: Limits, shared: &Shared) -> Self {
        let inherited = |(name, _): &(OsString, OsString)| INHERITED.iter().any(|own| name == own);
        let mut environment: Vec<_> = std::env::vars_os().filter(inherited).collect();
        if !environment.iter().any(|(name, _)| name == "PATH") {
            environment.push(("PATH".into(), DEFAULT_PATH.into()));
        }
        let user = shared.user;
        if user.is_some() {
            // They are the worker's own user's.
            environment.retain(|(name, _)| name != "HOME" && name != "USER");
        }
        Self {
            commands,
            environment,
            limits,
            user,
            confiner: shared.confiner.clone(),
            workspace: shared.workspace.clone(),
            warden: Warden::default(),
        }
    }

    /// Whether none may run.
    pub(super) fn are_none(&self) -> bool {
        self.commands == Commands::None
    }

    /// The command that runs a file under a name, within these limits and the operator's.
    pub(super) fn command(
        &self,
        program: &Path,
        name: &str,
        limits: Limits,
    ) -> Result<Command, String> {
        let limits = limits.within(self.limits);
        match &self.confiner {
            Some(confiner) => Ok(confine::command(confiner, program, name, limits, self.user)),
            None if limits.is_none() && self.user.is_none() => {
                let mut command = Command::new(program);
                command.arg0(name);
                Ok(command)
            }
            None => Err("this worker cannot set limits for programs".to_owned()),
        }
    }

    pub(super) fn environment(&self) -> impl Iterator<Item = (&OsString, &OsString)> {
        self.environment.iter().map(|(name, value)| (name, value))
    }

    /// The file to execute for `argv[0]`. It is looked up here, on the worker's `PATH`: a `PATH` in the node's `env`
    /// must not put another program in a listed one's place.
    pub(super) fn find(&self, name: &str) -> Result<PathBuf, String> {
        let path = Path::new(name);
        let wanted = match &self.commands {
            Commands::All if name.contains('/') && !path.is_absolute() => {
                return Err(format!("`{name}` is neither a program's name nor an absolute path"));
            }
            Commands::All => Some(name),
            Commands::None => None,
            Commands::Listed(listed) => {
                let by_name = |e: &&String| {
                    e.starts_with('/') && Path::new(e).file_name() == Some(path.as_os_str())
                };
                let entry = listed.iter().find(|entry| *entry == name);
                entry.or_else(|| listed.iter().find(by_name)).map(String::as_str)
            }
        };
        let Some(wanted) = wanted else {
            return Err(format!(
                "`{name}` may not run on this worker: its operator lists the programs that may in GATHERING_COMMANDS"
            ));
        };
        if wanted.starts_with('/') {
            return Ok(wanted.into());
        }
        self.on_path(wanted).ok_or_else(|| format!("there is no `{wanted}` on this worker's PATH"))
    }

    fn on_path(&self, name: &str) -> Option<PathBuf> {
        let (_, path) = self.environment.iter().find(|(name, _)| name == "PATH")?;
        let is_program = |file: &PathBuf| {
            file.metadata()
                .is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
        };
        std::env::split_paths(path)
            .filter(|folder| folder.is_absolute())
            .map(|folder| folder.join(name))
            .find(is_program)
    }

    /// `env` of a node: names that can be set, and nothing that makes a listed program load other code.
    pub(super) fn check_env(&self, env: &[(String, String)]) -> Result<(), String> {
        for (name, value) in env {
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                return Err(format!("`{}` cannot be set in `env`", name.replace('\0', "\u{fffd}")));
            }
            // Under another user, the worker's own program would load it first, as root.
            let is_loaded = name.starts_with("LD_") || name == "GLIBC_TUNABLES";
            if is_loaded && (self.commands != Commands::All || self.user.is_some()) {
                return Err(format!(
                    "`{name}` in `env` would make a program load other code: it needs GATHERING_COMMANDS=*, without GATHERING_COMMAND_USER"
                ));
            }
        }
        Ok(())
    }
}

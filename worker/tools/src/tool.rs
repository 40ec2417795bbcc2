//! What a tool is.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{ArgMatches, Args, Command, FromArgMatches};
use common::tool::{Needs, Spec};
use futures::future::BoxFuture;
use serde_json::Value;

use crate::guard::{AllowedHosts, Guard};
use crate::http::Http;
use crate::run_command::User;
use crate::workspace::{Owner, Workspace};
use crate::{Context, Outcome};

/// Something that a node can do.
pub trait Tool: Send + Sync {
    /// Whether it can be used with the settings of this worker.
    fn availability(&self) -> Availability {
        Availability::Enabled
    }

    /// Executes one attempt. The input fits the schema; what else is wrong with it is a permanent failure.
    fn execute<'a>(&'a self, input: Value, context: &'a Context) -> BoxFuture<'a, Outcome>;
}

/// Whether a tool can be used on a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Availability {
    /// It can.
    Enabled,
    /// Its operator has not let it.
    Disabled {
        /// What is missing.
        why: String,
        /// How the operator gives it.
        mend: String,
    },
}

/// A tool that is part of a worker.
pub(crate) trait BuiltIn: Tool + Sized + 'static {
    /// The worker's settings that are its own.
    type Settings: Args + Send + Sync + 'static;

    /// What is said of it.
    fn spec() -> Spec;

    /// Opens it, once, when the worker starts.
    fn open(settings: Self::Settings, shared: &Shared) -> anyhow::Result<Self>;
}

/// The settings that several tools have in common.
#[derive(Debug, Clone, Args)]
pub(crate) struct SharedSettings {
    /// Hosts that tools may reach though they are not on the public internet: names, addresses and networks, separated
    /// by commas; none by default
    #[arg(long, env = "GATHERING_ALLOWED_HOSTS", default_value = "", value_name = "HOSTS")]
    pub(crate) allowed_hosts: AllowedHosts,
    /// The folder in which each run has one for its files; without it there are no read_file, write_file and list_files
    #[arg(long, env = "GATHERING_WORKSPACE", value_name = "PATH")]
    pub(crate) workspace: Option<PathBuf>,
    /// Under whom run_command runs programs, `UID` or `UID:GID`: only for a worker that runs as root [default: its own
    /// user]
    #[arg(long, env = "GATHERING_COMMAND_USER", value_name = "IDS")]
    pub(crate) command_user: Option<User>,
}

/// What several tools use.
pub(crate) struct Shared {
    /// Which hosts they may reach.
    pub(crate) guard: Arc<Guard>,
    /// Sends requests to them, and keeps connections alive between nodes.
    pub(crate) http: Arc<Http>,
    /// Where runs have their files, if the operator gives them a place.
    pub(crate) workspace: Option<Workspace>,
    /// Under whom programs run, if not under the worker's own user.
    pub(crate) user: Option<User>,
    /// What sets the limits of programs.
    pub(crate) confiner: Option<PathBuf>,
}

impl Shared {
    pub(crate) fn open(
        settings: SharedSettings,
        confiner: Option<PathBuf>,
    ) -> anyhow::Result<Self> {
        let user = settings.command_user;
        anyhow::ensure!(
            user.is_none() || rustix::process::geteuid().is_root(),
            "GATHERING_COMMAND_USER: only a worker that runs as root can run programs under another user; start it as \
             root, or leave this out"
        );
        let owner = user.map(|user| Owner { uid: user.uid, gid: user.gid });
        let open = |root: &PathBuf| Workspace::new(root, owner);
        let workspace = settings.workspace.as_ref().map(open).transpose()?;
        let guard = Arc::new(Guard::new(settings.allowed_hosts));
        let http = Arc::new(Http::open(guard.clone())?);
        Ok(Self { guard, http, workspace, user, confiner })
    }
}

/// No settings of its own.
#[derive(Debug, Clone, Args)]
#[group(skip)]
pub(crate) struct NoSettings {}

/// A spec of ours.
pub(crate) fn spec(name: &str, description: &str, schema: Value, needs: Option<Needs>) -> Spec {
    Spec::new(name, description, schema, needs)
        .expect("a schema of ours is valid, which a test pins")
}

/// Opens a tool whose settings are read.
pub(crate) type Opener = Box<dyn FnOnce(&Shared) -> anyhow::Result<Box<dyn Tool>> + Send + Sync>;

/// A built-in tool, as the list of them has it.
pub(crate) struct Kind {
    pub(crate) spec: fn() -> Spec,
    /// Adds its settings to a command line.
    pub(crate) settings: fn(Command) -> Command,
    /// Takes them from one.
    pub(crate) read: fn(&mut ArgMatches) -> Result<Opener, clap::Error>,
}

impl Kind {
    pub(crate) const fn of<T: BuiltIn>() -> Self {
        Self { spec: T::spec, settings: T::Settings::augment_args, read: read::<T> }
    }
}

fn read<T: BuiltIn>(matches: &mut ArgMatches) -> Result<Opener, clap::Error> {
    let settings = T::Settings::from_arg_matches_mut(matches)?;
    let open: Opener = Box::new(move |shared: &Shared| {
        let tool: Box<dyn Tool> = Box::new(T::open(settings, shared)?);
        Ok(tool)
    });
    Ok(open)
}

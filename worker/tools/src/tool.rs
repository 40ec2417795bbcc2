//! What a tool is.

use std::path::PathBuf;

use clap::{ArgMatches, Args, Command, FromArgMatches};
use common::tool::{Needs, Spec};
use futures::future::BoxFuture;
use serde_json::Value;

use crate::run_command::User;
use crate::settings::SharedSettings;
use crate::workspace::{Owner, Workspace};
use crate::{Context, Outcome, http};

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

/// What several tools use.
pub(crate) struct Shared {
    /// Keeps connections alive between nodes.
    pub(crate) http: reqwest::Client,
    /// Where runs have their files, if the operator gives them a place.
    pub(crate) workspace: Option<Workspace>,
    /// Under whom programs run, if not under the worker's own user.
    pub(crate) user: Option<User>,
    /// What sets the limits of programs.
    pub(crate) confiner: Option<PathBuf>,
}

impl Shared {
    pub(crate) fn open(
        settings: &SharedSettings,
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
        Ok(Self { http: http::client()?, workspace, user, confiner })
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

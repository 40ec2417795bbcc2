//! What a tool is.

use clap::{ArgMatches, Args, Command, FromArgMatches};
use common::tool::{Needs, Spec};
use futures::future::BoxFuture;
use serde_json::Value;

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
}

impl Shared {
    pub(crate) fn open() -> anyhow::Result<Self> {
        Ok(Self { http: http::client()? })
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

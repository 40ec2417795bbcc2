//! The settings of all tools, as a part of the worker's: each tool has its own.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{ArgMatches, Args, Command, FromArgMatches};
use common::tool::Spec;

use crate::BUILT_IN;
use crate::tool::{Opener, SharedSettings};

/// The settings of all tools.
pub struct Settings {
    pub(crate) shared: SharedSettings,
    pub(crate) openers: Vec<(Arc<Spec>, Opener)>,
    pub(crate) confiner: Option<PathBuf>,
}

impl Settings {
    /// With a program that calls [`confine`](crate::confine) first: it sets the limits under which programs run.
    #[must_use]
    pub fn confined_by(mut self, program: impl Into<PathBuf>) -> Self {
        self.confiner = Some(program.into());
        self
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Settings")
    }
}

impl Args for Settings {
    fn augment_args(command: Command) -> Command {
        let command = SharedSettings::augment_args(command);
        BUILT_IN.iter().fold(command, |command, kind| (kind.settings)(command))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Settings {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Self::from_arg_matches_mut(&mut matches.clone())
    }

    fn from_arg_matches_mut(matches: &mut ArgMatches) -> Result<Self, clap::Error> {
        let shared = SharedSettings::from_arg_matches_mut(matches)?;
        let mut openers = Vec::new();
        for kind in BUILT_IN {
            openers.push((Arc::new((kind.spec)()), (kind.read)(matches)?));
        }
        Ok(Self { shared, openers, confiner: None })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

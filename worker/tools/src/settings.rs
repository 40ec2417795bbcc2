//! The settings of all tools, as a part of the worker's: each tool has its own.

use std::fmt;
use std::sync::Arc;

use clap::{ArgMatches, Args, Command, FromArgMatches};
use common::tool::Spec;

use crate::BUILT_IN;
use crate::tool::Opener;

/// The settings of all tools.
pub struct Settings {
    pub(crate) openers: Vec<(Arc<Spec>, Opener)>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Settings")
    }
}

impl Args for Settings {
    fn augment_args(command: Command) -> Command {
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
        let mut openers = Vec::new();
        for kind in BUILT_IN {
            openers.push((Arc::new((kind.spec)()), (kind.read)(matches)?));
        }
        Ok(Self { openers })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

//! The tools that actions ask for, one a file: what is said of it ([`Spec`]), its settings, and what it does. To add one:
//! its file, and its line in [`BUILT_IN`].
//!
//! The api reads the [`catalogue`], to check what it is sent; a worker opens the [`Tools`] with its settings, and
//! executes them. Before a tool sees an input it is checked against the schema once more, rendered as it is by then.
//!
//! Time-outs, panics and the grace after a cancel are the executor's. It raises [`Context::cancel`] (at a time-out
//! too), waits a little longer than [`GRACE`], then drops the future: what is dropped leaves nothing
//! behind either, but it is killed rather than asked.

mod call_api;
mod context;
mod echo;
mod http;
mod input;
mod outcome;
mod run_command;
mod settings;
mod tool;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use common::pipeline::{self, EXECUTE_PIPELINE};
use common::tool::{Catalogue, Spec};
use serde_json::Value;

pub use crate::context::Context;
pub use crate::outcome::{Failure, Outcome};
pub use crate::settings::Settings;
pub use crate::tool::{Availability, Tool};

use crate::tool::{Kind, Shared};

/// The tools that are part of a worker.
const BUILT_IN: &[Kind] = &[
    Kind::of::<call_api::CallApi>(),
    Kind::of::<echo::Echo>(),
    Kind::of::<run_command::RunCommand>(),
];

/// What a cancelled node has to end by itself. The executor drops it a little later.
pub const GRACE: Duration = Duration::from_secs(2);

/// What is said of the tools that are part of a worker, and of the engine's own action.
pub fn catalogue() -> Catalogue {
    static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(|| {
        let tools = BUILT_IN.iter().map(|kind| (kind.spec)());
        tools.chain([pipeline::execute_pipeline()]).collect()
    });
    CATALOGUE.clone()
}

/// The tools of a worker, opened: built once at start, inside the runtime.
pub struct Tools(BTreeMap<String, Entry>);

struct Entry {
    spec: Arc<Spec>,
    availability: Availability,
    tool: Box<dyn Tool>,
}

impl Tools {
    /// Opens all of them.
    ///
    /// # Errors
    /// When one cannot work at all with its settings, which the error names.
    pub fn open(settings: Settings) -> anyhow::Result<Self> {
        let shared = Shared::open()?;
        let mut tools = BTreeMap::new();
        for (spec, open) in settings.openers {
            let tool = open(&shared)?;
            let availability = tool.availability();
            tools.insert(spec.name().to_owned(), Entry { spec, availability, tool });
        }
        Ok(Self(tools))
    }

    /// The names of those that are enabled here.
    pub fn enabled(&self) -> Vec<String> {
        let enabled =
            self.0.iter().filter(|(_, entry)| entry.availability == Availability::Enabled);
        let own = EXECUTE_PIPELINE.to_owned();
        enabled.map(|(name, _)| name.clone()).chain([own]).collect()
    }

    /// Executes one attempt of `action` with its rendered input.
    pub async fn execute(&self, action: &str, input: Value, context: &Context) -> Outcome {
        let Some(Entry { spec, availability, tool }) = self.0.get(action) else {
            let known = self.0.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            return Err(Failure::permanent(format!(
                "the action `{action}` cannot run on this worker: it has {known}"
            )));
        };
        if let Availability::Disabled { why, mend } = availability {
            return Err(Failure::permanent(format!(
                "{action} is disabled on this worker: {why}; {mend}"
            )));
        }
        input::check(spec, &input, &context.mask)?;
        tool.execute(input, context).await
    }
}

#[cfg(test)]
mod tests;

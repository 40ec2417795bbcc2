//! What is known of pipelines' versions, none of which ever changes: the schema of their inputs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use common::pipeline::InputSchema;
use common::problem::Pointed;
use common::store::pipelines::{self, Submittable};
use common::store::{self, Connection};
use uuid::Uuid;

use crate::submission::{Submission, Wanted};

/// How many schemas are kept compiled. Past that all are forgotten, and compiled anew as they are needed.
const KEPT: usize = 1_000;

type Version = (Uuid, i32);

/// The schemas of the versions that were submitted here.
#[derive(Default)]
pub(crate) struct Known(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    schemas: HashMap<Version, Option<Arc<InputSchema>>>,
    /// The version that a name had when it was last looked up: a guess that the commit checks.
    newest: HashMap<String, Version>,
}

impl Known {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks the input against the version that is most likely the newest. What is found wrong is not reported yet,
    /// since that version may not be the newest any more.
    pub(crate) fn check_ahead(&self, submission: &mut Submission) {
        let Wanted::Newest { name } = &submission.subject else { return };
        let Some(version) = self.lock().newest.get(name).copied() else { return };
        if self.faults(version, submission).is_empty() {
            submission.checked_for = Some(version);
        }
    }

    /// What the version's schema finds wrong with the input, unless that was asked before.
    pub(crate) fn faults(&self, version: Version, submission: &Submission) -> Vec<Pointed> {
        if submission.checked_for == Some(version) {
            return Vec::new();
        }
        let schema = self.lock().schemas.get(&version).cloned().flatten();
        let Some(schema) = schema else { return Vec::new() };
        let at = &submission.input_at;
        let moved = |fault: Pointed| Pointed::new(format!("{at}{}", fault.pointer), fault.detail);
        schema.check(&submission.input).into_iter().map(moved).collect()
    }

    /// Reads and compiles the schemas of the versions that are new here.
    pub(crate) async fn learn(
        &self,
        conn: &mut Connection,
        found: &[Submittable],
    ) -> Result<(), store::Error> {
        for pipeline in found {
            let version = (pipeline.id, pipeline.version);
            if !self.is_known(&pipeline.name, version) {
                let schema = match pipeline.has_schema {
                    true => pipelines::input_schema(conn, pipeline.id, pipeline.version).await?,
                    false => None,
                };
                // It was compiled when the version was made; one that no longer compiles checks nothing.
                let schema = schema.as_ref().and_then(|schema| {
                    let compiled = InputSchema::compile(schema);
                    compiled
                        .inspect_err(|faults| tracing::error!(?faults, "a stored schema is broken"))
                        .ok()
                });
                self.keep(&pipeline.name, version, schema);
            }
        }
        Ok(())
    }

    fn is_known(&self, name: &str, version: Version) -> bool {
        let kept = self.lock();
        kept.schemas.contains_key(&version) && kept.newest.get(name) == Some(&version)
    }

    pub(super) fn keep(&self, name: &str, version: Version, schema: Option<InputSchema>) {
        let mut kept = self.lock();
        if kept.schemas.len() >= KEPT || kept.newest.len() >= KEPT {
            *kept = Kept::default();
        }
        kept.schemas.insert(version, schema.map(Arc::new));
        kept.newest.insert(name.to_owned(), version);
    }
}

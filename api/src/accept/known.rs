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
    /// What was found under a name when it was last looked up: a guess that the commit checks.
    newest: HashMap<String, Submittable>,
}

impl Known {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks the input against the version that is most likely the newest. What is found wrong is not reported yet,
    /// since that version may not be the newest any more.
    pub(crate) fn check_ahead(&self, submission: &mut Submission) {
        let Wanted::Newest { name } = &submission.subject else { return };
        let Some(version) = self.lock().newest.get(name).map(version_of) else { return };
        if self.faults(version, submission).is_empty() {
            submission.checked_for = Some(version);
        }
    }

    /// What was found under these names when they were last looked up; none unless all could be submitted then.
    pub(crate) fn guess(&self, names: &[String]) -> Option<Vec<Submittable>> {
        let kept = self.lock();
        let active = |name| kept.newest.get(name).filter(|found| !found.paused).cloned();
        names.iter().map(active).collect()
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
            if !self.renew(pipeline) {
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
                self.keep(pipeline.clone(), schema);
            }
        }
        Ok(())
    }

    /// Notes what was found, if the version's schema is here.
    fn renew(&self, pipeline: &Submittable) -> bool {
        let mut kept = self.lock();
        let is_here = kept.schemas.contains_key(&version_of(pipeline));
        if is_here && kept.newest.get(&pipeline.name) != Some(pipeline) {
            kept.newest.insert(pipeline.name.clone(), pipeline.clone());
        }
        is_here
    }

    pub(super) fn keep(&self, pipeline: Submittable, schema: Option<InputSchema>) {
        let mut kept = self.lock();
        if kept.schemas.len() >= KEPT {
            *kept = Kept::default();
        }
        kept.schemas.insert(version_of(&pipeline), schema.map(Arc::new));
        kept.newest.insert(pipeline.name.clone(), pipeline);
    }
}

fn version_of(pipeline: &Submittable) -> Version {
    (pipeline.id, pipeline.version)
}

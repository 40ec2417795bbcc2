//! What is known of pipelines' newest versions, none of which ever changes: the schema of their inputs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use common::pipeline::InputSchema;
use common::problem::Pointed;
use common::store::pipelines::{self, Submittable};
use common::store::{self, Connection};
use uuid::Uuid;

use crate::submission::{Submission, Wanted};

/// How many pipelines are kept. Past that all are forgotten, and looked up anew as they are needed.
const KEPT: usize = 1_000;

/// A pipeline as it was when it was looked up.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) pipeline: Submittable,
    /// What its inputs are checked against, if anything.
    schema: Option<Arc<InputSchema>>,
}

impl Found {
    pub(super) fn new(pipeline: Submittable, schema: Option<InputSchema>) -> Self {
        Self { pipeline, schema: schema.map(Arc::new) }
    }

    /// Its version, which never changes.
    pub(crate) fn version(&self) -> (Uuid, i32) {
        (self.pipeline.id, self.pipeline.version)
    }

    /// What the schema finds wrong with the input, unless that was asked before.
    pub(crate) fn faults(&self, submission: &Submission) -> Vec<Pointed> {
        if submission.checked_for == Some(self.version()) {
            return Vec::new();
        }
        let Some(schema) = &self.schema else { return Vec::new() };
        let at = &submission.input_at;
        let moved = |fault: Pointed| Pointed::new(format!("{at}{}", fault.pointer), fault.detail);
        schema.check(&submission.input).into_iter().map(moved).collect()
    }
}

/// What was found under the names that were submitted here: a guess that the commit checks.
#[derive(Default)]
pub(crate) struct Known(Mutex<HashMap<String, Found>>);

impl Known {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Found>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks the input against the version that is most likely the newest. What is found wrong is not reported yet,
    /// since that version may not be the newest any more.
    pub(crate) fn check_ahead(&self, submission: &mut Submission) {
        let Wanted::Newest { name } = &submission.subject else { return };
        let Some(found) = self.lock().get(name).cloned() else { return };
        if found.faults(submission).is_empty() {
            submission.checked_for = Some(found.version());
        }
    }

    /// What was found under these names when they were last looked up; none unless all could be submitted then.
    pub(crate) fn guess(&self, names: &[String]) -> Option<Vec<Found>> {
        let kept = self.lock();
        let active = |name| kept.get(name).filter(|found| !found.pipeline.paused).cloned();
        names.iter().map(active).collect()
    }

    /// Looks the names up, and reads and compiles the schemas that are new here.
    pub(crate) async fn look_up(
        &self,
        conn: &mut Connection,
        names: &[String],
    ) -> Result<Vec<Found>, store::Error> {
        let pipelines = pipelines::submittable(conn, names).await?;
        let mut all = Vec::with_capacity(pipelines.len());
        for pipeline in pipelines {
            let known = self.lock().get(&pipeline.name).cloned();
            let version = (pipeline.id, pipeline.version);
            all.push(match known.filter(|known| known.version() == version) {
                Some(known) => Found { pipeline, ..known },
                None => read(conn, pipeline).await?,
            });
        }
        self.keep(names, &all);
        Ok(all)
    }

    /// Keeps what was found under these names, and forgets those under which nothing was.
    pub(super) fn keep(&self, names: &[String], found: &[Found]) {
        let mut kept = self.lock();
        for name in names {
            kept.remove(name);
        }
        if kept.len() + found.len() > KEPT {
            kept.clear();
        }
        kept.extend(found.iter().map(|found| (found.pipeline.name.clone(), found.clone())));
    }
}

async fn read(conn: &mut Connection, pipeline: Submittable) -> Result<Found, store::Error> {
    let schema = match pipeline.has_schema {
        true => pipelines::input_schema(conn, pipeline.id, pipeline.version).await?,
        false => None,
    };
    // It was compiled when the version was made; one that no longer compiles checks nothing.
    let schema = schema.as_ref().and_then(|schema| {
        let compiled = InputSchema::compile(schema);
        compiled.inspect_err(|faults| tracing::error!(?faults, "a stored schema is broken")).ok()
    });
    Ok(Found::new(pipeline, schema))
}

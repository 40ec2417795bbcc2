//! The nodes of a definition as the api shows them, kept: a version never changes.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use common::store::pipelines::{self, Outlined};
use common::store::{self, Pool};
use serde_json::Value;
use uuid::Uuid;

/// How many outlines are kept. Past that all are forgotten, and read anew as they are asked for.
const KEPT: usize = 1_000;

/// The nodes of a run's definition, in its order.
pub(crate) type Outline = Arc<Vec<Outlined>>;

/// The outlines that were asked for.
#[derive(Default)]
pub(crate) struct Outlines {
    kept: RwLock<HashMap<(Uuid, i32), Outline>>,
}

impl Outlines {
    /// The outline of a pipeline's version.
    pub(crate) async fn of_version(
        &self,
        pool: &Pool,
        pipeline: Uuid,
        version: i32,
    ) -> Result<Outline, store::Error> {
        let key = (pipeline, version);
        let known = self.kept.read().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(outline) = known {
            return Ok(outline);
        }
        let outline = Arc::new(pipelines::outline(pool, pipeline, version).await?);
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(key, outline.clone());
        Ok(outline)
    }

    /// The outline of a run: of its version, or of its only node.
    pub(crate) async fn of_run(
        &self,
        pool: &Pool,
        version: Option<(Uuid, i32)>,
        action: Option<&Value>,
    ) -> Result<Outline, store::Error> {
        if let Some((pipeline, version)) = version {
            return self.of_version(pool, pipeline, version).await;
        }
        let text =
            |name| action.and_then(|node| node[name].as_str()).unwrap_or_default().to_owned();
        Ok(Arc::new(vec![Outlined { id: text("id"), node_type: text("type") }]))
    }
}

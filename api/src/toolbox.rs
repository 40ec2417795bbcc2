//! The tools that actions may ask for: those that are part of a worker, and those that were registered.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use common::clock;
use common::store::{self, Pool, remote};
use common::tool::{Catalogue, Spec};
use tokio::sync::RwLock;
use tokio::time::Instant;

use crate::error::ApiError;

/// How long what was registered is taken for what is: all apis see a change within a second.
const FRESH: Duration = Duration::from_millis(500);

/// A cache of what is registered, compiled.
pub(crate) struct Toolbox {
    pool: Pool,
    built_in: Catalogue,
    known: RwLock<Option<Known>>,
}

struct Known {
    at: Instant,
    specs: HashMap<String, (clock::Instant, Arc<Spec>)>,
    catalogue: Catalogue,
}

impl Toolbox {
    pub(crate) fn new(pool: Pool) -> Self {
        Self { pool, built_in: tools::catalogue(), known: RwLock::default() }
    }

    /// The tools that are part of a worker.
    pub(crate) fn built_in(&self) -> &Catalogue {
        &self.built_in
    }

    /// All tools.
    pub(crate) async fn all(&self) -> Result<Catalogue, ApiError> {
        let fresh = |known: &Option<Known>| {
            let known = known.as_ref().filter(|known| known.at.elapsed() < FRESH);
            known.map(|known| known.catalogue.clone())
        };
        if let Some(catalogue) = fresh(&*self.known.read().await) {
            return Ok(catalogue);
        }
        let mut known = self.known.write().await;
        if let Some(catalogue) = fresh(&known) {
            return Ok(catalogue);
        }
        let at = Instant::now();
        let specs = self.specs(known.take().map(|known| known.specs)).await?;
        let catalogue = self.built_in.with(specs.values().map(|(_, spec)| spec.clone()));
        *known = Some(Known { at, specs, catalogue: catalogue.clone() });
        Ok(catalogue)
    }

    /// What is asked next is asked of the database.
    pub(crate) async fn forget(&self) {
        if let Some(known) = self.known.write().await.as_mut() {
            known.at -= FRESH;
        }
    }

    /// What is registered; what has not changed since is not compiled again.
    async fn specs(
        &self,
        known: Option<HashMap<String, (clock::Instant, Arc<Spec>)>>,
    ) -> Result<HashMap<String, (clock::Instant, Arc<Spec>)>, store::Error> {
        let mut known = known.unwrap_or_default();
        let versions = remote::versions(&self.pool).await?;
        let same = |(name, at): &(String, clock::Instant)| {
            known.get(name).is_some_and(|(known, _)| known == at)
        };
        if versions.iter().all(same) {
            let there: std::collections::HashSet<&String> =
                versions.iter().map(|(name, _)| name).collect();
            known.retain(|name, _| there.contains(name));
            return Ok(known);
        }
        let mut specs = HashMap::new();
        for tool in remote::list(&self.pool).await? {
            if let Some((at, spec)) = known.remove(&tool.name)
                && at == tool.updated_at
            {
                specs.insert(tool.name, (at, spec));
                continue;
            }
            match Spec::new(&tool.name, &tool.description, tool.schema, None) {
                Ok(spec) => {
                    specs.insert(tool.name, (tool.updated_at, Arc::new(spec.remote())));
                }
                Err(errors) => {
                    tracing::error!(tool = tool.name, ?errors, "a registered tool cannot be used");
                }
            }
        }
        Ok(specs)
    }
}

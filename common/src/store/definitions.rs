//! Compiled definitions, kept: a version never changes.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use serde_json::Value;
use serde_json::value::RawValue;
use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use crate::context::{RunContext, RunRow};
use crate::graph::Graph;
use crate::pipeline::{self, Node};

/// How many definitions a process keeps compiled. Past that it forgets the largest, and compiles anew what it meets.
const KEPT: usize = 1_000;
/// How many nodes these have together, at some 3 KiB each.
const KEPT_NODES: usize = 50_000;

/// The definitions that this process has met.
#[derive(Debug, Default)]
pub struct Definitions {
    compiled: RwLock<HashMap<(Uuid, i32), Arc<Graph>>>,
    /// The pipeline that had a name and a version when it was last met.
    named: RwLock<HashMap<(String, i32), Uuid>>,
}

impl Definitions {
    /// The compiled definition of `version`, read when it is not known yet. The inner error says why a stored
    /// definition cannot run any more.
    pub async fn graph(
        &self,
        conn: &mut PgConnection,
        pipeline_id: Uuid,
        version: i32,
    ) -> Result<Result<Arc<Graph>, String>, sqlx::Error> {
        let key = (pipeline_id, version);
        let known = self.compiled.read().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(graph) = known {
            return Ok(Ok(graph));
        }
        let stored = sqlx::query_scalar!(
            r#"select definition as "definition: Json<Box<RawValue>>" from pipeline_versions
             where pipeline_id = $1 and version = $2"#,
            pipeline_id,
            version
        )
        .fetch_optional(conn)
        .await?;
        let Some(stored) = stored else {
            return Ok(Err(format!("version {version} of the pipeline is not stored any more")));
        };
        let compiled = tokio::task::block_in_place(|| compile(stored.get())).map(Arc::new);
        if let Ok(graph) = &compiled {
            let mut kept = self.compiled.write().unwrap_or_else(PoisonError::into_inner);
            make_room(&mut kept, graph.len());
            kept.insert(key, graph.clone());
        }
        Ok(compiled)
    }

    /// The compiled definition of the pipeline that had this name when it was last met here: a guess, since a name can
    /// be another pipeline's by now.
    pub fn named(&self, name: &str, version: i32) -> Option<(Uuid, Arc<Graph>)> {
        let named = self.named.read().unwrap_or_else(PoisonError::into_inner);
        let id = *named.get(&(name.to_owned(), version))?;
        let compiled = self.compiled.read().unwrap_or_else(PoisonError::into_inner);
        compiled.get(&(id, version)).map(|graph| (id, graph.clone()))
    }

    fn remember(&self, row: &RunRow) {
        let (Some(id), Some(name), Some(version)) = (row.pipeline_id, &row.pipeline, row.version)
        else {
            return;
        };
        let key = (name.clone(), version);
        let known =
            self.named.read().unwrap_or_else(PoisonError::into_inner).get(&key) == Some(&id);
        if !known {
            let mut named = self.named.write().unwrap_or_else(PoisonError::into_inner);
            if named.len() >= KEPT {
                named.clear();
            }
            named.insert(key, id);
        }
    }

    /// The context of a run.
    pub async fn context(
        &self,
        conn: &mut PgConnection,
        row: RunRow,
    ) -> Result<Result<Arc<RunContext>, String>, sqlx::Error> {
        let graph = match (&row.action, row.pipeline_id, row.version) {
            (Some(action), _, _) => single(action).map(Arc::new),
            (None, Some(id), Some(version)) => self.graph(conn, id, version).await?,
            _ => Err("the run has neither a pipeline nor an action".to_owned()),
        };
        self.remember(&row);
        Ok(graph.map(|graph| Arc::new(RunContext::new(row, graph))))
    }
}

/// Forgets the largest, until one of so many nodes fits.
fn make_room(kept: &mut HashMap<(Uuid, i32), Arc<Graph>>, nodes: usize) {
    let mut all: usize = kept.values().map(|graph| graph.len()).sum();
    while kept.len() >= KEPT || (!kept.is_empty() && all + nodes > KEPT_NODES) {
        let largest = kept.iter().max_by_key(|(_, graph)| graph.len()).map(|(key, _)| *key);
        let Some(graph) = largest.and_then(|key| kept.remove(&key)) else { return };
        all -= graph.len();
    }
}

fn compile(stored: &str) -> Result<Graph, String> {
    pipeline::stored_graph(stored).map_err(|errors| unreadable(&errors))
}

/// The graph of a single action.
pub(super) fn single(action: &Value) -> Result<Graph, String> {
    let node = serde_json::from_value::<Node>(action.clone())
        .map_err(|error| format!("the stored action cannot be read: {error}"))?;
    Graph::single(node).map_err(|errors| unreadable(&errors))
}

fn unreadable(errors: &[crate::problem::Pointed]) -> String {
    let first = errors.first().map(|error| format!("{} at {:?}", error.detail, error.pointer));
    format!("the stored definition cannot run here: {}", first.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use serde_json::json;

    use super::*;

    fn chain(nodes: usize) -> Arc<Graph> {
        let node = |n: usize| json!({"id": format!("n{n}"), "type": "action", "config": {"action": "echo"}});
        let edge = |n: usize| json!({"from": format!("n{n}"), "to": format!("n{}", n + 1)});
        let nodes_of: Vec<Value> = (0..nodes).map(node).collect();
        let edges: Vec<Value> = (0..nodes - 1).map(edge).collect();
        let stored = json!({"name": "chain", "nodes": nodes_of, "edges": edges}).to_string();
        Arc::new(compile(&stored).unwrap())
    }

    fn key(n: usize) -> (Uuid, i32) {
        (Uuid::from_u128(n as u128), 1)
    }

    #[test]
    fn the_largest_makes_room() {
        let (small, large) = (chain(1), chain(300));
        let mut kept: HashMap<_, _> = (0..10).map(|n| (key(n), small.clone())).collect();
        kept.insert(key(10), large);
        make_room(&mut kept, KEPT_NODES - 310);
        assert_eq!(kept.len(), 11, "all of it fits");
        make_room(&mut kept, KEPT_NODES - 309);
        assert!(kept.len() == 10 && !kept.contains_key(&key(10)), "the largest went");
        make_room(&mut kept, KEPT_NODES + 1);
        assert!(kept.is_empty(), "what fits nowhere is kept alone");
    }

    #[test]
    fn so_many_definitions_are_kept_and_no_more() {
        let small = chain(1);
        let mut kept: HashMap<_, _> = (0..KEPT - 1).map(|n| (key(n), small.clone())).collect();
        make_room(&mut kept, 1);
        assert_eq!(kept.len(), KEPT - 1);
        kept.insert(key(KEPT), small);
        make_room(&mut kept, 1);
        assert_eq!(kept.len(), KEPT - 1);
    }
}

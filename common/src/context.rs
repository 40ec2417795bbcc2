//! What a worker knows of a run that it executes nodes of.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::clock;
use crate::expression;
use crate::graph::{EdgeIx, Graph, NodeIx};
use crate::retry::RetryPolicy;
use crate::wait::Parent;

/// A run, as far as it does not change: its pinned definition, its input, and what of its outputs is known here.
#[derive(Debug)]
pub struct RunContext {
    /// The run.
    pub id: Uuid,
    /// Its definition, compiled.
    pub graph: Arc<Graph>,
    /// The pipeline's id; none for a single action.
    pub pipeline_id: Option<Uuid>,
    /// The pipeline's name; none for a single action.
    pub pipeline: Option<String>,
    /// The version that it is pinned to.
    pub version: Option<i32>,
    /// What it was given.
    pub input: Value,
    /// What expressions see as `run`.
    pub run: Value,
    /// W3C trace context of the request that submitted it.
    pub traceparent: Option<String>,
    /// The run that has started it.
    pub parent: Option<Parent>,
    /// What a schedule gave it for the nodes that say nothing about it themselves.
    retry: Option<RetryPolicy>,
    outputs: Mutex<HashMap<NodeIx, Arc<Value>>>,
}

/// The columns of a run from which its context is made.
#[derive(Debug, Clone)]
pub struct RunRow {
    /// The run.
    pub id: Uuid,
    /// The pipeline's id.
    pub pipeline_id: Option<Uuid>,
    /// Its name.
    pub pipeline: Option<String>,
    /// The pinned version.
    pub version: Option<i32>,
    /// The only node of an action's run.
    pub action: Option<Value>,
    /// What it was given.
    pub input: Value,
    /// What asked for it.
    pub trigger: Value,
    /// Its tags.
    pub tags: Vec<String>,
    /// When it was accepted.
    pub created_at: clock::Instant,
    /// W3C trace context.
    pub traceparent: Option<String>,
}

impl RunContext {
    /// Puts a run and its compiled definition together.
    pub fn new(row: RunRow, graph: Arc<Graph>) -> Self {
        let retry = row.trigger.get("retry").cloned();
        let retry = retry.and_then(|retry| serde_json::from_value(retry).ok());
        let run = json!({
            "id": row.id,
            "pipeline": row.pipeline,
            "version": row.version,
            "tags": row.tags,
            "trigger": row.trigger,
            "created_at": clock::text(&row.created_at),
        });
        Self {
            id: row.id,
            graph,
            pipeline_id: row.pipeline_id,
            pipeline: row.pipeline,
            version: row.version,
            input: row.input,
            run,
            traceparent: row.traceparent,
            parent: Parent::of(&row.trigger),
            retry,
            outputs: Mutex::default(),
        }
    }

    /// When a node is tried again: as it says itself, else as what started the run says.
    pub fn retry(&self, node: NodeIx) -> RetryPolicy {
        let own = self.graph.node(node).node.retry.as_ref();
        own.or(self.retry.as_ref()).cloned().unwrap_or_default()
    }

    /// Keeps an output that some expression of the definition names, or that a successor passes on; the others are not
    /// needed again.
    pub fn keep_output(&self, node: NodeIx, output: Arc<Value>) {
        let passed_on =
            |edge: &EdgeIx| self.graph.node(self.graph.edge(*edge).to).passes_through == Some(node);
        if self.graph.is_named(node) || self.graph.outgoing(node).iter().any(passed_on) {
            self.outputs.lock().unwrap_or_else(PoisonError::into_inner).insert(node, output);
        }
    }

    /// An output that is known here.
    pub fn output(&self, node: NodeIx) -> Option<Arc<Value>> {
        self.outputs.lock().unwrap_or_else(PoisonError::into_inner).get(&node).cloned()
    }

    /// Those of `nodes` whose outputs are not known here.
    pub fn missing(&self, nodes: &[NodeIx]) -> Vec<NodeIx> {
        if nodes.is_empty() {
            return Vec::new();
        }
        let known = self.outputs.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.iter().copied().filter(|node| !known.contains_key(node)).collect()
    }

    /// Those of `nodes` whose outputs are known here, for expressions.
    pub fn known(&self, nodes: &[NodeIx]) -> Outputs {
        if nodes.is_empty() {
            return Outputs::default();
        }
        let known = self.outputs.lock().unwrap_or_else(PoisonError::into_inner);
        let held = nodes.iter().filter_map(|node| {
            known.get(node).map(|output| (self.graph.node(*node).node.id.clone(), output.clone()))
        });
        Outputs(held.collect())
    }
}

/// Outputs by node id, as expressions see them.
#[derive(Debug, Clone, Default)]
pub struct Outputs(HashMap<String, Arc<Value>>);

impl expression::Outputs for Outputs {
    fn output(&self, node: &str) -> Option<&Value> {
        self.0.get(node).map(Arc::as_ref)
    }
}

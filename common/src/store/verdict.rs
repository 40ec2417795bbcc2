//! What the condition of an edge says, within a transaction that found that it has to know.
//!
//! The conditions of the edges that leave a node are evaluated by the worker before it records the node. Only those
//! that show while ends are followed through skipped nodes, or at a run's start, are evaluated here.

use std::sync::Arc;

use serde_json::Value;
use sqlx::PgConnection;

use crate::advance::Verdict;
use crate::context::{Outputs, RunContext};
use crate::expression::Scope;
use crate::graph::{EdgeIx, NodeIx};
use crate::pipeline::NodeType;
use crate::store::outputs;

/// Evaluates an edge's condition on `output`, its source's, and on what `known` holds of other nodes.
pub fn evaluate(context: &RunContext, edge: EdgeIx, output: &Value, known: &Outputs) -> Verdict {
    let edge = context.graph.edge(edge);
    let said = match &edge.condition {
        Some(condition) => {
            let scope = Scope {
                input: &context.input,
                outputs: known,
                run: &context.run,
                output: Some(output),
                secrets: None,
                item: None,
            };
            condition.is_true(&scope).map_err(|why| {
                format!(
                    "the condition of the edge from {:?} failed: {why}",
                    context.graph.node(edge.from).node.id
                )
            })
        }
        None if edge.needs_result => Ok(output.get("result") == Some(&Value::Bool(true))),
        None => Ok(true),
    };
    match said {
        Ok(true) => Verdict::True,
        Ok(false) => Verdict::False,
        Err(why) => Verdict::Error(why),
    }
}

/// Reads what the condition of an edge needs, and evaluates it.
pub async fn find(
    conn: &mut PgConnection,
    context: &Arc<RunContext>,
    edge: EdgeIx,
) -> Result<Verdict, sqlx::Error> {
    let compiled = context.graph.edge(edge);
    let source = context.graph.node(compiled.from);
    load(conn, context, &compiled.reads).await?;
    let output = match (source.node.node_type, context.output(compiled.from)) {
        (NodeType::Trigger, _) => Arc::new(context.input.clone()),
        (_, Some(output)) => output,
        (_, None) => {
            let ids = [source.node.id.clone()];
            let stored = outputs::read(conn, context.id, &ids).await?;
            Arc::new(stored.into_iter().next().map(|(_, output)| output).unwrap_or_default())
        }
    };
    Ok(evaluate(context, edge, &output, &context.known(&compiled.reads)))
}

/// Reads those outputs of `nodes` that the context does not hold yet.
pub async fn load(
    conn: &mut PgConnection,
    context: &RunContext,
    nodes: &[NodeIx],
) -> Result<(), sqlx::Error> {
    let missing = context.missing(nodes);
    if missing.is_empty() {
        return Ok(());
    }
    let ids: Vec<String> =
        missing.iter().map(|node| context.graph.node(*node).node.id.clone()).collect();
    for (id, output) in outputs::read(conn, context.id, &ids).await? {
        if let Some(node) = context.graph.index(&id) {
            context.keep_output(node, Arc::new(output));
        }
    }
    Ok(())
}

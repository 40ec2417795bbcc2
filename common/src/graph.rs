//! A definition compiled for execution: indices instead of names, expressions instead of texts.

mod calls;
mod compile;
mod shape;
mod upstream;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::time::Duration;

use serde_json::Value;

use crate::expression::{Expression, Template};
use crate::pipeline::{Definition, Node, NodeType, When};
use crate::problem::Pointed;

pub(crate) use self::compile::no_other_node;

/// A node's place in [`Definition::nodes`].
pub type NodeIx = u32;
/// An edge's place in [`Definition::edges`].
pub type EdgeIx = u32;

/// An immutable DAG that answers in the time of a node's degree.
#[derive(Debug)]
pub struct Graph {
    /// What it was compiled from, but for its nodes, which are in their places below.
    rest: Definition,
    nodes: Vec<CompiledNode>,
    edges: Vec<CompiledEdge>,
    by_id: HashMap<String, NodeIx>,
    incoming: Adjacency,
    outgoing: Adjacency,
    roots: Vec<NodeIx>,
    sinks: Vec<NodeIx>,
    order: Vec<NodeIx>,
    is_named: Vec<bool>,
}

/// A node, ready to execute.
#[derive(Debug)]
pub struct CompiledNode {
    /// As it was defined.
    pub node: Node,
    /// Its config, without `action`.
    pub config: Template,
    /// The expression of a condition node.
    pub condition: Option<Box<Expression>>,
    /// The input of each of the runs that the node starts, where it starts one an item.
    pub each: Option<Template>,
    /// Whose outputs are needed to execute it and to resolve the edges that leave it, except its own.
    pub reads: Vec<NodeIx>,
    /// The action of an action node.
    pub action: Option<String>,
    /// The only predecessor, if the node hands on its output. This is not among `reads`.
    pub passes_through: Option<NodeIx>,
}

/// An edge, ready to be resolved.
#[derive(Debug)]
pub struct CompiledEdge {
    /// Where it leaves.
    pub from: NodeIx,
    /// Where it leads.
    pub to: NodeIx,
    /// How its source must end.
    pub when: When,
    /// What must be true besides.
    pub condition: Option<Box<Expression>>,
    /// Whose outputs its condition names, its source's perhaps among them.
    pub reads: Vec<NodeIx>,
    /// Whether its source is a condition node whose `result` must be true: the edge itself states no condition.
    pub needs_result: bool,
}

impl Graph {
    /// Compiles a definition. What would make it unsafe to execute is refused, with pointers into the definition;
    /// [`crate::pipeline::check`] finds what else is wrong.
    pub fn compile(definition: Definition) -> Result<Self, Vec<Pointed>> {
        compile::compile(definition)
    }

    /// The graph of a single action's run. Its config was checked when it was accepted; a template in it that does
    /// not compile all the same is refused.
    pub fn single(node: Node) -> Result<Self, Vec<Pointed>> {
        compile::single(node)
    }

    /// The pipeline's name; that of a single action's run is its node's id.
    pub fn name(&self) -> &str {
        &self.rest.name
    }

    /// How long a run may take from its start on.
    pub fn timeout(&self) -> Option<Duration> {
        self.rest.timeout
    }

    /// Whether the first failure stops the run's other branches.
    pub fn fails_fast(&self) -> bool {
        self.rest.fail_fast
    }

    /// The definition, when the graph is no longer needed.
    pub fn into_definition(self) -> Definition {
        Definition { nodes: self.nodes.into_iter().map(|node| node.node).collect(), ..self.rest }
    }

    /// How many nodes it has.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether it has no nodes at all.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// How many edges it has.
    pub fn edge_count(&self) -> usize {
        self.edges.len()
    }

    /// The node at `ix`, which came from this graph.
    pub fn node(&self, ix: NodeIx) -> &CompiledNode {
        &self.nodes[ix as usize]
    }

    /// The edge at `ix`, which came from this graph.
    pub fn edge(&self, ix: EdgeIx) -> &CompiledEdge {
        &self.edges[ix as usize]
    }

    /// Where the node with this id is.
    pub fn index(&self, id: &str) -> Option<NodeIx> {
        self.by_id.get(id).copied()
    }

    /// The edges that lead to a node.
    pub fn incoming(&self, ix: NodeIx) -> &[EdgeIx] {
        self.incoming.of(ix)
    }

    /// The edges that leave a node.
    pub fn outgoing(&self, ix: NodeIx) -> &[EdgeIx] {
        self.outgoing.of(ix)
    }

    /// The nodes that no edge leads to.
    pub fn roots(&self) -> &[NodeIx] {
        &self.roots
    }

    /// The nodes that no edge leaves.
    pub fn sinks(&self) -> &[NodeIx] {
        &self.sinks
    }

    /// Whether no edge leaves it.
    pub fn is_sink(&self, ix: NodeIx) -> bool {
        self.outgoing(ix).is_empty()
    }

    /// All nodes, each after its predecessors.
    pub fn order(&self) -> &[NodeIx] {
        &self.order
    }

    /// Whether an expression anywhere names this node's output. (A [`CompiledNode::passes_through`] does not count.)
    pub fn is_named(&self, ix: NodeIx) -> bool {
        self.is_named[ix as usize]
    }
}

/// The edges at each node, in one block.
#[derive(Debug, Default)]
struct Adjacency {
    /// Where each node's edges begin; one more than there are nodes.
    begins: Vec<u32>,
    edges: Vec<EdgeIx>,
}

impl Adjacency {
    /// Sorts the edges by the node that each is at.
    fn new(nodes: usize, at: impl Iterator<Item = NodeIx> + Clone) -> Self {
        let mut begins = vec![0; nodes + 1];
        for node in at.clone() {
            begins[node as usize + 1] += 1;
        }
        for node in 0..nodes {
            begins[node + 1] += begins[node];
        }
        let mut next = begins.clone();
        let mut edges = vec![0; begins[nodes] as usize];
        for (edge, node) in (0..).zip(at) {
            edges[next[node as usize] as usize] = edge;
            next[node as usize] += 1;
        }
        Self { begins, edges }
    }

    fn of(&self, ix: NodeIx) -> &[EdgeIx] {
        let ix = ix as usize;
        &self.edges[self.begins[ix] as usize..self.begins[ix + 1] as usize]
    }
}

/// The expression of a condition node. `condition` is what it was called in older definitions.
pub(crate) fn condition_of(node: &Node) -> Option<(&'static str, &Value)> {
    if node.node_type != NodeType::Condition {
        return None;
    }
    ["expression", "condition"].into_iter().find_map(|key| Some((key, node.config.get(key)?)))
}

//! The shape of a definition: which node each edge joins, and whether it is a DAG.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

use petgraph::algo::{kosaraju_scc, toposort};
use petgraph::graph::{DiGraph, NodeIndex};

use super::upstream::did_you_mean;
use super::{Adjacency, NodeIx};
use crate::pipeline::{Definition, NodeType, UNREADABLE};
use crate::problem::{Pointed, quoted};

/// Suggestions compare a name with all ids; past this many errors there are none.
pub(super) const MOST_SUGGESTIONS: usize = 50;
/// How many nodes of a cycle are named in a message.
const MOST_NAMED: usize = 20;

/// What is known of a definition's shape. With errors it covers the edges that join two known nodes.
pub(super) struct Shape {
    pub(super) by_id: HashMap<String, NodeIx>,
    /// From, to, and the place in the definition, of the edges whose ends exist.
    pub(super) ends: Vec<(NodeIx, NodeIx, usize)>,
    pub(super) incoming: Adjacency,
    pub(super) outgoing: Adjacency,
    /// Groups of nodes, each after the groups that lead to it. A group of several is a cycle.
    pub(super) groups: Vec<Vec<NodeIx>>,
    pub(super) errors: Vec<Pointed>,
}

impl Shape {
    pub(super) fn new(definition: &Definition) -> Self {
        let mut errors = Vec::new();
        let by_id = index(definition, &mut errors);
        let ends = ends(definition, &by_id, &mut errors);
        let nodes = definition.nodes.len();
        let incoming = Adjacency::new(nodes, ends.iter().map(|end| end.1));
        let outgoing = Adjacency::new(nodes, ends.iter().map(|end| end.0));
        let mut shape = Self { by_id, ends, incoming, outgoing, groups: Vec::new(), errors };
        shape.sort(definition);
        shape
    }

    /// Sorts topologically; failing that, finds all cycles.
    fn sort(&mut self, definition: &Definition) {
        let mut graph =
            DiGraph::<(), (), u32>::with_capacity(definition.nodes.len(), self.ends.len());
        for _ in &definition.nodes {
            graph.add_node(());
        }
        for (from, to, _) in &self.ends {
            graph.add_edge(NodeIndex::from(*from), NodeIndex::from(*to), ());
        }
        let index = |node: NodeIndex<u32>| node.index() as NodeIx;
        if let Ok(order) = toposort(&graph, None) {
            self.groups = order.into_iter().map(|node| vec![index(node)]).collect();
            return;
        }
        let components = kosaraju_scc(&graph);
        self.groups = components
            .into_iter()
            .rev()
            .map(|group| group.into_iter().map(index).collect())
            .collect();
        let cycles: Vec<_> = self
            .groups
            .iter()
            .filter(|group| group.len() > 1)
            .map(|group| self.cycle(group))
            .collect();
        let pointed = cycles.iter().map(|cycle| name_cycle(cycle, definition));
        self.errors.extend(pointed);
    }

    /// A shortest way from the first node of a group back to itself: the edges' places, and the nodes.
    fn cycle(&self, group: &[NodeIx]) -> Vec<(NodeIx, usize)> {
        let Some(start) = group.iter().copied().min() else { return Vec::new() };
        let members: std::collections::HashSet<NodeIx> = group.iter().copied().collect();
        let mut came_from: HashMap<NodeIx, (NodeIx, usize)> = HashMap::new();
        let mut queue = VecDeque::from([start]);
        while let Some(at) = queue.pop_front() {
            for edge in self.outgoing.of(at) {
                let (_, to, place) = self.ends[*edge as usize];
                if to == at || !members.contains(&to) || came_from.contains_key(&to) {
                    continue;
                }
                came_from.insert(to, (at, place));
                queue.push_back(to);
            }
        }
        let mut path = Vec::new();
        let mut at = start;
        while let Some((from, place)) = came_from.get(&at) {
            path.push((*from, *place));
            at = *from;
            if at == start {
                break;
            }
        }
        path.reverse();
        path
    }

    /// The nodes of a DAG, each after its predecessors.
    pub(super) fn order(&self) -> Vec<NodeIx> {
        self.groups.iter().flatten().copied().collect()
    }
}

/// The pointer is the edge that closes the cycle.
fn name_cycle(cycle: &[(NodeIx, usize)], definition: &Definition) -> Pointed {
    let id = |ix: NodeIx| definition.nodes[ix as usize].id.as_str();
    let mut path: Vec<&str> = cycle.iter().take(MOST_NAMED).map(|(node, _)| id(*node)).collect();
    if cycle.len() > MOST_NAMED {
        path.push("…");
    }
    path.extend(cycle.first().map(|(node, _)| id(*node)));
    let place = cycle.last().map_or(0, |(_, place)| *place);
    Pointed::new(
        format!("/edges/{place}"),
        format!("the nodes form a cycle: {}; remove one of its edges", path.join(" → ")),
    )
}

fn index(definition: &Definition, errors: &mut Vec<Pointed>) -> HashMap<String, NodeIx> {
    let mut by_id = HashMap::with_capacity(definition.nodes.len());
    for (ix, node) in (0..).zip(&definition.nodes) {
        match by_id.entry(node.id.clone()) {
            Entry::Vacant(free) => {
                free.insert(ix);
            }
            Entry::Occupied(first) => errors.push(Pointed::new(
                format!("/nodes/{ix}/id"),
                format!(
                    "the id `{}` is taken by /nodes/{}; give each node its own",
                    node.id,
                    first.get()
                ),
            )),
        }
    }
    by_id
}

fn ends(
    definition: &Definition,
    by_id: &HashMap<String, NodeIx>,
    errors: &mut Vec<Pointed>,
) -> Vec<(NodeIx, NodeIx, usize)> {
    let mut ends = Vec::with_capacity(definition.edges.len());
    for (place, edge) in definition.edges.iter().enumerate() {
        let mut end = |field: &str, id: &str| {
            let found = by_id.get(id).copied();
            // An end that is not even a string was complained of when it was read.
            if found.is_none() && id != UNREADABLE {
                let near = if errors.len() < MOST_SUGGESTIONS {
                    did_you_mean(id, by_id.keys())
                } else {
                    String::new()
                };
                errors.push(Pointed::new(
                    format!("/edges/{place}/{field}"),
                    format!("there is no node {}{near}", quoted(id)),
                ));
            }
            found
        };
        let (from, to) = (end("from", &edge.from), end("to", &edge.to));
        let (Some(from), Some(to)) = (from, to) else { continue };
        if from == to {
            errors.push(Pointed::new(
                format!("/edges/{place}"),
                format!("the edge leads from `{}` to itself; an edge joins two nodes", edge.from),
            ));
            continue;
        }
        if definition.nodes[to as usize].node_type == NodeType::Trigger {
            errors.push(Pointed::new(
                format!("/edges/{place}/to"),
                format!("`{}` is a trigger, where a run begins; no edge can lead to it", edge.to),
            ));
        }
        ends.push((from, to, place));
    }
    ends
}

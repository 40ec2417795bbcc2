//! What follows from the end of nodes: which joins count on, which nodes are ready, skipped or failed.
//!
//! Pure. It says what else it has to know ([`Needs`]) rather than look it up, so that the same function serves the
//! worker that records, the start of a run, and a simulation.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use crate::failure::{ErrorKind, NodeError};
use crate::graph::{EdgeIx, Graph, NodeIx};
use crate::pipeline::When;

/// How a node ended, as far as its edges care.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// With an output.
    Completed,
    /// For good, with this error.
    Failed(NodeError),
    /// No edge led to it (`broken: false`), or one was broken.
    Skipped {
        /// Whether it was skipped because of a broken edge.
        broken: bool,
    },
}

/// What the condition of an edge said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It holds.
    True,
    /// It does not.
    False,
    /// It could not be evaluated, or is no boolean.
    Error(String),
}

/// The counters of a pending node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Join {
    /// Incoming edges that are not resolved.
    pub open: i32,
    /// Whether one of the resolved ones is taken.
    pub taken: bool,
    /// Whether one of them is broken.
    pub broken: bool,
    /// The error of an edge's condition: it fails the node once all its edges are resolved.
    pub error: Option<NodeError>,
}

/// What [`advance`] must be told before it can decide.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// Pending nodes whose counters it must have.
    pub joins: Vec<NodeIx>,
    /// Edges whose conditions must be evaluated; `output` is that of the edge's source, or null.
    pub verdicts: Vec<EdgeIx>,
}

/// What to write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Nodes that go on waiting, with their new counters.
    pub pending: BTreeMap<NodeIx, Join>,
    /// Nodes to be executed, in the order of their becoming ready.
    pub ready: Vec<NodeIx>,
    /// Nodes to which nothing leads.
    pub skipped: Vec<NodeIx>,
    /// Nodes that an edge's error failed.
    pub failed: Vec<(NodeIx, NodeError)>,
    /// Sinks among all that ended, those that were told included.
    pub closed_sinks: i32,
    /// The first failure that no failure edge took up.
    pub unhandled: Option<NodeError>,
    /// All nodes whose failure no failure edge took up.
    pub dead: Vec<Dead>,
}

/// A node that failed, and with it its run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dead {
    /// The node.
    pub node: NodeIx,
    /// How it failed.
    pub kind: ErrorKind,
}

/// How one edge was resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Resolution {
    Taken,
    NotTaken,
    Broken,
    Error(String),
    Unknown,
}

/// Follows the ends of nodes through the graph.
///
/// `joins` gives the counters of a pending node with two or more incoming edges, as they are stored now;
/// `verdicts` what is known of conditions. Either every need is met, or all needs that show so far are returned.
pub fn advance(
    graph: &Graph,
    ended: &[(NodeIx, End)],
    joins: impl Fn(NodeIx) -> Option<Join>,
    verdicts: &HashMap<EdgeIx, Verdict>,
) -> Result<Changes, Needs> {
    let mut walk = Walk {
        graph,
        joins: &joins,
        verdicts,
        changes: Changes::default(),
        needs: Needs::default(),
        asked: HashSet::new(),
    };
    let mut queue: VecDeque<(NodeIx, End)> = ended.iter().cloned().collect();
    while let Some((node, end)) = queue.pop_front() {
        walk.close(node, end, &mut queue);
    }
    if walk.needs == Needs::default() { Ok(walk.changes) } else { Err(walk.needs) }
}

struct Walk<'a, J> {
    graph: &'a Graph,
    joins: &'a J,
    verdicts: &'a HashMap<EdgeIx, Verdict>,
    changes: Changes,
    needs: Needs,
    asked: HashSet<NodeIx>,
}

impl<J: Fn(NodeIx) -> Option<Join>> Walk<'_, J> {
    /// Resolves the outgoing edges of a node that ended.
    fn close(&mut self, node: NodeIx, end: End, queue: &mut VecDeque<(NodeIx, End)>) {
        if self.graph.is_sink(node) {
            self.changes.closed_sinks += 1;
        }
        let outgoing = self.graph.outgoing(node);
        let matched: Vec<(EdgeIx, Option<Resolution>)> =
            outgoing.iter().map(|&edge| (edge, self.matched(edge, &end))).collect();
        let handled = matched.iter().any(|(edge, resolution)| {
            self.graph.edge(*edge).when == When::Failure && *resolution == Some(Resolution::Taken)
        });
        let broken = match &end {
            End::Completed => false,
            End::Failed(error) => {
                if !handled {
                    self.changes.unhandled.get_or_insert_with(|| error.clone());
                    self.changes.dead.push(Dead { node, kind: error.kind });
                }
                !handled
            }
            End::Skipped { broken } => *broken,
        };
        for (edge, resolution) in matched {
            let resolution = resolution.unwrap_or_else(|| {
                match broken && self.graph.edge(edge).when == When::Success {
                    true => Resolution::Broken,
                    false => Resolution::NotTaken,
                }
            });
            self.resolve(edge, resolution, queue);
        }
    }

    /// How an edge whose `when` fits is resolved; none when it does not fit.
    fn matched(&mut self, index: EdgeIx, end: &End) -> Option<Resolution> {
        let edge = self.graph.edge(index);
        let fits = match edge.when {
            When::Success => *end == End::Completed,
            When::Failure => matches!(end, End::Failed(_)),
            When::Always => true,
        };
        if !fits {
            return None;
        }
        if edge.condition.is_none() && !edge.needs_result {
            return Some(Resolution::Taken);
        }
        Some(match self.verdicts.get(&index) {
            Some(Verdict::True) => Resolution::Taken,
            Some(Verdict::False) => Resolution::NotTaken,
            Some(Verdict::Error(message)) => Resolution::Error(message.clone()),
            None => {
                self.needs.verdicts.push(index);
                Resolution::Unknown
            }
        })
    }

    /// Counts a resolved edge at the node that it leads to, and decides that node when it was the last.
    fn resolve(
        &mut self,
        edge: EdgeIx,
        resolution: Resolution,
        queue: &mut VecDeque<(NodeIx, End)>,
    ) {
        let target = self.graph.edge(edge).to;
        let Some(mut join) = self.join(target) else { return };
        match resolution {
            Resolution::Unknown => return,
            Resolution::Taken => join.taken = true,
            Resolution::NotTaken => {}
            Resolution::Broken => join.broken = true,
            Resolution::Error(message) => {
                let id = &self.graph.node(target).node.id;
                join.error.get_or_insert_with(|| NodeError::new(ErrorKind::Permanent, message, id));
            }
        }
        join.open -= 1;
        if join.open > 0 {
            self.changes.pending.insert(target, join);
            return;
        }
        self.changes.pending.remove(&target);
        if let Some(error) = join.error {
            self.changes.failed.push((target, error.clone()));
            queue.push_back((target, End::Failed(error)));
        } else if join.taken && !join.broken {
            self.changes.ready.push(target);
        } else {
            self.changes.skipped.push(target);
            queue.push_back((target, End::Skipped { broken: join.broken }));
        }
    }

    /// The counters of a node as they are now, with what this walk has added.
    fn join(&mut self, node: NodeIx) -> Option<Join> {
        if let Some(join) = self.changes.pending.get(&node) {
            return Some(join.clone());
        }
        if self.graph.incoming(node).len() == 1 {
            return Some(Join { open: 1, ..Join::default() });
        }
        let join = (self.joins)(node);
        if join.is_none() && self.asked.insert(node) {
            self.needs.joins.push(node);
        }
        join
    }
}

/// The counters that a node starts with.
pub fn fresh(graph: &Graph, node: NodeIx) -> Join {
    let open = i32::try_from(graph.incoming(node).len()).unwrap_or(i32::MAX);
    Join { open, ..Join::default() }
}

//! From a definition to a graph: texts become expressions, names become indices.

use std::collections::{BTreeSet, HashMap};
use std::mem;

use serde_json::{Map, Value};

use super::shape::{MOST_SUGGESTIONS, Shape};
use super::upstream::{self, Pair};
use super::{Adjacency, CompiledEdge, CompiledNode, Graph, NodeIx, condition_of};
use crate::expression::{Expression, Names, Template};
use crate::pipeline::{Definition, EXECUTE_PIPELINE, Edge, Node, NodeType, When};
use crate::problem::{Pointed, quoted};

pub(super) fn compile(mut definition: Definition) -> Result<Graph, Vec<Pointed>> {
    let mut shape = Shape::new(&definition);
    let mut names = Named { errors: mem::take(&mut shape.errors), pairs: Vec::new() };
    let mut nodes = Vec::with_capacity(definition.nodes.len());
    for (ix, node) in (0..).zip(&definition.nodes) {
        nodes.push(names.node(ix, node, &shape));
    }
    let mut edges = Vec::with_capacity(definition.edges.len());
    for (from, to, place) in &shape.ends {
        let from_type = definition.nodes[*from as usize].node_type;
        edges.push(names.edge((*from, *to), *place, &definition.edges[*place], from_type, &shape));
    }
    let errors = names.finish(&shape, &definition);
    if !errors.is_empty() {
        return Err(errors);
    }
    let mut is_named = vec![false; nodes.len()];
    let named = nodes.iter().map(|node| &node.reads).chain(edges.iter().map(|edge| &edge.reads));
    named.flatten().for_each(|read| is_named[*read as usize] = true);
    let mut nodes: Vec<CompiledNode> = mem::take(&mut definition.nodes)
        .into_iter()
        .zip(nodes)
        .map(|(node, compiled)| compiled.with(node))
        .collect();
    for (ix, node) in (0..).zip(&mut nodes) {
        add_edges_reads(ix, node, shape.outgoing.of(ix).iter().map(|edge| &edges[*edge as usize]));
    }
    let all = || 0..nodes.len() as NodeIx;
    Ok(Graph {
        roots: all().filter(|ix| shape.incoming.of(*ix).is_empty()).collect(),
        sinks: all().filter(|ix| shape.outgoing.of(*ix).is_empty()).collect(),
        order: shape.order(),
        rest: definition,
        nodes,
        edges,
        by_id: shape.by_id,
        incoming: shape.incoming,
        outgoing: shape.outgoing,
        is_named,
    })
}

/// The edges that leave a node are resolved by whoever records it, with what it read at hand.
fn add_edges_reads<'a>(
    ix: NodeIx,
    node: &mut CompiledNode,
    edges: impl Iterator<Item = &'a CompiledEdge>,
) {
    let reads: BTreeSet<NodeIx> = edges
        .flat_map(|edge| &edge.reads)
        .chain(&node.reads)
        .copied()
        .filter(|read| *read != ix)
        .collect();
    node.reads = reads.into_iter().collect();
}

pub(super) fn single(node: Node) -> Result<Graph, Vec<Pointed>> {
    let config = config_of(&node).map_err(|errors| {
        errors.into_iter().map(|error| below("/input", error)).collect::<Vec<_>>()
    })?;
    let each = each_of(&node).map_err(|errors| {
        errors.into_iter().map(|error| below("/input", error)).collect::<Vec<_>>()
    })?;
    let named = each.iter().flat_map(|each| each.names()).chain(config.names()).next();
    if let Some(name) = named {
        return Err(vec![Pointed::new("/input", no_other_node(name))]);
    }
    let rest = Definition {
        name: node.id.clone(),
        description: None,
        input_schema: None,
        nodes: Vec::new(),
        edges: Vec::new(),
        timeout: None,
        fail_fast: false,
    };
    let none = || Adjacency { begins: vec![0, 0], edges: Vec::new() };
    Ok(Graph {
        by_id: HashMap::from([(node.id.clone(), 0)]),
        nodes: vec![CompiledNode {
            action: node.action().map(str::to_owned),
            node,
            config,
            condition: None,
            each,
            reads: Vec::new(),
            passes_through: None,
        }],
        rest,
        edges: Vec::new(),
        incoming: none(),
        outgoing: none(),
        roots: vec![0],
        sinks: vec![0],
        order: vec![0],
        is_named: vec![false],
    })
}

/// Why a single action can name no node.
pub(crate) fn no_other_node(name: &str) -> String {
    format!("`nodes.{name}` names another node, and a single action has none; a pipeline has")
}

/// What a node's type makes of its config. The other types ignore theirs.
pub(crate) fn config_of(node: &Node) -> Result<Template, Vec<Pointed>> {
    match node.node_type {
        NodeType::Action | NodeType::Delay | NodeType::Approval | NodeType::WaitForEvent => {
            let mut config = node.config.clone();
            config.remove("action");
            // It is about an event that has not come yet.
            if node.node_type == NodeType::WaitForEvent {
                config.remove("condition");
            }
            if starts_each(node) {
                config.remove("input");
            }
            Template::compile(&Value::Object(config))
        }
        _ => Ok(Template::constant(Value::Object(Map::new()))),
    }
}

/// Whether it starts a run for each item of a list.
pub(crate) fn starts_each(node: &Node) -> bool {
    node.action() == Some(EXECUTE_PIPELINE)
        && node.config.get("for_each").is_some_and(|list| !list.is_null())
}

/// The input of each of the runs that the node starts: it is rendered item by item. Pointers lead into the config.
fn each_of(node: &Node) -> Result<Option<Template>, Vec<Pointed>> {
    let input = node.config.get("input").filter(|input| !input.is_null() && starts_each(node));
    let template = input.map(|input| Template::compile_in(input, Names::Item));
    template
        .transpose()
        .map_err(|errors| errors.into_iter().map(|error| below("/input", error)).collect())
}

fn no_secrets_here(pointer: String) -> Pointed {
    Pointed::new(
        pointer,
        "`secrets` are there only in the config of an action, where they are used",
    )
}

fn below(pointer: &str, error: Pointed) -> Pointed {
    Pointed { pointer: format!("{pointer}{}", error.pointer), detail: error.detail }
}

/// What is handed to another run is stored with it.
fn no_secrets_for_children(pointer: String) -> Pointed {
    Pointed::new(
        pointer,
        "`secrets` cannot be handed to another run, which stores its input; name them in that pipeline",
    )
}

/// What is compiled of a node beside which it is put, once all have been looked at.
struct Compiled {
    config: Template,
    condition: Option<Box<Expression>>,
    each: Option<Template>,
    reads: Vec<NodeIx>,
    action: Option<String>,
    passes_through: Option<NodeIx>,
}

impl Compiled {
    fn with(self, node: Node) -> CompiledNode {
        let Self { config, condition, each, reads, action, passes_through } = self;
        CompiledNode { node, config, condition, each, reads, action, passes_through }
    }
}

/// What the expressions name, and where.
struct Named {
    errors: Vec<Pointed>,
    pairs: Vec<(Pair, String)>,
}

impl Named {
    fn node(&mut self, ix: NodeIx, node: &Node, shape: &Shape) -> Compiled {
        let mut reads = BTreeSet::new();
        let config = config_of(node).unwrap_or_else(|errors| {
            let pointer = format!("/nodes/{ix}/config");
            self.errors.extend(errors.into_iter().map(|error| below(&pointer, error)));
            Template::constant(Value::Null)
        });
        let each = each_of(node).unwrap_or_else(|errors| {
            let pointer = format!("/nodes/{ix}/config");
            self.errors.extend(errors.into_iter().map(|error| below(&pointer, error)));
            None
        });
        let items = each.iter().flat_map(|each| each.spots()).map(|spot| ("/input", spot));
        for (at, spot) in config.spots().iter().map(|spot| ("", spot)).chain(items) {
            let pointer = || format!("/nodes/{ix}/config{at}{}", spot.pointer);
            if spot.names_output {
                self.errors.push(no_output_here(pointer()));
            }
            if !spot.secrets.is_empty() && node.node_type != NodeType::Action {
                self.errors.push(no_secrets_here(pointer()));
            }
            if !spot.secrets.is_empty() && node.action() == Some(EXECUTE_PIPELINE) {
                self.errors.push(no_secrets_for_children(pointer()));
            }
            reads.extend(self.resolve(&spot.names, ix, false, shape, pointer));
        }
        let condition = condition_of(node).and_then(|(key, value)| {
            let pointer = || format!("/nodes/{ix}/config/{key}");
            let condition = self.expression(value.as_str()?, pointer)?;
            if condition.names_output() {
                self.errors.push(no_output_here(pointer()));
            }
            reads.extend(self.resolve(condition.names(), ix, false, shape, pointer));
            Some(Box::new(condition))
        });
        Compiled {
            action: node.action().map(str::to_owned),
            passes_through: only_predecessor(ix, shape).filter(|_| node.node_type.passes_through()),
            config,
            condition,
            each,
            reads: reads.into_iter().collect(),
        }
    }

    fn edge(
        &mut self,
        (from, to): (NodeIx, NodeIx),
        place: usize,
        edge: &Edge,
        from_type: NodeType,
        shape: &Shape,
    ) -> CompiledEdge {
        let pointer = || format!("/edges/{place}/condition");
        let condition = edge.condition.as_ref().and_then(|text| self.expression(text, pointer));
        let reads = condition.as_ref().map_or_else(BTreeSet::new, |condition| {
            self.resolve(condition.names(), from, true, shape, pointer)
        });
        CompiledEdge {
            from,
            to,
            when: edge.when,
            needs_result: from_type == NodeType::Condition
                && edge.when == When::Success
                && edge.condition.is_none(),
            condition: condition.map(Box::new),
            reads: reads.into_iter().collect(),
        }
    }

    fn expression(&mut self, text: &str, pointer: impl Fn() -> String) -> Option<Expression> {
        let compiled = Expression::compile(text)
            .map_err(|message| self.errors.push(Pointed::new(pointer(), message)))
            .ok()?;
        if compiled.names_secrets() {
            self.errors.push(no_secrets_here(pointer()));
        }
        Some(compiled)
    }

    /// Indices for names. Whether they come before `reader` is found out for all of them at once, later.
    fn resolve(
        &mut self,
        names: &BTreeSet<String>,
        reader: NodeIx,
        may_be_itself: bool,
        shape: &Shape,
        pointer: impl Fn() -> String,
    ) -> BTreeSet<NodeIx> {
        let mut reads = BTreeSet::new();
        for name in names {
            match shape.by_id.get(name) {
                Some(ix) if *ix == reader && may_be_itself => {
                    reads.insert(*ix);
                }
                Some(ix) if *ix == reader => self.errors.push(Pointed::new(
                    pointer(),
                    format!("it names `{name}`, its own output, which is not there before it ran"),
                )),
                Some(ix) => {
                    reads.insert(*ix);
                    self.pairs.push((Pair { named: *ix, reader }, pointer()));
                }
                None => {
                    let near = if self.errors.len() < MOST_SUGGESTIONS {
                        upstream::did_you_mean(name, shape.by_id.keys())
                    } else {
                        String::new()
                    };
                    let detail =
                        format!("it names {}, and there is no such node{near}", quoted(name));
                    self.errors.push(Pointed::new(pointer(), detail));
                }
            }
        }
        reads
    }

    fn finish(mut self, shape: &Shape, definition: &Definition) -> Vec<Pointed> {
        let (pairs, pointers): (Vec<_>, Vec<_>) = self.pairs.into_iter().unzip();
        let is_violated = upstream::violations(shape, &pairs);
        for ((pair, pointer), _) in
            pairs.iter().zip(pointers).zip(is_violated).filter(|(_, is_violated)| *is_violated)
        {
            let id = |ix: NodeIx| definition.nodes[ix as usize].id.as_str();
            let detail = format!(
                "it names `{named}`, which does not come before `{reader}`; let edges lead from `{named}` to \
                 `{reader}`, or name a node that comes before it",
                named = id(pair.named),
                reader = id(pair.reader),
            );
            self.errors.push(Pointed::new(pointer, detail));
        }
        self.errors
    }
}

fn no_output_here(pointer: String) -> Pointed {
    Pointed::new(
        pointer,
        "`output` is there only in the condition of an edge; name a node: `nodes.<id>.output`",
    )
}

fn only_predecessor(ix: NodeIx, shape: &Shape) -> Option<NodeIx> {
    let mut from = shape.incoming.of(ix).iter().map(|edge| shape.ends[*edge as usize].0);
    let first = from.next()?;
    from.all(|other| other == first).then_some(first)
}

//! From JSON to a definition. What cannot be read is complained of and stands at its default, so that the rest can be
//! checked all the same.

use std::collections::{BTreeMap, HashMap};

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::findings::{Fields, Findings};
use super::{
    Breaker, DEFAULT_LANE, Definition, Edge, MOST_EDGES, MOST_NODES, Node, NodeType, OnWorkerLost,
    UNREADABLE, When,
};
use crate::retry::{self, RetryPolicy};

/// The longest id or name.
pub(super) const LONGEST_NAME: usize = 128;
/// The longest name of a lane.
pub(super) const LONGEST_LANE: usize = 64;

const DEFINITION: [&str; 7] =
    ["name", "description", "input_schema", "nodes", "edges", "timeout", "fail_fast"];
const NODE: [&str; 10] = [
    "id",
    "type",
    "name",
    "config",
    "retry",
    "timeout",
    "breaker",
    "on_worker_lost",
    "lane",
    "position",
];
const EDGE: [&str; 5] = ["id", "from", "to", "condition", "when"];

/// Reads a definition; none if it is not even an object.
pub(super) fn definition(value: &Value, findings: &mut Findings) -> Option<Definition> {
    let mut fields = findings.fields(value, String::new())?;
    fields.only(&DEFINITION);
    let mut definition = head(&mut fields);
    let (nodes, edges) = (fields.list("nodes"), fields.list("edges"));
    if nodes.is_empty() && fields.get("nodes").is_none_or(Value::is_array) {
        fields.missing("nodes", "at least one node");
    }
    for (key, count, most) in
        [("nodes", nodes.len(), MOST_NODES), ("edges", edges.len(), MOST_EDGES)]
    {
        if count > most {
            let detail =
                format!("there are {count}, where at most {most} may be; split the pipeline");
            fields.error(key, detail);
            return None;
        }
    }
    definition.nodes =
        nodes.iter().enumerate().map(|(ix, value)| node(value, ix, findings)).collect();
    definition.edges =
        edges.iter().enumerate().map(|(ix, value)| edge(value, ix, findings)).collect();
    edge_ids(&definition.edges, findings);
    Some(definition)
}

/// As [`definition`], of the text of one that was checked when it was stored, item by item: as one value, ten thousand
/// nodes take some fifteen MiB more at the peak.
pub(super) fn stored(text: &str, findings: &mut Findings) -> serde_json::Result<Definition> {
    let mut fields: BTreeMap<String, &RawValue> = serde_json::from_str(text)?;
    let mut list = |key| {
        let items = fields.remove(key).map_or("[]", RawValue::get);
        serde_json::from_str::<Option<Vec<&RawValue>>>(items).map(Option::unwrap_or_default)
    };
    let (nodes, edges) = (list("nodes")?, list("edges")?);
    let rest = fields
        .into_iter()
        .map(|(key, value)| Ok((key, serde_json::from_str(value.get())?)))
        .collect::<serde_json::Result<Map<String, Value>>>()?;
    let mut fields = Fields::of(&rest, findings);
    fields.only(&DEFINITION);
    let mut definition = head(&mut fields);
    definition.nodes = items(&nodes, plain_node, |value, ix| node(value, ix, findings))?;
    definition.edges = items(&edges, plain_edge, |value, ix| edge(value, ix, findings))?;
    edge_ids(&definition.edges, findings);
    Ok(definition)
}

/// Each item as `plain` reads it, so that ten thousand nodes are compiled in half the time; where it does not, as `read`
/// does.
fn items<T>(
    items: &[&RawValue],
    plain: impl Fn(&str) -> Option<T>,
    mut read: impl FnMut(&Value, usize) -> T,
) -> serde_json::Result<Vec<T>> {
    let one = |(ix, item): (usize, &&RawValue)| match plain(item.get()) {
        Some(plain) => Ok(plain),
        None => Ok(read(&serde_json::from_str(item.get())?, ix)),
    };
    items.iter().enumerate().map(one).collect()
}

/// A node of which nothing has to be put right.
fn plain_node(text: &str) -> Option<Node> {
    let node: Node = serde_json::from_str(text).ok()?;
    let is_plain =
        node.retry.is_none() && node.breaker.is_none() && node.node_type != NodeType::Agent;
    is_plain.then_some(node)
}

/// An edge of which nothing has to be put right.
fn plain_edge(text: &str) -> Option<Edge> {
    let edge: Edge = serde_json::from_str(text).ok()?;
    edge.condition.as_ref().is_none_or(|text| !text.trim().is_empty()).then_some(edge)
}

/// All but the nodes and edges.
fn head(fields: &mut Fields<'_, '_>) -> Definition {
    let name = fields.name("name", LONGEST_NAME);
    if fields.get("name").is_none() {
        fields.missing("name", "the name under which the pipeline is run");
    }
    Definition {
        name: name.unwrap_or_default().to_owned(),
        description: fields.text("description").map(str::to_owned),
        input_schema: fields.get("input_schema").cloned(),
        nodes: Vec::new(),
        edges: Vec::new(),
        timeout: fields.positive_duration("timeout"),
        fail_fast: fields.boolean("fail_fast").unwrap_or_default(),
    }
}

fn node(value: &Value, ix: usize, findings: &mut Findings) -> Node {
    // Each unreadable id is another one, so that they are not taken for duplicates.
    let unreadable = || format!("{UNREADABLE}{ix}");
    let Some(mut fields) = findings.fields(value, format!("/nodes/{ix}")) else {
        return Node::new(unreadable(), NodeType::Parallel);
    };
    if fields.get("id").is_none() {
        fields.missing("id", "an id that no other node has");
    }
    let id = fields
        .name("id", LONGEST_NAME)
        .filter(|id| !id.is_empty() && id.len() <= LONGEST_NAME)
        .map_or_else(unreadable, str::to_owned);
    let node_type = node_type(&mut fields);
    unknown_fields(&mut fields, node_type);
    let mut node = Node::new(id, node_type.unwrap_or(NodeType::Parallel));
    node.name = fields.text("name").map(str::to_owned);
    node.config = config(&mut fields, node_type);
    rules(&mut fields, &mut node);
    node.breaker = breaker(&mut fields);
    if let Some(on_worker_lost) = fields
        .word("on_worker_lost", &[("retry", OnWorkerLost::Retry), ("fail", OnWorkerLost::Fail)])
    {
        node.on_worker_lost = on_worker_lost;
    }
    node
}

/// What a node of a pipeline and a single action have in common: retry, time-out and lane.
pub(super) fn rules(fields: &mut Fields<'_, '_>, node: &mut Node) {
    node.retry = fields.get("retry").is_some().then(|| retry(fields));
    node.timeout = fields.positive_duration("timeout").unwrap_or(Node::DEFAULT_TIMEOUT);
    node.lane = fields.name("lane", LONGEST_LANE).unwrap_or(DEFAULT_LANE).to_owned();
}

fn node_type(fields: &mut Fields<'_, '_>) -> Option<NodeType> {
    let words = NodeType::ALL.map(|node_type| (node_type.name(), node_type));
    if fields.get("type").is_none() {
        let types = "one of `trigger`, `action`, `condition`, `parallel`, `delay`, `approval`, `wait_for_event`";
        fields.missing("type", types);
    }
    let node_type = fields.word("type", &words)?;
    if node_type == NodeType::Agent {
        fields.error("type", "agents cannot run here yet; use an action");
    }
    Some(node_type)
}

/// `next` is what edges were before there were edges. A trigger's own fields say when it fires, which schedules do.
fn unknown_fields(fields: &mut Fields<'_, '_>, node_type: Option<NodeType>) {
    for key in fields.keys().filter(|key| !NODE.contains(&key.as_str())) {
        let pointer = fields.at(key);
        if key == "next" {
            fields.findings.warn(pointer, "`next` is ignored; edges say what comes next");
        } else if node_type == Some(NodeType::Trigger) {
            fields
                .findings
                .warn(pointer, format!("`{key}` is ignored; schedules say when a pipeline runs"));
        } else {
            let detail = super::findings::unknown(key, &NODE);
            fields.findings.error(pointer, detail);
        }
    }
}

fn config(fields: &mut Fields<'_, '_>, node_type: Option<NodeType>) -> Map<String, Value> {
    let pointer = fields.at("config");
    let config = match fields.get("config") {
        Some(value) => fields.findings.fields(value, pointer.clone()).and(value.as_object()),
        None => None,
    };
    let config = config.cloned().unwrap_or_default();
    let reason = match node_type {
        Some(NodeType::Trigger) => "a trigger has no config; schedules say when a pipeline runs",
        Some(NodeType::Parallel) => "a parallel node has no config; its edges are its branches",
        _ => return config,
    };
    for key in config.keys() {
        let pointer = format!("{pointer}/{}", crate::problem::token(key));
        fields.findings.warn(pointer, format!("`{key}` is ignored; {reason}"));
    }
    config
}

/// The fields of the object at `key`, if there is one.
fn below<'a, 'f>(fields: &'f mut Fields<'a, '_>, key: &str) -> Option<Fields<'a, 'f>> {
    let value = fields.get(key)?;
    let pointer = fields.at(key);
    fields.findings.fields(value, pointer)
}

/// A retry rule, or the usual one.
pub(crate) fn retry(fields: &mut Fields<'_, '_>) -> RetryPolicy {
    let standard = RetryPolicy::default();
    let Some(mut fields) = below(fields, "retry") else { return standard };
    fields.only(&["max_attempts", "initial_interval", "multiplier", "max_interval", "max_elapsed"]);
    let is_given = |fields: &Fields<'_, '_>, key| fields.get(key).is_some();
    let mut policy = RetryPolicy {
        max_attempts: fields
            .integer("max_attempts", 1..=retry::MAX_ATTEMPTS)
            .unwrap_or(standard.max_attempts),
        initial_interval: fields.duration("initial_interval").unwrap_or(standard.initial_interval),
        multiplier: fields
            .number("multiplier", 1.0..=retry::MAX_MULTIPLIER)
            .unwrap_or(standard.multiplier),
        max_interval: fields.duration("max_interval").unwrap_or(standard.max_interval),
        max_elapsed: fields.duration("max_elapsed"),
    };
    if policy.initial_interval > policy.max_interval {
        match (is_given(&fields, "initial_interval"), is_given(&fields, "max_interval")) {
            (true, true) => fields.error(
                "initial_interval",
                "must not be longer than `max_interval`; lower it, or raise `max_interval`",
            ),
            (true, false) => policy.max_interval = policy.initial_interval,
            (false, _) => policy.initial_interval = policy.max_interval,
        }
    }
    policy
}

fn breaker(fields: &mut Fields<'_, '_>) -> Option<Breaker> {
    let mut fields = below(fields, "breaker")?;
    fields.only(&["failure_threshold", "recovery"]);
    let standard = Breaker::default();
    Some(Breaker {
        failure_threshold: fields
            .integer("failure_threshold", 1..=1_000_000)
            .unwrap_or(standard.failure_threshold),
        recovery: fields.positive_duration("recovery").unwrap_or(standard.recovery),
    })
}

fn edge(value: &Value, ix: usize, findings: &mut Findings) -> Edge {
    let Some(mut fields) = findings.fields(value, format!("/edges/{ix}")) else {
        let unreadable = || UNREADABLE.to_owned();
        return Edge {
            id: None,
            from: unreadable(),
            to: unreadable(),
            condition: None,
            when: When::Success,
        };
    };
    fields.only(&EDGE);
    let mut end = |key| {
        if fields.get(key).is_none() {
            fields.missing(key, "the id of a node");
        }
        fields.text(key).unwrap_or(UNREADABLE).to_owned()
    };
    let (from, to) = (end("from"), end("to"));
    let words = [("success", When::Success), ("failure", When::Failure), ("always", When::Always)];
    Edge {
        id: fields.text("id").map(str::to_owned),
        from,
        to,
        when: fields.word("when", &words).unwrap_or_default(),
        // Older definitions leave it empty where they mean none.
        condition: fields
            .text("condition")
            .filter(|text| !text.trim().is_empty())
            .map(str::to_owned),
    }
}

fn edge_ids(edges: &[Edge], findings: &mut Findings) {
    let mut first = HashMap::new();
    for (ix, edge) in edges.iter().enumerate() {
        let Some(id) = &edge.id else { continue };
        if let Some(first) = first.insert(id, ix) {
            findings.error(
                format!("/edges/{ix}/id"),
                format!(
                    "the id `{id}` is taken by /edges/{first}; give each edge its own, or none"
                ),
            );
        }
    }
}

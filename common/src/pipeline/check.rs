//! Everything that can be wrong with a definition, found in one go.

use std::collections::HashSet;
use std::io;

use serde_json::Value;

use super::findings::Findings;
use super::{Definition, InputSchema, UNREADABLE, config, read};
use crate::graph::Graph;
use crate::problem::{Pointed, unstorable};
use crate::tool::Catalogue;

/// The largest definition, as compact JSON.
pub const MOST_BYTES: usize = 4 << 20;

/// How many errors, and how many warnings, are listed.
const MOST_LISTED: usize = 1_000;

/// A definition that can be stored.
#[derive(Debug)]
pub struct Checked {
    /// As it was read.
    pub definition: Definition,
    /// What its author may want to know.
    pub warnings: Vec<Pointed>,
}

/// A definition that cannot be stored.
#[derive(Debug)]
pub struct Refused {
    /// All that is wrong.
    pub errors: Vec<Pointed>,
    /// What its author may want to know besides.
    pub warnings: Vec<Pointed>,
}

/// Reads a definition, and finds everything that is wrong with it, also with what it gives to `tools`.
pub fn check(value: &Value, tools: &Catalogue) -> Result<Checked, Refused> {
    check_graph(value, tools)
        .map(|(graph, warnings)| Checked { definition: graph.into_definition(), warnings })
}

/// As [`check`], for those who want the graph as well: it was compiled anyway.
pub fn check_graph(value: &Value, tools: &Catalogue) -> Result<(Graph, Vec<Pointed>), Refused> {
    let mut findings = Findings::default();
    let definition = read(value, &mut findings);
    compiled(definition, Some(tools), findings)
}

/// Compiles a definition that was checked when it was stored, from its JSON text. Whether its tools are there, and take
/// what they are given, is asked again where they are executed: a process need not know them to go on with a run.
pub fn stored_graph(stored: &str) -> Result<Graph, Vec<Pointed>> {
    let mut findings = Findings::default();
    let definition = read::stored(stored, &mut findings)
        .map_err(|error| vec![Pointed::new("", format!("it cannot be read: {error}"))])?;
    let compiled = compiled(Some(definition), None, findings);
    compiled.map(|(graph, _)| graph).map_err(|refused| refused.errors)
}

fn read(value: &Value, findings: &mut Findings) -> Option<Definition> {
    stores(value, findings);
    read::definition(value, findings)
}

fn compiled(
    definition: Option<Definition>,
    tools: Option<&Catalogue>,
    mut findings: Findings,
) -> Result<(Graph, Vec<Pointed>), Refused> {
    let graph = definition.and_then(|definition| {
        meaning(&definition, tools, &mut findings);
        Graph::compile(definition).map_err(|errors| findings.errors.extend(errors)).ok()
    });
    if let Some(graph) = &graph {
        for (_, ix) in graph.calls().iter().filter(|(name, _)| name == graph.name()) {
            findings.error(format!("/nodes/{ix}/config/pipeline"), circle(&[]));
        }
    }
    let Findings { errors, warnings } = findings;
    let (errors, warnings) = (listed(errors, "errors"), listed(warnings, "warnings"));
    match graph {
        Some(graph) if errors.is_empty() => Ok((graph, warnings)),
        _ => Err(Refused { errors, warnings }),
    }
}

/// Why a pipeline cannot start itself, by way of `others`.
pub fn circle(others: &[String]) -> String {
    let way = match others {
        [] => String::new(),
        others => format!(", by way of `{}`", others.join("` and `")),
    };
    format!(
        "it starts the pipeline itself{way}, and no condition ends that; put a condition before it, on an edge or as a node"
    )
}

/// A list that is no longer than anyone reads.
fn listed(mut found: Vec<Pointed>, what: &str) -> Vec<Pointed> {
    if found.len() > MOST_LISTED {
        let more = found.len() - MOST_LISTED;
        found.truncate(MOST_LISTED);
        found.push(Pointed::new("", format!("there are {more} more {what}")));
    }
    found
}

/// Whether Postgres and the limits let it be stored.
fn stores(value: &Value, findings: &mut Findings) {
    if let Some(pointer) = unstorable(value) {
        findings.error(pointer, UNSTORABLE);
    }
    if serde_json::to_writer(Room(MOST_BYTES), value).is_err() {
        findings
            .error("", format!("it is larger than {} MiB; split the pipeline", MOST_BYTES >> 20));
    }
}

/// What is wrong with a text that has U+0000 in it.
pub(super) const UNSTORABLE: &str = "holds the character U+0000, which cannot be stored; remove it";

/// Counts bytes down.
struct Room(usize);

impl io::Write for Room {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::FileTooLarge)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What the fields mean, each by itself; the graph sees to what they mean together.
fn meaning(definition: &Definition, tools: Option<&Catalogue>, findings: &mut Findings) {
    if let Some(schema) = &definition.input_schema
        && let Err(errors) = InputSchema::compile(schema)
    {
        for error in errors {
            findings.error(format!("/input_schema{}", error.pointer), error.detail);
        }
    }
    for (ix, node) in definition.nodes.iter().enumerate() {
        let pointer = format!("/nodes/{ix}/config");
        config::check(node, &pointer, definition.timeout, tools, findings);
    }
    loose_ends(definition, findings);
}

/// What can run, but was hardly meant.
fn loose_ends(definition: &Definition, findings: &mut Findings) {
    let ends = definition.edges.iter().flat_map(|edge| [edge.from.as_str(), edge.to.as_str()]);
    let joined: HashSet<&str> = ends.collect();
    if definition.nodes.len() > 1 {
        for (ix, node) in definition.nodes.iter().enumerate() {
            if !joined.contains(node.id.as_str()) && !node.id.starts_with(UNREADABLE) {
                let detail =
                    format!("no edge joins `{}` to another node; it runs by itself", node.id);
                findings.warn(format!("/nodes/{ix}"), detail);
            }
        }
    }
    let mut seen = HashSet::new();
    for (ix, edge) in definition.edges.iter().enumerate() {
        if !seen.insert((&edge.from, &edge.to, edge.when, &edge.condition)) {
            findings
                .warn(format!("/edges/{ix}"), "another edge says the same; one of them is enough");
        }
    }
}

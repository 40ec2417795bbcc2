//! Everything that can be wrong with a definition, found in one go.

use serde_json::Value;

use super::Definition;
use crate::problem::Pointed;

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

/// Reads a definition, and finds everything that is wrong with it.
pub fn check(value: &Value) -> Result<Checked, Refused> {
    let refused = |error| Refused { errors: vec![error], warnings: Vec::new() };
    let definition: Definition = serde_json::from_value(value.clone())
        .map_err(|error| refused(Pointed::new("", error.to_string())))?;
    let graph = crate::graph::Graph::compile(definition)
        .map_err(|errors| Refused { errors, warnings: Vec::new() })?;
    Ok(Checked { definition: graph.definition().clone(), warnings: Vec::new() })
}

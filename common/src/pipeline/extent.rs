//! How much work a JSON Schema can make.
//!
//! References multiply: a schema of a few hundred bytes can keep a validator busy for years, and a recursive one does
//! so with an input of a few hundred bytes. So references lead within the schema and never in a circle, and what they
//! stand for in all is limited. Then the work is at most that times the input's size.

use std::collections::HashMap;

use serde_json::Value;

use crate::problem::{Pointed, quoted, token};

/// How many subschemas a schema may come to, references followed.
const MOST_SUBSCHEMAS: usize = 5_000;
/// How deep subschemas may be nested, references followed: a validator recurses over them.
const DEEPEST: usize = 100;

/// What is wrong with a schema's references; pointers lead into the schema.
pub(crate) fn check(schema: &Value) -> Vec<Pointed> {
    let mut extent = Extent { root: schema, known: HashMap::new(), depth: 0, errors: Vec::new() };
    let size = extent.size(schema, "");
    if size > MOST_SUBSCHEMAS && extent.errors.is_empty() {
        let detail = format!(
            "it comes to over {MOST_SUBSCHEMAS} subschemas, references followed; simplify it"
        );
        extent.errors.push(Pointed::new("", detail));
    }
    extent.errors
}

struct Extent<'a> {
    root: &'a Value,
    /// By pointer: what a reference stands for, or none while that is being found out.
    known: HashMap<&'a str, Option<usize>>,
    depth: usize,
    errors: Vec<Pointed>,
}

impl<'a> Extent<'a> {
    /// How many subschemas a schema comes to. Definitions count where they are referred to.
    fn size(&mut self, schema: &'a Value, pointer: &str) -> usize {
        if self.depth > DEEPEST {
            let detail = format!("it is nested over {DEEPEST} schemas deep, references followed");
            return self.refuse(pointer.to_owned(), detail);
        }
        self.depth += 1;
        let size = self.size_of_parts(schema, pointer);
        self.depth -= 1;
        size
    }

    fn size_of_parts(&mut self, schema: &'a Value, pointer: &str) -> usize {
        let Some(fields) = schema.as_object() else { return 1 };
        let mut size = 1_usize;
        for (key, value) in fields {
            let at = format!("{pointer}/{}", token(key));
            let more = match (key.as_str(), value) {
                ("$ref", Value::String(reference)) => self.reference(reference, at),
                ("$dynamicRef" | "$recursiveRef", Value::String(_)) => {
                    self.refuse(at, format!("`{key}` is not followed here; use `$ref`"))
                }
                ("$id", Value::String(_)) if !pointer.is_empty() => self
                    .refuse(at, "`$id` may stand only at the top; refer to `#/$defs/…`".to_owned()),
                ("enum" | "const" | "default" | "examples", _) => 0,
                ("$defs" | "definitions", Value::Object(schemas)) => {
                    // Only to find what is wrong in those that are not referred to.
                    for (name, schema) in schemas {
                        self.size(schema, &format!("{at}/{}", token(name)));
                    }
                    0
                }
                (_, Value::Object(schemas)) if is_map(key) => schemas
                    .iter()
                    .map(|(name, schema)| self.size(schema, &format!("{at}/{}", token(name))))
                    .fold(0, usize::saturating_add),
                (_, Value::Object(_)) => self.size(value, &at),
                (_, Value::Array(schemas)) => schemas
                    .iter()
                    .enumerate()
                    .filter(|(_, schema)| schema.is_object())
                    .map(|(index, schema)| self.size(schema, &format!("{at}/{index}")))
                    .fold(0, usize::saturating_add),
                _ => 0,
            };
            size = size.saturating_add(more);
        }
        size
    }

    /// How many subschemas a reference stands for.
    fn reference(&mut self, reference: &'a str, at: String) -> usize {
        let target =
            reference.strip_prefix('#').filter(|rest| rest.is_empty() || rest.starts_with('/'));
        let Some(pointer) = target.filter(|target| !target.contains('%')) else {
            let detail = format!(
                "{} is not followed; a reference leads within the schema: `#/$defs/…`",
                quoted(reference)
            );
            return self.refuse(at, detail);
        };
        match self.known.get(pointer) {
            Some(Some(size)) => return *size,
            Some(None) => {
                let detail = format!(
                    "{} leads back to itself; a schema here cannot be recursive",
                    quoted(reference)
                );
                return self.refuse(at, detail);
            }
            None => {}
        }
        let Some(schema) = self.root.pointer(pointer) else {
            return self.refuse(at, format!("{} is not in the schema", quoted(reference)));
        };
        self.known.insert(pointer, None);
        let size = self.size(schema, pointer);
        self.known.insert(pointer, Some(size));
        size
    }

    fn refuse(&mut self, at: String, detail: String) -> usize {
        let error = Pointed::new(at, detail);
        if !self.errors.contains(&error) && self.errors.len() < 100 {
            self.errors.push(error);
        }
        0
    }
}

/// Whether the fields of what stands under this keyword are names, not keywords.
fn is_map(key: &str) -> bool {
    matches!(key, "properties" | "patternProperties" | "dependentSchemas" | "dependencies")
}

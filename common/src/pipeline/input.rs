//! The input of a run against its pipeline's `input_schema`.

use jsonschema::Validator;
use serde_json::Value;

use super::{extent, schema};
use crate::problem::Pointed;

/// How many errors of one input are listed.
const MOST_ERRORS: usize = 100;

/// A compiled `input_schema`: JSON Schema, draft 2020-12 unless it names another.
#[derive(Debug)]
pub struct InputSchema(Validator);

impl InputSchema {
    /// Compiles a schema. Pointers lead into the schema. Nothing is fetched: a reference leads within it, and not
    /// around in a circle.
    pub fn compile(schema: &Value) -> Result<Self, Vec<Pointed>> {
        let errors = extent::check(schema);
        if !errors.is_empty() {
            return Err(errors);
        }
        schema::compile(schema).map(Self).map_err(|error| vec![error])
    }

    /// What is wrong with an input, up to a hundred things; pointers lead into the input.
    pub fn check(&self, input: &Value) -> Vec<Pointed> {
        if self.0.is_valid(input) {
            return Vec::new();
        }
        let errors = self.0.iter_errors(input);
        errors.flat_map(|error| schema::pointed(&error, None, None)).take(MOST_ERRORS).collect()
    }
}

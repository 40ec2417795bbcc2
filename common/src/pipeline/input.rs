//! The input of a run against its pipeline's `input_schema`.

use jsonschema::Validator;
use serde_json::Value;

use crate::problem::Pointed;

/// A compiled `input_schema`.
#[derive(Debug)]
pub struct InputSchema(Validator);

impl InputSchema {
    /// Compiles a schema.
    pub fn compile(schema: &Value) -> Result<Self, Vec<Pointed>> {
        jsonschema::options()
            .offline()
            .build(schema)
            .map(Self)
            .map_err(|error| vec![Pointed::new(error.instance_path().as_str(), error.to_string())])
    }

    /// All that is wrong with an input; pointers lead into it.
    pub fn check(&self, input: &Value) -> Vec<Pointed> {
        self.0
            .iter_errors(input)
            .map(|error| Pointed::new(error.instance_path().as_str(), error.to_string()))
            .collect()
    }
}

//! What actions can be asked for: each tool by its name, with the form of what it is given.
//!
//! A definition is checked against a [`Catalogue`] where it is made; the worker checks again what templates came to.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::pipeline::extent;
use crate::pipeline::findings::is_name;
use crate::pipeline::schema::Schema;
use crate::problem::Pointed;
use crate::secret::Mask;

/// The longest name.
const LONGEST_NAME: usize = 64;

/// What is said of a tool. Its schema is compiled once.
#[derive(Debug)]
pub struct Spec {
    name: String,
    description: String,
    schema: Schema,
    needs: Option<Needs>,
}

/// What a tool needs from the operator of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needs {
    /// A sentence.
    pub text: String,
    /// The worker's setting that gives it, if it is one.
    pub setting: Option<String>,
}

impl Needs {
    /// What a setting gives.
    pub fn setting(setting: &str, text: &str) -> Self {
        Self { text: text.to_owned(), setting: Some(setting.to_owned()) }
    }
}

impl Spec {
    /// A tool whose input is as `schema` says: JSON Schema, draft 2020-12 unless it names another. Where it describes a
    /// field, the description completes the sentence "must be …".
    ///
    /// # Errors
    /// When the name is none, or the schema does not compile; pointers lead into `{name, schema}`.
    pub fn new(
        name: impl Into<String>,
        description: impl Into<String>,
        schema: Value,
        needs: Option<Needs>,
    ) -> Result<Self, Vec<Pointed>> {
        let name = name.into();
        if !is_name(&name, LONGEST_NAME) {
            let form = "must be made of letters, digits, `.`, `_` and `-`, a letter or digit first, at most 64";
            return Err(vec![Pointed::new("/name", form)]);
        }
        let within =
            |error: Pointed| Pointed::new(format!("/schema{}", error.pointer), error.detail);
        let errors = extent::check(&schema);
        if !errors.is_empty() {
            return Err(errors.into_iter().map(within).collect());
        }
        let schema = Schema::new(schema).map_err(|error| vec![within(error)])?;
        Ok(Self { name, description: description.into(), schema, needs })
    }

    /// What an action says to ask for it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it does, for people and for models.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// The JSON Schema of its input.
    pub fn input_schema(&self) -> &Value {
        &self.schema.text
    }

    /// What it needs from the operator of a worker.
    pub fn needs(&self) -> Option<&Needs> {
        self.needs.as_ref()
    }

    pub(crate) fn schema(&self) -> &Schema {
        &self.schema
    }

    /// What is wrong with an input that is rendered. What messages quote of it is masked before it is shortened.
    pub fn faults(&self, input: &Value, mask: &Mask) -> Vec<Pointed> {
        self.schema.faults(input, || mask.value(input.clone()))
    }
}

/// Tools by their names; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Catalogue(Arc<BTreeMap<String, Arc<Spec>>>);

impl Catalogue {
    /// The tool of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<Spec>> {
        self.0.get(name)
    }

    /// All names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// All tools, by name.
    pub fn specs(&self) -> impl Iterator<Item = &Arc<Spec>> {
        self.0.values()
    }

    /// These, and `more`, which take the place of those of the same name.
    #[must_use]
    pub fn with(&self, more: impl IntoIterator<Item = Arc<Spec>>) -> Self {
        let mut specs = BTreeMap::clone(&self.0);
        specs.extend(more.into_iter().map(|spec| (spec.name.clone(), spec)));
        Self(Arc::new(specs))
    }
}

impl FromIterator<Spec> for Catalogue {
    fn from_iter<T: IntoIterator<Item = Spec>>(specs: T) -> Self {
        Self::default().with(specs.into_iter().map(Arc::new))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use serde_json::json;

    use super::*;

    /// Three tools, such as definitions ask for.
    pub(crate) fn catalogue() -> Catalogue {
        let schema = |required: &str, properties: Value| {
            json!({
                "type": "object", "required": [required], "additionalProperties": false, "properties": properties,
                "allOf": [{
                    "not": {"required": ["json", "text"]},
                    "description": "a request with one body: keep one of `json`, `text`",
                }],
            })
        };
        let url = json!({
            "type": "string", "pattern": "^(?i)(https?://.|.*\\{[{%])",
            "description": "a URL that begins with http:// or https://",
        });
        let scalar = json!({"type": ["string", "number", "boolean"], "description": "a string, a number or a boolean"});
        let call = schema(
            "url",
            json!({
                "url": url, "json": {}, "text": {"type": "string"},
                "headers": {"type": "object", "additionalProperties": scalar.clone(), "description": "an object of strings"},
                "either": {"anyOf": [{"type": "integer"}, {"properties": {"n": {"type": "integer"}}, "type": "object"}],
                    "description": "a number, or `{n}`"},
            }),
        );
        let argv = json!({
            "type": "array", "minItems": 1, "items": scalar, "description": "a list: the program, and its arguments",
        });
        let tools = [
            ("echo", json!({})),
            ("call_api", call),
            ("run_command", schema("argv", json!({"argv": argv}))),
        ];
        tools.into_iter().map(|(name, schema)| Spec::new(name, "", schema, None).unwrap()).collect()
    }

    #[test]
    fn what_is_rendered_is_checked_whole_and_quoted_without_secrets() {
        let tools = catalogue();
        let call = tools.get("call_api").unwrap();
        let mask = Mask::new(
            ["s3cret-and-long-enough-to-be-cut-where-messages-cut-what-they-quote"].into_iter(),
        );
        let url = "x://s3cret-and-long-enough-to-be-cut-where-messages-cut-what-they-quote/";
        assert_eq!(
            call.faults(&json!({"url": url}), &mask),
            [Pointed::new(
                "/url",
                "must be a URL that begins with http:// or https://, and is `x://***/`"
            )]
        );
        assert_eq!(call.faults(&json!({"url": "http://a"}), &mask), []);
        let faults =
            call.faults(&json!({"url": "http://a", "headers": {"a": "{{ x }}", "b": []}}), &mask);
        assert_eq!(faults[0].pointer, "/headers/b");
        assert_eq!(faults.len(), 1);
        // A template may be anything, but only before it is rendered.
        let mut findings = Default::default();
        call.schema().check(
            &json!({"url": "{{ x }}", "either": {"n": "{{ x }}"}}),
            "",
            &mut findings,
        );
        assert_eq!(findings.errors, []);
        assert_eq!(
            call.faults(&json!({"url": "http://a", "either": {"n": "{{ x }}"}}), &mask)[0].pointer,
            "/either"
        );
    }

    #[test]
    fn a_spec_that_cannot_be_is_refused_with_its_place() {
        let refused =
            |name, schema| Spec::new(name, "", schema, None).unwrap_err()[0].pointer.clone();
        assert_eq!(refused("a b", json!({})), "/name");
        assert_eq!(refused("a", json!({"type": "objekt"})), "/schema/type");
        assert!(
            refused("a", json!({"properties": {"x": {"$ref": "https://example.com/x"}}}))
                .starts_with("/schema")
        );
    }

    #[test]
    fn a_later_tool_takes_the_place_of_one_of_its_name() {
        let more = Spec::new("echo", "another", json!({"type": "object"}), None).unwrap();
        let tools = catalogue().with([Arc::new(more)]);
        assert_eq!(tools.names().collect::<Vec<_>>(), ["call_api", "echo", "run_command"]);
        assert_eq!(tools.get("echo").unwrap().description(), "another");
        assert_eq!(catalogue().get("echo").unwrap().description(), "", "the first is as it was");
    }
}

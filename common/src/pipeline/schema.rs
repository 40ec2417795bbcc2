//! What a JSON Schema finds wrong, in sentences that say how to mend it.

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{PatternOptions, ValidationError, Validator};
use serde_json::Value;

use super::findings::{Findings, kind, shown, unknown};
use crate::expression::is_marked;
use crate::problem::{Pointed, quoted, token};

/// The longest message: a schema's own words may be long.
const LONGEST: usize = 500;

/// A compiled schema whose `description`s complete the sentence "must be …".
#[derive(Debug)]
pub(crate) struct Schema {
    pub(crate) text: Value,
    validator: Validator,
}

impl Schema {
    pub(crate) fn new(text: Value) -> Result<Self, Pointed> {
        let validator = compile(&text)?;
        Ok(Self { text, validator })
    }

    /// Checks what is not rendered yet: what is wrong with a template is not known, and no error here.
    pub(crate) fn check(&self, config: &Value, pointer: &str, findings: &mut Findings) {
        if self.validator.is_valid(config) {
            return;
        }
        let open = |error: &ValidationError<'_>| match error.kind() {
            ValidationErrorKind::AnyOf { .. }
            | ValidationErrorKind::OneOfNotValid { .. }
            | ValidationErrorKind::OneOfMultipleValid { .. } => holds_mark(error.instance()),
            _ => error.instance().as_str().is_some_and(is_marked),
        };
        for error in self.validator.iter_errors(config).filter(|error| !open(error)) {
            for Pointed { pointer: below, detail } in pointed(&error, Some(&self.text), None) {
                findings.error(format!("{pointer}{below}"), detail);
            }
        }
    }

    /// What is wrong with a value that is complete. What messages quote is taken from `shown`, which is the same without
    /// its secrets.
    pub(crate) fn faults(&self, value: &Value, shown: impl FnOnce() -> Value) -> Vec<Pointed> {
        if self.validator.is_valid(value) {
            return Vec::new();
        }
        let shown = shown();
        let errors = self.validator.iter_errors(value);
        errors.flat_map(|error| pointed(&error, Some(&self.text), Some(&shown))).collect()
    }
}

/// Whether there is a template anywhere in it.
pub(crate) fn holds_mark(value: &Value) -> bool {
    match value {
        Value::String(text) => is_marked(text),
        Value::Array(items) => items.iter().any(holds_mark),
        Value::Object(fields) => fields.values().any(holds_mark),
        _ => false,
    }
}

/// Compiles a schema: draft 2020-12 unless it names another, no network, no files, patterns in linear time.
pub(super) fn compile(schema: &Value) -> Result<Validator, Pointed> {
    jsonschema::options()
        .offline()
        .with_pattern_options(PatternOptions::regex().size_limit(1 << 20))
        .build(schema)
        .map_err(|error| {
            Pointed::new(error.instance_path().as_str(), short(sentence(&error, error.instance())))
        })
}

/// What is wrong, with pointers into what was checked. `schema` may describe its fields in words; what is quoted is
/// taken from `shown`, if given.
pub(super) fn pointed(
    error: &ValidationError<'_>,
    schema: Option<&Value>,
    shown_in: Option<&Value>,
) -> Vec<Pointed> {
    let at = error.instance_path().as_str();
    let instance: &Value = match shown_in {
        Some(whole) => whole.pointer(at).unwrap_or(&Value::Null),
        None => error.instance(),
    };
    let below = |key: &str| format!("{at}/{}", token(key));
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
            let known = known_fields(error, schema);
            unexpected
                .iter()
                .map(|key| Pointed::new(below(key), known_or_not(key, known.as_deref())))
                .collect()
        }
        ValidationErrorKind::Required { property } => {
            let key = property.as_str().unwrap_or_default();
            let field = description(schema, error, &format!("properties/{}", token(key)));
            let detail = match field {
                Some(form) => format!("`{key}` is missing; give {form}"),
                None => format!("{} is missing", quoted(key)),
            };
            vec![Pointed::new(below(key), detail)]
        }
        kind => {
            let detail = match (description(schema, error, ""), kind) {
                (Some(form), ValidationErrorKind::Not { .. }) => format!("must be {form}"),
                (Some(form), _) => format!("must be {form}, and is {}", shown(instance)),
                (None, _) => sentence(error, instance),
            };
            vec![Pointed::new(at, short(detail))]
        }
    }
}

/// In our words where they are better, else in the crate's, which must not quote the value: it may be huge.
fn sentence(error: &ValidationError<'_>, instance: &Value) -> String {
    match error.kind() {
        ValidationErrorKind::Type { kind: TypeKind::Single(wanted) } => {
            format!("must be of type {wanted}, and is {}", kind(instance))
        }
        ValidationErrorKind::Enum { options } => {
            format!("must be one of {options}, and is {}", shown(instance))
        }
        ValidationErrorKind::Constant { expected_value } => {
            format!("must be {expected_value}, and is {}", shown(instance))
        }
        ValidationErrorKind::Pattern { pattern } => {
            format!("must match the pattern {}, and is {}", quoted(pattern), shown(instance))
        }
        ValidationErrorKind::FalseSchema => "nothing is allowed here".to_owned(),
        _ => error.masked_with("the value").to_string(),
    }
}

fn known_or_not(key: &str, known: Option<&[&str]>) -> String {
    match known {
        Some(known) => unknown(key, known),
        None => format!("there is no field {}; leave it out", quoted(key)),
    }
}

/// The fields that the schema has where the error is.
fn known_fields<'a>(
    error: &ValidationError<'_>,
    schema: Option<&'a Value>,
) -> Option<Vec<&'a str>> {
    let parent = error.schema_path().as_str().rsplit_once('/')?.0;
    let properties = schema?.pointer(&format!("{parent}/properties"))?.as_object()?;
    Some(properties.keys().map(String::as_str).collect())
}

/// What the schema calls the form of what the error is about.
fn description<'a>(
    schema: Option<&'a Value>,
    error: &ValidationError<'_>,
    below: &str,
) -> Option<&'a str> {
    let parent = error.schema_path().as_str().rsplit_once('/')?.0;
    let below = if below.is_empty() { String::new() } else { format!("/{below}") };
    schema?.pointer(&format!("{parent}{below}/description"))?.as_str()
}

fn short(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(LONGEST) {
        text.truncate(end);
        text.push('…');
    }
    text
}

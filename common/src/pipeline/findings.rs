//! What is found wrong while reading, each with its place.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::duration;
use crate::problem::{Pointed, quoted, token};

/// Errors and warnings so far.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) errors: Vec<Pointed>,
    pub(crate) warnings: Vec<Pointed>,
}

impl Findings {
    pub(crate) fn error(&mut self, pointer: impl Into<String>, detail: impl Into<String>) {
        self.errors.push(Pointed::new(pointer, detail));
    }

    pub(crate) fn warn(&mut self, pointer: impl Into<String>, detail: impl Into<String>) {
        self.warnings.push(Pointed::new(pointer, detail));
    }

    /// The fields of an object, or an error that it is none.
    pub(crate) fn fields<'a>(
        &mut self,
        value: &'a Value,
        pointer: String,
    ) -> Option<Fields<'a, '_>> {
        match value.as_object() {
            Some(map) => Some(Fields { map, pointer, findings: self }),
            None => {
                self.error(pointer, format!("must be an object, and is {}", kind(value)));
                None
            }
        }
    }
}

/// An object that is read field by field. A field that is null counts as left out.
pub(crate) struct Fields<'a, 'f> {
    map: &'a Map<String, Value>,
    pointer: String,
    pub(crate) findings: &'f mut Findings,
}

impl<'a, 'f> Fields<'a, 'f> {
    /// The fields of the whole.
    pub(crate) fn of(map: &'a Map<String, Value>, findings: &'f mut Findings) -> Self {
        Self { map, pointer: String::new(), findings }
    }
}

impl<'a> Fields<'a, '_> {
    pub(crate) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &'a String> + use<'a> {
        self.map.keys()
    }

    /// The pointer to a field.
    pub(crate) fn at(&self, key: &str) -> String {
        format!("{}/{}", self.pointer, token(key))
    }

    pub(crate) fn error(&mut self, key: &str, detail: impl Into<String>) {
        let pointer = self.at(key);
        self.findings.error(pointer, detail);
    }

    fn must_be(&mut self, key: &str, form: &str, value: &Value) {
        self.error(key, format!("must be {form}, and is {}", shown(value)));
    }

    /// Complains of a field that must be there.
    pub(crate) fn missing(&mut self, key: &str, form: &str) {
        self.error(key, format!("`{key}` is missing; give {form}"));
    }

    pub(crate) fn text(&mut self, key: &str) -> Option<&'a str> {
        let value = self.get(key)?;
        if value.is_string() {
            return value.as_str();
        }
        self.must_be(key, "a string", value);
        None
    }

    /// A name or an id, if it has the form of one.
    pub(crate) fn name(&mut self, key: &str, longest: usize) -> Option<&'a str> {
        let text = self.text(key)?;
        if !is_name(text, longest) {
            let form = format!(
                "letters, digits, `.`, `_` and `-`, a letter or digit first, at most {longest}"
            );
            self.error(key, format!("must be made of {form}, and is {}", quoted(text)));
        }
        Some(text)
    }

    pub(crate) fn boolean(&mut self, key: &str) -> Option<bool> {
        let value = self.get(key)?;
        if !value.is_boolean() {
            self.must_be(key, "true or false", value);
        }
        value.as_bool()
    }

    pub(crate) fn duration(&mut self, key: &str) -> Option<Duration> {
        let value = self.get(key)?;
        let Some(text) = value.as_str() else {
            self.must_be(key, duration::FORM, value);
            return None;
        };
        duration::parse(text).map_err(|error| self.error(key, error.to_string())).ok()
    }

    /// A duration that is longer than nothing.
    pub(crate) fn positive_duration(&mut self, key: &str) -> Option<Duration> {
        let duration = self.duration(key)?;
        if duration.is_zero() {
            self.error(key, "must be longer than 0s");
            return None;
        }
        Some(duration)
    }

    pub(crate) fn integer(&mut self, key: &str, range: RangeInclusive<u32>) -> Option<u32> {
        let value = self.get(key)?;
        let integer = value.as_u64().and_then(|number| u32::try_from(number).ok());
        let integer = integer.filter(|integer| range.contains(integer));
        if integer.is_none() {
            let form = format!("a whole number from {} to {}", range.start(), range.end());
            self.must_be(key, &form, value);
        }
        integer
    }

    pub(crate) fn number(&mut self, key: &str, range: RangeInclusive<f64>) -> Option<f64> {
        let value = self.get(key)?;
        let number = value.as_f64().filter(|number| range.contains(number));
        if number.is_none() {
            self.must_be(
                key,
                &format!("a number from {} to {}", range.start(), range.end()),
                value,
            );
        }
        number
    }

    /// One of a few words.
    pub(crate) fn word<T: Copy>(&mut self, key: &str, words: &[(&str, T)]) -> Option<T> {
        let value = self.get(key)?;
        let found = words.iter().find(|(word, _)| Some(*word) == value.as_str());
        if found.is_none() {
            let words: Vec<_> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
            self.must_be(key, &format!("one of {}", words.join(", ")), value);
        }
        found.map(|(_, meaning)| *meaning)
    }

    /// The items of a list.
    pub(crate) fn list(&mut self, key: &str) -> &'a [Value] {
        match self.get(key) {
            Some(Value::Array(items)) => items,
            Some(value) => {
                self.must_be(key, "a list", value);
                &[]
            }
            None => &[],
        }
    }

    /// Complains of fields that are not among the known ones.
    pub(crate) fn only(&mut self, known: &[&str]) {
        for key in self.map.keys().filter(|key| !known.contains(&key.as_str())) {
            let detail = unknown(key, known);
            self.error(key, detail);
        }
    }
}

/// That there is no such field, and which there are.
pub(crate) fn unknown(key: &str, known: &[&str]) -> String {
    let near = known.iter().find(|known| known.eq_ignore_ascii_case(&key.replace('-', "_")));
    match near {
        Some(near) => format!("there is no field {}; did you mean `{near}`?", quoted(key)),
        None if known.is_empty() => {
            format!("there is no field {}; there are none here", quoted(key))
        }
        None => format!("there is no field {}; there are `{}`", quoted(key), known.join("`, `")),
    }
}

/// Whether a text can be the name of a pipeline or a lane, or the id of a node.
pub(crate) fn is_name(text: &str, longest: usize) -> bool {
    text.len() <= longest
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

/// What kind of value it is.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The value itself if it is short, else what kind it is.
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => quoted(text),
        Value::Array(_) | Value::Object(_) => kind(value).to_owned(),
    }
}

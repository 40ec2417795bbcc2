//! Reading a JSON object strictly: all that is wrong with it at once, each with its pointer.

use std::time::Duration;

use common::duration;
use common::problem::{Pointed, token};
use serde_json::{Map, Value};

/// An object that is being read. What has not been taken when it is finished is unknown.
pub(crate) struct Fields {
    at: String,
    left: Map<String, Value>,
    asked: Vec<&'static str>,
    faults: Vec<Pointed>,
}

impl Fields {
    /// Reads the object at pointer `at`.
    pub(crate) fn of(value: Value, at: impl Into<String>) -> Self {
        let at = at.into();
        let (left, faults) = match value {
            Value::Object(fields) => (fields, Vec::new()),
            _ => (Map::new(), vec![Pointed::new(at.clone(), "must be an object")]),
        };
        Self { at, left, asked: Vec::new(), faults }
    }

    /// The field, unless it is absent or null.
    pub(crate) fn take(&mut self, name: &'static str) -> Option<Value> {
        self.asked.push(name);
        self.left.remove(name).filter(|value| !value.is_null())
    }

    /// Notes that a field is wrong.
    pub(crate) fn fault(&mut self, name: &str, detail: impl Into<String>) {
        let pointer = self.pointer(name);
        self.faults.push(Pointed::new(pointer, detail));
    }

    /// Whether a field was found wrong.
    pub(crate) fn has_fault(&self, name: &str) -> bool {
        let pointer = self.pointer(name);
        self.faults.iter().any(|fault| fault.pointer == pointer)
    }

    /// Takes faults over that name their place themselves.
    pub(crate) fn faults(&mut self, faults: Vec<Pointed>) {
        self.faults.extend(faults);
    }

    fn pointer(&self, name: &str) -> String {
        format!("{}/{}", self.at, token(name))
    }

    /// A string.
    pub(crate) fn string(&mut self, name: &'static str) -> Option<String> {
        match self.take(name)? {
            Value::String(text) => Some(text),
            _ => {
                self.fault(name, "must be a string");
                None
            }
        }
    }

    /// A duration such as `"30s"`.
    pub(crate) fn duration(&mut self, name: &'static str) -> Option<Duration> {
        let text = self.string(name)?;
        duration::parse(&text).map_err(|error| self.fault(name, error.to_string())).ok()
    }

    /// Up to `most` different strings, each of 1 to `longest` bytes.
    pub(crate) fn strings(
        &mut self,
        name: &'static str,
        most: usize,
        longest: usize,
    ) -> Vec<String> {
        let Some(value) = self.take(name) else { return Vec::new() };
        let Value::Array(items) = value else {
            self.fault(name, "must be a list of strings");
            return Vec::new();
        };
        if items.len() > most {
            self.fault(name, format!("may have {most} items at most"));
            return Vec::new();
        }
        let mut strings = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            match item {
                Value::String(text) if (1..=longest).contains(&text.len()) => {
                    if !strings.contains(&text) {
                        strings.push(text);
                    }
                }
                _ => {
                    let pointer = format!("{}/{index}", self.pointer(name));
                    self.faults.push(Pointed::new(
                        pointer,
                        format!("must be a string of 1 to {longest} bytes"),
                    ));
                }
            }
        }
        strings
    }

    /// All that is wrong, what was not asked for included; `read` if nothing is.
    pub(crate) fn finish<T>(mut self, read: T) -> Result<T, Vec<Pointed>> {
        let known = match self.asked.as_slice() {
            [] => "no field is".to_owned(),
            asked => format!("known are: {}", asked.join(", ")),
        };
        for name in self.left.keys() {
            let pointer = format!("{}/{}", self.at, token(name));
            self.faults.push(Pointed::new(pointer, format!("is not known here; {known}")));
        }
        if self.faults.is_empty() { Ok(read) } else { Err(self.faults) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn all_that_is_wrong_is_found_at_once() {
        let mut fields = Fields::of(
            json!({"tags": ["a", "", 3], "delay": "soon", "inptu": 1, "a/b": null}),
            "/items/0",
        );
        fields.strings("tags", 8, 16);
        fields.duration("delay");
        fields.take("input");
        let faults = fields.finish(()).expect_err("it is wrong");
        let pointers: Vec<&str> = faults.iter().map(|fault| fault.pointer.as_str()).collect();
        assert_eq!(
            pointers,
            [
                "/items/0/tags/1",
                "/items/0/tags/2",
                "/items/0/delay",
                "/items/0/a~1b",
                "/items/0/inptu"
            ]
        );
    }

    #[test]
    fn null_is_absent() {
        let mut fields = Fields::of(json!({"tags": null, "delay": null}), "");
        assert!(fields.strings("tags", 8, 16).is_empty());
        assert!(fields.duration("delay").is_none());
        assert!(fields.finish(()).is_ok());
    }
}

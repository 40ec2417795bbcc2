//! Takes the values of secrets out of whatever a node left.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use serde_json::Value;

use super::Masker;

/// What stands in their place.
pub(super) const MASK: &str = "***";

/// Values that must not show.
#[derive(Default, Clone)]
pub struct Mask {
    /// The longest first, so that one that is part of another does not leave the rest.
    forms: Vec<String>,
}

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mask({})", self.forms.len())
    }
}

impl Mask {
    /// Masks these values, and what they look like in JSON, in an address, and in base64.
    pub fn new<'a>(values: impl Iterator<Item = &'a str>) -> Self {
        let mut forms: Vec<String> = values.flat_map(forms).filter(|form| form.len() > 2).collect();
        forms.sort_by(|a, b| longest_first(a, b));
        forms.dedup();
        Self { forms }
    }

    /// These, and `more` values.
    #[must_use]
    pub fn with<'a>(&self, more: impl Iterator<Item = &'a str>) -> Self {
        let mut both = Self::new(more);
        if !both.is_empty() {
            both.forms.extend(self.forms.iter().cloned());
            both.forms.sort_by(|a, b| longest_first(a, b));
            return both;
        }
        self.clone()
    }

    /// Whether there is nothing to mask.
    pub fn is_empty(&self) -> bool {
        self.forms.is_empty()
    }

    /// Masks a stream.
    pub fn masker(self) -> Masker {
        Masker::new(self)
    }

    /// What must not show, the longest first.
    pub(super) fn forms(&self) -> impl Iterator<Item = &[u8]> {
        self.forms.iter().map(String::as_bytes)
    }

    /// A text without them.
    pub fn text(&self, text: &str) -> String {
        self.forms.iter().fold(text.to_owned(), |text, form| {
            if text.contains(form.as_str()) { text.replace(form.as_str(), MASK) } else { text }
        })
    }

    /// A value without them, in keys as well.
    pub fn value(&self, value: Value) -> Value {
        if self.is_empty() {
            return value;
        }
        match value {
            Value::String(text) => Value::String(self.text(&text)),
            Value::Array(items) => items.into_iter().map(|item| self.value(item)).collect(),
            Value::Object(fields) => fields
                .into_iter()
                .map(|(key, field)| (self.text(&key), self.value(field)))
                .collect(),
            // A number may be a secret's digits.
            Value::Number(number) => {
                let text = number.to_string();
                if self.forms.contains(&text) {
                    Value::String(MASK.to_owned())
                } else {
                    Value::Number(number)
                }
            }
            other => other,
        }
    }
}

fn longest_first(a: &str, b: &str) -> std::cmp::Ordering {
    b.len().cmp(&a.len()).then_with(|| a.cmp(b))
}

/// What a value may look like in what a node says.
fn forms(value: &str) -> Vec<String> {
    let quoted = Value::String(value.to_owned()).to_string();
    let mut forms = vec![
        value.to_owned(),
        value.trim().to_owned(),
        quoted[1..quoted.len() - 1].to_owned(),
        percent(value, "-._~"),
        percent(value, "-._~!$&'()*+,;=:@/?").to_owned(),
        percent(value, "*-._").replace("%20", "+"),
        STANDARD.encode(value),
        STANDARD_NO_PAD.encode(value),
        URL_SAFE.encode(value),
        URL_SAFE_NO_PAD.encode(value),
    ];
    // What has several lines is often shown line by line.
    forms.extend(value.lines().filter(|line| line.len() >= 8).map(str::to_owned));
    forms
}

/// As it is in an address, but for what is `plain` there.
fn percent(text: &str, plain: &str) -> String {
    let mut bytes = BTreeMap::new();
    text.bytes()
        .map(|byte| {
            let c = char::from(byte);
            if c.is_ascii_alphanumeric() || plain.contains(c) {
                c.to_string()
            } else {
                bytes.entry(byte).or_insert_with(|| format!("%{byte:02X}")).clone()
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_shows_in_none_of_its_forms() {
        let secret = "p@ss \"word\"/1";
        let mask = Mask::new([secret].into_iter());
        let quoted = json!(secret).to_string();
        for text in [
            format!("login with {secret} failed"),
            format!("body was {quoted}"),
            "https://h/?q=p%40ss%20%22word%22%2F1".to_owned(),
            "https://h/?q=p%40ss+%22word%22%2F1".to_owned(),
            format!("Basic {}", STANDARD.encode(secret)),
        ] {
            let masked = mask.text(&text);
            assert!(masked.contains(MASK) && !masked.contains("ss"), "{text}: {masked}");
        }
        assert_eq!(mask.text("nothing of it"), "nothing of it");
    }

    #[test]
    fn it_is_masked_deep_in_a_value() {
        let mask = Mask::new(["12345678", "sesame-open"].into_iter());
        let value =
            json!({"a": ["x sesame-open", {"sesame-open": 12345678}], "b": 1234567, "c": null});
        let masked = json!({"a": ["x ***", {"***": "***"}], "b": 1234567, "c": null});
        assert_eq!(mask.value(value), masked);
    }

    #[test]
    fn one_within_another_leaves_no_rest() {
        let mask = Mask::new(["open-sesame", "open-sesame-please"].into_iter());
        assert_eq!(mask.text("open-sesame-please"), MASK);
        let mask = Mask::new(["sesame"].into_iter()).with(["open-sesame"].into_iter());
        assert_eq!(mask.text("open-sesame, sesame"), "***, ***");
    }
}

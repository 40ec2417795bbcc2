//! JSON to the engine's values and back, unharmed or not at all.

use minijinja::Value as Handed;
use minijinja::value::ValueKind;
use serde_json::{Map, Number, Value};

/// How deep a value may be nested: as deep as JSON that is read.
const DEEPEST: usize = 128;
/// How many values one result may hold: shared lists are small for the engine, and huge when written.
const MOST_VALUES: usize = 2_000_000;
/// How many bytes of text one result may hold.
const MOST_BYTES: usize = 32 << 20;

/// A JSON value for the engine.
pub(super) fn from_json(value: &Value) -> Result<Handed, String> {
    handed(value, DEEPEST)
}

fn handed(value: &Value, depth: usize) -> Result<Handed, String> {
    let depth_below = || depth.checked_sub(1).ok_or_else(too_deep);
    Ok(match value {
        Value::Null => Handed::from(()),
        Value::Bool(value) => Handed::from(*value),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(integer), _) => Handed::from(integer),
            (_, Some(integer)) => Handed::from(integer),
            _ => Handed::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => Handed::from(text.as_str()),
        Value::Array(items) => {
            let below = depth_below()?;
            let items: Result<Vec<_>, _> = items.iter().map(|item| handed(item, below)).collect();
            Handed::from(items?)
        }
        Value::Object(fields) => {
            let below = depth_below()?;
            let pairs = fields.iter().map(|(key, field)| Ok((key.as_str(), handed(field, below)?)));
            Handed::from_pairs(pairs.collect::<Result<Vec<_>, String>>()?)
        }
    })
}

/// A result of the engine as JSON.
pub(super) fn to_json(value: &Handed) -> Result<Value, String> {
    Writer { values: MOST_VALUES, bytes: MOST_BYTES }.json(value, DEEPEST)
}

/// What may still be written.
struct Writer {
    values: usize,
    bytes: usize,
}

impl Writer {
    fn json(&mut self, value: &Handed, depth: usize) -> Result<Value, String> {
        self.values = self.values.checked_sub(1).ok_or_else(too_much)?;
        match value.kind() {
            ValueKind::Undefined => Err("the value is undefined".to_owned()),
            ValueKind::None => Ok(Value::Null),
            ValueKind::Bool => Ok(Value::Bool(value.is_true())),
            ValueKind::Number => number(value).map(Value::Number),
            ValueKind::String => self.text(value.as_str().unwrap_or_default()).map(Value::String),
            ValueKind::Seq | ValueKind::Iterable => {
                let below = depth.checked_sub(1).ok_or_else(too_deep)?;
                let items = value.try_iter().map_err(|error| super::engine::sentence(&error))?;
                items
                    .map(|item| self.json(&item, below))
                    .collect::<Result<_, _>>()
                    .map(Value::Array)
            }
            ValueKind::Map => {
                let below = depth.checked_sub(1).ok_or_else(too_deep)?;
                self.map(value, below).map(Value::Object)
            }
            ValueKind::Invalid => Err(invalid(value)),
            kind => Err(format!("a value of kind `{kind}` cannot be written as JSON")),
        }
    }

    fn map(&mut self, value: &Handed, below: usize) -> Result<Map<String, Value>, String> {
        let mut fields = Map::new();
        for key in value.try_iter().map_err(|error| super::engine::sentence(&error))? {
            let field = value.get_item(&key).map_err(|error| super::engine::sentence(&error))?;
            let Some(name) = key.as_str() else {
                return Err(format!(
                    "the key `{}` of a map is not a string",
                    excerpt(&key.to_string())
                ));
            };
            fields.insert(self.text(name)?, self.json(&field, below)?);
        }
        Ok(fields)
    }

    fn text(&mut self, text: &str) -> Result<String, String> {
        self.bytes = self.bytes.checked_sub(text.len()).ok_or_else(too_much)?;
        Ok(text.to_owned())
    }
}

fn number(value: &Handed) -> Result<Number, String> {
    if value.is_integer() {
        let integer = i64::try_from(value.clone()).map(Number::from);
        return integer
            .or_else(|_| u64::try_from(value.clone()).map(Number::from))
            .map_err(|_| format!("the integer {value} has more than 64 bits"));
    }
    f64::try_from(value.clone())
        .ok()
        .and_then(Number::from_f64)
        .ok_or_else(|| format!("the number {value} cannot be written as JSON"))
}

/// An invalid value is an error that was handed on; using it in any way says which.
fn invalid(value: &Handed) -> String {
    match value.get_item_by_index(0) {
        Err(error) => super::engine::sentence(&error),
        Ok(_) => "the value is invalid".to_owned(),
    }
}

fn too_deep() -> String {
    format!("the value is nested deeper than {DEEPEST} levels")
}

fn too_much() -> String {
    format!("the value holds over {MOST_VALUES} values or {} MiB of text", MOST_BYTES >> 20)
}

/// What a value is, for messages: its kind, and the value itself when it is short.
pub(super) fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => format!("the string \"{}\"", excerpt(text)),
        Value::Array(items) => format!("a list of {}", items.len()),
        Value::Object(_) => "an object".to_owned(),
    }
}

/// The beginning of a text, for messages.
pub(super) fn excerpt(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

//! Definitions in YAML.

use serde_json::Value;

/// Reads YAML into the JSON that it stands for.
pub fn from_yaml(text: &str) -> Result<Value, String> {
    serde_saphyr::from_str(text).map_err(|error| error.to_string())
}

//! Definitions in YAML.

use serde_json::Value;

/// How many values a document may hold, aliases followed.
const MOST_VALUES: usize = 2_000_000;

/// Reads YAML into the JSON that it stands for. Aliases are followed within a budget; a repeated key is an error.
pub fn from_yaml(text: &str) -> Result<Value, String> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_reader_input_bytes: Some(super::check::MOST_BYTES),
            max_events: MOST_VALUES,
            max_nodes: MOST_VALUES,
            max_depth: 100,
            max_documents: 1,
            max_total_scalar_bytes: 2 * super::check::MOST_BYTES,
            max_aliases: 1_000,
            max_anchors: 1_000,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 100_000,
            max_replay_stack_depth: 16,
        },
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| error.to_string())
}

//! What a tool is given.

mod scalar;

use common::problem::Pointed;
use common::secret::Mask;
use common::tool::Spec;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub(crate) use self::scalar::{Scalar, Scalars};
use crate::Failure;

/// How many faults a message lists.
const MOST: usize = 5;

/// Checks what templates came to. A mistake is permanent, and names its place.
pub(crate) fn check(spec: &Spec, input: &Value, mask: &Mask) -> Result<(), Failure> {
    let faults = spec.faults(input, mask);
    if faults.is_empty() {
        return Ok(());
    }
    let said = |Pointed { pointer, detail }: &Pointed| match pointer.as_str() {
        "" => detail.clone(),
        pointer => format!("{pointer}: {detail}"),
    };
    let mut message = faults.iter().take(MOST).map(said).collect::<Vec<_>>().join("; ");
    if faults.len() > MOST {
        message = format!("{message}; and {} more", faults.len() - MOST);
    }
    Err(Failure::permanent(format!("config of {}: {message}", spec.name())))
}

/// Reads an input that fits its schema; what a schema cannot say is found here.
pub(crate) fn read<T: DeserializeOwned>(action: &str, input: Value) -> Result<T, Failure> {
    serde_path_to_error::deserialize(input).map_err(|error| {
        let path = error.path().to_string();
        let place = if path == "." { String::new() } else { format!(", `{path}`") };
        Failure::permanent(format!("config of {action}{place}: {}", error.inner()))
    })
}

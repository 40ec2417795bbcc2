//! A value that stands for a text. A template that is one whole expression keeps its type, so that
//! `["sleep", "{{ input.seconds }}"]` arrives as a text and a number.

use serde::Deserialize;
use serde_json::Number;

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "expected a string, a number or a boolean")]
pub(crate) enum Scalar {
    Text(String),
    Number(Number),
    Bool(bool),
}

impl Scalar {
    pub(crate) fn into_text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Number(number) => number.to_string(),
            Self::Bool(bool) => bool.to_string(),
        }
    }
}

/// One scalar, or a list of them: a key that may be repeated.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "expected a string, a number, a boolean or a list of them")]
pub(crate) enum Scalars {
    One(Scalar),
    Many(Vec<Scalar>),
}

impl Scalars {
    pub(crate) fn into_texts(self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one.into_text()],
            Self::Many(many) => many.into_iter().map(Scalar::into_text).collect(),
        }
    }
}

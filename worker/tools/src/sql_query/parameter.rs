//! From JSON to a parameter.

use std::error::Error;
use std::fmt;

use bytes::BytesMut;
use serde_json::Value;
use tokio_postgres::types::{Format, IsNull, ToSql, Type, to_sql_checked};

/// A value of `parameters`. Lists and objects are `jsonb`; of the rest, the statement says what it is: the server reads
/// `1` as whatever type `$1` has.
pub(super) struct Parameter<'a>(pub(super) &'a Value);

/// The client's own log shows parameters.
impl fmt::Debug for Parameter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Parameter")
    }
}

impl Parameter<'_> {
    pub(super) fn declared(&self) -> Type {
        match self.0 {
            Value::Array(_) | Value::Object(_) => Type::JSONB,
            _ => Type::UNKNOWN,
        }
    }
}

impl ToSql for Parameter<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self.0 {
            Value::Null => return Ok(IsNull::Yes),
            Value::String(text) => out.extend_from_slice(text.as_bytes()),
            other => out.extend_from_slice(other.to_string().as_bytes()),
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    to_sql_checked!();
}

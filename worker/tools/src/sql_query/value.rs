//! From a column's value to JSON.

use std::error::Error;
use std::fmt::Write as _;

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Utc};
use postgres_protocol::types;
use serde_json::{Value, json};
use tokio_postgres::fallible_iterator::FallibleIterator;
use tokio_postgres::types::{FromSql, Kind, Type};
use uuid::Uuid;

type Read = Result<Value, Box<dyn Error + Sync + Send>>;

/// A value as JSON.
pub(super) struct Json(pub(super) Value);

impl<'a> FromSql<'a> for Json {
    fn from_sql(kind: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        read(kind, raw).map(Self)
    }

    fn from_sql_null(_: &Type) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(Value::Null))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// Whether values of this type have a form in JSON.
pub(super) fn is_known(kind: &Type) -> bool {
    match kind.kind() {
        Kind::Array(of) | Kind::Domain(of) => is_known(of),
        Kind::Enum(_) => true,
        _ => reader(kind).is_some(),
    }
}

fn read(kind: &Type, raw: &[u8]) -> Read {
    match kind.kind() {
        Kind::Array(of) => array(of, raw),
        Kind::Domain(of) => read(of, raw),
        Kind::Enum(_) => text(raw),
        _ => reader(kind).ok_or("it has no form in JSON")?(raw),
    }
}

/// Exact, or a text: a `numeric` may have more digits than a number of JSON keeps.
fn reader(kind: &Type) -> Option<fn(&[u8]) -> Read> {
    Some(match *kind {
        Type::BOOL => |raw| Ok(json!(types::bool_from_sql(raw)?)),
        Type::INT2 => |raw| Ok(json!(types::int2_from_sql(raw)?)),
        Type::INT4 => |raw| Ok(json!(types::int4_from_sql(raw)?)),
        Type::INT8 => |raw| Ok(json!(types::int8_from_sql(raw)?)),
        Type::OID => |raw| Ok(json!(types::oid_from_sql(raw)?)),
        // By its own digits: 0.1 is not 0.10000000149011612.
        Type::FLOAT4 => |raw| float(types::float4_from_sql(raw)?.to_string().parse()?),
        Type::FLOAT8 => |raw| float(types::float8_from_sql(raw)?),
        Type::NUMERIC => numeric,
        Type::TEXT
        | Type::VARCHAR
        | Type::BPCHAR
        | Type::NAME
        | Type::UNKNOWN
        | Type::XML
        | Type::CHAR => text,
        Type::JSON => |raw| Ok(serde_json::from_slice(raw)?),
        Type::JSONB => |raw| Ok(serde_json::from_slice(raw.get(1..).unwrap_or_default())?),
        Type::UUID => |raw| Ok(json!(Uuid::from_bytes(types::uuid_from_sql(raw)?))),
        Type::BYTEA => |raw| Ok(Value::String(hex(raw))),
        Type::DATE => date,
        Type::TIME => |raw| {
            let time = NaiveTime::from_sql(&Type::TIME, raw)?;
            Ok(Value::String(time.format("%H:%M:%S%.6f").to_string()))
        },
        Type::TIMESTAMP => |raw| {
            moment(raw, |raw| {
                let at = NaiveDateTime::from_sql(&Type::TIMESTAMP, raw)?;
                Ok(Value::String(at.format("%Y-%m-%dT%H:%M:%S%.6f").to_string()))
            })
        },
        Type::TIMESTAMPTZ => |raw| {
            moment(raw, |raw| {
                let at = DateTime::<Utc>::from_sql(&Type::TIMESTAMPTZ, raw)?;
                Ok(Value::String(common::clock::text(&at)))
            })
        },
        Type::INET | Type::CIDR => |raw| {
            let inet = types::inet_from_sql(raw)?;
            let whole = if inet.addr().is_ipv4() { 32 } else { 128 };
            Ok(Value::String(match inet.netmask() {
                mask if mask == whole => inet.addr().to_string(),
                mask => format!("{}/{mask}", inet.addr()),
            }))
        },
        Type::VOID => |_| Ok(Value::Null),
        // An extension's: its number differs from database to database.
        _ if kind.name() == "citext" => text,
        _ => return None,
    })
}

fn text(raw: &[u8]) -> Read {
    Ok(Value::String(std::str::from_utf8(raw)?.to_owned()))
}

fn float(number: f64) -> Read {
    Ok(match number {
        // JSON has none of these.
        f64::INFINITY => json!("Infinity"),
        f64::NEG_INFINITY => json!("-Infinity"),
        number if number.is_nan() => json!("NaN"),
        number => json!(number),
    })
}

fn hex(raw: &[u8]) -> String {
    raw.iter().fold("\\x".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Unless it is the end of time.
fn moment(raw: &[u8], finite: impl FnOnce(&[u8]) -> Read) -> Read {
    match types::timestamp_from_sql(raw)? {
        i64::MAX => Ok(json!("infinity")),
        i64::MIN => Ok(json!("-infinity")),
        _ => finite(raw),
    }
}

fn date(raw: &[u8]) -> Read {
    match types::date_from_sql(raw)? {
        i32::MAX => Ok(json!("infinity")),
        i32::MIN => Ok(json!("-infinity")),
        _ => Ok(json!(NaiveDate::from_sql(&Type::DATE, raw)?.to_string())),
    }
}

/// Digits of base 10,000, the first of which counts 10,000 to the power of `weight`.
fn numeric(raw: &[u8]) -> Read {
    let mut parts = raw.chunks_exact(2).map(|pair| i16::from_be_bytes([pair[0], pair[1]]));
    let mut part = || parts.next().ok_or("a numeric that is too short");
    let (_, weight, sign, scale) = (part()?, part()?, part()?, part()?);
    let sign = match sign.cast_unsigned() {
        0x4000 => "-",
        0xc000 => return Ok(json!("NaN")),
        0xd000 => return Ok(json!("Infinity")),
        0xf000 => return Ok(json!("-Infinity")),
        _ => "",
    };
    let digits: Vec<i16> = parts.collect();
    let digit = |place: i32| {
        usize::try_from(place).ok().and_then(|ix| digits.get(ix)).copied().unwrap_or(0)
    };
    let weight = i32::from(weight);
    let whole: String = (0..=weight).map(|place| format!("{:04}", digit(place))).collect();
    let whole = whole.trim_start_matches('0');
    let scale = usize::try_from(scale).unwrap_or(0);
    let places = i32::try_from(scale.div_ceil(4)).unwrap_or(0);
    let rest: String = (1..=places).map(|place| format!("{:04}", digit(weight + place))).collect();
    let whole = if whole.is_empty() { "0" } else { whole };
    let rest = rest.get(..scale).unwrap_or_default();
    let point = if scale == 0 { "" } else { "." };
    Ok(Value::String(format!("{sign}{whole}{point}{rest}")))
}

/// A list, of lists if it has several dimensions.
fn array(of: &Type, raw: &[u8]) -> Read {
    let array = types::array_from_sql(raw)?;
    let lengths: Vec<usize> = array
        .dimensions()
        .map(|dimension| Ok(usize::try_from(dimension.len).unwrap_or(0)))
        .collect()?;
    let mut values: Vec<Value> =
        array.values().map(|value| value.map_or(Ok(Value::Null), |raw| read(of, raw))).collect()?;
    for length in lengths.iter().skip(1).rev() {
        values = values.chunks((*length).max(1)).map(|part| Value::Array(part.to_vec())).collect();
    }
    Ok(Value::Array(values))
}

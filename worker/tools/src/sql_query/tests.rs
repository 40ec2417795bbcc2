#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Instant;

use common::secret::Mask;
use tokio::net::TcpListener;
use tokio_postgres::types::{FromSql, Type};

use super::value::{Json, is_known};
use super::*;
use crate::tests::{context, opened, permanent, retryable};

async fn query(settings: &[&str], url: &str, more: Value) -> Outcome {
    let mut input = json!({ "database": url, "statement": "select 1" });
    input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let context = Context { mask: Mask::new([url].into_iter()), ..context() };
    opened(settings).execute("sql_query", input, &context).await
}

const LOCAL: [&str; 2] = ["--allowed-hosts", "127.0.0.1"];

#[tokio::test]
async fn a_database_that_is_not_public_or_not_opened_is_refused() {
    for host in
        ["127.0.0.1", "localhost", "[::1]", "10.0.0.1", "169.254.169.254", "[::ffff:127.0.0.1]"]
    {
        let message =
            permanent(query(&[], &format!("postgres://u:s3cr3t@{host}/d"), json!({})).await);
        assert!(
            message.contains("may not be reached") && message.contains("GATHERING_ALLOWED_HOSTS"),
            "{message}"
        );
        assert!(!message.contains("s3cr3t"), "{message}");
    }
    for (url, says) in [
        ("postgres://u:s3cr3t@h1,10.0.0.1/d?hostaddr=10.0.0.1,10.0.0.2", "may not be reached"),
        ("postgres://u:s3cr3t@%2Ftmp/d", "no host that can be reached over TCP"),
        ("postgres://u:s3cr3t@/d", "names no host"),
        ("postgres://u:s3cr3t@h:port/d", "the form postgres://"),
        ("postgres://u:s3cr3t@h/d?nope=1", "the form postgres://"),
    ] {
        let message = permanent(query(&[], url, json!({})).await);
        assert!(message.contains(says) && !message.contains("s3cr3t"), "{url}: {message}");
    }
}

#[tokio::test]
async fn what_needs_the_operator_or_a_secret_says_so() {
    let url = "postgres://u:s3cr3t@127.0.0.1:1/d";
    let message = permanent(query(&LOCAL, url, json!({ "read_only": false })).await);
    assert!(message.contains("GATHERING_SQL_WRITES=true"), "{message}");
    let input = json!({ "database": url, "statement": "select 1" });
    let message = permanent(opened(&LOCAL).execute("sql_query", input, &context()).await);
    assert!(message.contains("secrets.NAME") && !message.contains("s3cr3t"), "{message}");
}

#[tokio::test]
async fn no_connection_and_a_broken_one_are_retryable_and_a_cancel_or_time_out_ends_the_wait() {
    let refused = retryable(query(&LOCAL, "postgres://u:s3cr3t@127.0.0.1:1/d", json!({})).await);
    assert!(refused.contains("refused") && !refused.contains("s3cr3t"), "{refused}");

    // One that takes connections, and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://u:s3cr3t@{}/d", listener.local_addr().unwrap());
    let since = Instant::now();
    let late = retryable(query(&LOCAL, &url, json!({ "timeout": "100ms" })).await);
    assert!(late.contains("`timeout` of 100ms"), "{late}");
    let context = Context { mask: Mask::new([url.as_str()].into_iter()), ..context() };
    context.cancel.cancel();
    let input = json!({ "database": url, "statement": "select 1" });
    assert_eq!(opened(&LOCAL).execute("sql_query", input, &context).await, Err(Failure::Cancelled));
    assert!(since.elapsed() < Duration::from_secs(5));
}

fn read(kind: &Type, raw: &[u8]) -> Value {
    Json::from_sql(kind, raw).unwrap_or_else(|error| panic!("{kind}: {error}")).0
}

#[test]
fn numerics_keep_every_digit() {
    let numeric = |weight: i16, sign: u16, scale: i16, digits: &[i16]| {
        let mut raw = Vec::new();
        for part in [digits.len() as i16, weight, sign.cast_signed(), scale].iter().chain(digits) {
            raw.extend(part.to_be_bytes());
        }
        read(&Type::NUMERIC, &raw)
    };
    for (value, text) in [
        (numeric(0, 0, 0, &[]), "0"),
        (numeric(0, 0, 2, &[]), "0.00"),
        (numeric(0, 0x4000, 2, &[12, 5000]), "-12.50"),
        (numeric(1, 0, 0, &[1]), "10000"),
        (numeric(2, 0, 0, &[1234, 5, 6789]), "123400056789"),
        (numeric(-1, 0, 4, &[1]), "0.0001"),
        (numeric(-2, 0, 10, &[12, 3400]), "0.0000001234"),
        (numeric(0, 0, 20, &[3, 1415, 9265, 3589, 7932, 3846]), "3.14159265358979323846"),
        (numeric(0, 0xc000, 0, &[]), "NaN"),
        (numeric(0, 0xf000, 0, &[]), "-Infinity"),
    ] {
        assert_eq!(value, json!(text));
    }
}

#[test]
fn values_without_a_form_are_known_before() {
    for kind in [Type::POINT, Type::INTERVAL, Type::TS_VECTOR, Type::RECORD, Type::POINT_ARRAY] {
        assert!(!is_known(&kind), "{kind}");
    }
    for kind in [Type::INT4_ARRAY, Type::JSONB_ARRAY, Type::TIMESTAMPTZ, Type::UUID_ARRAY] {
        assert!(is_known(&kind), "{kind}");
    }
    assert_eq!(read(&Type::FLOAT4, &0.1f32.to_be_bytes()), json!(0.1));
    assert_eq!(read(&Type::FLOAT8, &f64::NAN.to_be_bytes()), json!("NaN"));
    assert_eq!(read(&Type::TIMESTAMPTZ, &0i64.to_be_bytes()), json!("2000-01-01T00:00:00.000000Z"));
    assert_eq!(read(&Type::TIMESTAMPTZ, &i64::MAX.to_be_bytes()), json!("infinity"));
    assert_eq!(read(&Type::BYTEA, &[0, 255]), json!("\\x00ff"));
}

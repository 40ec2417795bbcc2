//! One statement, in a transaction.

use std::collections::HashSet;

use futures::{StreamExt, TryStreamExt};
use serde_json::{Map, Value, json};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement, Transaction};

use super::Config;
use super::failure::failure;
use super::parameter::Parameter;
use super::value::{self, Json};
use crate::{Failure, Outcome};

/// How many rows are asked for at a time.
const BATCH: usize = 200;
/// The most that all rows may have, in the form in which they are sent: an output's limit.
const MOST_BYTES: usize = 16 << 20;

pub(super) async fn run(client: &mut Client, config: &Config) -> Outcome {
    let begun = client.build_transaction().read_only(config.read_only).start().await;
    let transaction = begun.map_err(|error| failure(&error))?;
    let output = within(&transaction, config).await?;
    transaction.commit().await.map_err(|error| failure(&error))?;
    Ok(output)
}

async fn within(transaction: &Transaction<'_>, config: &Config) -> Outcome {
    limit(transaction, config).await.map_err(|error| failure(&error))?;
    let parameters: Vec<_> = config.parameters.iter().map(Parameter).collect();
    let types: Vec<_> = parameters.iter().map(Parameter::declared).collect();
    let prepared = transaction.prepare_typed(&config.statement, &types).await;
    let statement = prepared.map_err(|error| failure(&error))?;
    fits(&statement, parameters.len())?;
    let parameters: Vec<_> = parameters.iter().map(|one| one as &(dyn ToSql + Sync)).collect();
    if statement.columns().is_empty() {
        let affected = transaction.execute(&statement, &parameters).await;
        let affected = affected.map_err(|error| failure(&error))?;
        return Ok(json!({ "rows": [], "row_count": affected }));
    }
    rows(transaction, &statement, &parameters, config.row_limit).await
}

/// The server ends the statement by itself: at the time-out, and soon after the worker has died (from Postgres 14 on).
/// That this is a query also settles the transaction's mode: it cannot be made to write any more.
async fn limit(
    transaction: &Transaction<'_>,
    config: &Config,
) -> Result<(), tokio_postgres::Error> {
    let millis = config.timeout.as_millis().clamp(1, i32::MAX as u128).to_string();
    let settings = "select set_config(name, case name when 'statement_timeout' then $1 else '1s' end, true) \
         from pg_catalog.pg_settings where name in ('statement_timeout', 'client_connection_check_interval')";
    transaction.query(settings, &[&millis]).await.map(drop)
}

/// Whether it can be executed, and its rows be told, before it is.
fn fits(statement: &Statement, given: usize) -> Result<(), Failure> {
    let wanted = statement.params().len();
    if wanted != given {
        return Err(Failure::permanent(format!(
            "`statement` has {wanted} parameters, and `parameters` has {given} values"
        )));
    }
    let mut names = HashSet::new();
    for column in statement.columns() {
        let (name, kind) = (column.name(), column.type_());
        if !value::is_known(kind) {
            return Err(Failure::permanent(format!(
                "the column `{name}` has the type {kind}, which has no form in JSON here: cast it, as in `{name}::text`"
            )));
        }
        if !names.insert(name) {
            return Err(Failure::permanent(format!(
                "two columns are named `{name}`: give one another name with `as`"
            )));
        }
    }
    Ok(())
}

/// One more than the limit is asked for, to know whether there are more.
async fn rows(
    transaction: &Transaction<'_>,
    statement: &Statement,
    parameters: &[&(dyn ToSql + Sync)],
    limit: usize,
) -> Outcome {
    let told = |error: tokio_postgres::Error| failure(&error);
    let portal = transaction.bind(statement, parameters).await.map_err(told)?;
    let (mut rows, mut bytes) = (Vec::new(), 0);
    while rows.len() <= limit {
        let wanted = BATCH.min(limit + 1 - rows.len());
        let batch = i32::try_from(wanted).unwrap_or(i32::MAX);
        let stream = transaction.query_portal_raw(&portal, batch).await.map_err(told)?;
        let mut stream = std::pin::pin!(stream.map(|row| row.map_err(told)));
        let mut came = 0;
        while let Some(row) = stream.try_next().await? {
            came += 1;
            bytes += row.raw_size_bytes();
            if bytes > MOST_BYTES {
                return Err(Failure::permanent(format!(
                    "the rows have over {} MiB: ask for fewer, or for less of them",
                    MOST_BYTES >> 20
                )));
            }
            rows.push(object(&row)?);
        }
        if came < wanted {
            break;
        }
    }
    let truncated = rows.len() > limit;
    rows.truncate(limit);
    let mut output = json!({ "row_count": rows.len() });
    output["rows"] = Value::Array(rows);
    if truncated {
        output["truncated"] = Value::Bool(true);
    }
    Ok(output)
}

fn object(row: &Row) -> Result<Value, Failure> {
    let mut fields = Map::new();
    for (ix, column) in row.columns().iter().enumerate() {
        let Json(value) = row.try_get(ix).map_err(|error| {
            Failure::permanent(format!(
                "the column `{}` cannot be read: {}",
                column.name(),
                crate::http::chain(&error)
            ))
        })?;
        fields.insert(column.name().to_owned(), value);
    }
    Ok(Value::Object(fields))
}

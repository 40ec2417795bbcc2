//! `sql_query`: one statement on a Postgres database that a secret names.
//!
//! Config: `database` (a URL, from a secret), `statement` (exactly one), `parameters` (for `$1`, `$2`, …), `row_limit`
//! (1,000), `timeout` (30s), `read_only` (true), `root_certificates`. Output: `{rows, row_count}`, and `truncated: true`
//! when there were more rows.
//!
//! - Each attempt has a connection of its own. Its address is one that the guard has checked, for every host of the URL.
//! - The statement runs in a transaction, read-only unless the caller says otherwise and the operator lets him. It is
//!   prepared, so that it is one statement, and what is in `parameters` is data.
//! - A cancel, or the time-out, cancels the statement in the server. When the worker dies, the server notices within a
//!   second (from Postgres 14 on), or at the time-out.
//! - What may pass (no connection, a deadlock, a serialization failure, a time-out, a server that is full or restarts) is
//!   retryable; what the statement itself does wrong is permanent.

mod connect;
mod failure;
mod parameter;
mod statement;
mod value;

use std::sync::Arc;
use std::time::Duration;

use common::duration;
use common::tool::{Needs, Spec};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::Deserialize;
use serde_json::{Value, json};

use self::connect::{Roots, Session, Target};
use crate::guard::Guard;
use crate::tool::{BuiltIn, Shared, Tool, spec};
use crate::{Context, Failure, Outcome, input};

/// The settings of `sql_query`.
#[derive(Debug, clap::Args)]
pub(crate) struct SqlQuerySettings {
    /// Whether sql_query may write, where a node says `read_only: false`
    #[arg(long, env = "GATHERING_SQL_WRITES", default_value_t = false, value_name = "true|false",
        action = clap::ArgAction::Set)]
    sql_writes: bool,
}

pub(crate) struct SqlQuery {
    guard: Arc<Guard>,
    roots: Roots,
    may_write: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    database: String,
    statement: String,
    #[serde(default)]
    parameters: Vec<Value>,
    #[serde(default = "thousand")]
    row_limit: usize,
    #[serde(default = "half_a_minute", with = "duration")]
    timeout: Duration,
    #[serde(default = "yes")]
    read_only: bool,
    root_certificates: Option<String>,
}

fn thousand() -> usize {
    1_000
}

fn half_a_minute() -> Duration {
    Duration::from_secs(30)
}

fn yes() -> bool {
    true
}

const DESCRIPTION: &str = "Runs one SQL statement, with parameters, on a Postgres database that a secret names, and \
     returns `{rows, row_count}`: rows are objects by column. In a read-only transaction, unless `read_only` is false.";

impl BuiltIn for SqlQuery {
    type Settings = SqlQuerySettings;

    fn spec() -> Spec {
        let schema = json!({
            "type": "object",
            "required": ["database", "statement"],
            "additionalProperties": false,
            "properties": {
                "database": {
                    "type": "string", "pattern": "^postgres(ql)?://.|\\{[{%]",
                    "description": "postgres://user:password@host:port/database, from a secret: {{ secrets.NAME }}",
                },
                "statement": {"type": "string", "pattern": "\\S", "description": "one SQL statement"},
                "parameters": {"type": "array", "description": "a list: the values of $1, $2, …"},
                "row_limit": {
                    "type": "integer", "minimum": 1, "maximum": 100_000,
                    "description": "a number of rows from 1 to 100000",
                },
                "timeout": {"type": "string", "pattern": "^([0-9]+(d|h|ms|m|s))+$", "description": duration::FORM},
                "read_only": {"type": "boolean", "description": "true or false"},
                "root_certificates": {
                    "type": ["string", "null"], "pattern": "-----BEGIN CERTIFICATE-----|\\{[{%]",
                    "description": "certificates in PEM, from -----BEGIN CERTIFICATE----- on",
                },
            },
        });
        let needs = Needs::setting(
            "GATHERING_SQL_WRITES",
            "nothing to read; `read_only: false` needs GATHERING_SQL_WRITES=true on the worker",
        );
        spec("sql_query", DESCRIPTION, schema, Some(needs))
    }

    fn open(settings: SqlQuerySettings, shared: &Shared) -> anyhow::Result<Self> {
        let guard = shared.guard.clone();
        Ok(Self { guard, roots: Roots::default(), may_write: settings.sql_writes })
    }
}

impl Tool for SqlQuery {
    fn execute<'a>(&'a self, input: Value, context: &'a Context) -> BoxFuture<'a, Outcome> {
        self.run(input, context).boxed()
    }
}

impl SqlQuery {
    async fn run(&self, input: Value, context: &Context) -> Outcome {
        let config: Config = input::read("sql_query", input)?;
        if !config.read_only && !self.may_write {
            return Err(Failure::permanent(
                "`read_only: false` is not allowed on this worker: its operator allows it with GATHERING_SQL_WRITES=true",
            ));
        }
        if context.mask.text(&config.database) == config.database {
            return Err(Failure::permanent(
                "`database` holds a password that everybody can read: make it a secret, and write {{ secrets.NAME }}",
            ));
        }
        let target = Target::read(&config.database)?;
        // The password may be said without the rest of the secret.
        let mask = context.mask.with(target.password().into_iter());
        let outcome = self.query(&config, &target, context).await;
        outcome.map_err(|failure| failure.masked(&mask))
    }

    /// Within the time-out, until it is cancelled.
    async fn query(&self, config: &Config, target: &Target, context: &Context) -> Outcome {
        let deadline = tokio::time::Instant::now() + config.timeout;
        let late = || -> Outcome {
            let timeout = duration::text(config.timeout);
            Err(Failure::retryable(format!("it took longer than its `timeout` of {timeout}")))
        };
        let connector = self.roots.connector(config.root_certificates.as_deref())?;
        let mut session: Session = tokio::select! {
            biased;
            () = context.cancel.cancelled() => return Err(Failure::Cancelled),
            () = tokio::time::sleep_until(deadline) => return late(),
            opened = target.open(&self.guard, connector) => opened?,
        };
        let ended = tokio::select! {
            biased;
            () = context.cancel.cancelled() => Err(Failure::Cancelled),
            () = tokio::time::sleep_until(deadline) => late(),
            outcome = statement::run(session.client(), config) => return outcome,
        };
        session.cancel().await;
        ended
    }
}

#[cfg(test)]
mod tests;

//! Outputs of node runs, by key.

use serde_json::{Map, Value};
use sqlx::PgConnection;
use uuid::Uuid;

/// The outputs of `nodes` of one run; a node that ended without one has null, one that has not ended is left out.
pub async fn read(
    conn: &mut PgConnection,
    run: Uuid,
    nodes: &[String],
) -> Result<Vec<(String, Value)>, sqlx::Error> {
    let rows = sqlx::query!(
        "select node, output from node_runs where run_id = $1 and node = any($2) and finished_at is not null",
        run,
        nodes
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.node, row.output.unwrap_or_default())).collect())
}

/// The completed ones among `nodes`, with their outputs.
pub async fn completed(
    conn: &mut PgConnection,
    run: Uuid,
    nodes: &[String],
) -> Result<Vec<(String, Value)>, sqlx::Error> {
    let rows = sqlx::query!(
        "select node, output from node_runs where run_id = $1 and node = any($2) and state = 'completed'",
        run,
        nodes
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.node, row.output.unwrap_or_default())).collect())
}

/// A run's output, from those of its completed sinks: the only one's, or an object by node id. As JSON text.
pub fn of_run(mut sinks: Vec<(String, Value)>) -> Option<String> {
    match sinks.len() {
        0 => None,
        1 => sinks.pop().map(|(_, output)| output.to_string()),
        _ => Some(Value::Object(Map::from_iter(sinks)).to_string()),
    }
}

/// How long ago the first attempt of a node run began, by the database's clock.
pub async fn elapsed(
    conn: &mut PgConnection,
    run: Uuid,
    node: &str,
) -> Result<std::time::Duration, sqlx::Error> {
    let seconds = sqlx::query_scalar!(
        r#"select extract(epoch from clock_timestamp() - least(
               (select min(started_at) from attempts where run_id = $1 and node = $2),
               (select started_at from node_runs where run_id = $1 and node = $2)))::float8"#,
        run,
        node
    )
    .fetch_one(conn)
    .await?;
    Ok(std::time::Duration::try_from_secs_f64(seconds.unwrap_or(0.0)).unwrap_or_default())
}

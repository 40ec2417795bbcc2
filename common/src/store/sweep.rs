//! Which runs have no use for their files any more.

use sqlx::PgPool;
use uuid::Uuid;

/// Those of `runs` that ended more than `retention_s` seconds ago; of those that are not known any more, since they were
/// pruned, those whose id is older than that.
pub async fn over(
    pool: &PgPool,
    runs: &[Uuid],
    retention_s: f64,
) -> Result<Vec<Uuid>, sqlx::Error> {
    let made: Vec<f64> = runs
        .iter()
        .map(|run| run.get_timestamp().map_or(0.0, |at| at.to_unix().0 as f64))
        .collect();
    sqlx::query_scalar!(
        r#"select f.id as "id!" from unnest($1::uuid[], $2::float8[]) as f (id, made)
           left join runs r on r.id = f.id
           where case when r.id is null then to_timestamp(f.made) else r.finished_at end
               < (select clock_timestamp() - $3 * interval '1 s')"#,
        runs,
        &made,
        retention_s,
    )
    .fetch_all(pool)
    .await
}

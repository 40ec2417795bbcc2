//! Whether anything awaits the leader, asked at one go: its duties would ask dozens of small questions a second
//! otherwise, of a system where nothing happens.

use sqlx::PgConnection;

/// What awaits the leader.
#[derive(Debug, Clone, Copy)]
pub struct Pulse {
    /// Seconds until the next schedule is due; below 0 when it is overdue, none when there is none.
    pub schedule_in: Option<f64>,
    /// Seconds until the next timer is due, likewise.
    pub timer_in: Option<f64>,
    /// Whether an event has come.
    pub events: bool,
    /// Whether the end of a fire is to be noted, or a fire is to be started or cancelled.
    pub fires: bool,
    /// Whether a backfill goes on.
    pub backfills: bool,
}

/// Looks once. Each part is the first entry of an index.
pub async fn look(conn: &mut PgConnection) -> Result<Pulse, sqlx::Error> {
    sqlx::query_as!(
        Pulse,
        r#"select (select extract(epoch from due_at - clock_timestamp())::float8 from schedule_clocks
                   where due_at is not null order by due_at limit 1) as schedule_in,
               (select extract(epoch from due_at - clock_timestamp())::float8 from timers
                   order by due_at limit 1) as timer_in,
               exists (select from events) as "events!",
               exists (select from open_fires) as "fires!",
               exists (select from backfills where finished_at is null) as "backfills!""#
    )
    .fetch_one(conn)
    .await
}

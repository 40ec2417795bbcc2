//! A fire that a client asks for now.

use chrono::{TimeDelta, Timelike};
use sqlx::PgConnection;
use uuid::Uuid;

use super::catalogue::Catalogue;
use super::clocks;
use super::hear::free;
use super::write::{self, Done, Fate, Fire};
use crate::clock::Instant;
use crate::outbox::Row;
use crate::schedule::Cause;

/// A fire that was asked for.
#[derive(Debug)]
pub struct Triggered {
    /// Its moment.
    pub fire_at: Instant,
    /// How it stands.
    pub done: Done,
    /// Outbox rows, to publish after the commit.
    pub rows: Vec<Row>,
}

/// Fires a schedule now, whatever its state and whatever is under way. None: there is no such schedule. What is refused
/// is written, too: it is the caller's not to commit it.
pub async fn trigger(
    conn: &mut PgConnection,
    schedule: Uuid,
    by: &str,
) -> Result<Option<Triggered>, sqlx::Error> {
    let mut catalogue = Catalogue::default();
    let mut clocks = clocks::lock(conn, &[schedule]).await?;
    let mut loaded = catalogue.load(conn, &[schedule]).await?;
    let (Some(clock), Some(loaded)) = (clocks.first_mut(), loaded.remove(&schedule)) else {
        return Ok(None);
    };
    let known = match loaded.known {
        Ok(known) => known,
        Err(why) => return Err(sqlx::Error::Protocol(why)),
    };
    let now = clocks::now(conn).await?;
    let fire_at = free(clock, beside_seconds(now));
    clock.last_fire_at = Some(fire_at);
    let fire = Fire {
        schedule,
        known,
        cause: Cause::Manual,
        fire_at,
        due_at: fire_at,
        missed: 0,
        event: None,
        backfill: None,
        by: Some(by.to_owned()),
        fate: Fate::Start,
    };
    clocks::save(conn, &clocks).await?;
    let mut written = write::fires(conn, &mut catalogue, &[fire]).await?;
    let done = written.done.pop().flatten().ok_or(sqlx::Error::RowNotFound)?;
    Ok(Some(Triggered { fire_at, done, rows: written.rows }))
}

/// Whole seconds are the moments of crons: one that is due then must find its place free.
fn beside_seconds(at: Instant) -> Instant {
    if at.nanosecond() == 0 { at + TimeDelta::microseconds(1) } else { at }
}

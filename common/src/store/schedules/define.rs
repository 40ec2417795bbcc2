//! What clients say of schedules, written.

use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use super::clocks::{self, Clock};
use crate::clock::Instant;
use crate::problem::Pointed;
use crate::schedule::plan::{Next, Planner};
use crate::schedule::{Kind, Spec, State, compile, glob};

/// A schedule whose clock is locked: nobody changes it, and none of its fires is decided.
#[derive(Debug)]
pub struct Locked {
    /// Its id.
    pub id: Uuid,
    /// What is said of it.
    pub spec: Spec,
    /// Where it stands.
    pub state: State,
    clock: Clock,
}

/// Why a schedule is not changed.
#[derive(Debug)]
pub enum Refused {
    /// What is said is wrong.
    Faults(Vec<Pointed>),
    /// The database failed or refused.
    Sql(sqlx::Error),
}

impl From<sqlx::Error> for Refused {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

/// What comes next of a schedule after `now`, or why it would never fire.
fn next(
    id: Uuid,
    spec: &Spec,
    anchor: Instant,
    now: Instant,
) -> Result<Option<Next>, Vec<Pointed>> {
    let (rule, ..) = compile(spec, None)?;
    let bounds = spec.bounds(anchor);
    let next = Planner { schedule: id, rule: &rule, bounds, lateness: spec.lateness() }.next(now);
    let past = |field: &str| vec![Pointed::new(field, "is in the past: it would never fire")];
    match (spec.kind, next) {
        (Kind::Event, _) if spec.end_at.is_some_and(|end| end <= now) => Err(past("/end_at")),
        (Kind::Event, _) | (_, Some(_)) => Ok(next),
        (Kind::Once, None) if spec.at.is_some_and(|at| at <= now) => Err(past("/at")),
        (_, None) if spec.end_at.is_some() => {
            Err(vec![Pointed::new("/end_at", "leaves no moment at which it could fire")])
        }
        (_, None) => Err(vec![Pointed::new("/kind", "leaves no moment at which it could fire")]),
    }
}

/// What an active schedule listens to.
fn listens(spec: &Spec, state: State) -> Option<String> {
    let listens = spec.event_type.as_deref().filter(|_| spec.kind == Kind::Event);
    listens.filter(|_| state == State::Active).map(glob::like)
}

/// Creates a schedule that is active. The constraint `schedules_name_taken` refuses a name in use.
pub async fn create(
    conn: &mut PgConnection,
    id: Uuid,
    spec: &Spec,
    by: &str,
) -> Result<(), Refused> {
    let now = clocks::now(conn).await?;
    let next = next(id, spec, now, now).map_err(Refused::Faults)?;
    let mut clock = Clock {
        schedule_id: id,
        next_fire_at: None,
        due_at: None,
        last_fire_at: None,
        anchor_at: now,
        fires: 0,
        failures: 0,
    };
    clock.set_next(spec, next);
    sqlx::query!(
        "with clock as (
             insert into schedule_clocks (schedule_id, next_fire_at, due_at, anchor_at) values ($1, $7, $8, $9)
         )
         insert into schedules (id, name, kind, spec, tags, listens, created_by) values ($1, $2, $3, $4, $5, $6, $10)",
        id,
        spec.name,
        spec.kind as Kind,
        Json(spec) as Json<&Spec>,
        &spec.tags,
        listens(spec, State::Active),
        clock.next_fire_at,
        clock.due_at,
        clock.anchor_at,
        by,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Locks a schedule.
pub async fn lock(conn: &mut PgConnection, id: Uuid) -> Result<Option<Locked>, sqlx::Error> {
    let Some(clock) = clocks::lock(conn, &[id]).await?.pop() else { return Ok(None) };
    let row = sqlx::query!(
        r#"select spec as "spec: Json<Spec>", state as "state: State" from schedules where id = $1"#,
        id
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| Locked { id, spec: row.spec.0, state: row.state, clock }))
}

impl Locked {
    /// Gives it another spec. One that has other times goes on from now; one that was expired, and has something to
    /// fire again, is active again.
    pub async fn replace(mut self, conn: &mut PgConnection, spec: &Spec) -> Result<(), Refused> {
        let now = clocks::now(conn).await?;
        let has_other_times = !self.spec.has_times_of(spec);
        let mut state = self.state;
        if has_other_times {
            if spec.interval != self.spec.interval || spec.kind != self.spec.kind {
                self.clock.anchor_at = now;
            }
            next(self.id, spec, self.clock.anchor_at, now).map_err(Refused::Faults)?;
        }
        let is_revived = state == State::Expired
            && !self.clock.is_used_up(spec)
            && (has_other_times || self.clock.is_used_up(&self.spec));
        if is_revived {
            state = State::Active;
        }
        if has_other_times || is_revived {
            let next = match state {
                State::Active => next(self.id, spec, self.clock.anchor_at, now),
                _ => Ok(None),
            };
            self.clock.set_next(spec, next.map_err(Refused::Faults)?);
            if state != State::Active {
                self.clock.stop();
            }
        }
        if state == State::Active && self.clock.is_used_up(spec) {
            return Err(Refused::Faults(vec![Pointed::new(
                "/max_fires",
                format!("it has fired {} times already", self.clock.fires),
            )]));
        }
        self.spec = spec.clone();
        self.write(conn, state).await?;
        Ok(())
    }

    /// Lets nothing fire until it is resumed.
    pub async fn pause(mut self, conn: &mut PgConnection) -> Result<(), sqlx::Error> {
        self.clock.stop();
        self.write(conn, State::Paused).await
    }

    /// Lets it fire again from now on. False: nothing is left that it could fire.
    pub async fn resume(mut self, conn: &mut PgConnection) -> Result<bool, sqlx::Error> {
        if self.state == State::Active {
            return Ok(true);
        }
        let now = clocks::now(conn).await?;
        let next = next(self.id, &self.spec, self.clock.anchor_at, now);
        let is_over = next.is_err() || self.clock.is_used_up(&self.spec);
        if is_over {
            return Ok(false);
        }
        if self.spec.kind == Kind::Event {
            // What came meanwhile is not heard.
            self.clock.anchor_at = now;
        }
        let spec = self.spec.clone();
        self.clock.set_next(&spec, next.unwrap_or_default());
        self.clock.failures = 0;
        self.write(conn, State::Active).await?;
        Ok(true)
    }

    async fn write(self, conn: &mut PgConnection, state: State) -> Result<(), sqlx::Error> {
        clocks::save(conn, std::slice::from_ref(&self.clock)).await?;
        sqlx::query!(
            "update schedules set name = $2, kind = $3, spec = $4, tags = $5, listens = $6, state = $7,
                 reason = case when state = $7 then reason end, revision = revision + 1, updated_at = clock_timestamp()
             where id = $1",
            self.id,
            self.spec.name,
            self.spec.kind as Kind,
            Json(&self.spec) as Json<&Spec>,
            &self.spec.tags,
            listens(&self.spec, state),
            state as State,
        )
        .execute(conn)
        .await?;
        Ok(())
    }

    /// Forgets it, and what of it waits. Its runs stay, and go on.
    pub async fn delete(self, conn: &mut PgConnection) -> Result<(), sqlx::Error> {
        sqlx::query!(
            "with clock as (delete from schedule_clocks where schedule_id = $1),
                  waiting as (delete from open_fires where schedule_id = $1),
                  asked as (delete from backfills where schedule_id = $1)
             delete from schedules where id = $1",
            self.id
        )
        .execute(conn)
        .await?;
        Ok(())
    }
}

//! From events to fires: each event fires each schedule that listens to it once.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::DEEPEST;
use super::catalogue::{Catalogue, Known, Loaded};
use super::clocks::{self, Clock, Ending};
use super::due::{self, Fired};
use super::events::{self, Event};
use super::write::{self, Fate, Fire, Heard};
use crate::clock::Instant;
use crate::schedule::overlap::UnderWay;
use crate::schedule::{Cause, Kind, Occasion, State, glob, is_met};

/// How many fires one transaction makes, or so.
const AT_ONCE: usize = 1_000;

/// Starts what listens to `events`, or to as many of them as one transaction can bear, and deletes those; an event to
/// which very many listen is dealt with in portions. Who listens is read once the clocks are locked; who began to listen
/// after an event does not hear it.
pub async fn hear(
    conn: &mut PgConnection,
    catalogue: &mut Catalogue,
    events: &[Event],
) -> Result<Fired, sqlx::Error> {
    let (events, listeners) = portion(conn, events).await?;
    let mut clocks = clocks::lock(conn, &listeners).await?;
    let loaded = catalogue.load(conn, &listeners).await?;
    let mut under_way = due::under_way(conn, &due::limited(&loaded)).await?;
    let mut ears = Ears::default();
    let now = clocks::now(conn).await?;
    for event in events {
        let heard = Heard { id: event.id, depth: event.depth, shown: event.shown() };
        for clock in &mut clocks {
            let Some(loaded) = loaded.get(&clock.schedule_id) else { continue };
            let under_way = under_way.entry(clock.schedule_id).or_default();
            ears.hear(clock, loaded, under_way, event, &heard);
        }
    }
    let Ears { fires, replaced, mut endings } = ears;
    let written = write::fires(conn, catalogue, &fires).await?;
    due::cancel(conn, &replaced, &written.done, &fires).await?;
    due::note(&mut clocks, &fires, &written.done, &mut endings);
    clocks::save(conn, &clocks).await?;
    clocks::end(conn, &endings).await?;
    let late = |fire: &Fire| (now - fire.due_at).as_seconds_f64();
    let told = fires.iter().zip(&written.done);
    let told = told.filter_map(|(fire, done)| Some((done.as_ref()?.outcome, late(fire))));
    Ok(Fired { schedules: clocks.len(), fires: told.collect(), rows: written.rows })
}

/// What one transaction deals with: some of the events with all who listen, or one of them with some who do.
async fn portion<'e>(
    conn: &mut PgConnection,
    events: &'e [Event],
) -> Result<(&'e [Event], Vec<Uuid>), sqlx::Error> {
    let Some(first) = events.first() else { return Ok((events, Vec::new())) };
    let limit = i64::try_from(AT_ONCE).unwrap_or(i64::MAX);
    if first.after_id.is_none() {
        let types: BTreeSet<String> = events.iter().map(|e| e.event_type.clone()).collect();
        let types: Vec<String> = types.into_iter().collect();
        let listeners = events::listeners(conn, &types, None, limit).await?;
        if listeners.len() < AT_ONCE {
            let many = (AT_ONCE / listeners.len().max(1)).clamp(1, events.len());
            let seqs: Vec<i64> = events[..many].iter().map(|event| event.seq).collect();
            events::delete(conn, &seqs).await?;
            return Ok((&events[..many], listeners));
        }
    }
    let types = [first.event_type.clone()];
    let listeners = events::listeners(conn, &types, first.after_id, limit).await?;
    match listeners.last().filter(|_| listeners.len() == AT_ONCE) {
        Some(last) => events::proceed(conn, first.seq, *last).await?,
        None => events::delete(conn, &[first.seq]).await?,
    }
    Ok((&events[..1], listeners))
}

/// What the listeners of one transaction do.
#[derive(Default)]
struct Ears {
    fires: Vec<Fire>,
    replaced: Vec<Uuid>,
    endings: Vec<Ending>,
}

impl Ears {
    fn hear(
        &mut self,
        clock: &mut Clock,
        loaded: &Loaded,
        under_way: &mut UnderWay,
        event: &Event,
        heard: &Heard,
    ) {
        let known = match &loaded.known {
            Ok(known) => known,
            Err(why) => {
                clock.stop();
                let (schedule, reason) = (clock.schedule_id, why.clone());
                if !self.endings.iter().any(|ending| ending.schedule == schedule) {
                    self.endings.push(Ending { schedule, state: State::Disabled, reason });
                }
                return;
            }
        };
        let spec = &known.spec;
        let listens = loaded.state == State::Active
            && spec.kind == Kind::Event
            && event.created_at >= clock.anchor_at
            && spec.start_at.is_none_or(|start| event.created_at >= start)
            && spec.end_at.is_none_or(|end| event.created_at <= end)
            && spec
                .event_type
                .as_deref()
                .is_some_and(|like| glob::matches(like, &event.event_type));
        if !listens || clock.is_used_up(spec) {
            return;
        }
        let fire_at = free(clock, event.created_at);
        let Some((fate, replaces)) = fate(known, clock.schedule_id, fire_at, heard, under_way)
        else {
            return;
        };
        if replaces {
            self.replaced.push(clock.schedule_id);
        }
        clock.last_fire_at = Some(fire_at);
        if !matches!(fate, Fate::Skip(_)) {
            clock.fired(fire_at);
        }
        self.fires.push(Fire {
            schedule: clock.schedule_id,
            known: known.clone(),
            cause: Cause::Event,
            fire_at,
            due_at: event.created_at,
            missed: 0,
            event: Some(heard.clone()),
            backfill: None,
            by: None,
            fate,
        });
        if clock.is_used_up(spec) {
            clock.stop();
            let reason = "max_fires is reached".to_owned();
            self.endings.push(Ending {
                schedule: clock.schedule_id,
                state: State::Expired,
                reason,
            });
        }
    }
}

/// The moment of an event's fire: when it was accepted, or right after the fire before. Two events may have come within
/// the same microsecond.
pub(super) fn free(clock: &Clock, at: Instant) -> Instant {
    clock.last_fire_at.map_or(at, |last| at.max(last + TimeDelta::microseconds(1)))
}

/// None when the condition is not true.
fn fate(
    known: &Known,
    schedule: Uuid,
    fire_at: Instant,
    heard: &Heard,
    under_way: &mut UnderWay,
) -> Option<(Fate, bool)> {
    let occasion = Occasion { schedule, fire_at, event: &heard.shown };
    match is_met(known.condition.as_ref(), &known.spec, occasion) {
        Ok(false) => None,
        Err(why) => {
            Some((Fate::Refuse(format!("the condition cannot be evaluated: {why}")), false))
        }
        Ok(true) if heard.depth >= DEEPEST => {
            let why = format!(
                "loop: {DEEPEST} events have led to this one, each by a run that the one before started"
            );
            Some((Fate::Skip(why), false))
        }
        Ok(true) => Some(due::fate(known.spec.overlap, under_way)),
    }
}

/// The event of a fire that waits, read back.
pub(super) fn heard(shown: Value) -> Option<Heard> {
    let id = shown.get("id")?.as_str()?.parse().ok()?;
    let depth = i32::try_from(shown.get("depth")?.as_i64()?).ok()?;
    Some(Heard { id, depth, shown })
}

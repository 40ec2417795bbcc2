-- Schedules, what has become of their fires, and events.
--
-- What a client says of a schedule changes seldom; where it stands changes with each fire. So the two are apart, and
-- the second is small. Whoever changes a schedule, or adds a fire to it, locks its row in schedule_clocks first.

create type schedule_kind as enum ('cron', 'interval', 'once', 'event');
create type schedule_state as enum ('active', 'paused', 'disabled', 'expired');
create type fire_cause as enum ('schedule', 'event', 'manual', 'backfill');
create type fire_outcome as enum
    ('waiting', 'started', 'completed', 'failed', 'cancelled', 'timed_out', 'skipped', 'refused');

-- What a client says.
create table schedules (
    id uuid primary key,
    name text not null,
    kind schedule_kind not null,
    state schedule_state not null default 'active',
    -- Why it is disabled or expired.
    reason text,
    -- Checked, with what the client left out filled in.
    spec jsonb not null,
    -- Raised with each change of `spec`, so that a leader compiles what has changed, and no more.
    revision int not null default 1,
    tags text[] not null default '{}',
    -- The types of events that it listens to, as `like` reads it; only while it is active.
    listens text,
    created_by text not null,
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    constraint schedules_only_active_ones_listen check (listens is null or (kind = 'event' and state = 'active'))
);
-- A name is taken by one schedule at a time.
create unique index schedules_name_taken on schedules (name);
-- Whether anybody listens is asked wherever a run ends: of an index that is empty when nobody does.
create index schedules_listening on schedules (listens) where listens is not null;
-- Lists by tag.
create index schedules_tags on schedules using gin (tags) where tags <> '{}';

-- Where a schedule stands. No foreign key, as in all that changes with each fire.
create table schedule_clocks (
    schedule_id uuid primary key,
    -- The first moment that has not been decided; null when none comes, or while it is not active.
    next_fire_at timestamptz,
    -- When the leader is to look: that moment with its jitter, or the end of a schedule that listens.
    due_at timestamptz,
    last_fire_at timestamptz,
    -- What intervals are counted from; events from before are not heard.
    anchor_at timestamptz not null,
    -- Fires but for those that were skipped, for `max_fires`.
    fires int not null default 0,
    -- Failures in a row.
    failures int not null default 0
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);
-- The leader takes what is due, earliest first; what is not due costs nothing.
create index schedule_clocks_due on schedule_clocks (due_at) where due_at is not null;

-- Occurrences (R8). They outlive their schedule until they are pruned.
create table fires (
    schedule_id uuid not null,
    fire_at timestamptz not null,
    cause fire_cause not null,
    outcome fire_outcome not null,
    -- Why it was skipped or refused.
    reason text,
    run_id uuid,
    event_id uuid,
    -- `fire_at` with its jitter.
    due_at timestamptz not null,
    fired_at timestamptz not null default clock_timestamp(),
    -- Missed moments that it stands for besides itself.
    missed int not null default 0,
    primary key (schedule_id, fire_at),
    constraint fires_started_have_a_run check ((run_id is null) = (outcome in ('waiting', 'skipped', 'refused')))
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);
-- An event fires a schedule once.
create unique index fires_of_event on fires (schedule_id, event_id) where event_id is not null;
-- Pruning finds what is old.
create index fires_age on fires (fired_at);

-- Fires whose end the leader has not noted: their runs are under way, or they wait for another's. Small, so that the
-- leader can go through it.
create table open_fires (
    schedule_id uuid not null,
    fire_at timestamptz not null,
    -- Null while it waits.
    run_id uuid,
    cause fire_cause not null,
    backfill_id uuid,
    -- A newer fire has replaced it: its run is to be cancelled.
    cancel boolean not null default false,
    -- The event of one that waits.
    event jsonb,
    primary key (schedule_id, fire_at)
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);
-- What is to be cancelled goes first.
create index open_fires_cancel on open_fires (schedule_id, fire_at) where cancel;

-- Fires of the past that a client has asked for.
create table backfills (
    id uuid primary key,
    schedule_id uuid not null,
    from_at timestamptz not null,
    to_at timestamptz not null,
    -- The moments up to here have been decided.
    after_at timestamptz not null,
    concurrency int not null check (concurrency >= 1),
    -- How many moments the range had when it was asked for, and how many runs have been started.
    count int not null,
    started int not null default 0,
    created_by text not null,
    created_at timestamptz not null default clock_timestamp(),
    finished_at timestamptz
);
-- The leader asks for those that go on; a client, for those of a schedule.
create index backfills_open on backfills (id) where finished_at is null;
create index backfills_of_schedule on backfills (schedule_id, id);

-- What is told of a run that ends, wherever it does.
create function run_told(run runs, state run_state, error jsonb) returns jsonb language sql stable as $$
    select jsonb_build_object('run', jsonb_build_object(
        'id', run.id, 'kind', run.kind, 'pipeline', run.pipeline, 'version', run.version, 'state', state,
        'error', coalesce(run.error, error), 'tags', run.tags, 'trigger', run.trigger, 'created_at', run.created_at))
$$;

-- Events that were accepted, until the leader has started what listens to them.
create table events (
    -- In the order of their arrival; the leader deletes what it has dealt with, so gaps and stragglers are no matter.
    seq bigint generated always as identity primary key,
    id uuid not null default gen_random_uuid(),
    type text not null,
    data jsonb not null,
    -- How many events led to it, one by way of another.
    depth int not null default 0,
    -- Of the schedules that listen, those up to this one have fired; null until the leader has begun.
    after_id uuid,
    created_at timestamptz not null default clock_timestamp()
) with (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);

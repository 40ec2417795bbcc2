-- The engine: definitions, runs, node runs, and what moves them on.
--
-- Hot tables (runs, node_runs, outbox, timers) have no foreign keys, since each costs a key-share lock on the
-- busiest row, and no index on a column that changes while a run goes on, so that updates stay heap-only (HOT);
-- their fill factor leaves the room that this needs.

-- States are types, so that the database refuses a word that the code does not know.
create type run_kind as enum ('pipeline', 'action');
create type run_state as enum ('queued', 'running', 'cancelling', 'completed', 'failed', 'cancelled', 'timed_out');
create type stop_reason as enum ('cancel', 'timed_out', 'fail_fast');
create type node_state as enum
    ('pending', 'queued', 'running', 'retrying', 'waiting', 'completed', 'failed', 'skipped', 'cancelled');
create type timer_kind as enum ('start', 'deadline', 'retry', 'wait');

-- A pipeline: the name that clients use, and which version is the newest.
create table pipelines (
    id uuid primary key,
    name text not null,
    version int not null check (version >= 1),
    -- Submitting is refused while it is paused; runs that were accepted go on.
    paused boolean not null default false,
    owner text not null,
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    -- A deleted pipeline stays, since its runs are pinned to its versions.
    deleted_at timestamptz
);
-- A name is taken by one living pipeline at a time. Names page in their own order, too.
create unique index pipelines_name_taken on pipelines (name) where deleted_at is null;

-- What a pipeline was at one time. A run is pinned to one of these.
create table pipeline_versions (
    pipeline_id uuid not null references pipelines (id),
    version int not null check (version >= 1),
    -- As the client sent it: what is read back is what was stored.
    definition jsonb not null,
    -- Read off the definition when it was accepted, so that a submission reads no definition: the lane of its first
    -- root, and what its input is checked against.
    lane text not null,
    input_schema jsonb,
    created_by text not null,
    created_at timestamptz not null default clock_timestamp(),
    primary key (pipeline_id, version)
);

-- One execution of a pipeline's version, or of one action.
create table runs (
    id uuid primary key,
    kind run_kind not null,
    pipeline_id uuid,
    -- The name at the time of submitting, so that lists need no join.
    pipeline text,
    version int,
    -- The only node of an action's run, complete with its retry rule and time-out.
    action jsonb,
    state run_state not null default 'queued',
    -- Why it began to stop: the first reason decides how it ends.
    stop_reason stop_reason,
    -- The lane of its start job, so that a lost one can be sent anew.
    lane text not null,
    input jsonb not null,
    output jsonb,
    -- The first failure that no failure edge took up.
    error jsonb,
    -- What asked for it: {"kind": "api"}, and the like.
    trigger jsonb not null,
    tags text[] not null default '{}',
    created_by text not null,
    rerun_of uuid,
    -- A rerun that keeps what completed in `rerun_of`.
    keep_completed boolean not null default false,
    traceparent text,
    -- Counts the run's changes, under its row lock; each node run carries the count of its last one.
    seq bigint not null default 1,
    -- While it runs: sinks that have not ended. While it is cancelling: node runs that are still running.
    open int not null default 0,
    created_at timestamptz not null default clock_timestamp(),
    -- When its start job was last queued; null until a delayed start is due.
    queued_at timestamptz,
    started_at timestamptz,
    finished_at timestamptz,
    constraint runs_end_is_dated check ((state in ('completed', 'failed', 'cancelled', 'timed_out')) = (finished_at is not null)),
    constraint runs_pipeline_or_action check (
        case kind
            when 'pipeline' then pipeline_id is not null and pipeline is not null and version is not null and action is null
            else pipeline_id is null and pipeline is null and version is null and action is not null
        end
    )
) with (fillfactor = 75, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);
-- The audit walks what has not ended. Its predicate names a column that changes once, at the end.
create index runs_open on runs (id) where finished_at is null;
-- Pruning finds what ended long ago.
create index runs_finished on runs (finished_at) where finished_at is not null;
-- Lists of one pipeline's runs, newest first (ids are in time order).
create index runs_of_pipeline on runs (pipeline, id) where pipeline is not null;
-- Lists by tag.
create index runs_tags on runs using gin (tags) with (fastupdate = on) where tags <> '{}';

-- A node within a run. It owns the state.
create table node_runs (
    run_id uuid not null,
    node text not null,
    state node_state not null,
    lane text not null,
    -- Rises with every claim and take-over: the fence.
    attempt int not null default 0,
    -- Attempts that count against `max_attempts`.
    spent int not null default 0,
    -- Workers that died under it.
    losses int not null default 0,
    -- While pending: incoming edges that are not resolved, and what the resolved ones said.
    open_in int not null default 0,
    taken_in boolean not null default false,
    broken_in boolean not null default false,
    -- While running: the worker, and the job under whose delivery it runs.
    owner uuid,
    job_id uuid,
    -- What it waits for, or has waited for: its executor reads it when it is resumed.
    waiting jsonb,
    output jsonb,
    error jsonb,
    -- The run's count at its last change: what a stream has not seen is above what it has.
    seq bigint not null,
    queued_at timestamptz,
    started_at timestamptz,
    finished_at timestamptz,
    primary key (run_id, node),
    constraint node_runs_end_is_dated check ((state in ('completed', 'failed', 'skipped', 'cancelled')) = (finished_at is not null)),
    constraint node_runs_running_is_owned check (state <> 'running' or owner is not null)
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);

-- Attempts that ended without completing their node run; the one that completed it, or is under way, is the
-- node run itself.
create table attempts (
    run_id uuid not null,
    node text not null,
    attempt int not null,
    owner uuid,
    error jsonb not null,
    -- Whether it counted against `max_attempts`.
    spent boolean not null,
    started_at timestamptz,
    finished_at timestamptz not null default clock_timestamp(),
    primary key (run_id, node, attempt)
);

-- Rows that become messages. Deleted once the broker has confirmed.
create table outbox (
    id uuid primary key,
    lane text not null,
    -- The message's body, complete.
    job jsonb not null,
    created_at timestamptz not null default clock_timestamp()
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);

-- "This node run, or this run (node ''), is due at that moment."
create table timers (
    run_id uuid not null,
    node text not null default '',
    kind timer_kind not null,
    due_at timestamptz not null,
    -- "<pipeline id>/<node>" when it waits for a breaker, so that the breaker's closing makes it due.
    breaker text,
    primary key (run_id, node, kind)
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);
-- The leader takes what is due, earliest first.
create index timers_due on timers (due_at);
create index timers_breaker on timers (breaker) where breaker is not null;

-- One row per node of a pipeline whose breaker has counted a failure; shared by the fleet.
create table breakers (
    pipeline_id uuid not null,
    node text not null,
    failures int not null default 0,
    -- Null while it is closed.
    opened_at timestamptz,
    -- When a probe was let through; it is given up when its attempt can no longer be under way.
    probe_at timestamptz,
    primary key (pipeline_id, node)
);

-- Who is in the fleet. A worker is alive as long as the session that holds its advisory lock is.
create table workers (
    id uuid primary key,
    -- The key of its advisory lock.
    lock_key bigint not null unique,
    name text not null,
    lanes text[] not null,
    slots int not null,
    started_at timestamptz not null default clock_timestamp(),
    -- When it took its lock, for the current session: before the server's start, a free lock proves nothing yet.
    locked_at timestamptz not null default clock_timestamp(),
    stopped_at timestamptz
);
-- The audit asks for those that have not said good-bye.
create index workers_unstopped on workers (id) where stopped_at is null;

-- A message sent through a lane to learn whether what was sent before it has arrived.
create table probes (
    id uuid primary key,
    lane text not null,
    sent_at timestamptz not null default clock_timestamp(),
    -- When it has arrived, what was queued in its lane until then, and still is, has lost its message.
    proves_until timestamptz not null,
    arrived_at timestamptz
);

-- The leader's epoch: raised by each election, checked by each of a leader's transactions.
create table leader (
    only_row boolean primary key default true check (only_row),
    epoch bigint not null,
    holder text not null,
    elected_at timestamptz not null
);
insert into leader values (true, 0, 'nobody', clock_timestamp());

-- Answers to requests that carried an Idempotency-Key, kept for 24 h.
create table idempotency_keys (
    principal text not null,
    route text not null,
    key text not null,
    -- SHA-256 of the body: the same key with another body is refused.
    body_hash bytea not null,
    -- {"status", "location", "body"}: the same body gets the same answer.
    answer jsonb not null,
    created_at timestamptz not null default clock_timestamp(),
    primary key (principal, route, key)
);
create index idempotency_keys_age on idempotency_keys (created_at);

-- Dead letters: node runs that failed for good, and failed their run. What happened is in node_runs and attempts; this
-- is what is still to be decided about it. Written by the statement that ends such a node run, so that what completes
-- pays nothing.

create table dead_letters (
    -- In the order of the failures.
    id uuid primary key,
    run_id uuid not null,
    node text not null,
    -- Copied, so that lists are filtered without a look at the run.
    pipeline text,
    action text,
    -- The kind of the error.
    kind text not null,
    failed_at timestamptz not null default clock_timestamp(),
    -- The run that repeats what failed. A run's letters are redriven together.
    redriven_as uuid,
    redriven_by text,
    redriven_at timestamptz,
    -- A dismissed letter is gone for clients; its row goes with its run.
    dismissed_by text,
    dismissed_at timestamptz,
    -- A node run ends once. Pruning and redriving find the letters of a run by this, too.
    constraint dead_letters_once unique (run_id, node),
    constraint dead_letters_redriven_whole check (
        (redriven_as is null) = (redriven_at is null) and (redriven_as is null) = (redriven_by is null)
    ),
    constraint dead_letters_dismissed_whole check ((dismissed_at is null) = (dismissed_by is null))
);
-- Lists of what is open, newest first: usually few among many.
create index dead_letters_open on dead_letters (id) where redriven_as is null and dismissed_at is null;
-- Lists by pipeline, newest first.
create index dead_letters_of_pipeline on dead_letters (pipeline, id) where pipeline is not null;

-- The slots of each lane that a worker serves, in the order of `lanes`; null for a worker of an earlier version.
alter table workers add column lane_slots int[];

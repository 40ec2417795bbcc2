-- Node runs that wait for an answer: a person's, an event's, a child run's. They hold no worker (R13), only rows.

create type wait_kind as enum ('approval', 'event', 'child', 'map', 'remote');

-- What a node run waits for, or has waited for last. Written with the node run's `waiting`; whoever answers locks the
-- run first, so that of an answer, a deadline and a stop the first wins, and an answer finds either the row or none.
create table waits (
    run_id uuid not null,
    node text not null,
    kind wait_kind not null,
    -- The attempt that set it waiting.
    attempt int not null,
    -- The node run's attempts that counted until then: once there are more, the answer has been used up.
    spent int not null,
    -- What the kind wants to know: for whoever answers, for whoever goes on with the answer, and for people.
    spec jsonb not null,
    -- Its timer is due then; kept here for people, and for the audit.
    deadline_at timestamptz,
    -- The types of events that it waits for, as `like` reads them; only while it is open.
    listens text,
    -- Of a map and of a child: how many there are, have begun, have ended, and of these have not completed.
    children int not null default 0,
    begun int not null default 0,
    ended int not null default 0,
    failed int not null default 0,
    -- Null while it is open.
    answer jsonb,
    answered_at timestamptz,
    created_at timestamptz not null default clock_timestamp(),
    -- One at a time: a node run that waits again replaces what it waited for.
    primary key (run_id, node),
    constraint waits_answer_is_dated check ((answer is null) = (answered_at is null)),
    constraint waits_only_open_ones_listen check (listens is null or answer is null)
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);
-- Whether anybody listens is asked wherever a run ends: of an index that is empty when nobody does.
create index waits_listening on waits (listens) where listens is not null;
-- What people are to decide, in pages.
create index waits_undecided on waits (run_id, node) where kind = 'approval' and answer is null;

-- The runs that a node run has started, or is to start. No foreign key, as in all that changes with each run.
create table children (
    parent_id uuid not null,
    node text not null,
    -- The `spent` of the wait to which it belongs: another try has other children.
    spent int not null,
    -- Its place among them; the answers are in this order.
    index int not null,
    -- Null until it begins.
    run_id uuid,
    -- What it is given when it begins.
    input jsonb,
    -- How it ended; null until that is counted in the wait.
    state run_state,
    -- Whatever crashes, nothing makes a second child.
    primary key (parent_id, node, spent, index)
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);
-- From a run that has ended to its parent.
create unique index children_runs on children (run_id) where run_id is not null;
-- The leader walks those whose end is not counted.
create index children_open on children (run_id) where run_id is not null and state is null;

-- The pipelines that a version starts whenever it runs, so that no chain of them leads back to itself.
alter table pipeline_versions add column calls text[] not null default '{}';

create function shown_instant(at timestamptz) returns text language sql stable as $$
    select to_char(at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
$$;

-- What a waiting node run is said to wait for.
create function shown_wait(of_run uuid, of_node text) returns jsonb language sql stable as $$
    select coalesce(
        (
            select jsonb_strip_nulls(jsonb_build_object(
                'for', w.kind, 'since', shown_instant(w.created_at), 'deadline_at', shown_instant(w.deadline_at)))
                || case w.kind
                    when 'child' then jsonb_build_object(
                        'pipeline', w.spec -> 'pipeline', 'version', w.spec -> 'version', 'run', (
                            select c.run_id from children as c
                            where c.parent_id = w.run_id and c.node = w.node and c.spent = w.spent limit 1))
                    when 'map' then jsonb_build_object(
                        'pipeline', w.spec -> 'pipeline', 'version', w.spec -> 'version',
                        'children', w.children, 'begun', w.begun, 'ended', w.ended, 'failed', w.failed)
                    else jsonb_strip_nulls(w.spec)
                end
            from waits as w where w.run_id = of_run and w.node = of_node and w.answer is null
        ), (
            select jsonb_build_object('for', 'delay', 'until', shown_instant(t.due_at))
            from timers as t where t.run_id = of_run and t.node = of_node and t.kind = 'wait'
        ))
$$;

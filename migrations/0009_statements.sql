-- Tables whose rows come and go keep the room that they once took: giving their ends back to the disk takes a lock that
-- whoever adds a row has to wait for.
alter table outbox set (vacuum_truncate = off);
alter table timers set (vacuum_truncate = off);
alter table events set (vacuum_truncate = off);
alter table open_fires set (vacuum_truncate = off);

-- Writes the event of a run's end, where something listens to it. Only called when anything listens at all: what is told
-- of a run that ends is then worth planning.
create function tell_end(ended uuid, how run_state) returns boolean language plpgsql as $$
begin
    insert into events (type, data, depth)
    select 'run.' || how, run_told(r, how, null), coalesce((r.trigger ->> 'depth')::int, 0)
    from runs as r
    where r.id = ended
        and (exists (select from schedules as s where s.listens is not null and 'run.' || how like s.listens)
            or exists (select from waits as w where w.listens is not null and 'run.' || how like w.listens));
    return true;
end
$$;

-- A constraint is read anew by each statement that writes a row, so a short one is a quick one. The states in which a
-- run, and a node run, has ended are the last of their types. The rows that are there fit the constraints as they were,
-- which say the same: they are not looked at, since nothing goes on meanwhile.
alter table runs
    drop constraint runs_end_is_dated,
    add constraint runs_end_is_dated check ((state >= 'completed') = (finished_at is not null)) not valid,
    drop constraint runs_pipeline_or_action,
    add constraint runs_pipeline_or_action check (
        (kind = 'action') = (action is not null)
        and num_nonnulls(pipeline_id, pipeline, version) = case when action is null then 3 else 0 end
    ) not valid;
alter table node_runs
    drop constraint node_runs_end_is_dated,
    add constraint node_runs_end_is_dated check ((state >= 'completed') = (finished_at is not null)) not valid;

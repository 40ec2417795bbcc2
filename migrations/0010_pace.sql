-- These two tables grow. Vacuumed at full speed, they take the disk and a core from who waits; at the server's own pace
-- that takes some tenths of a second longer, and nobody notices.
alter table runs reset (autovacuum_vacuum_cost_delay);
alter table node_runs reset (autovacuum_vacuum_cost_delay);

-- Rows are found by their keys, and what is asked of these columns besides only filters: statistics of them cost time,
-- and change no plan.
alter table runs
    alter column action set statistics 0,
    alter column input set statistics 0,
    alter column output set statistics 0,
    alter column error set statistics 0,
    alter column trigger set statistics 0,
    alter column traceparent set statistics 0,
    alter column seq set statistics 0,
    alter column queued_at set statistics 0,
    alter column started_at set statistics 0;
alter table node_runs
    alter column waiting set statistics 0,
    alter column output set statistics 0,
    alter column error set statistics 0,
    alter column seq set statistics 0,
    alter column queued_at set statistics 0,
    alter column started_at set statistics 0,
    alter column finished_at set statistics 0;

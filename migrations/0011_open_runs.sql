-- Where the audit finds the runs that have not ended. Acceptance writes a row; the run's end leaves it, and the audit
-- takes it out when it comes by. An index of `runs` could not do without a change at the end: then that update would
-- write all the others anew, too, and vacuum would have to walk them, however much they grow. So it stays within its page.
create table open_runs (
    run_id uuid primary key
) with (vacuum_truncate = off, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);
-- None is accepted between the look and the end of this migration. Processes from before it note none; the leader finds
-- what they accept when it begins.
lock table runs in share row exclusive mode;
insert into open_runs select id from runs where finished_at is null;
drop index runs_open;
-- Pruning goes by id: ids are in time order.
drop index runs_finished;

-- A page has room for both updates of the runs that arrive in it together. At the limit of what a machine can do that
-- takes no more pages than before, since less spills over to others; at a steady, lower load some two fifths more.
alter table runs set (fillfactor = 50);

-- What is left to be counted is names and states: a tenth of the rows tells as much, and an analysis reads a tenth. It
-- reads pages from all over the table, though, from the disk where that is large, and no page can be tidied up meanwhile:
-- so it comes when the table has grown by two thirds (each row changes three times), not by a thirtieth.
alter table runs set (autovacuum_analyze_scale_factor = 2);
alter table node_runs set (autovacuum_analyze_scale_factor = 2);
alter table runs
    alter column id set statistics 10,
    alter column kind set statistics 10,
    alter column pipeline_id set statistics 10,
    alter column pipeline set statistics 10,
    alter column version set statistics 10,
    alter column state set statistics 10,
    alter column stop_reason set statistics 10,
    alter column lane set statistics 10,
    alter column tags set statistics 10,
    alter column created_by set statistics 10,
    alter column rerun_of set statistics 10,
    alter column keep_completed set statistics 10,
    alter column open set statistics 10,
    alter column created_at set statistics 10,
    alter column finished_at set statistics 10;
alter table node_runs
    alter column run_id set statistics 10,
    alter column node set statistics 10,
    alter column state set statistics 10,
    alter column lane set statistics 10,
    alter column attempt set statistics 10,
    alter column spent set statistics 10,
    alter column losses set statistics 10,
    alter column open_in set statistics 10,
    alter column taken_in set statistics 10,
    alter column broken_in set statistics 10,
    alter column owner set statistics 10,
    alter column job_id set statistics 10;

-- What nodes print, kept per attempt.

-- `log` is what a tool says of its own; `cut` stands where lines were left out, and says how many.
create type log_stream as enum ('stdout', 'stderr', 'log', 'cut');

-- One line of one attempt. Written while the attempt runs, in batches, by the worker that owns it: the attempt is part
-- of the key, so that one that was fenced off cannot write among the lines of the next. No foreign key, since each
-- line would lock its run's row, which is the busiest; the lines are pruned with their run.
create table node_logs (
    run_id uuid not null,
    node text not null,
    attempt int not null,
    -- Counts the lines that were printed, from 1: where a number is missing, the line was left out.
    seq bigint not null,
    stream log_stream not null,
    at timestamptz not null,
    text text not null,
    -- Serves whoever reads an attempt, follows one, or prunes a run. Reading goes in its order.
    primary key (run_id, node, attempt, seq)
);

-- Which tools the operator of a worker lets it use: what it can do differs from worker to worker, and a client that
-- defines a pipeline wants to know before it runs. The worker says so when it takes its lock.
alter table workers add column tools text[] not null default '{}';

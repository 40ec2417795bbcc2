-- Tools that programs in any language execute. The calls and the replies are `waits` of the kind 'remote'.
create table remote_tools (
    -- What actions say to ask for it; also the end of its queue's name.
    name text primary key,
    description text not null,
    -- JSON Schema of the input: definitions are checked against it, and rendered inputs before they are sent.
    schema jsonb not null,
    -- The longest that a call may take; null: as the node says.
    timeout_ms bigint check (timeout_ms > 0),
    registered_by text not null,
    created_at timestamptz not null default clock_timestamp(),
    -- Processes compile a schema again when this has changed.
    updated_at timestamptz not null default clock_timestamp()
);

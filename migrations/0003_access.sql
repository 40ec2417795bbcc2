-- Access: who may do what, what they did, and the secrets that nodes use. Replicas of the api share nothing but these
-- tables: what one of them writes, the others see within a second.

-- What somebody may do; each may do what those before it may.
create type user_role as enum ('viewer', 'operator', 'admin');

-- People.
create table users (
    id uuid primary key,
    -- As it was given.
    email text not null,
    -- In lower case: two accounts cannot differ by case alone.
    email_key text not null,
    name text not null,
    role user_role not null,
    -- Argon2id in the PHC form, which carries its salt and cost.
    password_hash text not null,
    -- Signs in no more, nor do its tokens and keys.
    disabled_at timestamptz,
    created_by text not null,
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp()
);
-- Sign-in finds an account by this, and two registrations of one address meet here.
create unique index users_email_taken on users (email_key);

-- One sign-in and all that was refreshed from it: revoked together.
create table token_families (
    id uuid primary key,
    user_id uuid not null references users (id),
    created_at timestamptz not null default clock_timestamp(),
    revoked_at timestamptz
);
-- Disabling somebody revokes all their families.
create index token_families_live on token_families (user_id) where revoked_at is null;

-- Refresh tokens, each good for one use, and the access token that was issued with it.
create table refresh_tokens (
    -- SHA-256 of it: who reads this table cannot use what is in it.
    hash bytea primary key,
    family_id uuid not null references token_families (id),
    access_jti uuid not null,
    access_expires_at timestamptz not null,
    expires_at timestamptz not null,
    -- A second use after this revokes the family.
    spent_at timestamptz
);
-- Logging out finds the family of an access token.
create index refresh_tokens_access on refresh_tokens (access_jti);
-- Revoking a family finds its access tokens.
create index refresh_tokens_family on refresh_tokens (family_id);
-- Pruning.
create index refresh_tokens_age on refresh_tokens (expires_at);

-- Access tokens that are refused before they expire.
create table revoked_tokens (
    jti uuid primary key,
    expires_at timestamptz not null
);
-- Pruning: an expired token is refused anyway.
create index revoked_tokens_age on revoked_tokens (expires_at);

-- Keys of programs.
create table api_keys (
    id uuid primary key,
    -- The public part, by which it is found and named.
    prefix text not null,
    -- SHA-256 of the secret part, which is random and long: nothing slower is needed.
    hash bytea not null,
    name text not null,
    owner uuid not null references users (id),
    -- Not above the owner's when it was made; the owner's role of the moment caps it.
    role user_role not null,
    expires_at timestamptz,
    last_used_at timestamptz,
    revoked_at timestamptz,
    created_at timestamptz not null default clock_timestamp()
);
-- Every request with a key looks it up by this.
create unique index api_keys_prefix_taken on api_keys (prefix);
-- Somebody's own keys, newest first.
create index api_keys_of_owner on api_keys (owner, id);

-- Every security event. Never holds a password or a token.
create table audit_events (
    -- In time order.
    id uuid primary key,
    kind text not null,
    -- Who: the subject of their token or key; null when nobody was signed in.
    actor text,
    -- What it was done to: a user, a key, a pipeline, a run.
    subject text,
    -- The client's address.
    address text not null,
    request_id text not null,
    detail jsonb not null default '{}',
    at timestamptz not null
);
-- Lists by kind and by actor, newest first. Pages of everything walk the primary key.
create index audit_events_kind on audit_events (kind, id);
create index audit_events_actor on audit_events (actor, id) where actor is not null;
-- Pruning.
create index audit_events_age on audit_events (at);

-- Secrets of nodes: values go in, and only workers take them out.
create table secrets (
    name text primary key,
    -- Which key of GATHERING_SECRETS_KEY sealed it.
    key_id text not null,
    -- Nonce, ciphertext and tag; the name is authenticated with it, so that rows cannot be swapped.
    sealed bytea not null,
    created_by text not null,
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp()
);

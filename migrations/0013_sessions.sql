-- Browsers that have logged in with a key (security.md, "Sessions"). A row goes with its session: at the log-out, or when a later log-in
-- finds that its time is over or takes its place.
create table sessions (
  -- SHA-256 of what the cookie holds, so that whoever reads this table cannot log in with it.
  token_hash bytea primary key check (pg_catalog.octet_length(token_hash) = 32),
  -- SHA-256 of the key's secret, and the scopes that the key had: a session ends when there is no such key any more.
  key_hash bytea not null check (pg_catalog.octet_length(key_hash) = 32),
  scopes text not null,
  -- Its place among those of its key: so many sessions a key has at most.
  slot smallint not null check (slot between 0 and 19),
  made_at timestamptz not null default now(),
  -- Written once a minute at most.
  used_at timestamptz not null default now(),
  constraint sessions_place unique (key_hash, slot)
);

-- What changed, for the live feed: one row for each statement that changed something that the API shows.
--
-- What it costs: inbound_count is counted once, for which all messages and conversations are read and all conversations written, while nobody
-- writes to them: seconds for a million messages. Stop what runs first, or choose a quiet moment: webhooks and sends are answered 503
-- meanwhile, and repeated by their callers. Binaries that are older than these columns tell the feed nothing and do not count.

-- Grow with each change of the row that the API shows: of two copies, the one with the higher revision is the newer.
alter table conversations add column revision bigint not null default 1;
alter table messages add column revision bigint not null default 1;

-- All inbound messages ever: a reader says up to which of them it has seen.
alter table conversations add column inbound_count bigint not null default 0;
update conversations c set inbound_count = m.n
from (select conversation_id, count(*) as n from messages where direction = 'INBOUND' group by conversation_id) m
where m.conversation_id = c.id;

create table changes (
  -- The writing transaction's id: nobody waits for anybody to get one, and a reader can tell which are still to come.
  position bigint primary key default (pg_catalog.pg_current_xact_id()::text::bigint),
  at timestamptz not null default now(),
  conversation_ids uuid[] not null default '{}',
  -- Messages that are new, and messages that were changed.
  created_ids uuid[] not null default '{}',
  updated_ids uuid[] not null default '{}',
  -- So much has changed that a reader fetches again what it shows.
  bulk boolean not null default false
);
-- The ids of a whole batch stay in the row. Rows are deleted in the order in which they came.
alter table changes set (toast_tuple_target = 8160, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- One row: which history the positions belong to.
create table feed (
  singleton boolean primary key default true check (singleton),
  -- Another one: what positions of before say means nothing.
  epoch uuid not null default pg_catalog.gen_random_uuid(),
  -- The server that gave the positions. Another one: this is a copy, and its transactions have ids of their own.
  system_identifier bigint not null,
  -- All positions below have been deleted.
  deleted_below bigint not null default 0
);
insert into feed (system_identifier) select system_identifier from pg_catalog.pg_control_system();

-- The raw bodies of webhook events, in a table for each month, so that retention empties a month as a whole: that costs the same for a
-- thousand bodies as for a million. A body belongs to the message that its event made, and to that message's created_at.
--
-- What it costs: nothing that can be noticed, since no row is moved. webhook_events.body stays for binaries that are older than this
-- table, and for what they have stored: retention empties that in small steps, and later events use its place again. The index
-- webhook_events_bodies has no entry for an event without a body there, so that new events pay nothing for either.
create table webhook_bodies (
  received_at timestamptz not null default now(),
  message_id uuid not null,
  body bytea not null,
  primary key (received_at, message_id)
) partition by range (received_at);

-- For what has no month: nothing that comes in ever fails for the want of one. Months, of UTC, are made by whoever migrates and by what
-- runs as the owner, a year ahead (webhook::make_months); their names end like 2025_01.
create table webhook_bodies_rest partition of webhook_bodies default;

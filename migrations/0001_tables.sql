-- The tables of the gateway. SCHEMA.md tells how they work together, and what would go wrong without each constraint.

create table conversations (
  id uuid primary key,
  channel text not null check (channel in ('whatsapp', 'instagram')),
  participant_id text not null,
  status text not null default 'open' check (status in ('open', 'closed')),
  -- The newest message by (sort_at, id); compared as a pair, since providers' times tie.
  last_message_id uuid not null,
  last_message_at timestamptz not null,
  last_message_preview text not null,
  unread_count integer not null default 0 check (unread_count >= 0),
  last_read_at timestamptz,
  -- Null: in the inbox.
  archived_at timestamptz,
  -- The number of the last accepted outbound message: the order in which they reach the provider, if asked for.
  outbound_seq bigint not null default 0,
  created_at timestamptz not null default now(),
  unique (channel, participant_id)
);

-- The only index that an event moves. A list without a filter is a union over its few (channel, status) pairs.
create index conversations_inbox on conversations (channel, status, last_message_at desc, id desc) where archived_at is null;
create index conversations_archived on conversations (last_message_at desc, id desc) where archived_at is not null;

create table messages (
  -- A UUIDv7 made by the application, so that a statement that is sent again finds its own rows.
  id uuid primary key,
  -- The foreign key is what stops the loser of a race between two first messages to one participant.
  conversation_id uuid not null references conversations,
  channel text not null,
  participant_id text not null,
  direction text not null check (direction in ('INBOUND', 'OUTBOUND')),
  text text not null,
  status text not null check (status in ('RECEIVED', 'PENDING', 'SENT', 'FAILED')),
  client_message_id text,
  provider_message_id text,
  -- Attempts that have failed, over the message's whole life.
  retry_count integer not null default 0,
  -- As shown to the outside: when a FAILED message is tried again by itself; null there: it waits for an operator.
  next_attempt_at timestamptz,
  error_kind text,
  error_http_status integer,
  error_detail text,
  error_retryable boolean,
  -- The provider's time, as given, for inbound; the creation time for outbound.
  timestamp timestamptz not null,
  -- The time that messages are listed by: timestamp, but at most 10 minutes ahead of the database's clock.
  sort_at timestamptz not null,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  sent_at timestamptz,
  check ((direction = 'INBOUND') = (status = 'RECEIVED')),
  check ((status = 'SENT') = (sent_at is not null))
);

create index messages_thread on messages (conversation_id, sort_at desc, id desc);
create unique index messages_client on messages (channel, client_message_id) where client_message_id is not null;

create table webhook_events (
  provider text not null,
  event_id text not null,
  -- The message that the event made, so that a duplicate is answered with the same ids.
  message_id uuid not null,
  -- The request as it came; may be emptied one day. The key stays for ever: a late duplicate must still be one.
  body bytea,
  received_at timestamptz not null default now(),
  primary key (provider, event_id)
);

-- The queue: one row for each outbound message that is not SENT, none for any other.
create table deliveries (
  message_id uuid primary key,
  conversation_id uuid not null,
  -- The place in the conversation's order.
  seq bigint not null,
  -- The next attempt, the end of the lease, or the latest start of a blocked one, whichever applies.
  -- Null is parked: failed for good, waiting for an operator.
  due_at timestamptz,
  -- Whoever presents it may write a failure. Null: nobody holds the delivery.
  lease_token uuid,
  -- Claims since it was accepted or requeued. 0: never claimed.
  attempt integer not null default 0,
  -- Settled failures since it was accepted or requeued: the budget that is used up.
  failures integer not null default 0,
  check (due_at is not null or lease_token is null)
);

create unique index deliveries_order on deliveries (conversation_id, seq) where due_at is not null;
create index deliveries_due on deliveries (due_at) where due_at is not null;
-- Blocked deliveries, for the sweep that repeats a release lost in a crash. One that is born leased never enters it.
create index deliveries_blocked on deliveries (conversation_id) where attempt = 0 and lease_token is null and due_at is not null;

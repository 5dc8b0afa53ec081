-- WhatsApp's Cloud API: messages of every type, what comes about them afterwards, and who a customer is.
--
-- What it costs: nothing but a moment's lock of each table, since all that is new is empty. Binaries that are older store and send texts as
-- before; they must not serve a gateway that is connected to WhatsApp, since they know neither its ids nor its statuses.

alter table messages
  -- What kind of message it is, by the channel's own word.
  add column type text not null default 'text',
  -- The object of its type as it came or is sent: JSON, as text, so that no number and no key of it is lost.
  add column content text,
  -- The message that it answers: the provider's id, and ours if it was known when this one was stored.
  add column reply_to text collate "C",
  add column reply_to_id uuid,
  -- What the provider is called with, where that is not participant_id.
  add column address text,
  -- Who wrote an outbound message that the gateway has not sent: a person in the business's app, or an agent of the provider. Null: the API.
  add column origin text check (origin in ('app', 'agent')),
  -- What the sender called themselves.
  add column participant_name text,
  -- By sender: {"emoji", "at"}; an emoji that is null was taken back.
  add column reactions jsonb,
  add column edited_at timestamptz,
  add column deleted_at timestamptz,
  -- The provider's own number for the last error.
  add column error_code bigint;

alter table conversations
  add column participant_name text,
  -- Nobody is to write to this participant before: the provider has said so.
  add column paused_until timestamptz,
  -- The newest message of the customer: WhatsApp takes free texts for 24 hours after it.
  add column window_from timestamptz;

alter table deliveries
  -- When the last attempt ended, if the provider may have accepted the message in it.
  add column unsure_since timestamptz,
  -- How many attempts in a row have ended like that.
  add column doubts integer not null default 0,
  -- Failed attempts that use up no budget: the account was at fault, not the message.
  add column spared integer not null default 0;

alter table channels
  -- Why only one message at a time tries it; null: nothing is at fault. And with which token that was, as a fingerprint.
  add column held_for text check (held_for in ('unauthorized')),
  add column held_token text;

-- An event that makes no message (a reaction, an edit, a deletion) has a key too.
alter table webhook_events alter column message_id drop not null;

-- What is known of a message by the provider's id for it: which of ours it is, and how far it has come. A status may come before that id is
-- known here, and long after; of messages that the gateway does not know, too. So this is joined when messages are read.
create table receipts (
  provider_message_id text collate "C" primary key,
  -- Null: not known (yet).
  message_id uuid,
  -- When the call began in which the provider accepted it, by our clock. Null: only a status says that it has.
  accepted_at timestamptz,
  -- The first time of each step.
  sent_at timestamptz,
  delivered_at timestamptz,
  read_at timestamptz,
  played_at timestamptz,
  failed_at timestamptz,
  error_code bigint,
  error_title text,
  error_detail text,
  -- When the first status came; null: none has.
  received_at timestamptz,
  -- Grows with each change, and is part of the revision that the API shows of the message.
  revision bigint not null default 1
);
-- Whether statuses come at all: of messages accepted after some moment.
create index receipts_witnesses on receipts (accepted_at) where received_at is not null and message_id is not null;
create index receipts_unknown on receipts (received_at) where message_id is null;
-- Three writes a message.
alter table receipts set (fillfactor = 80);

-- What has come about other messages, the newest of each sender: it is written into the message, now or when that comes.
create table amendments (
  -- The provider's id of the message.
  target_id text collate "C" not null,
  kind text collate "C" not null check (kind in ('reaction', 'edit', 'deletion')),
  -- The participant, or empty: the business.
  sender text collate "C" not null,
  -- The conversation that it came in: of another's message nothing is changed.
  participant_id text collate "C" not null,
  at timestamptz not null,
  -- Of a reaction; null: it was taken back.
  emoji text,
  -- Of an edit: the new message.
  type text,
  text text,
  content text,
  stored_at timestamptz not null default now(),
  primary key (target_id, kind, sender)
);
create index amendments_age on amendments (stored_at);

-- The ids of a person, numbers and user ids: each leads to the participant of one conversation.
create table aliases (
  alias text collate "C" primary key,
  participant_id text collate "C" not null,
  -- Of a number: the user id that it came with last.
  user_id text collate "C",
  -- The time of the newest event that says so.
  since timestamptz not null,
  -- Of a number: another person has it now. Nobody is written to by it any more.
  changed_hands boolean not null default false
);
create index aliases_participant on aliases (participant_id);

-- Signed bodies that are no JSON object: the newest hundred.
create table unreadable_webhooks (
  id bigint generated always as identity primary key,
  body bytea not null,
  received_at timestamptz not null default now()
);

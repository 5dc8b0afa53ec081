-- Keys compare by their bytes. Else an upgrade of the operating system, whose order of texts changes, would silently break their
-- indexes: a key is not found any more, and there are duplicates. And the more selective column comes first.
--
-- What it costs: the indexes of these columns are built anew, while nobody reads or writes their table. That takes about as long as
-- reading the table twice: seconds for a million events. Rows are not rewritten. Stop what runs first, or choose a quiet moment: webhooks
-- and sends are answered 503 meanwhile, and repeated by their callers.

alter table conversations
  drop constraint conversations_channel_participant_id_key,
  alter column channel type text collate "C",
  alter column participant_id type text collate "C",
  alter column status type text collate "C",
  add constraint conversations_participant_id_channel_key unique (participant_id, channel);

drop index messages_client;
alter table messages
  alter column channel type text collate "C",
  alter column participant_id type text collate "C",
  alter column client_message_id type text collate "C";
create unique index messages_client on messages (client_message_id, channel) where client_message_id is not null;

alter table webhook_events
  drop constraint webhook_events_pkey,
  alter column provider type text collate "C",
  alter column event_id type text collate "C",
  add primary key (event_id, provider);

alter table channels alter column channel type text collate "C";
alter table deliveries alter column channel type text collate "C";

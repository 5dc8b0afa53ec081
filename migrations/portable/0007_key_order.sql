-- As 0007, a constraint added by a statement of its own.
alter table conversations drop constraint conversations_channel_participant_id_key;
alter table conversations
  alter column channel type text collate "C",
  alter column participant_id type text collate "C",
  alter column status type text collate "C";
alter table conversations add constraint conversations_participant_id_channel_key unique (participant_id, channel);

drop index messages_client;
alter table messages
  alter column channel type text collate "C",
  alter column participant_id type text collate "C",
  alter column client_message_id type text collate "C";
create unique index messages_client on messages (client_message_id, channel) where client_message_id is not null;

alter table webhook_events drop constraint webhook_events_pkey;
alter table webhook_events
  alter column provider type text collate "C",
  alter column event_id type text collate "C";
alter table webhook_events add constraint webhook_events_pkey primary key (event_id, provider);

alter table channels alter column channel type text collate "C";
alter table deliveries alter column channel type text collate "C";

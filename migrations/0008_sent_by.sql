-- The name of the key that sent it. Null: inbound, without keys, by a key without a name, or before this column.
alter table messages add column sent_by text collate "C";

-- The same, so that a key that sees its own messages only finds those that are unsent, however much others have in the queue.
alter table deliveries add column sent_by text collate "C";
create index deliveries_sender on deliveries (sent_by, message_id) where sent_by is not null;

-- The list of unread conversations reads no others.
--
-- What it costs: two indexes are built while nobody writes to the table: a second for a million conversations. Each unread conversation has
-- an entry that its events move, beside that in the inbox.

-- As those of the inbox and of the archive.
create index conversations_unread on conversations (channel, status, last_message_at desc, id desc) where archived_at is null and unread_count > 0;
create index conversations_archived_unread on conversations (channel, status, last_message_at desc, id desc) where archived_at is not null and unread_count > 0;

-- The conversations with unread messages, so that their list reads no others. A row is written when a conversation begins to have unread
-- messages, and goes when all are read: an index on conversations would cost each event a third more, since each would move its entry.
--
-- What it costs: all conversations are read once. What binaries that are older than this table store is not listed as unread until the
-- next message of its conversation.
create table unread (conversation_id uuid primary key);
insert into unread (conversation_id) select id from conversations where unread_count > 0;

-- A message and its new conversation are written by one statement: the key is checked at its end, whatever the order in which a database
-- runs the statement's parts. PostgreSQL itself checks it there anyway.
alter table messages alter constraint messages_conversation_id_fkey deferrable initially deferred;

-- As 0011, for tables that are empty: where they are not, all messages would be read.
alter table messages drop constraint messages_conversation_id_fkey;
alter table messages add constraint messages_conversation_id_fkey foreign key (conversation_id) references conversations (id)
  deferrable initially deferred;

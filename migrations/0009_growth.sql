-- What lists and counts read does not grow with what is parked or archived.

-- What is parked, in the order of the list. What is sent at once never enters it.
create index deliveries_parked on deliveries (channel, message_id) where due_at is null;
create index deliveries_parked_sender on deliveries (sent_by, channel, message_id) where due_at is null and sent_by is not null;
-- And the others of a key that sees its own messages only.
drop index deliveries_sender;
create index deliveries_sender on deliveries (sent_by, message_id) where due_at is not null and sent_by is not null;

-- As that of the inbox, so that no filter has to read what it leaves out.
drop index conversations_archived;
create index conversations_archived on conversations (channel, status, last_message_at desc, id desc) where archived_at is not null;

-- Storage, as measured: 160,000 updates as of ingest, spread over 200,000 conversations, on PostgreSQL 15. No update can be HOT, since each
-- moves its entry in conversations_inbox; so room in a page gains nothing:
--
--   fillfactor, scale factor    CPU an update    heap          dead rows vacuumed
--   80, 0.2 (as it was)         27.3 µs          46 -> 46 MB    3 times
--   80, 0.02                    26.8 µs          46 -> 46 MB   10 times
--   90, 0.02                    26.7 µs          41 -> 41 MB   12 times
--   100, 0.02                   27.9 µs          36 -> 38 MB   10 times
--   100, 0.2                    29.2 µs          36 -> 40 MB    3 times
--
-- Full pages it is, and a vacuum for each fiftieth of the rows: with a fifth, ten million conversations would keep two million dead ones.
-- Messages stay as they are (79 % of their updates are HOT), and webhook_events is only written to.
alter table conversations set (fillfactor = 100, autovacuum_vacuum_scale_factor = 0.02);

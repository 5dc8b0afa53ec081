-- Storage options of PostgreSQL, apart from the tables: a database that speaks its protocol but not these can leave them out.

alter table conversations set (fillfactor = 80);
alter table messages set (fillfactor = 90);
-- A queue is mostly dead rows: vacuum it by their number, not by their share.
alter table deliveries set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200);

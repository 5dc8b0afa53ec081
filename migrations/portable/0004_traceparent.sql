-- As 0004: the constraint has the name that PostgreSQL gives it there.
alter table deliveries add column traceparent text;
alter table deliveries add constraint deliveries_traceparent_check check (length(traceparent) = 55);

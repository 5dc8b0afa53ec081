-- The trace that a message was accepted in (W3C Trace Context), for the attempts of other processes. Null: nobody traces.
alter table deliveries add column traceparent text check (length(traceparent) = 55);

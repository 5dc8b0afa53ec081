-- Finds the events whose bodies are old enough to be emptied; those that are empty are not in it.
create index webhook_events_bodies on webhook_events (received_at) where body is not null;

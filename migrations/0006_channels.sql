-- How fast the provider may be called for a channel, agreed on by all processes: one row a channel, for ever.
create table channels (
  channel text primary key,
  -- No call before: the provider has answered 429.
  paused_until timestamptz not null default 'epoch',
  -- From paused_until until then calls are spread, twice as many each second.
  ramp_until timestamptz not null default 'epoch',
  -- The earliest time of the next call, while calls are spread (the theoretical arrival time of ITU-T I.371's GCRA).
  next_call_at timestamptz not null default 'epoch',
  -- Whoever sees that calls are not spread need not ask whether they are paused.
  check (paused_until <= ramp_until)
);
insert into channels (channel) values ('instagram'), ('whatsapp');

-- So that a claim passes over what a paused channel has in the queue, however much that is. The default is for binaries that are older
-- than the column: what these accept is paced as WhatsApp's.
alter table deliveries add column channel text not null default 'whatsapp';
update deliveries d set channel = m.channel from messages m where m.id = d.message_id and m.channel <> d.channel;
drop index deliveries_due;
create index deliveries_due on deliveries (channel, due_at) where due_at is not null;

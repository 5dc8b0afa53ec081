-- The demo inbox: one list of messages, from which everything else is derived. A conversation that exists stays as it
-- is, so loading the inbox again changes nothing.
with line (channel, participant_id, minutes_ago, direction, text, state) as (values
  ('whatsapp',  '+90 555 010 0101', 2890, 'INBOUND',  'Merhaba, siparişim ne zaman kargoya verilecek?', 'read'),
  ('whatsapp',  '+90 555 010 0101', 2875, 'OUTBOUND', 'Merhaba! Siparişiniz bugün yola çıkıyor.', 'seen'),
  ('whatsapp',  '+90 555 010 0101', 2860, 'INBOUND',  'Harika, teşekkürler!', 'read'),
  ('whatsapp',  '+90 555 010 0101', 35,   'INBOUND',  'Kargo takip numarasını da alabilir miyim?', 'unread'),
  ('instagram', 'mara.designs',     190,  'INBOUND',  'Hi! Is the blue lamp still available?', 'read'),
  ('instagram', 'mara.designs',     184,  'OUTBOUND', 'It is: three of them. Shall I put one aside for you?', 'sent'),
  ('instagram', 'mara.designs',     12,   'INBOUND',  'Yes please 🙏', 'unread'),
  ('instagram', 'mara.designs',     11,   'INBOUND',  'And do you ship to Lisbon?', 'unread'),
  ('whatsapp',  '+44 7700 900123',  1500, 'INBOUND',  'My parcel arrived damaged.', 'read'),
  ('whatsapp',  '+44 7700 900123',  1440, 'OUTBOUND', 'We are sorry! A replacement is on its way.', 'delivered'),
  ('whatsapp',  '+44 7700 900123',  1430, 'OUTBOUND', 'Your return label: https://example.com/returns/1042', 'rejected'),
  ('instagram', 'the_real_otto',    7300, 'INBOUND',  'Do you have gift cards?', 'read'),
  ('instagram', 'the_real_otto',    7290, 'OUTBOUND', 'We do, from 10 to 200 euros.', 'sent'),
  ('whatsapp',  '+49 151 5550199',  64,   'INBOUND',  'Guten Tag, wie sind Ihre Öffnungszeiten?', 'unread')
), person (participant_id, name) as (values
  ('+90 555 010 0101', 'Deniz Kaya'), ('+44 7700 900123', 'Priya'), ('+49 151 5550199', 'Jonas 🚲')
), message as (
  select *, state in ('sent', 'delivered', 'seen') as is_sent, now() - minutes_ago::float8 * interval '1 minute' as at,
    row_number() over (order by minutes_ago desc) as number,
    -- A UUIDv7 (RFC 9562, section 5.7) of the message's time, its random part made from the text.
    (pg_catalog.lpad(pg_catalog.to_hex(
        (extract(epoch from now() - minutes_ago::float8 * interval '1 minute') * 1000::numeric)::bigint), 12, '0')
      || '7' || pg_catalog.substr(pg_catalog.md5(text), 1, 3)
      || '8' || pg_catalog.substr(pg_catalog.md5(text), 4, 15))::uuid as id
  from line
), conversation as (
  insert into conversations (id, channel, participant_id, participant_name, status, last_message_id, last_message_at, last_message_preview,
    unread_count, inbound_count, last_read_at, outbound_seq, created_at)
  select (pg_catalog.lpad(pg_catalog.to_hex((extract(epoch from min(at)) * 1000::numeric)::bigint), 12, '0')
      || '7' || pg_catalog.substr(pg_catalog.md5(participant_id), 1, 3)
      || '8' || pg_catalog.substr(pg_catalog.md5(participant_id), 4, 15))::uuid,
    channel, participant_id, (select name from person p where p.participant_id = message.participant_id),
    case when max(at) < now() - interval '3 days' then 'closed' else 'open' end,
    (pg_catalog.array_agg(id order by at desc))[1], max(at), left((pg_catalog.array_agg(text order by at desc))[1], 200),
    count(*) filter (where state = 'unread'), count(*) filter (where direction = 'INBOUND'), max(at) filter (where state = 'read'),
    count(*) filter (where direction = 'OUTBOUND'), min(at)
  from message group by channel, participant_id order by channel collate "C", participant_id collate "C"
  on conflict (participant_id, channel) do nothing
  returning id, channel, participant_id, unread_count
), now_unread as (
  insert into unread (conversation_id) select id from conversation where unread_count > 0 on conflict do nothing
), fresh as (
  select m.*, c.id as conversation_id,
    row_number() over (partition by c.id, m.direction order by m.at) as seq
  from message m join conversation c on c.channel = m.channel and c.participant_id = m.participant_id
), event as (
  insert into webhook_events (provider, event_id, message_id, received_at)
  select 'mock-meta', 'seed_' || id::text, id, at from fresh where direction = 'INBOUND'
), delivery as (
  insert into deliveries (message_id, conversation_id, channel, seq, due_at, attempt, failures)
  select id, conversation_id, channel, seq, null, 1, 1 from fresh where state = 'rejected'
), stored as (
  insert into messages (id, conversation_id, channel, participant_id, direction, text, status, provider_message_id,
    retry_count, error_kind, error_http_status, error_detail, error_retryable, timestamp, sort_at, created_at, updated_at,
    sent_at)
  select id, conversation_id, channel, participant_id, direction, text,
    case when is_sent then 'SENT' when state = 'rejected' then 'FAILED' else 'RECEIVED' end,
    case when is_sent then 'msg_seed_' || number::text end,
    case when state = 'rejected' then 1 else 0 end,
    case when state = 'rejected' then 'rejected' end,
    case when state = 'rejected' then 422 end,
    case when state = 'rejected' then 'links are not allowed' end,
    case when state = 'rejected' then false end,
    at, at, at, at, case when is_sent then at end
  from fresh
  returning id
), receipt as (
  insert into receipts (provider_message_id, message_id, accepted_at, sent_at, delivered_at, read_at, received_at)
  select 'msg_seed_' || number::text, id, at, at, at + interval '2 seconds', case when state = 'seen' then at + interval '1 minute' end, at
  from fresh where state in ('delivered', 'seen') order by 1
  on conflict do nothing
)
insert into changes (bulk) select true from stored having count(*) > 0 on conflict do nothing;

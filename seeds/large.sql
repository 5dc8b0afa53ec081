-- seed::insert_large
-- Conversations of a large made-up inbox, with all that belongs to them: those with these numbers ($2) and as many messages
-- ($3). All is drawn from hashes of the seed ($1) and the place, so that the same seed makes the same inbox; times count back
-- from the hour in which conversation 0 was loaded. A conversation that is there already is left as it is.
with phrase (language, direction, texts) as (values
  (0, 'INBOUND', array['Merhaba, siparişim ne zaman kargoya verilecek?', 'Teşekkürler 🙏', 'Kargo takip numarasını alabilir miyim?', 'Adresimi değiştirmek istiyorum.',
    'Ürün elime ulaştı, çok beğendim 😍', 'Bir sorum daha olacak: iade süresi kaç gün?', 'Tamam', 'Bugün teslim edilir mi acaba?']),
  (0, 'OUTBOUND', array['Merhaba! Siparişiniz bugün yola çıkıyor 📦', 'Rica ederiz.', 'İade süresi 14 gündür.', 'Adresiniz güncellendi.', 'Takip numaranız SMS ile gönderildi.', 'İyi günler dileriz!']),
  (1, 'INBOUND', array['Hi! Is the blue lamp still available?', 'Thanks!', '👍', 'My parcel arrived damaged, what shall I do now?',
    'Do you ship to Lisbon?', 'Perfect, I will take two of them.', 'Any news?', 'Could you send me the invoice again? I cannot find it in my mail.']),
  (1, 'OUTBOUND', array['It is: three of them. Shall I put one aside for you?', 'We are sorry! A replacement is on its way.', 'Yes, within five working days.', 'You are welcome 😊', 'Done ✅', 'The invoice is in your mail again.']),
  (2, 'INBOUND', array['Guten Tag, wie sind Ihre Öffnungszeiten?', 'Vielen Dank!', 'Können Sie mir das bis Freitag zurücklegen?', 'Die Größe passt leider nicht.',
    'Super 🎉', 'Wo bleibt mein Päckchen?', 'Ja, gern.', 'Ich hätte noch eine Frage zur Rechnung.']),
  (2, 'OUTBOUND', array['Montag bis Samstag von 9 bis 19 Uhr.', 'Gern geschehen!', 'Ist zurückgelegt.', 'Der Umtausch ist kostenlos: Sie bekommen gleich ein Etikett.', 'Es wird heute zugestellt 🚚', 'Welche Rechnung meinen Sie?']),
  (3, 'INBOUND', array['¡Hola! ¿Tienen tarjetas regalo?', 'Muchas gracias 💛', '¿Cuánto cuesta el envío a México?', 'No me llegó el correo de confirmación.',
    'Vale', '¿Puedo pagar al recibirlo?', 'Quiero cambiar la talla, por favor.', '¡Me encanta!']),
  (3, 'OUTBOUND', array['¡Claro! De 10 a 200 euros.', 'El envío cuesta 12 euros.', 'Se lo reenviamos ahora mismo.', 'Sí, sin problema.', '¡Gracias a usted! 🌻', 'Hecho.']),
  (4, 'INBOUND', array['مرحبا، هل المنتج متوفر؟', 'شكرا جزيلا 🌹', 'متى يصل الطلب؟', 'أريد تغيير العنوان من فضلك.', 'ممتاز', 'هل يوجد خصم؟', 'لم يصلني رقم التتبع.', 'نعم']),
  (4, 'OUTBOUND', array['أهلا بك! نعم، متوفر.', 'يصل خلال ثلاثة أيام.', 'تم تغيير العنوان.', 'على الرحب والسعة 😊', 'يوجد خصم عشرة بالمئة هذا الأسبوع.', 'سنرسله إليك حالا.']),
  (5, 'INBOUND', array['こんにちは、在庫はありますか？', 'ありがとうございます🙇', 'いつ届きますか？', '色違いはありますか？', '了解です', '返品したいのですが。', '領収書をお願いします。', '🎌']),
  (5, 'OUTBOUND', array['はい、ございます。', '明日お届けします🚚', '赤と青がございます。', 'かしこまりました。', '返品の手順をお送りします。', 'またのご利用をお待ちしております。'])
), failure (number, kind, http_status, detail, retryable, retry_count) as (values
  (0, 'timeout', null, 'no answer in time', true, 30),
  (1, 'server_error', 503, 'Service Unavailable', true, 30),
  (2, 'rate_limited', 429, 'Too Many Requests', true, 30),
  (3, 'connection', null, 'connection reset', true, 30),
  (4, 'unreadable', 200, 'the answer has no providerMessageId', true, 30),
  (5, 'rejected', 422, 'links are not allowed', false, 1),
  (6, 'rejected', 400, 'the participant cannot be reached', false, 1),
  (7, 'canceled', null, 'canceled by an operator', false, 2)
), place as materialized (
  select number, size, 'seed-' || $1::text || '-' || number::text as participant_id, pg_catalog.md5($1::text || ' ' || number::text) as hash
  from unnest($2::bigint[], $3::bigint[]) as t(number, size)
), drawn as materialized (    -- times in milliseconds; all within the 90 days before `until`
  select *,
    case when number = 0 or ('x' || pg_catalog.substr(hash, 1, 4))::bit(16)::int % 100 < 65 then 'whatsapp' else 'instagram' end as channel,
    ('x' || pg_catalog.substr(hash, 5, 4))::bit(16)::int % 6 as language,
    -- From half a minute to about 5 hours between two messages, mostly little.
    least(size * (30000::float8 + (('x' || pg_catalog.substr(hash, 9, 4))::bit(16)::bigint % 1000)::float8 ^ 2::float8 * 20::float8)::bigint, 7776000000) as span,
    -- Conversation 0 begins 90 days before, and so keeps the time that all others count from.
    case number when 0 then 1000 else ('x' || pg_catalog.substr(hash, 13, 4))::bit(16)::bigint % 1000 end as age,
    -- How many messages were read: all, all but the last few, or none.
    case ('x' || pg_catalog.substr(hash, 17, 4))::bit(16)::int % 10 when 6 then size - 1 when 7 then greatest(size - 4, 0)
      when 8 then greatest(size - 9, 0) when 9 then case when size > 20 then size - 3 else 0 end else size end as read,
    ('x' || pg_catalog.substr(hash, 21, 4))::bit(16)::int as state,
    (select (extract(epoch from coalesce(
      (select created_at + interval '90 days' from conversations where channel = 'whatsapp' and participant_id = 'seed-' || $1::text || '-0'),
      pg_catalog.date_trunc('hour', now(), 'UTC'))) * 1000::numeric)::bigint) as until
  from place
), conversation as materialized (
  select d.*, ended, ended - span as started,
    -- A UUIDv7 of its first moment, like those of messages below.
    (pg_catalog.lpad(pg_catalog.to_hex(ended - span), 12, '0') || '7' || pg_catalog.substr(hash, 1, 3) || '8' || pg_catalog.substr(hash, 4, 15))::uuid as id,
    case read when size then ended when 0 then null else ended - span + span * read / size - 1 end as read_ms
  from drawn d cross join lateral (select until - (7776000000 - span) * age * age / 1000000 as ended) e
  where (select id from conversations c where c.channel = d.channel and c.participant_id = d.participant_id) is null
), line as materialized (
  select c.id as conversation_id, c.number, c.size, c.channel, c.participant_id, c.language, c.started, c.span, c.read_ms, c.until, n,
    pg_catalog.md5($1::text || ' ' || c.number::text || ' ' || n::text) as hash
  from conversation c cross join lateral pg_catalog.generate_series(0, c.size - 1) as n
), draft as materialized (
  select *, ('x' || pg_catalog.substr(hash, 5, 4))::bit(16)::int % 100 as fate, ('x' || pg_catalog.substr(hash, 9, 4))::bit(16)::int as draw,
    ('x' || pg_catalog.substr(hash, 13, 4))::bit(16)::int as other,
    case when ('x' || pg_catalog.substr(hash, 1, 4))::bit(16)::int % 10 < 6 then 'INBOUND' else 'OUTBOUND' end as direction,
    -- Each within a share of the time of its own: so they are in order.
    started + span * n / size + case n when 0 then 0 else ('x' || pg_catalog.substr(hash, 17, 8))::bit(32)::bigint % (span / size - 1) end as ms
  from line
), fated as materialized (    -- of what goes out 3 in 100 have failed for good, 5 were sent after a failure
  select *, direction = 'OUTBOUND' and fate < 3 as failed,
    case when direction = 'OUTBOUND' and fate < 3 then draw % 8 when direction = 'OUTBOUND' and fate < 8 then draw % 5 end as failure
  from draft
), message as materialized (
  select d.conversation_id, d.number, d.channel, d.participant_id, d.direction, n, n = size - 1 as newest, hash,
    (pg_catalog.lpad(pg_catalog.to_hex(ms), 12, '0') || '7' || pg_catalog.substr(hash, 1, 3) || '8' || pg_catalog.substr(hash, 4, 15))::uuid as id,
    d.direction = 'INBOUND' and ms > coalesce(read_ms, 0) as unread,
    case when d.direction = 'INBOUND' then 'RECEIVED' when failed then 'FAILED' else 'SENT' end as status,
    pg_catalog.to_timestamp(ms::numeric / 1000.0) as at,
    -- An answer takes up to 2 seconds, 30 attempts half a day.
    pg_catalog.to_timestamp(least(ms + other % 2000 + case when failed and f.retry_count = 30 then 43200000 else 0 end, until)::numeric / 1000.0) as answered_at,
    f.kind, f.http_status, f.detail, f.retryable,
    case when f.number is null then 0 when failed then f.retry_count else 1 + other % 3 end as retry_count,
    texts[1 + draw % pg_catalog.cardinality(texts)]
      || case when draw % 3 = 0 then ' ' || texts[1 + other % pg_catalog.cardinality(texts)] else '' end
      || case when draw % 50 = 7 then pg_catalog.repeat(' ' || texts[1 + other % pg_catalog.cardinality(texts)], 3 + other % 12) else '' end as text
  from fated d join phrase p on p.language = d.language and p.direction = d.direction left join failure f on f.number = d.failure
), inserted as (
  insert into conversations (id, channel, participant_id, status, last_message_id, last_message_at, last_message_preview,
    unread_count, inbound_count, last_read_at, archived_at, outbound_seq, created_at)
  select c.id, c.channel, c.participant_id, case when c.read = c.size and c.state % 10 < 4 then 'closed' else 'open' end,
    m.id, m.at, left(m.text, 200), m.unread, m.inbound, pg_catalog.to_timestamp(c.read_ms::numeric / 1000.0),
    case when c.read = c.size and c.state / 16 % 10 < 2 then pg_catalog.to_timestamp(c.ended::numeric / 1000.0) end, m.outbound, pg_catalog.to_timestamp(c.started::numeric / 1000.0)
  from conversation c join (
    select number, (pg_catalog.array_agg(id) filter (where newest))[1] as id, max(at) as at, max(text) filter (where newest) as text,
      count(*) filter (where unread) as unread, count(*) filter (where direction = 'INBOUND') as inbound, count(*) filter (where direction = 'OUTBOUND') as outbound
    from message group by number) m on m.number = c.number
  order by c.channel collate "C", c.participant_id collate "C"
  on conflict do nothing   -- whichever key: both are the same for a second one that runs at the same time
  returning id, unread_count
), now_unread as (
  insert into unread (conversation_id) select id from inserted where unread_count > 0 on conflict do nothing
), fresh as materialized (
  select m.*, 'seed-' || $1::text || '-' || number::text || '-' || n::text as key from message m join inserted i on i.id = m.conversation_id
), event as (
  insert into webhook_events (provider, event_id, message_id, received_at)
  select 'mock-meta', key, id, at from fresh where direction = 'INBOUND' order by key collate "C"
), body as (
  insert into webhook_bodies (received_at, message_id, body)
  select at, id, pg_catalog.convert_to(pg_catalog.json_build_object('eventId', key, 'channel', channel, 'from', participant_id, 'text', text,
    'timestamp', pg_catalog.to_char(at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'))::text, 'UTF8')
  from fresh where direction = 'INBOUND'
), delivery as (    -- parked: no worker sends any of it
  insert into deliveries (message_id, conversation_id, channel, seq, due_at, attempt, failures)
  select id, conversation_id, channel, seq, null, retry_count, retry_count
  from (select *, row_number() over (partition by conversation_id order by n) as seq from fresh where direction = 'OUTBOUND') o
  where status = 'FAILED'
), stored as (
  insert into messages (id, conversation_id, channel, participant_id, direction, text, status, client_message_id, provider_message_id,
    retry_count, error_kind, error_http_status, error_detail, error_retryable, timestamp, sort_at, created_at, updated_at, sent_at)
  select id, conversation_id, channel, participant_id, direction, text, status,
    case when direction = 'OUTBOUND' and n % 4 = 0 then key end, case when status = 'SENT' then 'msg_' || hash end,
    retry_count, kind, http_status, detail, retryable, at, at, at, case status when 'RECEIVED' then at else answered_at end,
    case when status = 'SENT' then answered_at end
  from fresh
  returning id
), changed as (
  insert into changes (bulk) select true from stored having count(*) > 0 on conflict do nothing
)
select (select count(*) from inserted) as "conversations!", (select count(*) from stored) as "messages!"

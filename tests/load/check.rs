//! What was acknowledged, held against the database and the provider's ledger.

use std::collections::{BTreeMap, HashMap, HashSet};

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use gateway::cli::guarantee::Guarantee;
use mock_meta_provider::{Channel, Ledger};
use sqlx::{FromRow, PgPool};
use uuid::Uuid;

use super::callers::{Kind, Promise};
use super::{Order, Scene, Wire};

/// How long statuses may be on their way when all else is done.
const STATUSES: Duration = Duration::from_secs(20);

/// A message as the database has it.
#[derive(Debug, FromRow)]
struct Stored {
    id: Uuid,
    conversation_id: Uuid,
    channel: String,
    participant_id: String,
    direction: String,
    text: String,
    status: String,
    client_message_id: Option<String>,
    provider_message_id: Option<String>,
    timestamp: DateTime<Utc>,
    /// The event that made it.
    event_id: Option<String>,
    /// On WhatsApp: the provider may have accepted it, no status says so, and an operator decides.
    held: bool,
}

/// Outbound ones of a conversation in the order of their acceptance.
const STORED: &str = "
    select m.id, m.conversation_id, m.channel, m.participant_id, m.direction, m.text, m.status, m.client_message_id, m.provider_message_id,
      m.timestamp, e.event_id, d.message_id is not null as held
    from messages m left join deliveries d on d.message_id = m.id and d.due_at is null and m.error_ambiguous and m.channel = 'whatsapp' left join webhook_events e on e.message_id = m.id left join accepted a on a.message_id = m.id
    order by a.seq";

/// What a recount of each conversation finds wrong.
const RECOUNT: &str = "
    select c.channel || ' ' || c.participant_id || ': ' || wrong from conversations c
    cross join lateral (
      select count(*) filter (where direction = 'INBOUND') as unread, count(*) filter (where direction = 'OUTBOUND') as sent
      from messages where conversation_id = c.id) n
    left join lateral (select * from messages where conversation_id = c.id order by sort_at desc, id desc limit 1) m on true
    cross join lateral (values
      (c.unread_count <> n.unread, 'unreadCount is ' || c.unread_count || ', with ' || n.unread || ' events'),
      (c.outbound_seq <> n.sent, c.outbound_seq || ' messages were numbered, and there are ' || n.sent),
      ((c.last_message_at, c.last_message_id, c.last_message_preview) is distinct from (m.sort_at, m.id, left(m.text, 200)),
        'the preview is ' || c.last_message_preview || ', and the newest message is ' || coalesce(m.text, 'none'))) as w (is_wrong, wrong)
    where is_wrong
    union all
    select 'message ' || id || ': is listed at ' || sort_at from messages where sort_at <> least(timestamp, created_at + interval '10 minutes')";

/// What is in the tables that nothing explains any more.
const LEFT: &str = "
    select 'delivery of ' || d.message_id || ' (' || coalesce(m.status, 'no message') || '): due at ' || coalesce(d.due_at::text, 'no time')
      || ', attempt ' || d.attempt || ', failures ' || d.failures
    from deliveries d left join messages m on m.id = d.message_id
    where d.due_at is not null or not coalesce(m.error_ambiguous and m.channel = 'whatsapp', false)
    union all
    select 'message ' || id || ' is ' || status from messages
    where status in ('PENDING', 'FAILED') and not (coalesce(error_ambiguous, false) and channel = 'whatsapp')
    union all
    select 'event ' || event_id || ' has no message' from webhook_events e where not exists (select from messages where id = e.message_id)
    union all
    select 'conversation ' || id || ' is empty' from conversations c where not exists (select from messages where conversation_id = c.id)";

/// Waits until the provider has told of each message that it was read; each is an acceptance.
pub async fn statuses(pool: &PgPool) -> Guarantee {
    const UNREAD: &str = "
        select 'message ' || m.id || ': sent ' || coalesce(r.sent_at::text, 'never') || ', delivered ' || coalesce(r.delivered_at::text, 'never')
        from messages m left join receipts r on r.provider_message_id = m.provider_message_id
        where m.channel = 'whatsapp' and m.status = 'SENT' and r.read_at is null";
    let began = Instant::now();
    let unread = loop {
        let unread: Vec<String> = sqlx::query_scalar(UNREAD).fetch_all(pool).await.unwrap();
        if unread.is_empty() || began.elapsed() > STATUSES {
            break unread;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let (receipts, doubles): (i64, i64) = sqlx::query_as(
        "select count(*), count(message_id) - count(distinct message_id) from receipts",
    )
    .fetch_one(pool)
    .await
    .unwrap();
    let doubles = (doubles > 0).then(|| format!("{doubles} messages have two ids"));
    Guarantee::new(
        "each status is kept, and none goes back",
        format!("{receipts} messages of the provider"),
        format!("{} not read", unread.len()),
        unread.into_iter().chain(doubles).collect(),
    )
}

/// Compares everything with everything.
pub async fn check(
    scene: &Scene,
    pool: &PgPool,
    promises: &[Promise],
    left: Vec<String>,
) -> Vec<Guarantee> {
    let stored: Vec<Stored> = sqlx::query_as(STORED).fetch_all(pool).await.unwrap();
    let recount: Vec<String> = sqlx::query_scalar(RECOUNT).fetch_all(pool).await.unwrap();
    let left_over: Vec<String> = sqlx::query_scalar(LEFT).fetch_all(pool).await.unwrap();
    let evidence = Evidence {
        promises,
        stored: &stored,
        ledger: &scene.mock.ledger(),
        wire: scene.wire,
    };
    let conversations: HashSet<_> = stored
        .iter()
        .map(|message| message.conversation_id)
        .collect();
    let conversations = format!("{} conversations", conversations.len());
    let mut rows = vec![
        evidence.acknowledged(scene.surprises.lock().unwrap().clone()),
        evidence.one_message(Kind::Event, "an acknowledged event is one message"),
        evidence.one_message(Kind::Send, "an acknowledged send is one record"),
        evidence.one_delivery(),
        evidence.no_overlap(),
    ];
    if scene.order == Order::Conversation {
        rows.push(evidence.in_order());
    }
    rows.push(Guarantee::new(
        "unreadCount and previews are a recount's",
        conversations,
        format!("{} wrong", recount.len()),
        recount,
    ));
    let left = [left, left_over].concat();
    rows.push(Guarantee::new(
        "nothing is left over",
        format!("{} messages", stored.len()),
        format!("{} left", left.len()),
        left,
    ));
    rows
}

struct Evidence<'a> {
    promises: &'a [Promise],
    stored: &'a [Stored],
    ledger: &'a Ledger,
    wire: Wire,
}

impl Stored {
    fn key(&self) -> String {
        format!("msg_{}", self.id.simple())
    }
}

impl Evidence<'_> {
    fn of(&self, kind: Kind) -> impl Iterator<Item = &Promise> {
        let promises = self.promises.iter();
        promises.filter(move |promise| promise.request.kind == kind)
    }

    fn outbound(&self) -> impl Iterator<Item = &Stored> {
        let stored = self.stored.iter();
        stored.filter(|message| message.direction == "OUTBOUND")
    }

    /// Every request is acknowledged in the end; until then, 503 is the only refusal; processes die
    /// of nothing but SIGKILL.
    fn acknowledged(&self, surprises: Vec<String>) -> Guarantee {
        let refused = self
            .promises
            .iter()
            .filter(|promise| promise.receipts.is_empty());
        let refused =
            refused.map(|promise| format!("{} was never acknowledged", promise.request.key));
        let receipts: usize = self
            .promises
            .iter()
            .map(|promise| promise.receipts.len())
            .sum();
        Guarantee::new(
            "every request is acknowledged in the end",
            format!("{} requests", self.promises.len()),
            format!("{receipts} acknowledgements"),
            surprises.into_iter().chain(refused).collect(),
        )
    }

    /// Each acknowledged key is one message of its own, the one that all its acknowledgements name;
    /// and there is no other.
    fn one_message(&self, kind: Kind, promise: &'static str) -> Guarantee {
        let (direction, requests) = match kind {
            Kind::Event => ("INBOUND", "events"),
            Kind::Send => ("OUTBOUND", "sends"),
        };
        let messages = self.stored.iter();
        let messages = messages.filter(|message| message.direction == direction);
        let observed = format!("{} messages", messages.clone().count());
        let mut stored: HashMap<&str, Vec<&Stored>> = HashMap::new();
        for message in messages {
            stored.entry(&message.text).or_default().push(message);
        }
        let mut violations = Vec::new();
        for promise in self.of(kind) {
            let key = &promise.request.key;
            let messages = stored.remove(&**key).unwrap_or_default();
            if let [message] = messages[..] {
                violations.extend(promise.differences(message));
            } else {
                violations.push(format!("{key}: is {} messages", messages.len()));
            }
        }
        violations.extend(
            stored
                .into_keys()
                .map(|text| format!("{text}: nobody asked for it")),
        );
        let tried = format!("{} {requests}", self.of(kind).count());
        Guarantee::new(promise, tried, observed, violations)
    }

    /// Each record is one delivery, which has the id that the record has; and there is no other.
    fn one_delivery(&self) -> Guarantee {
        let mut ledger: BTreeMap<&str, _> = self
            .ledger
            .messages
            .iter()
            .map(|known| (&*known.idempotency_key, known))
            .collect();
        let mut violations = Vec::new();
        let mut held = 0;
        for record in self.outbound() {
            let key = match self.wire {
                Wire::Whatsapp if record.channel == "whatsapp" => record.id.to_string(),
                _ => record.key(),
            };
            if record.held {
                held += 1;
                // A status would have settled it.
                let delivered = ledger.remove(&*key).filter(|known| known.deliveries > 0);
                violations.extend(delivered.map(|known| format!("held: {known:?}")));
                continue;
            }
            let Some(known) = ledger.remove(&*key) else {
                violations.push(format!("{key}: the provider was never called"));
                continue;
            };
            if known.deliveries != 1 || known.mismatched_calls > 0 {
                violations.push(format!("{key}: {known:?}"));
            } else if known.provider_message_id != record.provider_message_id {
                let id = &record.provider_message_id;
                violations.push(format!(
                    "{key}: the record says {id:?}, the provider {known:?}"
                ));
            }
        }
        violations.extend(
            ledger
                .into_keys()
                .map(|key| format!("{key}: there is no record")),
        );
        let calls: u64 = self.ledger.messages.iter().map(|known| known.calls).sum();
        let tried = format!("{} records, {calls} calls", self.outbound().count());
        let observed = format!("{} deliveries, {held} held", self.ledger.deliveries());
        Guarantee::new("a record is one delivery", tried, observed, violations)
    }

    fn no_overlap(&self) -> Guarantee {
        let messages = self.ledger.messages.iter();
        let repeated = messages.clone().filter(|known| known.calls > 1).count();
        let overlapped =
            messages.filter(|known| known.max_overlapping_calls > 1 || known.overlapping_calls > 0);
        let overlapped: Vec<_> = overlapped.map(|known| format!("{known:?}")).collect();
        Guarantee::new(
            "calls for one message never overlap",
            format!("{repeated} messages with more than one call"),
            format!("{} overlapped", overlapped.len()),
            overlapped,
        )
    }

    fn in_order(&self) -> Guarantee {
        let mut accepted: BTreeMap<_, Vec<&str>> = BTreeMap::new();
        for record in self.outbound() {
            let conversation = (&*record.channel, &*record.participant_id);
            accepted.entry(conversation).or_default().push(&record.text);
        }
        let tried = format!("{} conversations", accepted.len());
        let mut violations = Vec::new();
        for ((channel, participant), mut accepted) in accepted {
            let name = match channel {
                "whatsapp" => Channel::Whatsapp,
                _ => Channel::Instagram,
            };
            // One that is missing or comes again is another promise's matter.
            let mut before = HashSet::new();
            let delivered = self.ledger.texts(name, participant).iter();
            let mut delivered: Vec<&str> = delivered.map(|text| &**text).collect();
            delivered.retain(|text| before.insert(*text));
            accepted.retain(|text| before.contains(text));
            let mut both = delivered.into_iter().zip(accepted);
            if let Some((delivered, accepted)) = both.find(|(one, other)| one != other) {
                violations.push(format!("{channel} {participant}: {delivered} was delivered where {accepted} was accepted"));
            }
        }
        Guarantee::new(
            "messages are delivered in the order of acceptance",
            tried,
            format!("{} in another order", violations.len()),
            violations,
        )
    }
}

impl Promise {
    /// In what a message is not what was acknowledged.
    fn differences(&self, message: &Stored) -> Vec<String> {
        let request = &self.request;
        let key = &request.key;
        let mut differences = Vec::new();
        let conversation = format!("conv_{}", message.conversation_id.simple());
        for receipt in &self.receipts {
            let is_named = !receipt.message_id.is_empty();
            if is_named
                && (&receipt.message_id, &receipt.conversation_id)
                    != (&message.key(), &conversation)
            {
                differences.push(format!(
                    "{key}: acknowledged as {receipt:?}, stored as {message:?}"
                ));
            }
            if receipt.repeated && receipt.new {
                differences.push(format!(
                    "{key}: new, although it had been acknowledged before"
                ));
            }
        }
        let times_new = self.receipts.iter().filter(|receipt| receipt.new).count();
        if times_new > 1 {
            differences.push(format!("{key}: new {times_new} times"));
        }
        let is_right = (&*message.channel, &*message.participant_id)
            == (request.channel, &*request.participant)
            && match request.kind {
                Kind::Event => {
                    message.event_id.as_ref() == Some(key) && message.timestamp == request.timestamp
                }
                Kind::Send => {
                    message.client_message_id.as_ref() == Some(key)
                        && (message.status == "SENT" || message.held)
                }
            };
        if !is_right {
            differences.push(format!("{key}: asked for {request:?}, stored {message:?}"));
        }
        differences
    }
}

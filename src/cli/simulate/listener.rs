//! A listener of the live feed, such as a front end is: keeps the newest copy of each record, resumes
//! where it was cut off, and fetches everything again when it is told to. In the end its copies must
//! be what the API shows. The proof by crash (tests/load) listens by it, too.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures_util::{StreamExt, TryStreamExt, stream};
use indicatif::HumanCount;
use reqwest::RequestBuilder;
use serde::Deserialize;
use serde_json::{Map, Value};
use sse_stream::{Sse, SseStream};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use super::guarantee::Guarantee;
use super::repeat::{Refusal, answered, hint, repeat};
use super::whatsapp::rank;

/// The longest silence: the feed sends a `ping` each 15 s.
const SILENCE: Duration = Duration::from_secs(35);
/// Longer than the server lets a stream live.
const LIFE: Duration = Duration::from_hours(1);
/// The wait before it connects again.
const PAUSE: Duration = Duration::from_millis(50);
/// How long it may take to hear the last of what was committed, or to read a record.
const PATIENCE: Duration = Duration::from_secs(30);
/// Conversations that are read at the same time.
const AT_ONCE: usize = 8;

/// Makes requests to the gateway, wherever it is at the moment; none while it is nowhere.
pub type Ask = Arc<dyn Fn(&str) -> Option<RequestBuilder> + Send + Sync>;

/// A listener. It stops when it is dropped.
pub struct Listener {
    ask: Ask,
    heard: Arc<Mutex<Heard>>,
    listening: AbortHandle,
}

/// What it has heard so far.
#[derive(Default)]
struct Heard {
    /// By id, which says whether it is a conversation or a message.
    records: HashMap<String, Record>,
    /// The conversations that it has fetched since a reset, if there was one. One that is written
    /// to meanwhile moves up the list, from a page that is not read yet to one that is: it is in no
    /// page, but it is heard of.
    fetched: Option<HashSet<String>>,
    /// Behind which event to go on.
    last_id: Option<String>,
    connections: u64,
    trouble: Option<String>,
    /// How often a message's `deliveryStatus` went on, and each time that it went back.
    steps: usize,
    steps_back: Vec<String>,
}

/// The copy of a record, or what is left of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Record {
    revision: i64,
    digest: u64,
    /// The place of a message's `deliveryStatus` among those that may follow one another.
    step: usize,
}

impl Record {
    /// The id and the copy; none: it is no record.
    fn of(value: &Value) -> Option<(&str, Self)> {
        let mut hasher = DefaultHasher::new();
        let fields: BTreeMap<_, _> = value.as_object()?.iter().collect();
        for (name, field) in fields {
            (name, field.to_string()).hash(&mut hasher);
        }
        let record = Self {
            revision: value["revision"].as_i64()?,
            digest: hasher.finish(),
            step: rank(value["deliveryStatus"].as_str()),
        };
        Some((value["id"].as_str()?, record))
    }
}

impl Heard {
    fn keep(&mut self, value: &Value) -> anyhow::Result<()> {
        let (id, record) = Record::of(value).context("a record has no id or no revision")?;
        match self.records.get_mut(id) {
            Some(known) if known.revision > record.revision => {}
            Some(known) if known.revision == record.revision && *known != record => {
                bail!("{id}: two copies with revision {}", record.revision)
            }
            Some(known) => {
                self.steps += usize::from(record.step > known.step);
                if record.step < known.step {
                    self.steps_back.push(format!("{id}: its step went back"));
                }
                *known = record;
            }
            None => drop(self.records.insert(id.to_owned(), record)),
        }
        Ok(())
    }
}

impl Listener {
    /// Begins to listen, and returns when it does. What it fetches again are the conversations whose
    /// participants begin with `prefix`.
    pub async fn start(ask: Ask, prefix: Option<String>) -> anyhow::Result<Self> {
        let heard = Arc::new(Mutex::new(Heard::default()));
        let listening = tokio::spawn({
            let (ask, heard) = (Arc::clone(&ask), Arc::clone(&heard));
            async move {
                loop {
                    let ended = listen(&ask, &heard, prefix.as_deref()).await;
                    lock(&heard).trouble = ended.err().map(|error| format!("{error:#}"));
                    sleep(PAUSE).await;
                }
            }
        });
        let listener = Self {
            ask,
            heard,
            listening: listening.abort_handle(),
        };
        let began_at = Instant::now();
        while listener.heard().connections == 0 {
            if began_at.elapsed() > PATIENCE {
                let trouble = listener.heard().trouble.clone();
                bail!("the feed does not begin: {}", trouble.unwrap_or_default());
            }
            sleep(PAUSE).await;
        }
        Ok(listener)
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        lock(&self.heard)
    }

    /// Compares its copies of these conversations and of their messages with what the API shows,
    /// as soon as it has heard the last of it.
    pub async fn compare(&self, conversation_ids: &[String]) -> anyhow::Result<Guarantee> {
        let began_at = Instant::now();
        let (records, differences) = loop {
            let shown = fetch(&self.ask, conversation_ids).await?;
            let differences = self.differences(&shown)?;
            if differences.is_empty() || began_at.elapsed() > PATIENCE {
                break (shown.len(), differences);
            }
            sleep(PAUSE).await;
        };
        let number = |count: usize| HumanCount(count as u64).to_string();
        let alike = records.saturating_sub(differences.len());
        Ok(Guarantee::new(
            "a listener's inbox is the API's",
            format!("{} records", number(records)),
            format!("{} heard as they are", number(alike)),
            differences,
        ))
    }

    /// Whether each message only ever went on.
    #[must_use]
    pub fn steps(&self) -> Guarantee {
        let heard = self.heard();
        Guarantee::new(
            "how far a message came never goes back",
            format!("{} records", HumanCount(heard.records.len() as u64)),
            format!("{} steps", HumanCount(heard.steps as u64)),
            heard.steps_back.clone(),
        )
    }

    fn differences(&self, shown: &[Value]) -> anyhow::Result<Vec<String>> {
        let heard = self.heard();
        let mut differences: Vec<String> = heard.trouble.iter().cloned().collect();
        for value in shown {
            let (id, record) = Record::of(value).context("a record has no id or no revision")?;
            match heard.records.get(id) {
                Some(known) if *known == record => {}
                Some(known) => differences.push(format!(
                    "{id}: heard revision {}, the API shows {}",
                    known.revision, record.revision
                )),
                None => differences.push(format!("{id}: never heard of")),
            }
        }
        Ok(differences)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

fn lock(heard: &Mutex<Heard>) -> MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Listens for as long as the stream goes on.
async fn listen(ask: &Ask, heard: &Mutex<Heard>, prefix: Option<&str>) -> anyhow::Result<()> {
    let Some(mut request) = ask("/events") else {
        return Ok(());
    };
    if let Some(id) = &lock(heard).last_id {
        request = request.header("last-event-id", id);
    }
    let answer = timeout(SILENCE, request.timeout(LIFE).send()).await??;
    if !answer.status().is_success() {
        let status = answer.status();
        bail!("/events answers {status}{}", hint(status.as_u16()));
    }
    let mut events = SseStream::new(reqwest::Body::from(answer));
    while let Some(event) = timeout(SILENCE, events.next()).await? {
        let event = event?;
        let data: Value = serde_json::from_str(event.data.as_deref().unwrap_or("{}"))?;
        if event.event.as_deref() == Some("reset") {
            if data["reason"] == "epoch" {
                // Another history: what it did not keep never was.
                lock(heard).records.clear();
            }
            let ids = list_all(ask, prefix).await?;
            for value in fetch(ask, &ids).await? {
                lock(heard).keep(&value)?;
            }
            lock(heard).fetched = Some(ids.into_iter().collect());
        } else if let Some(id) = lacking(heard, &data["conversation"], prefix) {
            for value in fetch(ask, std::slice::from_ref(&id)).await? {
                lock(heard).keep(&value)?;
            }
            lock(heard).fetched.get_or_insert_default().insert(id);
        }
        take(&mut lock(heard), &event, &data)?;
    }
    Ok(())
}

/// The id of this conversation, if it should have been fetched with the others.
fn lacking(heard: &Mutex<Heard>, conversation: &Value, prefix: Option<&str>) -> Option<String> {
    let id = conversation["id"].as_str()?;
    let participant = conversation["participantId"].as_str()?;
    let is_lacking = !lock(heard).fetched.as_ref()?.contains(id);
    (is_lacking && participant.starts_with(prefix.unwrap_or_default())).then(|| id.to_owned())
}

fn take(heard: &mut Heard, event: &Sse, data: &Value) -> anyhow::Result<()> {
    match event.event.as_deref() {
        Some("hello") => {
            heard.connections += 1;
            heard.trouble = None;
        }
        Some("conversation.updated") => heard.keep(&data["conversation"])?,
        Some("message.created" | "message.updated") => heard.keep(&data["message"])?,
        _ => {}
    }
    if let Some(id) = &event.id {
        heard.last_id = Some(id.clone());
    }
    Ok(())
}

#[derive(Deserialize)]
struct Page {
    data: Vec<Value>,
    meta: Meta,
}

#[derive(Deserialize)]
struct Thread {
    #[serde(flatten)]
    conversation: Map<String, Value>,
    messages: Vec<Value>,
    meta: Meta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    next_cursor: Option<String>,
}

/// The ids of all conversations of these participants.
async fn list_all(ask: &Ask, prefix: Option<&str>) -> anyhow::Result<Vec<String>> {
    let mut ids = Vec::new();
    let participant = prefix
        .map(|prefix| format!("&participant={prefix}"))
        .unwrap_or_default();
    for archived in [false, true] {
        let path = format!("/conversations?limit=100&archived={archived}{participant}");
        let mut next = Some(path.clone());
        while let Some(page) = next {
            let Page { data, meta } = get(ask, &page).await?;
            ids.extend(
                data.iter()
                    .filter_map(|value| Some(value["id"].as_str()?.to_owned())),
            );
            next = meta
                .next_cursor
                .map(|cursor| format!("{path}&cursor={cursor}"));
        }
    }
    Ok(ids)
}

/// These conversations, and their messages.
async fn fetch(ask: &Ask, conversation_ids: &[String]) -> anyhow::Result<Vec<Value>> {
    let ids = conversation_ids.to_vec();
    let threads = ids.into_iter().map(|id| fetch_one(Arc::clone(ask), id));
    let threads = stream::iter(threads).buffer_unordered(AT_ONCE);
    let threads: Vec<Vec<Value>> = threads.try_collect().await?;
    Ok(threads.into_iter().flatten().collect())
}

async fn fetch_one(ask: Ask, id: String) -> anyhow::Result<Vec<Value>> {
    let first = format!("/conversations/{id}?limit=200&content=true");
    let mut records = Vec::new();
    let mut next = Some(first.clone());
    while let Some(page) = next {
        let thread: Thread = get(&ask, &page).await?;
        if page == first {
            let mut conversation = thread.conversation;
            // Only the detail has them.
            conversation.remove("aliases");
            records.push(Value::Object(conversation));
        }
        records.extend(thread.messages);
        let cursor = thread.meta.next_cursor;
        next = cursor.map(|cursor| format!("{first}&cursor={cursor}"));
    }
    Ok(records)
}

async fn get<T: serde::de::DeserializeOwned>(ask: &Ask, path: &str) -> anyhow::Result<T> {
    let asked = repeat(PATIENCE, PAUSE, || async {
        match ask(path) {
            Some(request) => answered(request).await,
            None => Err(Refusal::Again("the gateway is nowhere".to_owned())),
        }
    });
    match asked.await {
        Ok(answer) => Ok(answer),
        Err(Refusal::Final(error)) => Err(error),
        Err(Refusal::Again(reason)) => bail!("{path} cannot be read: {reason}"),
    }
}

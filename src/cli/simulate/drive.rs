//! Carries out a plan, and keeps every answer.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, future, stream};
use indicatif::ProgressBar;

use super::client::{ConversationView, EventAnswer, Gateway, MessageView, Taken};
use super::meta;
use super::plan::{Conversation, Request};
use super::repeat::{Refusal, repeat};
use super::system::{Part, System};
use super::whatsapp::{self, Wire};

/// How long a request is repeated before it counts as not acknowledged.
const RETRY_FOR: Duration = Duration::from_mins(1);
/// The wait before a request is repeated.
const PAUSE: Duration = Duration::from_millis(50);
/// The wait between two reads of what has not ended.
const POLL: Duration = Duration::from_millis(200);
/// What is killed after which share of the requests, in percent.
const CRASHES: [(u64, Part); 4] = [
    (15, Part::Server),
    (35, Part::Worker),
    (55, Part::Server),
    (75, Part::Worker),
];

/// What was seen of a conversation.
#[derive(Debug, Default)]
pub struct Seen {
    /// The answers to each event.
    pub events: Vec<Vec<EventAnswer>>,
    /// The answers to each send.
    pub sends: Vec<Vec<MessageView>>,
    /// Requests that had to be repeated.
    pub repeated: usize,
    /// Requests that were never acknowledged, and why.
    pub unacknowledged: Vec<String>,
    /// How long each answer took.
    pub times: Vec<Duration>,
    /// The conversation's id, where no answer has told it.
    found: Option<String>,
    /// What the API shows in the end.
    pub view: Option<ConversationView>,
}

impl Seen {
    fn nothing_of(conversation: &Conversation) -> Self {
        let mut seen = Self::default();
        seen.events.resize_with(conversation.events.len(), Vec::new);
        seen.sends.resize_with(conversation.sends.len(), Vec::new);
        seen
    }

    /// The conversation's id, once there was an answer.
    pub fn conversation_id(&self) -> Option<&str> {
        let event = self.events.iter().flatten().next();
        let send = self.sends.iter().flatten().next();
        event
            .and_then(|answer| answer.conversation_id.as_deref())
            .or_else(|| send.map(|answer| &*answer.conversation_id))
            .or(self.found.as_deref())
    }

    /// Notes which messages the events have become, where their answers did not tell. One that has
    /// become none keeps its own id, which no message has.
    fn identify(&mut self, conversation: &Conversation) {
        let shown = self.view.iter().flat_map(|view| &view.messages);
        let ids: HashMap<&str, &str> = shown
            .filter_map(|message| Some((message.provider_message_id.as_deref()?, &*message.id)))
            .collect();
        for (event, answers) in conversation.events.iter().zip(&mut self.events) {
            let wamid = meta::wamid(event);
            for answer in answers {
                let id = ids.get(&*wamid).copied().unwrap_or(&wamid).to_owned();
                answer.message_id.get_or_insert(id);
            }
        }
    }
}

impl Conversation {
    /// Whether all has been told of a message that the provider tells in the end.
    pub fn is_told(&self, message: &MessageView) -> bool {
        let is_sent = message.is_outbound() && message.status == "SENT";
        !is_sent || message.delivery_status.as_deref() == whatsapp::last_step(self.scenario)
    }
}

/// Whether nothing more will happen to a message, nor be told of it.
fn is_over(wire: Wire, conversation: &Conversation, message: &MessageView) -> bool {
    message.has_ended() && (wire == Wire::MockMeta || conversation.is_told(message))
}

/// How often each part was killed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Crashes {
    pub servers: u64,
    pub workers: u64,
}

/// Items of a body.
const BATCH: usize = 50;
/// How often each body is delivered.
const BATCH_TIMES: usize = 2;

/// Delivers the events of all conversations together, many in a body with what nobody understands:
/// the first events of all, then the second ones. Each body comes twice.
pub async fn batches(
    system: &System,
    conversations: &[Conversation],
    bar: &ProgressBar,
) -> anyhow::Result<Vec<Seen>> {
    let mut seen: Vec<Seen> = conversations.iter().map(Seen::nothing_of).collect();
    let longest = conversations.iter().map(|c| c.events.len()).max();
    let turns = (0..longest.unwrap_or_default()).flat_map(|event| {
        let having = conversations.iter().enumerate();
        let having = having.filter(move |(_, conversation)| event < conversation.events.len());
        having.map(move |(place, _)| (place, event))
    });
    let turns: Vec<(usize, usize)> = turns.collect();
    for batch in turns.chunks(BATCH) {
        let events: Vec<_> = batch
            .iter()
            .map(|(place, event)| {
                (
                    &conversations[*place],
                    &conversations[*place].events[*event],
                )
            })
            .collect();
        let (body, strangers) = meta::body_with_strangers(&events);
        for time in 0..BATCH_TIMES {
            let started_at = Instant::now();
            let answer = repeat(RETRY_FOR, PAUSE, || system.gateway.receive(&body)).await;
            let is_right = |answer: &Taken| {
                answer.received == batch.len() + strangers && answer.ignored == strangers
            };
            for (place, event) in batch {
                let seen = &mut seen[*place];
                seen.times.push(started_at.elapsed());
                bar.inc(u64::from(time == 0));
                match &answer {
                    Ok(answer) if is_right(answer) => seen.events[*event].push(EventAnswer {
                        conversation_id: None,
                        message_id: None,
                        duplicate: time > 0,
                    }),
                    other => seen.unacknowledged.push(format!(
                        "{}: its body is answered {other:?}",
                        conversations[*place].events[*event].id
                    )),
                }
            }
        }
    }
    Ok(seen)
}

/// Makes all requests of these conversations, `concurrency` conversations at a time.
pub async fn requests(
    system: &System,
    conversations: &[Conversation],
    concurrency: usize,
    bar: &ProgressBar,
) -> anyhow::Result<Vec<Seen>> {
    let conversing = conversations
        .iter()
        .enumerate()
        .map(async |(place, conversation)| {
            let seen = converse(system, conversation, bar).await?;
            anyhow::Ok((place, seen))
        });
    // In any order: a slow one must not keep others from starting.
    let conversing = stream::iter(conversing).buffer_unordered(concurrency);
    let mut seen: Vec<(usize, Seen)> = conversing.try_collect().await?;
    seen.sort_unstable_by_key(|(place, _)| *place);
    Ok(seen.into_iter().map(|(_, seen)| seen).collect())
}

/// Delivers every event of these conversations once to this gateway, `concurrency` at a time. First
/// come the first events of all conversations, then the second ones, so that there is concurrency
/// to the end.
pub async fn burst(
    system: &System,
    gateway: &Gateway,
    conversations: &[Conversation],
    concurrency: usize,
    bar: &ProgressBar,
) -> anyhow::Result<Vec<Seen>> {
    let longest = conversations.iter().map(|c| c.events.len()).max();
    let events = (0..longest.unwrap_or_default()).flat_map(|event| {
        let having = conversations.iter().enumerate();
        let having = having.filter(move |(_, conversation)| event < conversation.events.len());
        having.map(move |(place, conversation)| (place, conversation, Request::Event(event)))
    });
    let delivering = events.map(async |(place, conversation, event)| {
        let answered = acknowledged(system, gateway, conversation, event).await?;
        anyhow::Ok((place, answered))
    });
    let mut delivering = stream::iter(delivering).buffer_unordered(concurrency);
    let mut seen: Vec<Seen> = conversations.iter().map(Seen::nothing_of).collect();
    while let Some((place, answered)) = delivering.try_next().await? {
        seen[place].add(answered);
        bar.inc(1);
    }
    Ok(seen)
}

async fn converse(
    system: &System,
    conversation: &Conversation,
    bar: &ProgressBar,
) -> anyhow::Result<Seen> {
    let mut seen = Seen::nothing_of(conversation);
    for step in &conversation.steps {
        let requests = step
            .iter()
            .map(|request| acknowledged(system, &system.gateway, conversation, *request));
        for answered in future::join_all(requests).await {
            seen.add(answered?);
            bar.inc(1);
        }
    }
    Ok(seen)
}

/// A request, its answer, and what it took to get it.
struct Answered {
    request: Request,
    answer: Result<Answer, String>,
    repeated: bool,
    took: Duration,
}

enum Answer {
    Event(EventAnswer),
    Send(Box<MessageView>),
}

impl Seen {
    fn add(&mut self, answered: Answered) {
        self.repeated += usize::from(answered.repeated);
        self.times.push(answered.took);
        match (answered.request, answered.answer) {
            (Request::Event(event), Ok(Answer::Event(answer))) => self.events[event].push(answer),
            (Request::Send(send), Ok(Answer::Send(answer))) => self.sends[send].push(*answer),
            (_, Err(reason)) => self.unacknowledged.push(reason),
            (_, Ok(_)) => {}
        }
    }
}

/// Repeats a request until it is acknowledged, as providers and backends do.
async fn acknowledged(
    system: &System,
    gateway: &Gateway,
    conversation: &Conversation,
    request: Request,
) -> anyhow::Result<Answered> {
    let started_at = Instant::now();
    let mut tries = 0;
    let ask = || {
        tries += 1;
        let is_repeated = tries > 1;
        async move {
            if is_repeated {
                system.check().await.map_err(Refusal::Final)?;
            }
            match request {
                Request::Event(event) => gateway
                    .deliver(conversation, &conversation.events[event])
                    .await
                    .map(Answer::Event),
                Request::Send(send) => gateway
                    .send(conversation, &conversation.sends[send])
                    .await
                    .map(|message| Answer::Send(Box::new(message))),
            }
        }
    };
    let answer = match repeat(RETRY_FOR, PAUSE, ask).await {
        Ok(answer) => Ok(answer),
        Err(Refusal::Final(error)) => return Err(error),
        Err(Refusal::Again(reason)) => Err(format!(
            "{}: {request:?} was not acknowledged within {} s: {reason}",
            conversation.participant,
            RETRY_FOR.as_secs()
        )),
    };
    Ok(Answered {
        request,
        answer,
        repeated: tries > 1,
        took: started_at.elapsed(),
    })
}

/// Kills parts of the system while `requests` requests are made.
pub async fn crashes(system: &System, requests: u64, bar: &ProgressBar) -> anyhow::Result<Crashes> {
    let mut crashes = Crashes::default();
    for (percent, part) in CRASHES {
        while bar.position() * 100 < requests * percent {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        system.crash(part).await?;
        match part {
            Part::Server => crashes.servers += 1,
            Part::Worker => crashes.workers += 1,
        }
    }
    Ok(crashes)
}

/// Waits until nothing more will happen to these conversations, and keeps what the API shows. It
/// does not wait for what has stopped moving.
pub async fn settle(
    system: &System,
    conversations: &mut [(Conversation, Seen)],
    concurrency: usize,
    bar: &ProgressBar,
) -> anyhow::Result<()> {
    let mut open: Vec<usize> = (0..conversations.len()).collect();
    let mut left = usize::MAX;
    let mut moved_at = Instant::now();
    while !open.is_empty() {
        let looks = open.iter().map(|place| {
            let (conversation, seen) = &conversations[*place];
            async move { (*place, look(system, conversation, seen).await) }
        });
        let looks: Vec<_> = stream::iter(looks).buffered(concurrency).collect().await;
        let mut unsettled = 0;
        for (place, looked) in looks {
            let (conversation, seen) = &mut conversations[place];
            let (found, view) = looked?.unzip();
            let messages = view.iter().flat_map(|view| &view.messages);
            let is_open = |message: &&MessageView| !is_over(system.wire, conversation, message);
            unsettled += messages.filter(is_open).count();
            (seen.found, seen.view) = (found, view);
            seen.identify(conversation);
        }
        open.retain(|place| {
            let (conversation, seen) = &conversations[*place];
            let view = seen.view.as_ref();
            let is_over = |message| is_over(system.wire, conversation, message);
            view.is_some_and(|view| !view.messages.iter().all(is_over))
        });
        bar.set_position((conversations.len() - open.len()) as u64);
        if unsettled != left {
            left = unsettled;
            moved_at = Instant::now();
        }
        if moved_at.elapsed() > system.stuck_after {
            return Ok(());
        }
        system.check().await?;
        if !open.is_empty() {
            system.witness().await;
            tokio::time::sleep(POLL).await;
        }
    }
    Ok(())
}

/// Reads a conversation, and its id; none if no request to it was ever acknowledged.
async fn look(
    system: &System,
    conversation: &Conversation,
    seen: &Seen,
) -> anyhow::Result<Option<(String, ConversationView)>> {
    let participant = &conversation.participant;
    let looked = repeat(RETRY_FOR, PAUSE, || async {
        let id = match seen.conversation_id() {
            Some(id) => id.to_owned(),
            None if seen.events.iter().all(Vec::is_empty) => return Ok(None),
            None => match system.gateway.find(participant).await? {
                Some(id) => id,
                None => return Ok(None),
            },
        };
        let view = system.gateway.conversation(&id).await?;
        Ok(Some((id, view)))
    });
    match looked.await {
        Ok(looked) => Ok(looked),
        Err(Refusal::Final(error)) => Err(error),
        Err(Refusal::Again(reason)) => {
            anyhow::bail!("the conversation with {participant} cannot be read: {reason}")
        }
    }
}

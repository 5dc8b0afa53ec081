//! The gateway's side: each step as requests, and what they must be answered.

use std::collections::HashMap;
use std::iter::repeat_n;
use std::sync::Arc;

use chrono::{DateTime, Duration, SecondsFormat, Utc};
use futures_util::future::join_all;
use gateway::channel::Channel;
use gateway::cli::listener::{Ask, Listener};
use mock_meta_provider::Fault;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use serde_json::{Value, json};

use super::model::{MAX_ATTEMPTS, Stage, State};
use super::steps::{Address, Clock, Event, Mark, Mood, Outgoing, Transition};
use crate::support::{Answer, Client, Program, System, eventually};

pub type Checked<T = ()> = Result<T, TestCaseError>;

/// What the cases of a test share, one after the other.
pub struct Rig {
    pub system: System,
    /// A gateway that leaves all first attempts to workers.
    deferring: Client,
    _deferring: Program,
    /// Makes requests to it, for a listener.
    ask: Ask,
    environment: Vec<(&'static str, String)>,
}

impl Rig {
    pub async fn start(ordered: bool) -> Self {
        let order = if ordered { "conversation" } else { "none" };
        let variable = |name, value: &str| (name, value.to_owned());
        let environment = vec![
            variable("DELIVERY_ORDER", order),
            variable("RETRY_MAX_ATTEMPTS", &MAX_ATTEMPTS.to_string()),
            // Nothing ends by itself: no backoff, no place behind another message, and on the
            // busiest machine no attempt.
            variable("RETRY_BASE_MS", "3600000"),
            variable("ORDER_MAX_WAIT_MS", "86400000"),
            variable("PROVIDER_TIMEOUT_MS", "60000"),
            variable("SEND_WAIT_MS", "600000"),
        ];
        let system = System::without_worker(&borrowed(&environment)).await;
        let program = Program::new("serve")
            .args(&["--no-worker", "--send-concurrency", "0"])
            .env("DATABASE_URL", system.database.url())
            .env("PROVIDER_URL", &system.mock.url())
            .envs(&borrowed(&environment))
            .start();
        program.logged("ready").await;
        let deferring = Client::new(program.url());
        let (http, url) = (reqwest::Client::new(), program.url().to_owned());
        let ask: Ask = Arc::new(move |path| Some(http.get(format!("{url}{path}"))));
        Self {
            ask,
            system,
            deferring,
            _deferring: program,
            environment,
        }
    }

    /// Until nothing is due but in channels that are paused already.
    async fn work(&self, paused: &[Channel]) {
        let others = others(paused);
        let pauses = format!(
            "update channels set paused_until = 'epoch', ramp_until = 'epoch' where channel in ({others})"
        );
        let due = format!(
            "select count(*) from deliveries where due_at <= now() and channel in ({others})"
        );
        loop {
            self.system.drain(&borrowed(&self.environment)).await;
            self.system.database.execute(&pauses).await;
            if self.system.database.count(&due).await == 0 {
                return;
            }
        }
    }

    async fn end_backoffs(&self, paused: &[Channel]) {
        let others = others(paused);
        let waiting = "lease_token is null and attempt > 0 and due_at is not null";
        let sql = format!(
            "update deliveries set due_at = now() where {waiting} and channel in ({others})"
        );
        self.system.database.execute(&sql).await;
    }
}

fn borrowed<'a>(environment: &'a [(&'static str, String)]) -> Vec<(&'static str, &'a str)> {
    environment
        .iter()
        .map(|(name, value)| (*name, &**value))
        .collect()
}

/// The other channels, in SQL.
fn others(paused: &[Channel]) -> String {
    let all = [Channel::Whatsapp, Channel::Instagram].into_iter();
    let others = all.filter(|channel| !paused.contains(channel));
    let quoted: Vec<String> = others
        .map(|channel| format!("'{}'", channel.as_str()))
        .collect();
    if quoted.is_empty() {
        "null".to_owned()
    } else {
        quoted.join(", ")
    }
}

/// The inbox of one case, and what is known of it from its answers: ids and times.
pub struct Inbox<'a> {
    pub rig: &'a Rig,
    /// Hears of everything from the gateway that does less than half of it.
    pub listener: Listener,
    pub began_at: DateTime<Utc>,
    pub conversation_ids: HashMap<Address, String>,
    /// By number.
    pub message_ids: Vec<String>,
    pub read_at: HashMap<Address, Value>,
    pub archived_at: HashMap<Address, Value>,
}

impl<'a> Inbox<'a> {
    /// Nothing is left of the case before.
    pub async fn empty(rig: &'a Rig) -> Self {
        rig.system
            .database
            .execute("truncate conversations, messages, webhook_events, webhook_bodies, deliveries")
            .await;
        rig.system.end_pauses().await;
        rig.system.mock.reset();
        let listener = Listener::start(Arc::clone(&rig.ask), None).await;
        Self {
            rig,
            listener: listener.unwrap(),
            began_at: Utc::now(),
            conversation_ids: HashMap::new(),
            message_ids: Vec::new(),
            read_at: HashMap::new(),
            archived_at: HashMap::new(),
        }
    }

    /// Does a step, and asserts that its answers and what it is about are as the reference says
    /// after it.
    pub async fn apply(&mut self, state: &State, transition: &Transition) -> Checked {
        let is_archived =
            |address: &Address| state.conversation(address).is_some_and(|c| c.archived);
        self.archived_at.retain(|address, _| is_archived(address));
        let rig = self.rig;
        match transition {
            Transition::Receive { events, copies } => {
                self.receive(state, events, *copies).await?;
                let addresses: Vec<&Address> = events.iter().map(|event| &event.address).collect();
                self.assert_touched(state, &addresses).await
            }
            Transition::Send { outgoing, copies } => {
                self.send(state, outgoing, *copies).await?;
                self.assert_touched(state, &[&outgoing.address]).await
            }
            Transition::Treat { participant, mood } => {
                rig.system.mock.script_always(&**participant, fault(*mood));
                Ok(())
            }
            Transition::Heal => {
                for participant in &state.participants {
                    rig.system.mock.script(&**participant, []);
                }
                Ok(())
            }
            Transition::Mark(mark, address) => {
                self.mark(state, *mark, address).await?;
                self.assert_touched(state, &[address]).await
            }
            Transition::Retry(back) => {
                let number = state.number(*back);
                let is_refused = state.messages[number].status() != "FAILED";
                let refusal = is_refused.then_some("not_failed");
                self.operate(state, number, "retry", 202, refusal).await
            }
            Transition::Cancel(back) => {
                let number = state.number(*back);
                let is_refused = state.messages[number].stage != Stage::Parked;
                let refusal = is_refused.then_some("not_cancelable");
                self.operate(state, number, "cancel", 200, refusal).await
            }
            Transition::Resume => {
                rig.system.end_pauses().await;
                Ok(())
            }
            Transition::Work => {
                rig.work(&state.paused).await;
                self.assert_touched(state, &state.addresses()).await
            }
            Transition::WorkLater => {
                rig.end_backoffs(&state.paused).await;
                rig.work(&state.paused).await;
                self.assert_touched(state, &state.addresses()).await
            }
        }
    }

    async fn receive(&mut self, state: &State, events: &[Event], copies: usize) -> Checked {
        let client = &self.rig.system.client;
        let bodies: Vec<Value> = events.iter().map(|event| self.body(event)).collect();
        let deliveries = bodies.iter().flat_map(|body| repeat_n(body, copies));
        let answers = join_all(deliveries.map(|body| deliver(client, body))).await;
        for (event, answers) in events.iter().zip(answers.chunks(copies)) {
            let (first, number) = &state.events[&event.id];
            let mut new = usize::from(*number == self.message_ids.len());
            for answer in answers {
                let receipt = expect(answer, 200)?;
                if receipt["duplicate"] == false {
                    prop_assert!(new > 0, "stored twice: {:?}", event.id);
                    new -= 1;
                }
                prop_assert_eq!(&receipt["eventId"], &*event.id);
                self.note(
                    *number,
                    &first.address,
                    &receipt["messageId"],
                    &receipt["conversationId"],
                )?;
            }
            prop_assert!(new == 0, "new, but answered as a duplicate: {:?}", event.id);
        }
        Ok(())
    }

    async fn send(&mut self, state: &State, outgoing: &Outgoing, copies: usize) -> Checked {
        let mut body = json!({ "channel": outgoing.address.channel, "to": outgoing.address.participant, "text": outgoing.text });
        let mut number = state.messages.len() - 1;
        if let Some(key) = &outgoing.key {
            body["clientMessageId"] = json!(key);
            number = state.sends[&(outgoing.address.channel, key.clone())];
        }
        let message = &state.messages[number];
        let client = if outgoing.deferred {
            &self.rig.deferring
        } else {
            &self.rig.system.client
        };
        let answers =
            join_all(repeat_n(&body, copies).map(|body| client.post("/messages/send", body))).await;
        let mut new = usize::from(number == self.message_ids.len());
        for answer in &answers {
            let is_new = new > 0 && answer.status == 201;
            let record = expect(answer, if is_new { 201 } else { 200 })?;
            new -= usize::from(is_new);
            self.note(
                number,
                &message.address,
                &record["id"],
                &record["conversationId"],
            )?;
            let flag = |set: bool| set.then_some("true");
            let differs = message.differs_from(outgoing);
            prop_assert_eq!(answer.header("idempotent-replayed"), flag(!is_new));
            prop_assert_eq!(
                answer.header("idempotent-mismatch"),
                flag(!is_new && differs)
            );
            // The first attempt may not have ended when one that races with it is answered.
            if is_new || copies == 1 {
                self.assert_message(message, number, &record)?;
            }
        }
        prop_assert!(new == 0, "new, but answered as a replay");
        Ok(())
    }

    async fn mark(&mut self, state: &State, mark: Mark, address: &Address) -> Checked {
        let id = &self.conversation_ids[address];
        let verb = match mark {
            Mark::Read => "read",
            Mark::Close => "close",
            Mark::Reopen => "reopen",
            Mark::Archive => "archive",
            Mark::Unarchive => "unarchive",
        };
        let answer = self
            .rig
            .system
            .client
            .post_empty(&format!("/conversations/{id}/{verb}"))
            .await;
        let row = expect(&answer, 200)?;
        match mark {
            Mark::Read => {
                self.read_at
                    .insert(address.clone(), row["lastReadAt"].clone());
            }
            Mark::Archive => {
                self.archived_at
                    .entry(address.clone())
                    .or_insert_with(|| row["archivedAt"].clone());
            }
            _ => {}
        }
        self.assert_row(state, state.conversation(address).unwrap(), &row)
    }

    /// An operator's verb, which is answered with this status, or refused with this code.
    async fn operate(
        &self,
        state: &State,
        number: usize,
        verb: &str,
        status: u16,
        refusal: Option<&str>,
    ) -> Checked {
        let message = &state.messages[number];
        let path = format!("/messages/{}/{verb}", self.message_ids[number]);
        let answer = self.rig.system.client.post(&path, &json!({})).await;
        match refusal {
            None => self.assert_message(message, number, &expect(&answer, status)?)?,
            Some(code) => prop_assert_eq!(&expect(&answer, 409)?["code"], code),
        }
        self.assert_touched(state, &[&message.address]).await
    }

    /// What is not known yet is noted, what is must be the same.
    fn note(
        &mut self,
        number: usize,
        address: &Address,
        message_id: &Value,
        conversation_id: &Value,
    ) -> Checked {
        let (Some(message_id), Some(conversation_id)) =
            (message_id.as_str(), conversation_id.as_str())
        else {
            return Err(TestCaseError::fail("no ids"));
        };
        if number == self.message_ids.len() {
            prop_assert!(
                !self.message_ids.iter().any(|known| known == message_id),
                "another message's id"
            );
            self.message_ids.push(message_id.to_owned());
        }
        if !self.conversation_ids.contains_key(address) {
            prop_assert!(
                !self
                    .conversation_ids
                    .values()
                    .any(|known| known == conversation_id),
                "another conversation's id"
            );
            self.conversation_ids
                .insert(address.clone(), conversation_id.to_owned());
        }
        prop_assert_eq!(&self.message_ids[number], message_id);
        prop_assert_eq!(&self.conversation_ids[address], conversation_id);
        Ok(())
    }

    fn body(&self, event: &Event) -> Value {
        json!({
            "eventId": event.id, "channel": event.address.channel, "from": event.address.participant,
            "text": event.text, "timestamp": format(self.time(event.clock)),
        })
    }

    pub fn time(&self, clock: Clock) -> DateTime<Utc> {
        let time = match clock {
            Clock::Past(millis) => DateTime::from_timestamp_millis(millis).unwrap(),
            Clock::Ahead(seconds) => {
                self.began_at + Duration::minutes(5) + Duration::seconds(seconds.into())
            }
            Clock::FarAhead(hours) => self.began_at + Duration::hours(hours.into()),
        };
        DateTime::from_timestamp_millis(time.timestamp_millis()).unwrap()
    }
}

/// As providers do: what is not known to be stored is repeated.
async fn deliver(client: &Client, event: &Value) -> Answer {
    eventually("a webhook is taken", async || {
        let answer = client.webhook(event).await;
        (answer.status != 503).then_some(answer)
    })
    .await
}

fn fault(mood: Mood) -> Fault {
    match mood {
        Mood::ServerError => Fault::server_error(503),
        Mood::Reject => Fault::Reject,
        Mood::LoseAnswer => Fault::LostAnswer,
        Mood::Reset => Fault::Reset,
        Mood::Unreadable => Fault::Unreadable,
        Mood::RateLimit => Fault::rate_limit_after(3600),
    }
}

pub(super) fn expect(answer: &Answer, status: u16) -> Checked<Value> {
    prop_assert_eq!(answer.status, status, "{}", answer.text);
    Ok(answer.json())
}

pub(super) fn format(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

//! What can be read of the inbox, held against what the reference says.

use std::cmp::Reverse;
use std::collections::HashMap;

use chrono::{DateTime, Duration, Utc};
use gateway::channel::Channel;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use serde_json::{Map, Value, json};

use super::inbox::{Checked, Inbox, expect, format};
use super::model::{Conversation, LastError, Message, PREVIEW, Stage, State};
use super::steps::{Address, Place};

const CHANNELS: [&str; 3] = ["", "whatsapp", "instagram"];

impl Inbox<'_> {
    /// What a step was about, and the inbox.
    pub async fn assert_touched(&self, state: &State, addresses: &[&Address]) -> Checked {
        // One that only a known event or key has named may not exist.
        for conversation in addresses
            .iter()
            .filter_map(|address| state.conversation(address))
        {
            self.assert_conversation(state, conversation).await?;
        }
        for archived in [false, true] {
            let path = format!("/conversations?limit=100&archived={archived}");
            let rows = self.get(&path).await?;
            self.assert_listed(state, &rows["data"], |c| c.archived == archived)?;
        }
        Ok(())
    }

    /// Everything that can be read, in every way.
    pub async fn assert_all(&self, state: &State) -> Checked {
        self.assert_filters(state).await?;
        for conversation in &state.conversations {
            let id = &self.conversation_ids[&conversation.address];
            let path = format!("/conversations/{id}?limit=7");
            for rows in [
                self.pages(&path, "messages").await?,
                self.cursors(&path, "messages").await?,
            ] {
                self.assert_thread(state, conversation, &rows)?;
            }
            self.assert_conversation(state, conversation).await?;
        }
        for (number, message) in state.messages.iter().enumerate() {
            let path = format!("/messages/{}", self.message_ids[number]);
            self.assert_message(message, number, &self.get(&path).await?)?;
        }
        self.assert_unsent(state).await?;
        self.assert_ledger(state)?;
        self.rig.system.database.assert_consistent().await;
        Ok(())
    }

    /// Nothing is left to be sent, and nothing was sent twice.
    pub async fn assert_all_sent(&self, state: &State) -> Checked {
        let done = |message: &Message| matches!(message.stage, Stage::Received | Stage::Sent);
        prop_assert!(state.messages.iter().all(done), "{:?}", state);
        self.assert_ledger(state)?;
        self.rig.system.database.assert_consistent().await;
        let ids: Vec<String> = self.conversation_ids.values().cloned().collect();
        let heard = self.listener.compare(&ids).await.unwrap();
        prop_assert!(heard.held, "{heard:?}");
        Ok(())
    }

    async fn assert_filters(&self, state: &State) -> Checked {
        for channel in CHANNELS {
            for status in ["", "open", "closed"] {
                for archived in ["", "true"] {
                    let path = format!(
                        "/conversations?limit=2{}{}{}",
                        parameter("channel", channel),
                        parameter("status", status),
                        parameter("archived", archived)
                    );
                    let listed = |c: &Conversation| {
                        (channel.is_empty() || c.address.channel.as_str() == channel)
                            && (status.is_empty() || c.open == (status == "open"))
                            && c.archived == (archived == "true")
                    };
                    for rows in [
                        self.pages(&path, "data").await?,
                        self.cursors(&path, "data").await?,
                    ] {
                        self.assert_listed(state, &rows, listed)?;
                    }
                }
            }
        }
        Ok(())
    }

    async fn assert_unsent(&self, state: &State) -> Checked {
        for status in ["PENDING", "FAILED"] {
            for channel in CHANNELS {
                let path = format!(
                    "/messages?status={status}&limit=3{}",
                    parameter("channel", channel)
                );
                let rows = self.cursors(&path, "data").await?;
                let is_listed = |message: &Message| {
                    message.status() == status
                        && (channel.is_empty() || message.address.channel.as_str() == channel)
                };
                let all = 0..state.messages.len();
                let mut numbers: Vec<usize> = all
                    .filter(|number| is_listed(&state.messages[*number]))
                    .collect();
                numbers.sort_by_key(|number| Reverse(&self.message_ids[*number]));
                self.assert_messages(state, &numbers, &rows)?;
            }
        }
        Ok(())
    }

    /// What the provider has seen of each message, and that it was what was accepted.
    fn assert_ledger(&self, state: &State) -> Checked {
        let ledger = self.rig.system.mock.ledger();
        let called = state.messages.iter().filter(|message| message.calls > 0);
        prop_assert_eq!(ledger.messages.len(), called.count(), "{:#?}", ledger);
        for (number, message) in state.messages.iter().enumerate() {
            let entry = ledger.message(&self.message_ids[number]);
            let seen = entry.map_or((0, 0, 0), |entry| {
                (entry.calls, entry.deliveries, entry.mismatched_calls)
            });
            prop_assert_eq!(
                seen,
                (message.calls, u64::from(message.delivered), 0),
                "{:?}",
                message
            );
            if let Some(entry) = entry {
                let key = message.key.as_ref().unwrap_or(&self.message_ids[number]);
                prop_assert_eq!(&entry.client_message_id, key);
            }
        }
        for conversation in &state.conversations {
            let Address {
                channel,
                participant,
            } = &conversation.address;
            let channel = match channel {
                Channel::Whatsapp => mock_meta_provider::Channel::Whatsapp,
                Channel::Instagram => mock_meta_provider::Channel::Instagram,
            };
            let mut delivered = ledger.texts(channel, participant).to_vec();
            let texts = conversation
                .delivered
                .iter()
                .map(|number| &state.messages[*number].text);
            let mut expected: Vec<String> = texts.cloned().collect();
            if !state.ordered {
                // A worker makes several attempts at once.
                delivered.sort();
                expected.sort();
            }
            prop_assert_eq!(delivered, expected);
        }
        Ok(())
    }

    /// Its row, and all of its messages.
    async fn assert_conversation(&self, state: &State, conversation: &Conversation) -> Checked {
        let id = &self.conversation_ids[&conversation.address];
        let detail = self.get(&format!("/conversations/{id}?limit=200")).await?;
        self.assert_row(state, conversation, &detail)?;
        self.assert_thread(state, conversation, &detail["messages"])?;
        if let Place::Present(_) = self.newest(state, conversation).place {
            prop_assert_eq!(
                &detail["lastMessageAt"],
                &detail["messages"][0]["timestamp"]
            );
        }
        Ok(())
    }

    fn assert_listed(
        &self,
        state: &State,
        rows: &Value,
        is_listed: impl Fn(&Conversation) -> bool,
    ) -> Checked {
        let mut expected: Vec<&Conversation> = state
            .conversations
            .iter()
            .filter(|c| is_listed(c))
            .collect();
        expected.sort_by_key(|c| {
            Reverse((
                self.newest(state, c).place,
                &self.conversation_ids[&c.address],
            ))
        });
        let ids: Vec<&String> = expected
            .iter()
            .map(|c| &self.conversation_ids[&c.address])
            .collect();
        prop_assert_eq!(
            column(rows, "id"),
            ids,
            "the inbox is another one, or in another order"
        );
        for (conversation, row) in expected.iter().zip(rows.as_array().unwrap()) {
            self.assert_row(state, conversation, row)?;
        }
        Ok(())
    }

    pub fn assert_row(&self, state: &State, conversation: &Conversation, row: &Value) -> Checked {
        let address = &conversation.address;
        let newest = self.newest(state, conversation);
        let time =
            |known: &HashMap<Address, Value>, is_set: bool| is_set.then(|| known[address].clone());
        let expected = json!({
            "id": self.conversation_ids[address],
            "channel": address.channel,
            "participantId": address.participant,
            "status": if conversation.open { "open" } else { "closed" },
            "unreadCount": conversation.unread,
            "lastMessagePreview": newest.text.chars().take(PREVIEW).collect::<String>(),
            "lastReadAt": time(&self.read_at, conversation.was_read),
            "archivedAt": time(&self.archived_at, conversation.archived),
        });
        assert_fields(row, &expected)?;
        prop_assert!(
            row["lastReadAt"].is_null() != conversation.was_read,
            "{row}"
        );
        prop_assert!(
            row["archivedAt"].is_null() != conversation.archived,
            "{row}"
        );
        self.assert_place(newest, parse(&row["lastMessageAt"])?)
    }

    fn assert_place(&self, newest: &Message, at: DateTime<Utc>) -> Checked {
        let limit = Duration::minutes(10);
        let now = Utc::now();
        match newest.place {
            Place::Past(_) | Place::Ahead(_) => {
                prop_assert_eq!(Some(at), newest.clock.map(|clock| self.time(clock)));
            }
            Place::Present(_) => prop_assert!(at <= now, "{at}"),
            Place::FarAhead(_) => {
                let since = self.began_at + limit - Duration::milliseconds(1); // which are cut
                prop_assert!((since..=now + limit).contains(&at), "{at}");
            }
        }
        Ok(())
    }

    fn assert_thread(&self, state: &State, conversation: &Conversation, rows: &Value) -> Checked {
        self.assert_messages(state, &self.thread(state, conversation), rows)
    }

    fn assert_messages(&self, state: &State, numbers: &[usize], rows: &Value) -> Checked {
        let ids: Vec<&String> = numbers
            .iter()
            .map(|number| &self.message_ids[*number])
            .collect();
        prop_assert_eq!(
            column(rows, "id"),
            ids,
            "other messages, or in another order"
        );
        for (number, row) in numbers.iter().zip(rows.as_array().unwrap()) {
            self.assert_message(&state.messages[*number], *number, row)?;
        }
        Ok(())
    }

    pub fn assert_message(&self, message: &Message, number: usize, row: &Value) -> Checked {
        let id = &self.message_ids[number];
        let timestamp = message.clock.map(|clock| json!(format(self.time(clock))));
        let expected = json!({
            "id": id,
            "conversationId": self.conversation_ids[&message.address],
            "channel": message.address.channel,
            "participantId": message.address.participant,
            "direction": if message.clock.is_some() { "INBOUND" } else { "OUTBOUND" },
            "type": "text",
            "text": message.text,
            "status": message.status(),
            "clientMessageId": message.key,
            "retryCount": message.retry_count,
            "timestamp": timestamp.unwrap_or_else(|| row["createdAt"].clone()),
        });
        assert_fields(row, &expected)?;
        assert_error(message.last_error, &row["lastError"])?;
        let sent = message.stage == Stage::Sent;
        prop_assert!(row["sentAt"].is_null() != sent, "{row}");
        let accepted = self.rig.system.mock.message(id).filter(|_| sent);
        let provider_id = accepted.and_then(|entry| entry.provider_message_id);
        prop_assert_eq!(&row["providerMessageId"], &json!(provider_id));
        prop_assert!(
            row["nextAttemptAt"].is_null() != message.has_next_attempt(),
            "{row}"
        );
        if message.has_next_attempt() {
            let is_later = parse(&row["nextAttemptAt"])? > Utc::now();
            prop_assert_eq!(is_later, message.stage == Stage::Waiting, "{}", row);
        }
        Ok(())
    }

    /// By number, newest first.
    fn thread(&self, state: &State, conversation: &Conversation) -> Vec<usize> {
        let mut numbers = conversation.messages.clone();
        numbers.sort_by_key(|number| {
            Reverse((state.messages[*number].place, &self.message_ids[*number]))
        });
        numbers
    }

    fn newest<'s>(&self, state: &'s State, conversation: &Conversation) -> &'s Message {
        &state.messages[self.thread(state, conversation)[0]]
    }

    async fn get(&self, path: &str) -> Checked<Value> {
        expect(&self.rig.system.client.get(path).await, 200)
    }

    /// The rows of a list, page by page.
    async fn pages(&self, path: &str, rows: &str) -> Checked<Value> {
        let mut all = Vec::new();
        for page in 1.. {
            let mut answer = self.get(&format!("{path}&page={page}")).await?;
            all.append(take(&mut answer, rows));
            prop_assert_eq!(&answer["meta"]["page"], page);
            prop_assert_eq!(
                &answer["meta"]["hasMore"],
                !answer["meta"]["nextCursor"].is_null()
            );
            if answer["meta"]["hasMore"] == false {
                break;
            }
        }
        Ok(Value::Array(all))
    }

    /// The rows of a list, cursor by cursor.
    async fn cursors(&self, path: &str, rows: &str) -> Checked<Value> {
        let mut all = Vec::new();
        let mut next = path.to_owned();
        loop {
            let mut answer = self.get(&next).await?;
            all.append(take(&mut answer, rows));
            match answer["meta"]["nextCursor"].as_str() {
                Some(cursor) => next = format!("{path}&cursor={cursor}"),
                None => return Ok(Value::Array(all)),
            }
        }
    }
}

fn parameter(name: &str, value: &str) -> String {
    if value.is_empty() {
        String::new()
    } else {
        format!("&{name}={value}")
    }
}

fn take<'a>(answer: &'a mut Value, rows: &str) -> &'a mut Vec<Value> {
    answer[rows].as_array_mut().unwrap()
}

fn column<'a>(rows: &'a Value, field: &str) -> Vec<&'a str> {
    rows.as_array()
        .unwrap()
        .iter()
        .map(|row| row[field].as_str().unwrap())
        .collect()
}

/// The fields that the reference has something to say about.
fn assert_fields(row: &Value, expected: &Value) -> Checked {
    let fields = expected.as_object().unwrap().keys();
    let shown: Map<String, Value> = fields
        .map(|field| (field.clone(), row[field].clone()))
        .collect();
    prop_assert_eq!(&Value::Object(shown), expected);
    Ok(())
}

fn assert_error(expected: Option<LastError>, shown: &Value) -> Checked {
    let Some(LastError {
        kind,
        http_status,
        retryable,
        ambiguous,
    }) = expected
    else {
        prop_assert!(shown.is_null(), "{shown}");
        return Ok(());
    };
    let expected = json!({ "kind": kind, "httpStatus": http_status, "retryable": retryable, "ambiguous": ambiguous });
    assert_fields(shown, &expected)?;
    let detail = shown["detail"].as_str().unwrap_or_default();
    prop_assert!(!detail.is_empty(), "{shown}");
    Ok(())
}

fn parse(time: &Value) -> Checked<DateTime<Utc>> {
    let text = time.as_str().unwrap_or_default();
    let time = DateTime::parse_from_rfc3339(text)
        .map_err(|error| TestCaseError::fail(format!("{text}: {error}")))?;
    Ok(time.to_utc())
}

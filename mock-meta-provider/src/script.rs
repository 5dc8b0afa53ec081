//! Faults set in advance: given out in order, one for each call, before chance decides anything.

use std::collections::{HashMap, VecDeque};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::fault::Fault;

/// The most answers in one script.
pub(crate) const MAX_ANSWERS: usize = 10_000;
/// The most participants with a script of their own.
pub(crate) const MAX_SCRIPTS: usize = 10_000;
/// The most that all scripts may hold together, in bytes, about.
pub(crate) const MAX_BYTES: usize = 32 * 1024 * 1024;

/// The answers to the coming calls.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Script {
    /// The participant whose calls it answers; `None` is anyone without a script of their own.
    #[serde(default)]
    pub to: Option<String>,
    /// One answer a call, in this order; none at all ends the script that was there.
    pub answers: VecDeque<Fault>,
    /// Whether the last answer stays for ever.
    #[serde(default)]
    pub repeat: bool,
}

/// The scripts that are being played.
#[derive(Debug, Default)]
pub(crate) struct Scripts {
    by_participant: HashMap<Option<String>, (Script, usize)>,
    /// What they hold, as it was when they were set.
    bytes: usize,
}

/// Why a script is not played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// [`MAX_SCRIPTS`] are there.
    TooMany,
    /// All would hold more than [`MAX_BYTES`].
    TooLarge,
}

impl Scripts {
    /// Sets a script in the place of what is left of the earlier one; where there is no room for it, that one stays.
    pub(crate) fn set(&mut self, script: Script) -> Result<(), Refused> {
        if script.answers.is_empty() {
            let ended = self.by_participant.remove(&script.to);
            self.bytes -= ended.map_or(0, |(_, bytes)| bytes);
            return Ok(());
        }
        let earlier = self.by_participant.get(&script.to);
        if earlier.is_none() && self.by_participant.len() >= MAX_SCRIPTS {
            return Err(Refused::TooMany);
        }
        let bytes = held(&script);
        let others = self.bytes - earlier.map_or(0, |(_, bytes)| *bytes);
        if others + bytes > MAX_BYTES {
            return Err(Refused::TooLarge);
        }
        self.bytes = others + bytes;
        self.by_participant
            .insert(script.to.clone(), (script, bytes));
        Ok(())
    }

    /// Takes the next answer for a participant: from their own script, else from everyone's.
    pub(crate) fn next(&mut self, to: &str) -> Option<Fault> {
        self.take(Some(to)).or_else(|| self.take(None))
    }

    fn take(&mut self, to: Option<&str>) -> Option<Fault> {
        let to = to.map(str::to_owned);
        let (script, _) = self.by_participant.get_mut(&to)?;
        if script.repeat && script.answers.len() == 1 {
            return script.answers.front().cloned();
        }
        let fault = script.answers.pop_front();
        if script.answers.is_empty() {
            let played = self.by_participant.remove(&to);
            self.bytes -= played.map_or(0, |(_, bytes)| bytes);
        }
        fault
    }
}

/// What a script holds, in bytes, about.
fn held(script: &Script) -> usize {
    let of_answer = |answer: &Fault| {
        let (retry_after, body) = match answer {
            Fault::RateLimit { retry_after } | Fault::ServerError { retry_after, .. } => {
                (retry_after.as_ref(), None)
            }
            Fault::Status {
                retry_after, body, ..
            } => (retry_after.as_ref(), body.as_ref()),
            _ => (None, None),
        };
        size_of::<Fault>() + retry_after.map_or(0, String::len) + body.map_or(0, of_value)
    };
    let to = script.to.as_ref().map_or(0, String::len);
    size_of::<(Option<String>, Script, usize)>()
        + 2 * to
        + script.answers.iter().map(of_answer).sum::<usize>()
}

fn of_value(value: &Value) -> usize {
    /// What an entry of an object has beside its key and value, about.
    const ENTRY: usize = 32;
    size_of::<Value>()
        + match value {
            Value::String(text) => text.len(),
            Value::Array(values) => values.iter().map(of_value).sum(),
            Value::Object(fields) => {
                let of_field =
                    |(name, value): (&String, &Value)| ENTRY + name.len() + of_value(value);
                fields.iter().map(of_field).sum()
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        }
}

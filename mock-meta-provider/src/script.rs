//! Faults set in advance: one for each call, in order, instead of random ones.

use std::collections::{HashMap, VecDeque};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::fault::Fault;

/// The most answers in one script.
pub(crate) const MAX_ANSWERS: usize = 10_000;
/// The most participants with a script of their own.
const MAX_SCRIPTS: usize = 10_000;
/// How much memory all scripts together may take, in bytes, about.
const MAX_BYTES: usize = 32 * 1024 * 1024;

/// The answers to the next calls.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Script {
    /// The participant whose calls it answers; `None` is everybody without a script of their own.
    #[serde(default)]
    pub to: Option<String>,
    /// One for each call, in this order. Without any the earlier script ends.
    pub answers: VecDeque<Fault>,
    /// Whether the last answer is given for ever.
    #[serde(default)]
    pub repeat: bool,
}

/// The scripts that are being played.
#[derive(Debug, Default)]
pub(crate) struct Scripts {
    /// Each with its size in bytes.
    by_participant: HashMap<Option<String>, (Script, usize)>,
    /// The sum of their sizes, each as it was when the script was set.
    bytes: usize,
}

/// Why a script was not set.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScriptError {
    #[error("to: {MAX_SCRIPTS} participants have scripts already")]
    TooMany,
    #[error("answers: all scripts together would hold more than {} MiB", MAX_BYTES >> 20)]
    TooLarge,
}

impl Scripts {
    /// Replaces the participant's earlier script; where there is no room, that one stays.
    pub(crate) fn set(&mut self, script: Script) -> Result<(), ScriptError> {
        if script.answers.is_empty() {
            let ended = self.by_participant.remove(&script.to);
            self.bytes -= ended.map_or(0, |(_, bytes)| bytes);
            return Ok(());
        }
        let earlier = self.by_participant.get(&script.to);
        if earlier.is_none() && self.by_participant.len() >= MAX_SCRIPTS {
            return Err(ScriptError::TooMany);
        }
        let bytes = size(&script);
        let others = self.bytes - earlier.map_or(0, |(_, bytes)| *bytes);
        if others + bytes > MAX_BYTES {
            return Err(ScriptError::TooLarge);
        }
        self.bytes = others + bytes;
        self.by_participant
            .insert(script.to.clone(), (script, bytes));
        Ok(())
    }

    /// Takes the next answer for a participant, from their own script or from everybody's.
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

/// How much memory a script takes, in bytes, about.
fn size(script: &Script) -> usize {
    let answer_size = |answer: &Fault| {
        let (retry_after, body) = match answer {
            Fault::RateLimit { retry_after } | Fault::ServerError { retry_after, .. } => {
                (retry_after.as_ref(), None)
            }
            Fault::Status {
                retry_after, body, ..
            } => (retry_after.as_ref(), body.as_ref()),
            _ => (None, None),
        };
        size_of::<Fault>() + retry_after.map_or(0, String::len) + body.map_or(0, value_size)
    };
    let to = script.to.as_ref().map_or(0, String::len);
    size_of::<(Option<String>, Script, usize)>()
        + 2 * to
        + script.answers.iter().map(answer_size).sum::<usize>()
}

fn value_size(value: &Value) -> usize {
    /// What an entry of an object takes besides its key and value, about.
    const ENTRY: usize = 32;
    size_of::<Value>()
        + match value {
            Value::String(text) => text.len(),
            Value::Array(values) => values.iter().map(value_size).sum(),
            Value::Object(fields) => {
                let field_size =
                    |(name, value): (&String, &Value)| ENTRY + name.len() + value_size(value);
                fields.iter().map(field_size).sum()
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        }
}

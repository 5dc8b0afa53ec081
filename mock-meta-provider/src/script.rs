//! Faults set in advance: given out in order, one for each call, before chance decides anything.

use std::collections::{HashMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::fault::Fault;

/// The most answers in one script.
pub(crate) const MAX_ANSWERS: usize = 10_000;
/// The most participants with a script of their own.
pub(crate) const MAX_SCRIPTS: usize = 10_000;

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
    by_participant: HashMap<Option<String>, Script>,
}

impl Scripts {
    /// Sets a script in the place of what is left of the earlier one; `false` when there are too many.
    #[must_use]
    pub(crate) fn set(&mut self, script: Script) -> bool {
        if script.answers.is_empty() {
            self.by_participant.remove(&script.to);
            return true;
        }
        if self.by_participant.len() >= MAX_SCRIPTS && !self.by_participant.contains_key(&script.to)
        {
            return false;
        }
        self.by_participant.insert(script.to.clone(), script);
        true
    }

    /// Takes the next answer for a participant: from their own script, else from everyone's.
    pub(crate) fn next(&mut self, to: &str) -> Option<Fault> {
        self.take(Some(to)).or_else(|| self.take(None))
    }

    fn take(&mut self, to: Option<&str>) -> Option<Fault> {
        let to = to.map(str::to_owned);
        let script = self.by_participant.get_mut(&to)?;
        if script.repeat && script.answers.len() == 1 {
            return script.answers.front().cloned();
        }
        let fault = script.answers.pop_front();
        if script.answers.is_empty() {
            self.by_participant.remove(&to);
        }
        fault
    }
}

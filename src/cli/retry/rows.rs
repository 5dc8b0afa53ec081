//! Messages as the command prints them, and how each ended.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use crate::cli::output;
use crate::message::{Message, Status};

/// A time as it is printed, to the second.
pub fn seconds(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// A message as it is printed.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    id: String,
    channel: String,
    to: String,
    status: Status,
    attempts: i32,
    error: String,
    /// The provider's own number for it.
    code: Option<i64>,
    ambiguous: bool,
    since: String,
    next_attempt_at: Option<String>,
}

impl Row {
    pub fn of(message: &Message) -> Self {
        Self {
            id: message.id.to_string(),
            channel: message.channel.as_str().to_owned(),
            to: message.participant_id.clone(),
            status: message.status,
            attempts: message.retry_count,
            error: message
                .error_kind
                .map(|kind| kind.as_str().to_owned())
                .unwrap_or_default(),
            code: message.error_code,
            ambiguous: message.is_ambiguous(),
            since: seconds(message.updated_at),
            next_attempt_at: message.next_attempt_at.map(seconds),
        }
    }
}

/// Prints messages that have failed.
pub fn print_failed(as_json: bool, rows: Vec<Row>) -> anyhow::Result<()> {
    if as_json {
        return output::json(&rows);
    }
    let headers = [
        "ID",
        "CHANNEL",
        "TO",
        "ATTEMPTS",
        "ERROR",
        "CODE",
        "AMBIGUOUS",
        "SINCE",
        "NEXT ATTEMPT",
    ];
    let cells = rows.into_iter().map(|row| {
        let next = row.next_attempt_at.unwrap_or_else(|| "none".to_owned());
        vec![
            row.id,
            row.channel,
            row.to,
            row.attempts.to_string(),
            row.error,
            row.code.map(|code| code.to_string()).unwrap_or_default(),
            (if row.ambiguous { "yes" } else { "no" }).to_owned(),
            row.since,
            next,
        ]
    });
    Ok(output::table(&headers, cells)?)
}

/// Prints how each ended, and returns how many were sent.
pub fn print_ended(as_json: bool, ended: Vec<Row>, requested: usize) -> anyhow::Result<usize> {
    let sent = ended.iter().filter(|row| row.status == Status::Sent);
    let sent = sent.count();
    let retried = ended.iter().filter(|row| row.next_attempt_at.is_some());
    let retried = retried.count();
    let mut parts = vec![format!("{sent} sent")];
    for (count, how) in [
        (retried, "failed again"),
        (ended.len() - sent - retried, "failed for good"),
        (requested - ended.len(), "not ended"),
    ] {
        if count > 0 {
            parts.push(format!("{count} {how}"));
        }
    }
    if as_json {
        output::json(&ended)?;
    } else if !ended.is_empty() {
        let headers = ["ID", "CHANNEL", "TO", "STATUS", "ERROR", "NEXT ATTEMPT"];
        let cells = ended.into_iter().map(|row| {
            let error = if row.status == Status::Sent {
                String::new()
            } else {
                row.error
            };
            vec![
                row.id,
                row.channel,
                row.to,
                row.status.as_str().to_owned(),
                error,
                row.next_attempt_at.unwrap_or_default(),
            ]
        });
        output::table(&headers, cells)?;
    }
    if requested > 0 {
        output::say(&parts.join(", "));
    }
    Ok(sent)
}

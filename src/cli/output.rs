//! The only printing: data goes to stdout, as a table or as JSON; messages for the operator go to
//! stderr.

use std::io::{self, IsTerminal, Write};

use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::process::stderr;

/// Writes a line of data. It is no error if the reader has gone away.
pub fn line(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

pub fn json(value: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value)?;
    // Only strings have active characters, except for the line breaks between values.
    let text = visible(&text, |c| match c {
        '\n' => c.to_string(),
        _ => format!("\\u{:04x}", u32::from(c)),
    });
    Ok(line(&text)?)
}

pub fn table(headers: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> io::Result<()> {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(headers);
    for row in rows {
        table.add_row(
            row.iter()
                .map(|cell| visible(cell, |c| c.escape_unicode().to_string())),
        );
    }
    line(&table.trim_fmt())
}

/// Escapes characters that act on a terminal: text from outside must not move, hide or reverse what
/// is around it.
fn visible(text: &str, escape: impl Fn(char) -> String) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if is_active(character) {
            shown.push_str(&escape(character));
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Control characters, the bidirectional formatting characters of Unicode's annex 9, and the
/// separators of lines and paragraphs.
fn is_active(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

pub fn say(text: &str) {
    stderr::line(text);
}

/// A progress bar on stderr, hidden if that is no terminal.
pub fn progress(length: u64, what: &'static str) -> ProgressBar {
    let target = if io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {elapsed}")
        .expect("the template has no error");
    ProgressBar::with_draw_target(Some(length), target)
        .with_style(style)
        .with_message(what)
}

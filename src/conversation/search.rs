//! Finds conversations that have unread messages, or by how their participants begin, at a cost that
//! has a limit however many there are.
//!
//! Nothing has them in the order of the list. Where they are few, all of them are put in order. Where
//! they are many, some are soon met on a walk through the list; a walk that meets too few of them
//! ends early, and says how far it came.

use super::{Conversation, Filter, store};
use crate::cursor::{Cursor, Start};
use crate::database::pool::Pool;

/// The most conversations that are put in order for one page.
const FEW: i64 = 5_000;
/// How many conversations a walk reads in one statement.
const STEP: i64 = 500;
/// The most statements of a walk: it reads 10,000 conversations.
const STEPS: usize = 20;

/// How participants begin. Compared by bytes, as their key is.
#[derive(Debug)]
pub struct Prefix(pub String);

impl Prefix {
    /// A text after all that begin so, and before all others that follow them.
    fn end(&self) -> String {
        let mut kept = self.0.chars();
        while let Some(last) = kept.next_back() {
            // The order of bytes in UTF-8 is that of characters; half surrogates are none.
            if let Some(next) = (last..=char::MAX).nth(1) {
                let mut end = kept.as_str().to_owned();
                end.push(next);
                return end;
            }
        }
        // Longer than a participant can be.
        char::MAX.to_string().repeat(161)
    }
}

/// A part of a list.
#[derive(Debug)]
pub struct Found {
    /// In the order of the list.
    pub rows: Vec<Conversation>,
    /// How far was looked; none: to the end, or as many were found as were asked for.
    pub reached: Option<Cursor>,
}

/// The newest of the conversations that the filter lets through and, if there is a prefix, whose
/// participants begin so.
pub async fn list(
    pool: &Pool,
    filter: Filter,
    prefix: Option<&Prefix>,
    start: Start,
    limit: i64,
) -> sqlx::Result<Found> {
    // More than were counted, if more have come since.
    const MOST: i64 = FEW + STEP;
    let end = prefix.map(Prefix::end).unwrap_or_default();
    let range = prefix.map(|prefix| (&*prefix.0, &*end));
    let few = match range {
        Some(range) if store::count_matching(pool, range, FEW + 1).await? <= FEW => {
            Some(store::list_matching(pool, range, MOST, filter, start, limit).await?)
        }
        _ if filter.unread && store::count_unread(pool, FEW + 1).await? <= FEW => {
            Some(store::list_unread(pool, range, MOST, filter, start, limit).await?)
        }
        _ => None,
    };
    match few {
        Some(rows) => Ok(Found {
            rows,
            reached: None,
        }),
        None => walk(pool, filter, prefix, start, limit).await,
    }
}

/// Reads the list from its start, and keeps what matches.
async fn walk(
    pool: &Pool,
    filter: Filter,
    prefix: Option<&Prefix>,
    start: Start,
    limit: i64,
) -> sqlx::Result<Found> {
    let (skipped, mut start) = match start {
        Start::Skip(rows) => (rows, Start::Skip(0)),
        Start::After(cursor) => (0, Start::After(cursor)),
    };
    let enough = usize::try_from(skipped + limit).unwrap_or(usize::MAX);
    let mut rows = Vec::new();
    let mut reached = None;
    for _ in 0..STEPS {
        let step = store::list(pool, filter, start, STEP).await?;
        let is_last = i64::try_from(step.len()).is_ok_and(|length| length < STEP);
        reached = step.last().map(Conversation::cursor).filter(|_| !is_last);
        let matches = |row: &Conversation| {
            let begins = prefix.is_none_or(|prefix| row.participant_id.starts_with(&prefix.0));
            begins && (row.unread_count > 0 || !filter.unread)
        };
        rows.extend(step.into_iter().filter(matches));
        if rows.len() >= enough {
            reached = None;
        }
        match reached {
            Some(cursor) => start = Start::After(cursor),
            None => break,
        }
    }
    let skipped = usize::try_from(skipped).unwrap_or(usize::MAX);
    rows.drain(..skipped.min(rows.len()));
    Ok(Found { rows, reached })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(prefix: &str) -> String {
        Prefix(prefix.to_owned()).end()
    }

    #[test]
    fn the_end_of_a_prefix_is_the_next_text_that_does_not_begin_so() {
        for (prefix, expected) in [
            ("a", "b"),
            ("user-9", "user-:"),
            ("a%_", "a%`"),
            ("\u{7f}", "\u{80}"),
            ("x\u{d7ff}", "x\u{e000}"),
            ("\u{ffff}", "\u{10000}"),
            ("a\u{10ffff}\u{10ffff}", "b"),
        ] {
            assert_eq!(end(prefix), expected, "{prefix:?}");
        }
        assert!(end("\u{10ffff}") > "\u{10ffff}".repeat(160));
    }

    proptest::proptest! {
        #[test]
        fn a_text_is_in_the_range_of_a_prefix_if_it_begins_so(
            prefix in "[a\u{d7ff}\u{e000}\u{ffff}\u{10000}\u{10fffe}\u{10ffff}]{1,4}|.{1,4}",
            text in "[a\u{d7ff}\u{e000}\u{ffff}\u{10000}\u{10fffe}\u{10ffff}]{0,6}|.{0,6}",
        ) {
            for text in [text.clone(), format!("{prefix}{text}")] {
                let is_in_range = text >= prefix && text < end(&prefix);
                proptest::prop_assert_eq!(is_in_range, text.starts_with(&prefix), "{:?}", text);
            }
        }
    }
}

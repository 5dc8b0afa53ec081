//! Where a list begins, and what is said about where it goes on.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Serialize, Serializer};
use utoipa::ToSchema;
use uuid::Uuid;

use super::problem::Problem;
use crate::conversation::Start;

/// About a page of a list.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PageMeta {
    /// The page, from 1; null after a cursor.
    #[schema(required, minimum = 1, example = 1)]
    pub page: Option<u32>,
    /// The most rows of a page.
    #[schema(minimum = 1, example = 20)]
    pub limit: u32,
    /// Whether there is more.
    #[schema(example = true)]
    pub has_more: bool,
    /// What to pass as `cursor` for what follows; null at the end.
    #[schema(required, pattern = "^(00|ff)[0-9a-f]{46}$")]
    pub next_cursor: Option<String>,
}

/// The deepest row that a page may end at: each is read from the first one on.
const DEEPEST: u64 = 100_000;

/// A request for a part of a list.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// Where it begins.
    pub start: Start,
    /// The page that begins there, if it was asked for by number.
    page: Option<u32>,
    /// The most rows.
    pub limit: u32,
}

impl Window {
    /// The part that these parameters, valid by themselves, ask for.
    pub fn new(
        page: Option<&str>,
        cursor: Option<&str>,
        limit: Option<&str>,
        default_limit: u32,
    ) -> Result<Self, Problem> {
        let limit = number(limit, default_limit);
        let (start, page) = match (page, cursor) {
            (Some(_), Some(_)) => {
                return Err(Problem::field("cursor", "cannot be combined with page"));
            }
            (page, None) => {
                let page = number(page, 1);
                if u64::from(page) * u64::from(limit) > DEEPEST {
                    let deeper = format!(
                        "is what leads beyond the first {DEEPEST} rows (page times limit): the nextCursor of the page before"
                    );
                    return Err(Problem::field("cursor", deeper));
                }
                let skip = i64::from(page.saturating_sub(1)) * i64::from(limit);
                (Start::Skip(skip), Some(page))
            }
            (None, Some(cursor)) => {
                let (at, id) = parse_cursor(cursor).ok_or_else(|| {
                    Problem::field("cursor", "is not one that this list has given")
                })?;
                (Start::After(at, id), None)
            }
        };
        Ok(Self { start, page, limit })
    }

    /// How many rows to read: one more than are shown tells whether there is more.
    #[must_use]
    pub fn to_read(&self) -> i64 {
        i64::from(self.limit) + 1
    }

    /// Cuts the rows to the limit, and says where the list goes on.
    pub fn cut<T>(
        &self,
        rows: &mut Vec<T>,
        place: impl Fn(&T) -> (DateTime<Utc>, Uuid),
    ) -> PageMeta {
        let limit = self.limit as usize;
        let has_more = rows.len() > limit;
        rows.truncate(limit);
        PageMeta {
            page: self.page,
            limit: self.limit,
            has_more,
            next_cursor: rows.last().filter(|_| has_more).map(|row| {
                let (at, id) = place(row);
                cursor(at, id)
            }),
        }
    }
}

/// A number of a query that was validated, or its default.
#[must_use]
pub fn number(text: Option<&str>, default: u32) -> u32 {
    text.and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A place in a list, to the microsecond that the database keeps: 16 hex digits of time, 32 of id. The API's document has
/// this as a pattern.
#[must_use]
pub fn cursor(at: DateTime<Utc>, id: Uuid) -> String {
    format!("{:016x}{}", at.timestamp_micros(), id.simple())
}

fn parse_cursor(text: &str) -> Option<(DateTime<Utc>, Uuid)> {
    let is_hex = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    // No list is sorted by a time that begins otherwise: it would be thousands of years away.
    let is_near = text.starts_with("00") || text.starts_with("ff");
    if text.len() != 48 || !is_near || !text.bytes().all(is_hex) {
        return None;
    }
    let micros = u64::from_str_radix(&text[..16], 16).ok()?.cast_signed();
    let at = DateTime::from_timestamp_micros(micros)?;
    let id = Uuid::try_parse(&text[16..]).ok()?;
    Some((at, id))
}

/// Serializes a time as RFC 3339 in UTC with milliseconds.
pub fn millis<S: Serializer>(time: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&time.to_rfc3339_opts(SecondsFormat::Millis, true))
}

/// The same for a time that may be missing.
#[allow(clippy::ref_option)] // the signature is serde's
pub fn optional_millis<S: Serializer>(
    time: &Option<DateTime<Utc>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => millis(time, serializer),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_keeps_microseconds_and_times_before_1970() {
        for micros in [0, -1, 1_735_725_600_123_456, -62_000_000_000_000_000] {
            let at = DateTime::from_timestamp_micros(micros).unwrap();
            let id = Uuid::now_v7();
            assert_eq!(parse_cursor(&cursor(at, id)), Some((at, id)));
        }
    }

    #[test]
    fn anything_else_is_no_cursor() {
        let good = cursor(Utc::now(), Uuid::now_v7());
        for text in [
            "",
            "x",
            &good[1..],
            &format!("{good}0"),
            &good.replacen("00", "7f", 1),
            &good.to_uppercase(),
            &"é".repeat(24),
        ] {
            assert_eq!(parse_cursor(text), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn every_cursor_leads_back_to_its_place(
            // From the year 0, the least that an event may have, to the year 4253: nothing sorts later than 10 minutes from now.
            micros in -62_167_219_200_000_000_i64..1 << 56,
            id in proptest::prelude::any::<u128>(),
        ) {
            let (at, id) = (DateTime::from_timestamp_micros(micros).unwrap(), Uuid::from_u128(id));
            proptest::prop_assert_eq!(parse_cursor(&cursor(at, id)), Some((at, id)));
        }

        #[test]
        fn what_is_read_as_a_cursor_is_one(text in "(00|ff|)[0-9a-f]{0,48}|\\PC{0,48}") {
            if let Some((at, id)) = parse_cursor(&text) {
                proptest::prop_assert_eq!(cursor(at, id), text);
            }
        }
    }
}

//! The place in a list after which the next page begins.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};
use uuid::Uuid;

use crate::id::UnknownSpelling;

/// A row's place: the time and the id that its list is sorted by.
///
/// Its one spelling is 16 hex digits of time, in the microseconds that the database keeps, and 32
/// of id. The time's sign is turned over, so that texts sort as times do, also before 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// The time that the list is sorted by.
    pub at: DateTime<Utc>,
    /// What decides between equal times.
    pub id: Uuid,
}

/// Where a page begins.
#[derive(Debug, Clone, Copy)]
pub enum Start {
    /// After this many rows.
    Skip(i64),
    /// After the row at this place.
    After(Cursor),
}

impl Start {
    /// How many rows to skip, and after which place.
    #[must_use]
    pub fn split(self) -> (i64, Option<Cursor>) {
        match self {
            Self::Skip(rows) => (rows, None),
            Self::After(cursor) => (0, Some(cursor)),
        }
    }
}

/// The sign of a time in microseconds.
const SIGN: u64 = 1 << 63;

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.at.timestamp_micros().cast_unsigned() ^ SIGN;
        write!(f, "{micros:016x}{}", self.id.simple())
    }
}

impl FromStr for Cursor {
    type Err = UnknownSpelling;

    fn from_str(text: &str) -> Result<Self, UnknownSpelling> {
        let is_hex = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 48 || !text.bytes().all(is_hex) {
            return Err(UnknownSpelling);
        }
        // A time that begins with anything else is thousands of years away: no list has one.
        let turned = match &text[..2] {
            "7f" | "80" => SIGN,
            // As older versions wrote it: it may be in somebody's hand while the gateway is upgraded.
            "00" | "ff" => 0,
            _ => return Err(UnknownSpelling),
        };
        let (micros, id) = text.split_at(16);
        let micros = u64::from_str_radix(micros, 16).map_err(|_| UnknownSpelling)? ^ turned;
        let at = DateTime::from_timestamp_micros(micros.cast_signed()).ok_or(UnknownSpelling)?;
        let id = Uuid::try_parse(id).map_err(|_| UnknownSpelling)?;
        Ok(Self { at, id })
    }
}

impl serde::Serialize for Cursor {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl PartialSchema for Cursor {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .pattern(Some("^(7f|80)[0-9a-f]{46}$"))
            .into()
    }
}

impl ToSchema for Cursor {}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(micros: i64, id: Uuid) -> Cursor {
        let at = DateTime::from_timestamp_micros(micros).unwrap();
        Cursor { at, id }
    }

    #[test]
    fn a_cursor_keeps_microseconds_and_times_before_1970() {
        for micros in [0, -1, 1_735_725_600_123_456, -62_000_000_000_000_000] {
            let cursor = place(micros, Uuid::now_v7());
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
    }

    #[test]
    fn anything_else_is_no_cursor() {
        let good = place(1_735_725_600_123_456, Uuid::now_v7()).to_string();
        for text in [
            "",
            "x",
            &good[1..],
            &format!("{good}0"),
            &good.replacen("80", "90", 1),
            &good.to_uppercase().replacen("80", "8A", 1),
            &"é".repeat(24),
        ] {
            assert!(text.parse::<Cursor>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_an_older_version_has_given_leads_to_the_same_place() {
        for (micros, time) in [
            (1_735_725_600_123_456, "00062aa21bd2aa40"),
            (-1, "ffffffffffffffff"),
        ] {
            let id = Uuid::now_v7();
            let older = format!("{time}{}", id.simple());
            assert_eq!(older.parse(), Ok(place(micros, id)));
        }
    }

    proptest::proptest! {
        #[test]
        fn cursors_sort_as_their_places_do(
            first in (-62_167_219_200_000_000_i64..1 << 56, proptest::prelude::any::<u128>()),
            second in (-1_000_000_i64..1_000_000, proptest::prelude::any::<u128>()),
        ) {
            let text = |(micros, id)| place(micros, Uuid::from_u128(id)).to_string();
            proptest::prop_assert_eq!(text(first).cmp(&text(second)), first.cmp(&second));
        }

        #[test]
        fn every_cursor_leads_back_to_its_place(
            // From the year 0, the least that an event may have, to the year 4253: nothing sorts
            // later than 10 minutes from now.
            micros in -62_167_219_200_000_000_i64..1 << 56,
            id in proptest::prelude::any::<u128>(),
        ) {
            let cursor = place(micros, Uuid::from_u128(id));
            proptest::prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }

        #[test]
        fn what_is_read_as_a_cursor_is_one(text in "(7f|80|)[0-9a-f]{0,48}|\\PC{0,48}") {
            let is_older = text.starts_with("00") || text.starts_with("ff");
            if let Ok(cursor) = text.parse::<Cursor>() && !is_older {
                proptest::prop_assert_eq!(cursor.to_string(), text);
            }
        }
    }
}

//! Times, as the API reads and writes them.

use chrono::{DateTime, Datelike, SecondsFormat, SubsecRound, Utc};
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use super::field::{Fault, Field};

/// A time as in RFC 3339, in UTC and with milliseconds; finer input is cut. The year is 1 to 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ToSchema)]
#[schema(example = "2025-01-01T10:00:00.000Z")]
pub struct Timestamp(pub DateTime<Utc>);

impl Field for Timestamp {
    fn parse(text: &str) -> Result<Self, Fault> {
        DateTime::parse_from_rfc3339(text)
            .map(|time| time.to_utc().trunc_subsecs(3))
            .ok()
            .filter(|time| (1..=9999).contains(&time.year()))
            .map(Self)
            .ok_or(Fault::Borrowed(
                "must be a time as in RFC 3339, such as 2025-01-01T10:00:00Z, from year 1 to 9999",
            ))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.to_rfc3339_opts(SecondsFormat::Millis, true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_cut_to_milliseconds_and_stays_within_four_digits() {
        for (given, kept) in [
            (
                "2025-01-01T12:00:00.123999+02:00",
                "2025-01-01T10:00:00.123Z",
            ),
            ("0000-12-31T23:00:00-01:00", "0001-01-01T00:00:00.000Z"),
        ] {
            let time = serde_json::to_value(Timestamp::parse(given).unwrap()).unwrap();
            assert_eq!(time, kept);
        }
        for text in [
            "",
            "2025-01-01",
            "2025-01-01T10:00:00",
            "1735725600",
            "9999-12-31T23:59:59-01:00",
            "0000-01-01T00:00:00+01:00",
            "0000-12-31T23:59:59.999Z",
            "0001-01-01T00:59:59.999+01:00",
            "+12025-01-01T10:00:00Z",
        ] {
            assert!(Timestamp::parse(text).is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn every_time_is_cut_to_milliseconds(
            micros in -62_135_596_800_000_000_i64..=253_402_300_799_999_999,
        ) {
            let at = DateTime::from_timestamp_micros(micros).unwrap();
            let Timestamp(cut) = Timestamp::parse(&at.to_rfc3339()).unwrap();
            let millis = at.trunc_subsecs(3).timestamp_millis();
            proptest::prop_assert_eq!(cut.timestamp_millis(), millis);
            proptest::prop_assert_eq!(cut.timestamp_subsec_micros() % 1000, 0);
        }

        #[test]
        fn what_is_read_as_a_time_has_four_digits_of_year(
            text in "\\PC{0,40}|[+-]?[0-9]{4,5}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{1,12})?(Z|[+-][0-9]{2}:[0-9]{2})",
        ) {
            if let Ok(time) = Timestamp::parse(&text) {
                proptest::prop_assert!((1..=9999).contains(&time.0.year()));
                let shown = serde_json::to_value(time).unwrap();
                proptest::prop_assert_eq!(shown.as_str().unwrap().len(), 24);
            }
        }
    }
}

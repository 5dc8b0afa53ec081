//! Meta's codes: what each means for the message, for its conversation and for the channel. One
//! table for the answers to sends; HTTP statuses and titles tell less.

use std::ops::RangeInclusive;

/// What a code means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Too many calls: surely not accepted, and nobody is to call the channel for some time.
    Throttled,
    /// Too many messages to one person: surely not accepted, and nobody is to write to them.
    PairThrottled,
    /// What is at fault is not this message: the token, a permission, or the account.
    Unauthorized,
    /// Surely not accepted, and may be later; others are not concerned.
    Postponed,
    /// The customer has not written for too long, or wants no such messages: never.
    WindowClosed,
    /// This message: never.
    Never,
    /// Meta's side failed: it may have been accepted.
    Maybe,
}

/// Each code once: those of one line mean the same.
const CODES: &[(Class, &[RangeInclusive<i64>])] = &[
    (
        Class::Throttled,
        &[
            4..=4,
            17..=17,
            32..=32,
            341..=341,
            613..=613,
            80007..=80007,
            130_429..=130_429,
        ],
    ),
    (Class::PairThrottled, &[131_056..=131_056]),
    // The token, or what it may do.
    (
        Class::Unauthorized,
        &[
            0..=0,
            3..=3,
            10..=10,
            104..=104,
            190..=190,
            200..=299,
            131_005..=131_005,
        ],
    ),
    // The account: its policy, payment, registration or number.
    (
        Class::Unauthorized,
        &[
            33..=33,
            368..=368,
            131_031..=131_031,
            131_037..=131_037,
            131_042..=131_042,
            131_045..=131_045,
            131_048..=131_048,
            133_000..=133_000,
            133_006..=133_006,
            133_010..=133_010,
            133_015..=133_016,
            134_011..=134_011,
        ],
    ),
    // Only templates that are not classified yet; texts go on.
    (Class::Postponed, &[131_064..=131_064]),
    (
        Class::WindowClosed,
        &[
            131_047..=131_047,
            131_049..=131_050,
            131_055..=131_055,
            131_063..=131_063,
            134_100..=134_100,
        ],
    ),
    // A parameter, the recipient, the kind or its media.
    (
        Class::Never,
        &[
            100..=100,
            130_403..=130_403,
            130_472..=130_472,
            130_497..=130_497,
            131_008..=131_009,
            131_021..=131_021,
            131_026..=131_026,
            131_030..=131_030,
            131_051..=131_053,
            131_060..=131_060,
            131_062..=131_062,
            135_000..=135_000,
        ],
    ),
    // Templates and flows.
    (
        Class::Never,
        &[
            132_000..=132_001,
            132_005..=132_005,
            132_007..=132_007,
            132_012..=132_012,
            132_015..=132_016,
            132_018..=132_018,
            132_068..=132_069,
            134_102..=134_102,
        ],
    ),
    // Groups and calls.
    (
        Class::Never,
        &[
            131_020..=131_020,
            131_041..=131_041,
            131_201..=131_210,
            138_000..=139_999,
        ],
    ),
    (
        Class::Maybe,
        &[
            1..=2,
            131_000..=131_000,
            131_016..=131_016,
            131_057..=131_057,
            133_004..=133_004,
            134_101..=134_101,
            2_494_100..=2_494_100,
        ],
    ),
];

/// A wrong number id comes as a wrong parameter, and only its subcode tells.
const PARAMETER: i64 = 100;
const NO_SUCH_OBJECT: i64 = 33;

/// What a code means; none: it is unknown.
pub(super) fn class(code: i64, subcode: Option<i64>) -> Option<Class> {
    if (code, subcode) == (PARAMETER, Some(NO_SUCH_OBJECT)) {
        return Some(Class::Unauthorized);
    }
    let line = CODES
        .iter()
        .find(|(_, codes)| codes.iter().any(|range| range.contains(&code)));
    line.map(|(class, _)| *class)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_the_class_that_meta_documents() {
        use Class::{
            Maybe, Never, PairThrottled, Postponed, Throttled, Unauthorized, WindowClosed,
        };
        for (class_of, codes) in [
            (Throttled, &[4, 17, 32, 341, 613, 80007, 130_429][..]),
            (PairThrottled, &[131_056]),
            (
                Unauthorized,
                &[
                    0, 3, 10, 33, 104, 190, 200, 210, 299, 368, 131_005, 131_031, 131_037, 131_042,
                    131_045, 131_048, 133_000, 133_006, 133_010, 133_015, 133_016, 134_011,
                ],
            ),
            (Postponed, &[131_064]),
            (
                WindowClosed,
                &[131_047, 131_049, 131_050, 131_055, 131_063, 134_100],
            ),
            (
                Never,
                &[
                    100, 130_403, 130_472, 130_497, 131_008, 131_009, 131_020, 131_021, 131_026,
                    131_030, 131_041, 131_051, 131_052, 131_053, 131_060, 131_062, 131_201,
                    131_210, 132_000, 132_001, 132_005, 132_007, 132_012, 132_015, 132_016,
                    132_018, 132_068, 132_069, 134_102, 135_000, 138_000, 139_999,
                ],
            ),
            (
                Maybe,
                &[1, 2, 131_000, 131_016, 131_057, 133_004, 134_101, 2_494_100],
            ),
        ] {
            for &code in codes {
                assert_eq!(class(code, None), Some(class_of), "{code}");
            }
        }
        for unknown in [-1, 5, 199, 300, 551, 130_428, 131_211, 137_999, 140_000] {
            assert_eq!(class(unknown, None), None, "{unknown}");
        }
        assert_eq!(class(100, Some(33)), Some(Unauthorized));
        assert_eq!(class(100, Some(2_494_073)), Some(Never));
    }

    /// The codes of a cell, such as `4, 200–299, 132000 to 132069`. One that needs more is not told.
    fn told(cell: &str) -> impl Iterator<Item = RangeInclusive<i64>> {
        let parts = cell.split(',').filter(|part| !part.contains("with"));
        parts.filter_map(|part| {
            let mut numbers = part.split(['–', ' ']).filter_map(|word| word.parse().ok());
            let first = numbers.next()?;
            Some(first..=numbers.next().unwrap_or(first))
        })
    }

    #[test]
    fn the_page_for_operators_has_each_code_with_its_kind() {
        let page = include_str!("../../docs/whatsapp.md");
        let rows = page.lines().filter_map(|line| {
            let (kind, rest) = line.strip_prefix("| `")?.split_once("` | ")?;
            Some((kind, rest.split(" | ").next()?))
        });
        let table: Vec<(&str, RangeInclusive<i64>)> = rows
            .flat_map(|(kind, cell)| told(cell).map(move |codes| (kind, codes)))
            .collect();
        assert!(table.len() > 60, "{}", table.len());
        for (kind, codes) in &table {
            for code in [codes.start(), codes.end()] {
                let expected = match class(*code, None) {
                    Some(Class::Throttled | Class::PairThrottled | Class::Postponed) => {
                        "rate_limited"
                    }
                    Some(Class::Unauthorized) => "unauthorized",
                    Some(Class::WindowClosed) => "window_closed",
                    Some(Class::Never) => "rejected",
                    Some(Class::Maybe) => "server_error",
                    None => "nothing",
                };
                assert_eq!(*kind, expected, "{code}");
            }
        }
        let ranges = CODES.iter().flat_map(|(_, codes)| codes.iter());
        let is_told = |code: &i64| table.iter().any(|(_, told)| told.contains(code));
        let missing = ranges.flat_map(Clone::clone).find(|code| !is_told(code));
        assert_eq!(missing, None);
    }

    #[test]
    fn no_code_is_there_twice() {
        let ranges: Vec<_> = CODES.iter().flat_map(|(_, codes)| codes.iter()).collect();
        for (place, range) in ranges.iter().enumerate() {
            for other in &ranges[..place] {
                assert!(
                    range.end() < other.start() || other.end() < range.start(),
                    "{range:?} {other:?}"
                );
            }
        }
    }
}

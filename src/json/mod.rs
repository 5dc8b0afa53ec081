//! JSON that others wrote: a character that no text can hold becomes U+FFFD, the rest is kept.

pub mod fields;

use std::borrow::Cow;

use memchr::memchr;

const BOM: &[u8] = b"\xEF\xBB\xBF";
const REPLACEMENT: &str = r"\uFFFD";

/// The body as text, without a leading byte order mark; U+FFFD stands for what is not UTF-8.
#[must_use]
pub fn text(body: &[u8]) -> Cow<'_, str> {
    let body = body.strip_prefix(BOM).unwrap_or(body);
    // Nearly every body is UTF-8, and to see that is faster than to look for what is not.
    str::from_utf8(body).map_or_else(|_| String::from_utf8_lossy(body), Cow::Borrowed)
}

/// The body as JSON whose texts PostgreSQL can hold: like [`text`], and with U+FFFD for each escape
/// of U+0000 or of half a surrogate pair.
///
/// It is borrowed where nothing had to change. Whatever else makes it invalid, such as a raw
/// control character, is left as it is.
#[must_use]
pub fn repaired(body: &[u8]) -> Cow<'_, str> {
    let mut repaired = text(body);
    let mut at = 0;
    while let Some(ahead) = memchr(b'\\', &repaired.as_bytes()[at..]) {
        at += ahead;
        let rest = &repaired.as_bytes()[at..];
        let length = match unit(rest) {
            // Another escape, such as `\\`: the second character begins none.
            None => 2,
            Some(0xD800..=0xDBFF) if matches!(unit(&rest[6..]), Some(0xDC00..=0xDFFF)) => 12,
            Some(0 | 0xD800..=0xDFFF) => {
                repaired.to_mut().replace_range(at..at + 6, REPLACEMENT);
                6
            }
            Some(_) => 6,
        };
        at = repaired.len().min(at + length);
    }
    repaired
}

/// The UTF-16 unit whose escape, such as `\u00e9`, begins here.
fn unit(text: &[u8]) -> Option<u16> {
    let digits = text.strip_prefix(br"\u")?.get(..4)?;
    digits.iter().try_fold(0, |unit, &digit| {
        let value = char::from(digit).to_digit(16)?;
        Some(unit << 4 | u16::try_from(value).ok()?)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn read(body: &[u8]) -> Option<String> {
        let value: Value = serde_json::from_str(&repaired(body)).ok()?;
        Some(value["text"].as_str()?.to_owned())
    }

    #[test]
    fn what_no_text_can_hold_costs_that_character_only() {
        for (escaped, expected) in [
            (r"a\ud800b", "a\u{FFFD}b"),
            (r"a\uDFFFb", "a\u{FFFD}b"),
            (r"\ud83d", "\u{FFFD}"),
            (r"\ud83d\ud83d\ude00", "\u{FFFD}😀"),
            (r"\ude00\ud83d", "\u{FFFD}\u{FFFD}"),
            (r"\ud83d\n\ude00", "\u{FFFD}\n\u{FFFD}"),
            (r"\ud83d\\ude00", "\u{FFFD}\\ude00"),
            (r"\u0000\u0000", "\u{FFFD}\u{FFFD}"),
            (r"\\u0000", r"\u0000"),
            (r"\\\u0000", "\\\u{FFFD}"),
            (r"\\\\ud800", r"\\ud800"),
            (r"\ud83d\ude00 \u0001\u00e9", "😀 \u{1}é"),
        ] {
            let body = format!(r#"{{"text":"{escaped}"}}"#);
            assert_eq!(read(body.as_bytes()).as_deref(), Some(expected), "{body}");
        }
        assert_eq!(
            read(b"\xEF\xBB\xBF{\"text\":\"a\xFFb\"}").as_deref(),
            Some("a\u{FFFD}b")
        );
    }

    #[test]
    fn what_is_no_json_still_is_none() {
        for body in [
            "{\"text\":\"a\0b\"}",
            r#"{"text":"\u00"}"#,
            r#"{"text":"\ud8"#,
            r#"{"text":"\"#,
            r#"{"text":"\u00zz"}"#,
            r#"{"text":"\u+000"}"#,
            r#"{"text":\u0000}"#,
            "\u{FEFF}\u{FEFF}{}",
            "",
        ] {
            assert_eq!(read(body.as_bytes()), None, "{body}");
        }
    }

    /// A piece of a JSON string, and the UTF-16 units that it stands for.
    fn any_piece() -> impl Strategy<Value = (String, Vec<u16>)> {
        let escaped = |unit: u16| (format!("\\u{unit:04x}"), vec![unit]);
        let raw = |text: String| {
            let json = Value::from(text.as_str()).to_string();
            let units = text.encode_utf16().collect();
            (json[1..json.len() - 1].to_owned(), units)
        };
        prop_oneof![
            any::<u16>().prop_map(escaped),
            (0xD7FF_u16..=0xE000).prop_map(escaped),
            Just(escaped(0)),
            "\\PC{0,5}|[\\\\u0d8]{1,6}|\n".prop_map(raw),
        ]
    }

    proptest! {
        #[test]
        fn a_text_is_kept_but_for_what_it_cannot_hold(
            has_bom: bool,
            pieces in proptest::collection::vec(any_piece(), 0..20),
        ) {
            let (json, units): (Vec<String>, Vec<Vec<u16>>) = pieces.into_iter().unzip();
            let body = format!("{}{{\"text\":\"{}\"}}", if has_bom { "\u{FEFF}" } else { "" }, json.concat());
            let expected = String::from_utf16_lossy(&units.concat()).replace('\0', "\u{FFFD}");
            prop_assert_eq!(read(body.as_bytes()), Some(expected));
        }

        #[test]
        fn valid_json_is_left_alone(text: String) {
            let body = Value::from(text.replace('\0', "")).to_string();
            let repaired = repaired(body.as_bytes());
            prop_assert!(matches!(repaired, Cow::Borrowed(_)));
            prop_assert_eq!(&*repaired, &*body);
        }

        #[test]
        fn whatever_comes_is_repaired_once(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let once = repaired(&body).into_owned();
            let again = once.strip_prefix('\u{FEFF}').unwrap_or(&once);
            prop_assert_eq!(&*repaired(once.as_bytes()), again);
        }
    }
}

//! Finds the fields of a JSON object, and the elements of an array, that may be cut off, or broken
//! further on.

use std::borrow::Cow;

use super::repaired;

/// The fields of the first object of a body, one after the other.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

/// A field of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field<'a> {
    /// The name, without its escapes.
    pub name: String,
    /// The value, as it stands in the body.
    pub value: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Begins with the first field.
    #[must_use]
    pub fn of(body: &'a [u8]) -> Self {
        let start = body.iter().position(|&byte| byte == b'{');
        Self {
            rest: start.map_or(body, |start| &body[start + 1..]),
        }
    }

    /// What follows the fields that were found: nothing, or anything that is not a field.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        let start = self.rest.iter().position(|&byte| !is_between(byte));
        self.rest = &self.rest[start.unwrap_or(self.rest.len())..];
        let (name, after) = self.rest.split_at(string(self.rest)?);
        let value = after.trim_ascii_start().strip_prefix(b":")?;
        let value = value.trim_ascii_start();
        let (value, rest) = value.split_at(length(value));
        self.rest = rest;
        let name = text(name);
        Some(Field { name, value })
    }
}

/// The elements of an array, one after the other; of anything else, none.
#[derive(Debug, Clone)]
pub struct Elements<'a> {
    rest: &'a [u8],
}

impl<'a> Elements<'a> {
    /// Begins with the first element.
    #[must_use]
    pub fn of(value: &'a [u8]) -> Self {
        Self {
            rest: value.strip_prefix(b"[").unwrap_or_default(),
        }
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let start = self.rest.iter().position(|&byte| !is_between(byte));
        self.rest = &self.rest[start.unwrap_or(self.rest.len())..];
        let (element, rest) = self.rest.split_at(length(self.rest));
        self.rest = rest;
        (!element.is_empty()).then_some(element)
    }
}

fn is_between(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == b','
}

/// The text of a JSON string; if it cannot be read, what stands between its quotes.
#[must_use]
pub fn text(string: &[u8]) -> String {
    serde_json::from_str(&repaired(string)).unwrap_or_else(|_| {
        let inner = string.strip_prefix(b"\"").unwrap_or(string);
        let inner = inner.strip_suffix(b"\"").unwrap_or(inner);
        String::from_utf8_lossy(inner).into_owned()
    })
}

/// Whether a value has a character that no text can hold.
#[must_use]
pub fn is_unspeakable(value: &[u8]) -> bool {
    matches!(repaired(value), Cow::Owned(_))
}

/// The length of the string that begins here.
fn string(bytes: &[u8]) -> Option<usize> {
    let inner = bytes.strip_prefix(b"\"")?;
    let mut is_escaped = false;
    let end = inner.iter().position(|&byte| {
        let ends = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        ends
    });
    Some(end.map_or(bytes.len(), |end| end + 2))
}

/// The length of the value that begins here.
fn length(bytes: &[u8]) -> usize {
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at += string(&bytes[at..]).unwrap_or(1);
                if depth == 0 {
                    return at;
                }
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth <= 1 => return at + depth,
            b'}' | b']' => depth -= 1,
            b',' if depth == 0 => return at,
            byte if depth == 0 && byte.is_ascii_whitespace() => return at,
            _ => {}
        }
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(body: &str) -> Vec<(String, &str)> {
        let fields = Fields::of(body.as_bytes());
        fields
            .map(|field| (field.name, std::str::from_utf8(field.value).unwrap()))
            .collect()
    }

    #[test]
    fn fields_are_found_in_what_there_is() {
        for (body, expected) in [
            (r#"{"a":1,"b":"x"}"#, &[("a", "1"), ("b", r#""x""#)][..]),
            (
                r#" { "a" : [1,{"b":"]"}] , "c":{} }"#,
                &[("a", r#"[1,{"b":"]"}]"#), ("c", "{}")],
            ),
            (
                r#"{"a":"\"b\\","\u0062":null}"#,
                &[("a", r#""\"b\\""#), ("b", "null")],
            ),
            (r#"{"a":true"#, &[("a", "true")]),
            (r#"{"a":"cut"#, &[("a", "\"cut")]),
            (r#"{"a":{"b":"cu"#, &[("a", r#"{"b":"cu"#)]),
            (r#"{"a":1,"#, &[("a", "1")]),
            (r#"{"a":1,"b""#, &[("a", "1")]),
            (r#"{"a":1}{"b":2}"#, &[("a", "1")]),
            (r#"{"a":1 "b":2]"#, &[("a", "1"), ("b", "2")]),
            (r#"[{"a":1}]"#, &[("a", "1")]),
            (r#"{"a":"x"y","b":1}"#, &[("a", r#""x""#)]),
            ("{", &[]),
            ("", &[]),
            ("nonsense", &[]),
        ] {
            let expected: Vec<(String, &str)> = expected
                .iter()
                .map(|(name, value)| ((*name).to_owned(), *value))
                .collect();
            assert_eq!(fields(body), expected, "{body}");
        }
    }

    #[test]
    fn elements_are_found_in_what_there_is() {
        for (array, expected) in [
            ("[]", &[][..]),
            (
                "[1,\"a]\" , {\"b\":[2]},[3],null]",
                &["1", "\"a]\"", "{\"b\":[2]}", "[3]", "null"],
            ),
            ("[ {} {} ]", &["{}", "{}"]),
            ("[,1,,2,]", &["1", "2"]),
            ("[1,{\"a\":[", &["1", "{\"a\":["]),
            ("[1]2", &["1"]),
            ("[1}2", &["1"]),
            ("[}", &[]),
            ("{\"a\":1}", &[]),
            ("1", &[]),
            ("", &[]),
        ] {
            let found: Vec<&[u8]> = Elements::of(array.as_bytes()).collect();
            let expected: Vec<&[u8]> = expected.iter().map(|found| found.as_bytes()).collect();
            assert_eq!(found, expected, "{array}");
        }
    }

    proptest::proptest! {
        #[test]
        fn the_fields_of_valid_json_are_those_that_it_has(
            entries in proptest::collection::vec((".{0,5}", proptest::prelude::any::<Option<String>>()), 0..6),
            cut in 0_usize..200,
        ) {
            let value = |value: &Option<String>| serde_json::json!([{ "eventId": value }, value]).to_string();
            let json = entries
                .iter()
                .map(|(name, given)| format!("{}:{}", serde_json::json!(name), value(given)))
                .collect::<Vec<_>>();
            let body = format!("{{{}}}", json.join(","));
            let found: Vec<_> = Fields::of(body.as_bytes()).collect();
            proptest::prop_assert_eq!(found.len(), entries.len());
            for (found, (name, given)) in found.iter().zip(&entries) {
                if !name.contains('\0') {
                    proptest::prop_assert_eq!(&found.name, name);
                }
                let value = value(given);
                proptest::prop_assert_eq!(found.value, value.as_bytes());
            }
            // Of what is cut off, no other fields are found.
            let whole: Vec<_> = found.iter().map(|field| field.name.clone()).collect();
            let cut = &body.as_bytes()[..cut.min(body.len())];
            let found: Vec<_> = Fields::of(cut).map(|field| field.name).collect();
            proptest::prop_assert!(whole.starts_with(&found));
        }

        #[test]
        fn whatever_comes_is_read_to_its_end(body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let mut fields = Fields::of(&body);
            proptest::prop_assert!(fields.by_ref().count() <= body.len());
            proptest::prop_assert!(body.ends_with(fields.rest()));
        }
    }
}

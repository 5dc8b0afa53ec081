//! JSON values, read as far as they can be: what is broken in one spoils no other.

use crate::json::fields::{self, Elements, Field, Fields};

/// A value as it stands in the body, which may be anything.
#[derive(Debug, Clone, Copy)]
pub(super) struct Value<'a>(&'a [u8]);

impl<'a> Value<'a> {
    /// The value that a text is.
    pub fn of(text: &'a [u8]) -> Self {
        Self(text.trim_ascii())
    }

    /// The value as it stands in the body.
    pub fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// Its fields, if it is an object.
    pub fn object(self) -> Option<Object<'a>> {
        self.0.starts_with(b"{").then(|| Object {
            fields: Fields::of(self.0).collect(),
        })
    }

    /// The elements of an array; anything else but null stands for itself.
    pub fn elements(self) -> impl Iterator<Item = Self> {
        let is_array = self.0.starts_with(b"[");
        let itself = (!is_array && !self.is_null()).then_some(self);
        itself.into_iter().chain(Elements::of(self.0).map(Self))
    }

    /// A text, in which U+FFFD stands for what PostgreSQL cannot hold.
    pub fn string(self) -> Option<String> {
        let text = self.0.starts_with(b"\"").then(|| fields::text(self.0))?;
        Some(if text.contains('\0') {
            text.replace('\0', "\u{FFFD}")
        } else {
            text
        })
    }

    /// A text, or a number in the digits that it was given in.
    pub fn word(self) -> Option<String> {
        let is_number = self
            .0
            .first()
            .is_some_and(|&byte| byte == b'-' || byte.is_ascii_digit());
        let digits = || std::str::from_utf8(self.0).ok().map(str::to_owned);
        self.string().or_else(|| is_number.then(digits)?)
    }

    /// A number, or a text that is one.
    pub fn number(self) -> Option<f64> {
        let number: f64 = self.word()?.trim().parse().ok()?;
        number.is_finite().then_some(number)
    }

    /// A number, or a text that is one, without its fraction.
    pub fn integer(self) -> Option<i64> {
        let word = self.word()?;
        let (whole, _) = word.split_once('.').unwrap_or((&word, ""));
        whole.trim().parse().ok()
    }

    fn is_null(self) -> bool {
        matches!(self.0, b"" | b"null")
    }
}

/// The fields of an object.
#[derive(Debug, Clone, Default)]
pub(super) struct Object<'a> {
    fields: Vec<Field<'a>>,
}

impl<'a> Object<'a> {
    /// The last field of this name that is not null.
    pub fn get(&self, name: &str) -> Option<Value<'a>> {
        let mut fields = self.fields.iter().rev();
        let is_it = |field: &&Field<'a>| field.name == name && !Value(field.value).is_null();
        fields.find(is_it).map(|field| Value(field.value))
    }

    /// Each field, with its name.
    pub fn fields(&self) -> impl Iterator<Item = (&str, Value<'a>)> {
        self.fields
            .iter()
            .map(|field| (&*field.name, Value(field.value)))
    }

    /// The elements of every field of this name.
    pub fn each(&self, name: &str) -> impl Iterator<Item = Value<'a>> {
        self.fields()
            .filter(move |(found, _)| *found == name)
            .flat_map(|(_, value)| value.elements())
    }

    /// The object in a field.
    pub fn object(&self, name: &str) -> Option<Object<'a>> {
        self.get(name)?.object()
    }

    /// The text in a field.
    pub fn string(&self, name: &str) -> Option<String> {
        self.get(name)?.string()
    }

    /// The text in a field, if more than spaces are in it.
    pub fn filled(&self, name: &str) -> Option<String> {
        self.string(name).filter(|text| !text.trim().is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(text: &str) -> Object<'_> {
        Value::of(text.as_bytes()).object().unwrap()
    }

    #[test]
    fn a_value_is_read_as_far_as_it_can_be() {
        let word = |text: &str| Value::of(text.as_bytes()).word();
        for (text, expected) in [
            (r#""a""#, Some("a")),
            (r#" "a\ud800\u0000b" "#, Some("a\u{FFFD}\u{FFFD}b")),
            ("\"a\0b\"", Some("a\u{FFFD}b")),
            ("\"a\u{1}b\\x\"", Some("a\u{1}b\\x")),
            (r#""cut"#, Some("cut")),
            ("12345678901234567890123", Some("12345678901234567890123")),
            ("-1.5e3", Some("-1.5e3")),
            ("true", None),
            ("null", None),
            ("[1]", None),
            ("{}", None),
            ("", None),
        ] {
            assert_eq!(word(text).as_deref(), expected, "{text}");
        }
        let integer = |text: &str| Value::of(text.as_bytes()).integer();
        assert_eq!(integer(r#"" 12 ""#), Some(12));
        assert_eq!(integer("12.9"), Some(12));
        assert_eq!(integer("1e3"), None);
        assert_eq!(integer(&"9".repeat(20)), None);
        let number = |text: &str| Value::of(text.as_bytes()).number();
        assert_eq!(number(r#""-1.5""#), Some(-1.5));
        assert_eq!(number("1e999"), None);
        assert_eq!(number(r#""NaN""#), None);
    }

    #[test]
    fn the_last_field_of_a_name_counts_and_the_elements_of_all() {
        let object = object(r#"{"a":1,"\u0061":2,"a":null,"b":[1,2],"b":{"c":[]},"b":null,"b":3}"#);
        assert_eq!(object.get("a").unwrap().bytes(), b"2");
        let each: Vec<&[u8]> = object.each("b").map(Value::bytes).collect();
        assert_eq!(each, [&b"1"[..], b"2", br#"{"c":[]}"#, b"3"]);
        assert!(object.get("c").is_none());
        assert_eq!(object.each("c").count(), 0);
    }
}

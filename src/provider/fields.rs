//! Reads the fields of an answer one by one, raw: one that cannot be read spoils no other, however
//! deep it is.

use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::json;

/// The fields of an object. Of a name that is there twice, the last one counts.
#[derive(Debug, Default)]
pub(super) struct Object<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Object<'a> {
    /// The object that a text begins with. None if it is not whole, or if another object follows.
    /// Anything else behind it, such as a careless program prints, is passed over.
    pub fn first(text: &'a str) -> Option<Self> {
        let mut values = serde_json::Deserializer::from_str(text).into_iter();
        let object = values.next()?.ok()?;
        let rest = text.get(values.byte_offset()..)?;
        (!rest.trim_start().starts_with('{')).then_some(object)
    }

    /// The object that a value is.
    pub fn of(value: &'a RawValue) -> Option<Self> {
        serde_json::from_str(value.get()).ok()
    }

    /// All its fields, in their order.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.0.iter().map(|(name, value)| (&**name, *value))
    }

    /// The field of this name; one that is null is none.
    pub fn get(&self, name: &str) -> Option<&'a RawValue> {
        let named = self.0.iter().rev().find(|(known, _)| known == name);
        named
            .map(|(_, value)| *value)
            .filter(|value| value.get() != "null")
    }

    /// The text in a field.
    pub fn string(&self, name: &str) -> Option<String> {
        self.get(name).and_then(string)
    }

    /// The object in a field.
    pub fn object(&self, name: &str) -> Option<Object<'a>> {
        self.get(name).and_then(Object::of)
    }

    /// The first object of a list in a field.
    pub fn first_of(&self, name: &str) -> Option<Object<'a>> {
        let list: Vec<&'a RawValue> = serde_json::from_str(self.get(name)?.get()).ok()?;
        Object::of(list.first()?)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some((name, value)) = map.next_entry::<&RawValue, &RawValue>()? {
                    // A name that no text can hold is none that anybody asks for.
                    fields.extend(string(name).map(|name| (name, value)));
                }
                Ok(Object(fields))
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

/// A text, where it is one; half a surrogate pair in it is U+FFFD.
pub(super) fn string(value: &RawValue) -> Option<String> {
    let value = value.get();
    serde_json::from_str(value)
        .or_else(|_| serde_json::from_str(&json::repaired(value.as_bytes())))
        .ok()
}

/// A whole number in the digits that it was given in, which may be more than a number holds.
pub(super) fn whole_number(value: &RawValue) -> Option<String> {
    let value = value.get();
    let is_integer = value
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'-');
    let is_whole = || {
        let number: Option<f64> = value.parse().ok();
        number.is_some_and(|number| number.is_finite() && number.fract() == 0.0)
    };
    (is_integer || is_whole()).then(|| value.to_owned())
}

/// A whole number, also one in a text.
pub(super) fn integer(value: &RawValue) -> Option<i64> {
    let digits = string(value);
    let digits = digits.as_deref().unwrap_or(value.get());
    digits.trim().parse().ok()
}

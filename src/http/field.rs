//! A field of a request arrives as its own type, which is parsed once and says what it must be.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};
use strum::VariantNames;
use validator::ValidationError;

/// What is wrong with a field, such as "is required". It never repeats the value, which may be a
/// message's text.
pub type Fault = Cow<'static, str>;

/// The value of a field of a JSON object, or of a parameter of a query.
pub trait Field: Sized {
    /// Parses it.
    fn parse(text: &str) -> Result<Self, Fault>;

    /// Takes a whole number from 0 on, as JSON has it; `u64::MAX` stands for all that are greater.
    fn whole(_: u64) -> Result<Self, Fault> {
        Err(Self::mistyped())
    }

    /// What is wrong with a value of another type.
    #[must_use]
    fn mistyped() -> Fault {
        "must be a string".into()
    }

    /// What a request without the field means.
    fn missing() -> Result<Self, Fault> {
        Err("is required".into())
    }
}

/// A field as it arrived: its value, or what is wrong with it.
///
/// Deserializing it never fails: so one answer names all faults of a request.
#[derive(Debug)]
pub struct Parsed<T>(Result<T, Fault>);

impl<T> Parsed<T> {
    /// The value.
    ///
    /// # Panics
    ///
    /// In a request that [`super::extract`] has not let through.
    pub fn value(self) -> T {
        self.0
            .expect("a request is validated before it gets to a handler")
    }

    /// The value, unless something is wrong with it.
    pub fn ok(&self) -> Option<&T> {
        self.0.as_ref().ok()
    }
}

/// The one validation of a field: that it was parsed.
///
/// `#[validate(nested)]` needs no function, but it makes a map of errors for valid requests too,
/// which takes a quarter of the time in which an event is read.
pub fn parsed<T>(field: &Parsed<T>) -> Result<(), ValidationError> {
    match &field.0 {
        Ok(_) => Ok(()),
        Err(fault) => Err(ValidationError::new("invalid").with_message(fault.clone())),
    }
}

/// `validator` keeps a copy of what it refuses: of a field it gets nothing.
impl<T> Serialize for Parsed<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

impl<'de, T: Field> Deserialize<'de> for Parsed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // As an option, since serde then gives `None` for a field that is not there.
        let value = deserializer.deserialize_option(Value(PhantomData))?;
        Ok(Self(value))
    }
}

/// Reads a text or a whole number; anything else is a fault.
struct Value<T>(PhantomData<T>);

impl<'de, T: Field> Visitor<'de> for Value<T> {
    type Value = Result<T, Fault>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or a whole number")
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(T::missing())
    }

    fn visit_some<D: Deserializer<'de>>(self, value: D) -> Result<Self::Value, D::Error> {
        value.deserialize_any(self)
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(T::parse(text))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Err(T::mistyped()))
    }

    /// `serde_json` gives negative numbers only.
    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Err(T::mistyped()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(T::whole(number))
    }

    /// JSON does not tell 7 from 7.0, and what is greater than a `u64` comes so, too.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // it saturates
    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        let is_whole = number >= 0.0 && number.fract() == 0.0;
        Ok(if is_whole {
            T::whole(number as u64)
        } else {
            Err(T::mistyped())
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
        IgnoredAny.visit_seq(list)?;
        Ok(Err(T::mistyped()))
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<Self::Value, A::Error> {
        IgnoredAny.visit_map(object)?;
        Ok(Err(T::mistyped()))
    }
}

/// Parses the name of a variant.
pub fn one_of<T: FromStr + VariantNames>(text: &str) -> Result<T, Fault> {
    let fault = |_| format!("must be {}", T::VARIANTS.join(" or ")).into();
    text.parse().map_err(fault)
}

/// Parses an identifier: 1 to `longest` characters, none of them a control character.
pub fn identifier(text: &str, longest: usize) -> Result<String, Fault> {
    let text = bounded(text, longest)?;
    if text.chars().any(char::is_control) {
        return Err("must not have control characters".into());
    }
    Ok(text.to_owned())
}

/// A text of 1 to `longest` characters (Unicode scalar values).
pub fn bounded(text: &str, longest: usize) -> Result<&str, Fault> {
    if (1..=longest).contains(&text.chars().count()) {
        return Ok(text);
    }
    Err(format!("must have 1 to {longest} characters").into())
}

/// Parses a whole number from 1 on.
pub fn number(text: &str, greatest: u32) -> Result<u32, Fault> {
    match text.parse() {
        Ok(number) if (1..=greatest).contains(&number) => Ok(number),
        _ => Err(format!("must be 1 to {greatest}").into()),
    }
}

impl Field for bool {
    fn parse(text: &str) -> Result<Self, Fault> {
        text.parse()
            .map_err(|_| Fault::Borrowed("must be true or false"))
    }
}

//! Fields that are given twice: the first value counts, and the name is remembered.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

/// What was seen while the fields of a request were read.
#[derive(Debug, Default)]
pub struct Once {
    /// The names of the fields that the request may have.
    pub known: &'static [&'static str],
    /// The names that it has more than once.
    pub repeated: Vec<&'static str>,
}

impl Once {
    /// Wraps a deserializer, which then gives each field at most once.
    pub fn of<D>(&mut self, fields: D) -> Checked<'_, D> {
        Checked { fields, once: self }
    }
}

/// A wrapped deserializer of a struct, or its visitor.
#[derive(Debug)]
pub struct Checked<'a, T> {
    fields: T,
    once: &'a mut Once,
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Checked<'_, D> {
    type Error = D::Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.once.known = known;
        let visitor = self.once.of(visitor);
        self.fields.deserialize_struct(name, known, visitor)
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.fields.deserialize_any(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Checked<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fields.expecting(f)
    }

    fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<V::Value, M::Error> {
        let known = self.once.known.len();
        self.fields.visit_map(Entries {
            map,
            once: self.once,
            seen: Vec::with_capacity(known),
        })
    }
}

struct Entries<'a, M> {
    map: M,
    once: &'a mut Once,
    seen: Vec<&'static str>,
}

impl<'de, M: MapAccess<'de>> MapAccess<'de> for Entries<'_, M> {
    type Error = M::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, M::Error> {
        while let Some(name) = self.map.next_key_seed(Name(self.once.known))? {
            match name {
                Some(name) if !self.seen.contains(&name) => {
                    self.seen.push(name);
                    return seed.deserialize(StrDeserializer::new(name)).map(Some);
                }
                Some(name) if !self.once.repeated.contains(&name) => self.once.repeated.push(name),
                Some(_) | None => {}
            }
            self.map.next_value::<IgnoredAny>()?;
        }
        Ok(None)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, M::Error> {
        self.map.next_value_seed(seed)
    }
}

/// Reads the name of a field: one of these, or `None`.
struct Name(&'static [&'static str]);

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Option<&'static str>;

    fn deserialize<D: Deserializer<'de>>(self, name: D) -> Result<Self::Value, D::Error> {
        name.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Name {
    type Value = Option<&'static str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().find(|known| **known == name).copied())
    }
}

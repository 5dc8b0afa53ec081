//! How many items are in a body, counted in another way: from a tree, which serde makes of valid JSON.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

use crate::bounds::OURS;

/// JSON, with all fields of an object, also those of the same name.
#[derive(Debug)]
enum Tree {
    Null,
    Text(String),
    Digits(String),
    Truth,
    List(Vec<Tree>),
    Object(Vec<(String, Tree)>),
}

/// What is to be found in a body.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// All items.
    pub items: usize,
    /// Those that are for another number.
    pub of_others: usize,
}

/// What is to be found. None: it is no object. An error: no tree can be made of it.
pub fn count(body: &[u8]) -> Result<Option<Count>, serde_json::Error> {
    let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
    let tree: Tree = serde_json::from_str(&String::from_utf8_lossy(body))?;
    let objects: Vec<&Tree> = tree.elements().filter(|tree| tree.is_object()).collect();
    let mut count = Count::default();
    for object in &objects {
        count.envelope(object);
    }
    Ok((!objects.is_empty()).then_some(count))
}

impl Count {
    fn envelope(&mut self, object: &Tree) {
        if let Some(Tree::Text(kind)) = object.get("object")
            && kind != "whatsapp_business_account"
        {
            self.items += 1;
            return;
        }
        for entry in object.each("entry") {
            self.items += usize::from(!entry.is_object());
            for change in entry.each("changes") {
                self.items += usize::from(!change.is_object());
                if change.is_object() {
                    self.change(change);
                }
            }
        }
    }

    fn change(&mut self, change: &Tree) {
        let field = match change.get("field") {
            Some(Tree::Text(field)) => field,
            _ => "messages",
        };
        match field {
            "messages" | "smb_message_echoes" | "standby" | "user_id_update" => {}
            _ => {
                self.items += 1;
                return;
            }
        }
        for value in change.each("value") {
            self.items += usize::from(!value.is_object());
            self.value(value, value);
            if field == "standby" && value.is_object() {
                for inner in value.each("standby") {
                    self.items += usize::from(!inner.is_object());
                    self.value(inner, value);
                }
            }
        }
    }

    fn value(&mut self, value: &Tree, outer: &Tree) {
        let names = [
            "messages",
            "message_echoes",
            "statuses",
            "user_id_update",
            "errors",
        ];
        let items: usize = names.iter().map(|name| value.each(name).count()).sum();
        let metadata = |value: &Tree| value.get("metadata").is_some_and(Tree::is_object);
        let source = if metadata(value) { value } else { outer };
        let metadata = source.get("metadata");
        let is_other = match metadata.and_then(|metadata| metadata.get("phone_number_id")) {
            Some(Tree::Text(number) | Tree::Digits(number)) => number != OURS,
            _ => false,
        };
        self.items += items;
        self.of_others += if is_other { items } else { 0 };
    }
}

impl Tree {
    fn is_object(&self) -> bool {
        matches!(self, Self::Object(_))
    }

    fn fields(&self) -> &[(String, Tree)] {
        match self {
            Self::Object(fields) => fields,
            _ => &[],
        }
    }

    fn get(&self, name: &str) -> Option<&Tree> {
        let is_it =
            |(found, value): &&(String, Tree)| found == name && !matches!(value, Tree::Null);
        let field = self.fields().iter().rfind(is_it);
        field.map(|(_, value)| value)
    }

    fn elements(&self) -> impl Iterator<Item = &Tree> {
        match self {
            Self::Null => &[],
            Self::List(elements) => &elements[..],
            _ => std::slice::from_ref(self),
        }
        .iter()
    }

    fn each(&self, name: &str) -> impl Iterator<Item = &Tree> {
        let fields = self.fields().iter().filter(move |(found, _)| found == name);
        fields.flat_map(|(_, value)| value.elements())
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Whole;

        impl<'de> Visitor<'de> for Whole {
            type Value = Tree;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_unit<E>(self) -> Result<Tree, E> {
                Ok(Tree::Null)
            }

            fn visit_bool<E>(self, _: bool) -> Result<Tree, E> {
                Ok(Tree::Truth)
            }

            fn visit_u64<E>(self, number: u64) -> Result<Tree, E> {
                Ok(Tree::Digits(number.to_string()))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Tree, E> {
                Ok(Tree::Digits(number.to_string()))
            }

            // Whichever its digits are, they are none of ours.
            fn visit_f64<E>(self, number: f64) -> Result<Tree, E> {
                Ok(Tree::Digits(format!("{number:e}")))
            }

            fn visit_str<E>(self, text: &str) -> Result<Tree, E> {
                Ok(Tree::Text(text.replace('\0', "\u{FFFD}")))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Tree, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = list.next_element()? {
                    elements.push(element);
                }
                Ok(Tree::List(elements))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Tree::Object(fields))
            }
        }

        deserializer.deserialize_any(Whole)
    }
}

//! What a message to be sent consists of, beside its text: checked before anything is stored.

use std::fmt;

use reqwest::Url;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaType, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::http::field::{Fault, Field, bounded, identifier, one_of};

/// The longest caption, in characters.
const CAPTION: usize = 1024;
/// The longest link, in characters.
const LINK: usize = 2048;
/// The longest id of a file at the provider, in digits.
const FILE_ID: usize = 64;
/// The longest name of a file, in characters.
const FILE_NAME: usize = 240;
/// The longest name of a template, in characters.
const TEMPLATE_NAME: usize = 512;
/// The longest code of a language, in characters.
const LANGUAGE: usize = 35;
/// How deep objects and lists may be in one another.
const DEPTH: usize = 64;

/// The kinds of messages that can be sent.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::VariantNames,
    utoipa::ToSchema,
)]
#[strum(serialize_all = "lowercase")]
#[schema(as = SendType, rename_all = "lowercase")]
pub enum Kind {
    /// A text.
    Text,
    /// A text that the provider knows, with values for its places.
    Template,
    /// A picture.
    Image,
    /// A film.
    Video,
    /// Something to listen to.
    Audio,
    /// Any other file.
    Document,
    /// A sticker.
    Sticker,
}

impl Kind {
    /// Its name, as in the API and in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    fn has_caption(self) -> bool {
        matches!(self, Self::Image | Self::Video | Self::Document)
    }
}

impl Field for Kind {
    fn parse(text: &str) -> Result<Self, Fault> {
        one_of(text)
    }
}

/// The content of a message to be sent, as the API documents it.
#[derive(Debug)]
pub struct SentContent;

const ABOUT: &str = "What is sent, for other types than `text`. Of a template its `name`, its `language` (a code, or the provider's own object) and its `components`; \
    of the others exactly one of `link` (http or https) and `id` (the provider's for a file), a `caption` of an image, a video or a document, and a `filename` of a document. \
    Other fields are not passed on. Channels that only have texts ignore it.";

impl PartialSchema for SentContent {
    fn schema() -> RefOr<Schema> {
        let types = SchemaType::from_iter([Type::Object, Type::Null]);
        let schema = ObjectBuilder::new().schema_type(types);
        let example = json!({ "link": "https://example.com/cat.png", "caption": "A cat" });
        schema.description(Some(ABOUT)).examples([example]).into()
    }
}

impl ToSchema for SentContent {}

/// A field that is missing or invalid, and what it must be.
pub type Wrong = (&'static str, Fault);

/// What is wrong with the content of a message of this kind; a text needs none.
pub fn check(kind: Kind, content: Option<&RawValue>) -> Vec<Wrong> {
    let object = match (kind, content.map(Object::read)) {
        (_, Some(Ok(object))) => object,
        (_, Some(Err(fault))) => return vec![("content", fault)],
        (Kind::Text, None) => return Vec::new(),
        (_, None) => return vec![("content", "is required for this type".into())],
    };
    // Of several faults of a field, the first is told.
    let mut wrong = object.twice;
    wrong.extend(match kind {
        Kind::Text => Vec::new(),
        Kind::Template => template(&object.fields),
        _ => media(kind, &object.fields),
    });
    wrong
}

/// What a person reads of a message whose content is valid.
pub fn readable(kind: Kind, content: &RawValue) -> String {
    let fields = Object::read(content).map(|object| object.fields);
    let fields = fields.unwrap_or_default();
    let given = |name| fields.get(name).and_then(Value::as_str);
    let given = |name| given(name).filter(|text| !text.is_empty());
    let kind_itself = || format!("[{}]", kind.as_str());
    let text = match kind {
        Kind::Template => given("name").map(|name| format!("[template] {name}")),
        Kind::Document => given("caption").or(given("filename")).map(str::to_owned),
        _ => given("caption").map(str::to_owned),
    };
    text.unwrap_or_else(kind_itself)
}

/// Whether two contents are the same object, however they are spelled.
pub fn is_same(one: Option<&str>, other: Option<&str>) -> bool {
    let read = |content: &str| serde_json::from_str::<Value>(content).ok();
    one == other || one.and_then(read) == other.and_then(read)
}

fn template(fields: &Map<String, Value>) -> Vec<Wrong> {
    let mut wrong = Vec::new();
    let name = required(fields, "name").and_then(|name| identifier(name, TEMPLATE_NAME));
    wrong.extend(name.err().map(|fault| ("content.name", fault)));
    let code = |text: &str| identifier(text, LANGUAGE).map(drop);
    let language = match fields.get("language") {
        Some(Value::String(text)) => code(text).map_err(|fault| ("content.language", fault)),
        Some(Value::Object(language)) => required(language, "code")
            .and_then(code)
            .map_err(|fault| ("content.language.code", fault)),
        None | Some(Value::Null) => Err(("content.language", "is required".into())),
        Some(_) => Err((
            "content.language",
            "must be a code, or an object with one".into(),
        )),
    };
    wrong.extend(language.err());
    if !matches!(
        fields.get("components"),
        None | Some(Value::Null | Value::Array(_))
    ) {
        wrong.push(("content.components", "must be a list".into()));
    }
    wrong
}

fn media(kind: Kind, fields: &Map<String, Value>) -> Vec<Wrong> {
    let mut wrong = Vec::new();
    match (text(fields, "link"), text(fields, "id")) {
        (Ok(None), Ok(None)) => {
            wrong.push(("content.link", "is required, or else content.id".into()));
        }
        (Ok(Some(_)), Ok(Some(_))) => {
            wrong.push(("content.link", "must not be there beside content.id".into()));
        }
        (link, id) => {
            let link = link.and_then(|link| link.map_or(Ok(()), check_link));
            wrong.extend(link.err().map(|fault| ("content.link", fault)));
            let id = id.and_then(|id| id.map_or(Ok(()), check_file_id));
            wrong.extend(id.err().map(|fault| ("content.id", fault)));
        }
    }
    let caption = text(fields, "caption").and_then(|caption| match caption {
        None | Some("") => Ok(()),
        Some(_) if !kind.has_caption() => Err("is not there for this type".into()),
        Some(caption) => bounded(caption, CAPTION).map(drop),
    });
    wrong.extend(caption.err().map(|fault| ("content.caption", fault)));
    let file_name = text(fields, "filename").and_then(|name| match name {
        None | Some("") => Ok(()),
        Some(_) if kind != Kind::Document => Err("is not there for this type".into()),
        Some(name) => identifier(name, FILE_NAME).map(drop),
    });
    wrong.extend(file_name.err().map(|fault| ("content.filename", fault)));
    wrong
}

/// The provider fetches it, the gateway never does.
fn check_link(link: &str) -> Result<(), Fault> {
    bounded(link, LINK)?;
    let is_one_word = !link.chars().any(|c| c.is_whitespace() || c.is_control());
    let url = Url::parse(link).ok().filter(|_| is_one_word);
    let url = url.filter(|url| matches!(url.scheme(), "http" | "https"));
    let Some(url) = url else {
        return Err("must be a URL with http or https".into());
    };
    if url.username().is_empty() && url.password().is_none() {
        Ok(())
    } else {
        Err("must not have a user".into())
    }
}

fn check_file_id(id: &str) -> Result<(), Fault> {
    let is_digits = id.bytes().all(|byte| byte.is_ascii_digit());
    if is_digits && (1..=FILE_ID).contains(&id.len()) {
        return Ok(());
    }
    Err(format!("must have 1 to {FILE_ID} digits").into())
}

fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, Fault> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err("must be a string".into()),
    }
}

fn required<'a>(fields: &'a Map<String, Value>, name: &str) -> Result<&'a str, Fault> {
    text(fields, name)?.ok_or(Fault::Borrowed("is required"))
}

/// An object whose fields are each there once, as far as that matters.
#[derive(Debug, Default)]
struct Object {
    fields: Map<String, Value>,
    twice: Vec<Wrong>,
}

/// The fields of a content, by their names in it and in a problem.
const FIELDS: [(&str, &str); 7] = [
    ("link", "content.link"),
    ("id", "content.id"),
    ("caption", "content.caption"),
    ("filename", "content.filename"),
    ("name", "content.name"),
    ("language", "content.language"),
    ("components", "content.components"),
];

impl Object {
    fn read(content: &RawValue) -> Result<Self, Fault> {
        let object: Self = serde_json::from_str(content.get())
            .map_err(|_| Fault::Borrowed("must be an object, at most 64 levels deep"))?;
        if object.fields.values().any(|value| depth(value) >= DEPTH) {
            return Err(format!("must be at most {DEPTH} levels deep").into());
        }
        Ok(object)
    }
}

/// How deep objects and lists are in one another. What was read is not deeper than `serde_json`
/// lets it be.
fn depth(value: &Value) -> usize {
    let deepest = match value {
        Value::Array(values) => values.iter().map(depth).max(),
        Value::Object(fields) => fields.values().map(depth).max(),
        _ => return 0,
    };
    1 + deepest.unwrap_or_default()
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Fields)
    }
}

struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Object;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Object, M::Error> {
        let mut object = Object::default();
        while let Some((name, value)) = map.next_entry::<String, Value>()? {
            let known = FIELDS.iter().find(|(known, _)| *known == name);
            if object.fields.insert(name, value).is_some()
                && let Some((_, shown)) = known
            {
                object.twice.push((shown, "must not be there twice".into()));
            }
        }
        Ok(object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(kind: Kind, content: &str) -> Vec<&'static str> {
        let content = RawValue::from_string(content.to_owned()).unwrap();
        let wrong = check(kind, Some(&content));
        wrong.into_iter().map(|(field, _)| field).collect()
    }

    fn read(kind: Kind, content: &str) -> String {
        assert!(wrong(kind, content).is_empty(), "{content}");
        readable(kind, &RawValue::from_string(content.to_owned()).unwrap())
    }

    #[test]
    fn what_is_wrong_with_a_file_is_named() {
        use Kind::{Audio, Document, Image};
        let long_link = format!(r#"{{"link":"https://a.example/{}"}}"#, "x".repeat(2048));
        let long_id = format!(r#"{{"id":"{}"}}"#, "1".repeat(65));
        let long_caption = format!(r#"{{"id":"1","caption":"{}"}}"#, "x".repeat(1025));
        let (link, id) = (&["content.link"][..], &["content.id"][..]);
        let all = ["content.link", "content.caption", "content.filename"];
        for (kind, content, fields) in [
            (Image, "7", &["content"][..]),
            (Image, "[]", &["content"]),
            (Image, "{}", link),
            (Image, r#"{"link":null,"id":null}"#, link),
            (Image, r#"{"link":"https://a.example/b","id":"1"}"#, link),
            (Image, r#"{"id":"1","id":"2"}"#, id),
            (Image, r#"{"id":1}"#, id),
            (Image, r#"{"id":""}"#, id),
            (Image, r#"{"id":"../me/accounts"}"#, id),
            (Image, &long_id, id),
            (Image, r#"{"link":"ftp://a.example/b"}"#, link),
            (Image, r#"{"link":"a.example/b"}"#, link),
            (Image, r#"{"link":"https://"}"#, link),
            (Image, r#"{"link":"https://user@a.example/b"}"#, link),
            (Image, r#"{"link":"https://:pw@a.example/b"}"#, link),
            (Image, r#"{"link":" https://a.example/b"}"#, link),
            (Image, &long_link, link),
            (Image, &long_caption, &["content.caption"]),
            (Image, r#"{"id":"1","filename":"a"}"#, &["content.filename"]),
            (Audio, r#"{"id":"1","caption":"a"}"#, &["content.caption"]),
            (Document, r#"{"id":"1","filename":"a\nb"}"#, &all[2..]),
            (Document, r#"{"caption":7,"filename":[]}"#, &all),
        ] {
            assert_eq!(wrong(kind, content), fields, "{content:.100}");
        }
        assert_eq!(check(Image, None).len(), 1);
        assert_eq!(check(Kind::Text, None), []);
        assert_eq!(wrong(Kind::Text, "[]"), ["content"]);
    }

    #[test]
    fn what_is_wrong_with_a_template_is_named() {
        let (name, language) = ("content.name", "content.language");
        let deep = |levels: usize| {
            let list = format!("{}{}", "[".repeat(levels), "]".repeat(levels));
            format!(r#"{{"name":"a","language":"en","components":{list}}}"#)
        };
        for (content, fields) in [
            ("{}", &[name, language][..]),
            (r#"{"name":"","language":""}"#, &[name, language]),
            (r#"{"name":"a","language":{}}"#, &["content.language.code"]),
            (r#"{"name":"a","language":["en"]}"#, &[language]),
            (&deep(63), &[]),
            (&deep(64), &["content"]),
            (&deep(1000), &["content"]),
        ] {
            assert_eq!(wrong(Kind::Template, content), fields, "{content:.100}");
        }
        let no_list = r#"{"name":"a","language":"en","components":{}}"#;
        assert_eq!(wrong(Kind::Template, no_list), ["content.components"]);
    }

    #[test]
    fn a_message_can_be_read_whatever_it_is() {
        use Kind::{Audio, Document, Image, Sticker, Template, Video};
        let longest = format!(r#"{{"link":"http://a.example/{}"}}"#, "x".repeat(2031));
        let deepest = format!(
            r#"{{"name":"a","language":"en","components":{}{}}}"#,
            "[".repeat(63),
            "]".repeat(63)
        );
        for (kind, content, text) in [
            (Image, r#"{"id":"1","caption":"A cat"}"#, "A cat"),
            (Image, r#"{"id":"1","caption":""}"#, "[image]"),
            (Video, &longest, "[video]"),
            (Audio, r#"{"id":"1"}"#, "[audio]"),
            (Document, r#"{"id":"1","filename":"a.pdf"}"#, "a.pdf"),
            (
                Document,
                r#"{"id":"1","filename":"a.pdf","caption":"A"}"#,
                "A",
            ),
            (Document, r#"{"id":"1","other":{"x":1}}"#, "[document]"),
            (Sticker, r#"{"link":"https://a.example/b"}"#, "[sticker]"),
            (
                Template,
                r#"{"name":"hello","language":{"code":"en_US","policy":"deterministic"}}"#,
                "[template] hello",
            ),
            (Template, &deepest, "[template] a"),
        ] {
            assert_eq!(read(kind, content), text, "{content:.100}");
        }
    }

    #[test]
    fn the_same_object_is_the_same_however_it_is_spelled() {
        let spelled = [
            r#"{"id":"1","caption":"ş"}"#,
            r#" {"caption":"\u015f", "id":"1"}"#,
        ];
        assert!(is_same(Some(spelled[0]), Some(spelled[1])));
        assert!(!is_same(Some(spelled[0]), Some(r#"{"id":"1"}"#)));
        assert!(!is_same(Some(spelled[0]), None));
        assert!(is_same(None, None));
    }
}

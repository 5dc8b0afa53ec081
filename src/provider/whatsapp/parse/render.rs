//! What a person reads of a message, whatever type it has.

use super::content::content;
use super::describe::{contacts, interactive, location, order, tagged};
use super::value::{Object, Value};

/// The type of a message that nobody understands.
pub(super) const NOT_UNDERSTOOD: &str = "unsupported";
/// What is shown for such a message.
const UNSUPPORTED: &str = "[unsupported message]";
/// The longest text, in characters, which no customer's is beyond: what is longer is cut.
const LONGEST: usize = 65_536;

/// What a message says.
#[derive(Debug)]
pub(super) struct Rendered {
    pub kind: &'static str,
    pub text: String,
    pub content: String,
}

/// Reads a message. `whole` is what is kept of one that is not understood.
pub(super) fn render(message: &Object, whole: Value) -> Rendered {
    let kind = message.string("type").unwrap_or_default();
    let understood = kind_of(&kind).and_then(|kind| {
        let own = message.get(own_name(message, kind));
        let text = match own {
            Some(own) => text(kind, own, message)?,
            None => failed(kind, message)?,
        };
        let content = content(own.unwrap_or(whole), kind);
        Some((kind, text, content))
    });
    let (kind, text, content) = understood.unwrap_or_else(|| {
        let text = unsupported(&kind, message);
        (NOT_UNDERSTOOD, text, content(whole, NOT_UNDERSTOOD))
    });
    let text = bounded(text);
    Rendered {
        kind,
        text,
        content,
    }
}

/// The types that have a meaning here.
fn kind_of(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "text" => "text",
        "image" => "image",
        "video" => "video",
        // What it was called before.
        "audio" | "voice" => "audio",
        "document" => "document",
        "sticker" => "sticker",
        "location" => "location",
        "contacts" => "contacts",
        "interactive" => "interactive",
        "button" => "button",
        "order" => "order",
        "template" => "template",
        _ => return None,
    })
}

/// The field that the message is in.
fn own_name(message: &Object, kind: &'static str) -> &'static str {
    if kind == "audio" && message.get("audio").is_none() {
        "voice"
    } else {
        kind
    }
}

/// None: it has not the form that its type has.
fn text(kind: &str, own: Value, message: &Object) -> Option<String> {
    if kind == "contacts" {
        return contacts(own);
    }
    let own = own.object()?;
    match kind {
        "text" => own.string("body").filter(|body| !body.is_empty()),
        "location" => Some(location(&own)),
        "interactive" => interactive(&own),
        "button" => own.filled("text").or_else(|| own.filled("payload")),
        "order" => Some(own.filled("text").unwrap_or_else(|| order(&own))),
        "template" => Some(tagged("template", own.filled("name"))),
        media => {
            let caption = own.filled("caption");
            caption
                .or_else(|| failed(media, message))
                .or_else(|| match media {
                    "document" => own.filled("filename").or_else(|| Some("[document]".into())),
                    "audio" if is_voice(&own, message) => Some("[voice message]".into()),
                    _ => Some(format!("[{media}]")),
                })
        }
    }
}

fn is_voice(own: &Object, message: &Object) -> bool {
    let is_said = own
        .get("voice")
        .is_some_and(|voice| voice.bytes() == b"true");
    is_said || message.string("type").as_deref() == Some("voice")
}

/// What is shown for media that did not come through.
fn failed(kind: &str, message: &Object) -> Option<String> {
    let name = match kind {
        "image" | "video" | "audio" | "document" | "sticker" => kind,
        _ => return None,
    };
    let has_failed = message.each("errors").any(|error| error.object().is_some());
    has_failed.then(|| format!("[{name} could not be loaded]"))
}

fn unsupported(kind: &str, message: &Object) -> String {
    if kind == "media_placeholder" {
        return "[media]".into();
    }
    let own = message.object("unsupported");
    let what = own.and_then(|own| own.string("type")).filter(|what| {
        let is_name = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
        (1..=40).contains(&what.len()) && what.bytes().all(is_name) && what != "unknown"
    });
    match what {
        Some(what) => format!("[unsupported message: {what}]"),
        None => UNSUPPORTED.into(),
    }
}

/// Cuts what is longer than any message.
fn bounded(mut text: String) -> String {
    if text.chars().count() > LONGEST {
        text = text.chars().take(LONGEST - 1).collect();
        text.push('…');
    }
    text
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn rendered(fields: &str) -> Rendered {
        let text = format!("{{\"id\":\"m\",{fields}}}");
        let whole = Value::of(text.as_bytes());
        let rendered = render(&whole.object().unwrap(), whole);
        if rendered.kind == "unsupported" {
            assert_eq!(rendered.content, text);
        }
        rendered
    }

    /// The type, in quotes, and the object of that type.
    #[track_caller]
    pub fn assert_rendered(samples: &[(&str, &str, &str)]) {
        for (kind, own, expected) in samples {
            let found = rendered(&format!("\"type\":\"{kind}\",\"{kind}\":{own}"));
            assert_eq!(
                (found.kind, &*found.text, &*found.content),
                (*kind, *expected, *own)
            );
        }
    }

    #[test]
    fn a_text_is_what_was_written() {
        assert_rendered(&[
            ("text", r#"{"body":"Hello"}"#, "Hello"),
            ("text", r#"{"body":" \n"}"#, " \n"),
            (
                "text",
                r#"{"body":"[image]","preview_url":true}"#,
                "[image]",
            ),
        ]);
        assert_eq!(
            rendered(r#""type":"text","text":{"body":"a\u0000\ud83d"}"#).text,
            "a\u{FFFD}\u{FFFD}"
        );
        let longest = "é".repeat(65_536);
        let text =
            |body: &str| rendered(&format!(r#""type":"text","text":{{"body":"{body}"}}"#)).text;
        assert_eq!(text(&longest), longest);
        let cut = text(&format!("{longest}é"));
        assert_eq!(cut.chars().count(), 65_536);
        assert!(cut.ends_with("é…"), "a longer one is cut");
    }

    #[test]
    fn media_are_their_caption_or_their_name() {
        assert_rendered(&[
            (
                "image",
                r#"{"id":"1","mime_type":"image/jpeg","sha256":"x","caption":"a\nb"}"#,
                "a\nb",
            ),
            (
                "image",
                r#"{"id":"1","caption":" ","url":"https://lookaside.fbsbx.com/x"}"#,
                "[image]",
            ),
            ("image", r#"{"id":"1","caption":7}"#, "[image]"),
            ("image", "{}", "[image]"),
            ("video", r#"{"id":"1","caption":"Look"}"#, "Look"),
            ("video", r#"{"id":"1"}"#, "[video]"),
            ("audio", r#"{"id":"1","voice":true}"#, "[voice message]"),
            ("audio", r#"{"id":"1","voice":false}"#, "[audio]"),
            ("audio", r#"{"id":"1"}"#, "[audio]"),
            ("audio", r#"{"id":"1","caption":"a song"}"#, "a song"),
            (
                "document",
                r#"{"id":"1","filename":"a.pdf","caption":"The bill"}"#,
                "The bill",
            ),
            ("document", r#"{"id":"1","filename":"a.pdf"}"#, "a.pdf"),
            ("document", r#"{"id":"1"}"#, "[document]"),
            ("sticker", r#"{"id":"1","animated":true}"#, "[sticker]"),
        ]);
        // What a voice message was before.
        let voice = rendered(r#""type":"voice","voice":{"id":"1"}"#);
        assert_eq!((voice.kind, &*voice.text), ("audio", "[voice message]"));
        assert_eq!(voice.content, r#"{"id":"1"}"#);
    }

    #[test]
    fn media_that_did_not_come_through_are_still_seen() {
        let errors = r#""errors":[{"code":131052,"title":"Media download error"}]"#;
        for (kind, own, expected) in [
            ("image", r#","image":{"caption":"Look"}"#, "Look"),
            (
                "image",
                r#","image":{"id":"1"}"#,
                "[image could not be loaded]",
            ),
            ("image", "", "[image could not be loaded]"),
            ("video", r#","video":null"#, "[video could not be loaded]"),
            ("audio", "", "[audio could not be loaded]"),
            ("voice", "", "[audio could not be loaded]"),
            (
                "document",
                r#","document":{"filename":"a.pdf"}"#,
                "[document could not be loaded]",
            ),
            ("sticker", "", "[sticker could not be loaded]"),
            ("text", "", "[unsupported message]"),
        ] {
            let found = rendered(&format!(r#""type":"{kind}",{errors}{own}"#));
            assert_eq!(found.text, expected, "{kind}{own}");
        }
        let found = rendered(&format!(r#""type":"image",{errors}"#));
        assert_eq!(found.kind, "image");
        assert!(found.content.contains("131052"), "{}", found.content);
        assert_eq!(
            rendered(r#""type":"image","errors":[]"#).kind,
            "unsupported"
        );
    }

    #[test]
    fn what_nobody_understands_is_seen_all_the_same() {
        for (fields, expected) in [
            (
                r#""type":"unsupported","errors":[{"code":131051,"title":"Message type unknown"}]"#,
                "[unsupported message]",
            ),
            (
                r#""type":"unsupported","unsupported":{"type":"poll_creation"}"#,
                "[unsupported message: poll_creation]",
            ),
            (
                r#""type":"unsupported","unsupported":{"type":"unknown"}"#,
                "[unsupported message]",
            ),
            (
                r#""type":"unsupported","unsupported":{"type":"<b>"}"#,
                "[unsupported message]",
            ),
            (
                r#""type":"unsupported","text":{"body":"stray"}"#,
                "[unsupported message]",
            ),
            (r#""type":"media_placeholder""#, "[media]"),
            (
                r#""type":"hologram","hologram":{"id":"1"}"#,
                "[unsupported message]",
            ),
            (
                r#""type":"interactive","interactive":{"type":"unheard_of"}"#,
                "[unsupported message]",
            ),
            (
                r#""type":"interactive","interactive":{"type":"button_reply","button_reply":"Yes"}"#,
                "[unsupported message]",
            ),
            (r#""type":"button","button":{}"#, "[unsupported message]"),
            (
                r#""type":"contacts","contacts":[]"#,
                "[unsupported message]",
            ),
            (
                r#""type":"contacts","contacts":"Ann""#,
                "[unsupported message]",
            ),
            (
                r#""type":"text","text":{"body":""}"#,
                "[unsupported message]",
            ),
            (
                r#""type":"text","text":{"body":7}"#,
                "[unsupported message]",
            ),
            (r#""type":"text","text":"Hello""#, "[unsupported message]"),
            (r#""type":"text""#, "[unsupported message]"),
            (r#""type":"image","image":"1""#, "[unsupported message]"),
            (
                r#""type":["text"],"text":{"body":"x"}"#,
                "[unsupported message]",
            ),
            (r#""text":{"body":"x"}"#, "[unsupported message]"),
            (r#""a":1"#, "[unsupported message]"),
        ] {
            let found = rendered(fields);
            assert_eq!(
                (found.kind, &*found.text),
                ("unsupported", expected),
                "{fields}"
            );
        }
    }
}

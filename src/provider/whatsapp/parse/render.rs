//! What a person reads of a message, whatever type it has.

use super::content::content;
use super::value::{Object, Value};

/// What is shown for a message that nobody understands.
const UNSUPPORTED: &str = "[unsupported message]";
/// The longest text, in bytes: what is longer is cut.
const LONGEST: usize = 64 * 1024;
/// The most contacts that are named.
const MOST_NAMES: usize = 20;

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
        ("unsupported", text, content(whole, "unsupported"))
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

fn location(own: &Object) -> String {
    let place = ["name", "address"].map(|field| own.string(field).as_deref().and_then(line));
    let place: Vec<String> = place.into_iter().flatten().collect();
    let coordinate = |field| {
        let value = own.get(field).filter(|value| value.number().is_some());
        value?.word().as_deref().and_then(line)
    };
    let coordinates = || {
        Some(format!(
            "{}, {}",
            coordinate("latitude")?,
            coordinate("longitude")?
        ))
    };
    let place = Some(place.join(", ")).filter(|place| !place.is_empty());
    tagged("location", place.or_else(coordinates))
}

fn contacts(own: Value) -> Option<String> {
    let contacts: Vec<Object> = own.elements().filter_map(Value::object).collect();
    let names = contacts.iter().filter_map(contact_name).take(MOST_NAMES);
    let names: Vec<String> = names.collect();
    let names = Some(names.join(", ")).filter(|names| !names.is_empty());
    (!contacts.is_empty()).then(|| tagged("contact", names))
}

fn contact_name(contact: &Object) -> Option<String> {
    let name = contact.object("name").unwrap_or_default();
    let part = |field| name.string(field).as_deref().and_then(line);
    let parts = || {
        let parts: Vec<String> = ["first_name", "last_name"]
            .into_iter()
            .filter_map(part)
            .collect();
        Some(parts.join(" ")).filter(|name| !name.is_empty())
    };
    let company = || line(&contact.object("org")?.string("company")?);
    let phone = || {
        let mut phones = contact.each("phones").filter_map(Value::object);
        line(&phones.find_map(|phone| phone.string("phone"))?)
    };
    part("formatted_name")
        .or_else(parts)
        .or_else(company)
        .or_else(phone)
}

/// What was chosen; of one that the business sent, what it asks.
fn interactive(own: &Object) -> Option<String> {
    let title = |field| own.object(field)?.filled("title");
    let form = || {
        let reply = own.object("nfm_reply")?;
        Some(reply.filled("body").unwrap_or_else(|| "[form]".into()))
    };
    let call = || {
        let reply = own.object("call_permission_reply")?;
        let response = reply.string("response").as_deref().and_then(line);
        Some(match response {
            Some(response) => format!("[call permission: {response}]"),
            None => "[call permission]".into(),
        })
    };
    let asked = || own.object("body")?.filled("text");
    title("button_reply")
        .or_else(|| title("list_reply"))
        .or_else(form)
        .or_else(call)
        .or_else(asked)
}

fn order(own: &Object) -> String {
    let products: Vec<Object> = own
        .each("product_items")
        .filter_map(Value::object)
        .collect();
    if products.is_empty() {
        return "[order]".into();
    }
    let quantity = |product: &Object| {
        product
            .get("quantity")
            .and_then(Value::number)
            .unwrap_or(1.0)
    };
    let count: f64 = products.iter().map(quantity).sum();
    let items = if (count - 1.0).abs() < f64::EPSILON {
        "item"
    } else {
        "items"
    };
    let price = |product: &Object| Some(product.get("item_price")?.number()? * quantity(product));
    let total: Option<f64> = products.iter().map(price).sum();
    let currency = |product: &Object| product.string("currency").as_deref().and_then(line);
    let first = currency(&products[0]);
    let is_one = products.iter().all(|product| currency(product) == first);
    let total = total
        .zip(first)
        .filter(|(total, _)| is_one && total.abs() < 1e12);
    match total {
        Some((total, currency)) => format!("[order] {count} {items}, {total:.2} {currency}"),
        None => format!("[order] {count} {items}"),
    }
}

fn tagged(tag: &str, text: Option<String>) -> String {
    match text {
        Some(text) => format!("[{tag}] {text}"),
        None => format!("[{tag}]"),
    }
}

/// A text in one line, if there is anything in it.
fn line(text: &str) -> Option<String> {
    let words: Vec<&str> = text
        .split(|c: char| c.is_control() || c.is_whitespace())
        .collect();
    let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
    (!words.is_empty()).then(|| words.join(" "))
}

/// Cuts what is longer than any message.
fn bounded(mut text: String) -> String {
    if text.len() > LONGEST {
        text.truncate(text.floor_char_boundary(LONGEST - '…'.len_utf8()));
        text.push('…');
    }
    text
}

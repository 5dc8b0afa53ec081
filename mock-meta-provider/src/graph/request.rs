//! What a call asks for, checked as Meta checks it.

use serde_json::{Map, Value};

use super::errors::GraphError;
use super::names::is_user_id;

const MAX_TEXT: usize = 4096;
const MAX_CAPTION: usize = 1024;
const MAX_OPAQUE: usize = 512;
const TYPES: &str = "{AUDIO, CONTACTS, DOCUMENT, IMAGE, INTERACTIVE, LOCATION, REACTION, STICKER, TEMPLATE, TEXT, VIDEO}";

/// The body of `POST /{version}/{phone number id}/messages`.
#[derive(Debug)]
pub(crate) enum Request {
    Send(Box<Send>),
    /// A message is marked as read, and all before it.
    MarkRead,
}

/// A message to be sent.
#[derive(Debug)]
pub(crate) struct Send {
    /// The recipient as the call names it.
    pub(crate) input: String,
    /// The number in digits, or the user id.
    pub(crate) to: String,
    /// `to` or `recipient`.
    pub(crate) addressed_by: &'static str,
    pub(crate) kind: String,
    /// The object of its type.
    pub(crate) content: Value,
    pub(crate) reply_to: Option<String>,
    pub(crate) opaque: Option<String>,
}

type Object = Map<String, Value>;

pub(crate) fn parse(body: &[u8]) -> Result<Request, GraphError> {
    let body: Object = serde_json::from_slice(body)
        .map_err(|_| GraphError::parameter("Invalid parameter: the body is no JSON object"))?;
    if text(&body, "messaging_product")? != Some("whatsapp") {
        return Err(GraphError::parameter(
            "The parameter messaging_product is required.",
        ));
    }
    if let Some(status) = text(&body, "status")? {
        let is_read = status == "read";
        let message_id = text(&body, "message_id")?.unwrap_or_default();
        if !is_read || !message_id.starts_with("wamid.") {
            return Err(GraphError::value("Message ID is invalid."));
        }
        return Ok(Request::MarkRead);
    }
    let (input, to, addressed_by) = recipient(&body)?;
    let kind = text(&body, "type")?.unwrap_or("text");
    let content = content(&body, kind)?;
    let opaque = text(&body, "biz_opaque_callback_data")?;
    if opaque.is_some_and(|opaque| opaque.chars().count() > MAX_OPAQUE) {
        return Err(GraphError::parameter(
            "Param biz_opaque_callback_data must be at most 512 characters long.",
        ));
    }
    Ok(Request::Send(Box::new(Send {
        input,
        to,
        addressed_by,
        kind: kind.to_owned(),
        content,
        reply_to: reply_to(&body)?,
        opaque: opaque.map(str::to_owned),
    })))
}

impl Send {
    /// What a person would read of it.
    pub(crate) fn text(&self) -> String {
        let field = |name: &str| self.content[name].as_str().map(str::to_owned);
        let named = match self.kind.as_str() {
            "text" => field("body"),
            "template" => field("name").map(|name| format!("[template {name}]")),
            "reaction" => field("emoji"),
            _ => field("caption"),
        };
        named.unwrap_or_else(|| format!("[{}]", self.kind))
    }
}

fn recipient(body: &Object) -> Result<(String, String, &'static str), GraphError> {
    // Where both are there, Meta takes the number.
    if let Some(to) = text(body, "to")? {
        if text(body, "recipient_type")? == Some("group") {
            return Ok((to.to_owned(), to.to_owned(), "to"));
        }
        let digits: String = to.chars().filter(char::is_ascii_digit).collect();
        let is_number = to.chars().enumerate().all(|(place, char)| {
            char.is_ascii_digit() || " -()".contains(char) || char == '+' && place == 0
        });
        if !is_number || !(1..=20).contains(&digits.len()) {
            return Err(GraphError::value("Recipient phone number is not valid."));
        }
        return Ok((to.to_owned(), digits, "to"));
    }
    match text(body, "recipient")? {
        Some(user_id) if is_user_id(user_id) => {
            Ok((user_id.to_owned(), user_id.to_owned(), "recipient"))
        }
        Some(_) => Err(GraphError::value("Recipient user id is not valid.")),
        None => Err(GraphError::parameter("The parameter to is required.")),
    }
}

fn reply_to(body: &Object) -> Result<Option<String>, GraphError> {
    let Some(context) = body.get("context") else {
        return Ok(None);
    };
    match context["message_id"].as_str() {
        Some(id) if id.starts_with("wamid.") => Ok(Some(id.to_owned())),
        _ => Err(GraphError::value("Context message id is not valid.")),
    }
}

/// The object of the message's type.
fn content(body: &Object, kind: &str) -> Result<Value, GraphError> {
    let content = body.get(kind).filter(|_| !kind.is_empty());
    let is_known = TYPES
        .trim_matches(['{', '}'])
        .split(", ")
        .any(|known| known.eq_ignore_ascii_case(kind));
    if !is_known {
        let message = format!("Param type must be one of {TYPES} - got \"{kind}\".");
        return Err(GraphError::parameter(&message));
    }
    let Some(content) = content else {
        let message = format!("The parameter {kind} is required.");
        return Err(GraphError::parameter(&message));
    };
    let required = |field: &str, is_right: fn(&Value) -> bool| match content.get(field) {
        Some(value) if is_right(value) => Ok(()),
        Some(_) => Err(GraphError::value(&format!("{kind}.{field} is not valid"))),
        None => Err(GraphError::missing(&format!("{kind}.{field} is missing"))),
    };
    match kind {
        "text" => {
            required("body", |body| {
                body.as_str().is_some_and(|body| !body.is_empty())
            })?;
            longest(content, kind, "body", MAX_TEXT)?;
        }
        "template" => {
            required("name", |name| {
                name.as_str().is_some_and(|name| !name.is_empty())
            })?;
            required("language", |language| language["code"].is_string())?;
        }
        "reaction" => {
            let is_wamid = |id: &Value| id.as_str().is_some_and(|id| id.starts_with("wamid."));
            required("message_id", is_wamid)?;
            required("emoji", Value::is_string)?;
        }
        "location" => {
            required("latitude", |at| at.is_number() || at.is_string())?;
            required("longitude", |at| at.is_number() || at.is_string())?;
        }
        "interactive" => {
            required("type", Value::is_string)?;
            required("action", Value::is_object)?;
        }
        "contacts" => {
            let named = |contact: &Value| contact["name"]["formatted_name"].is_string();
            let contacts = content.as_array();
            if !contacts.is_some_and(|contacts| !contacts.is_empty() && contacts.iter().all(named))
            {
                return Err(GraphError::missing(
                    "contacts[].name.formatted_name is missing",
                ));
            }
        }
        _ => media(content, kind)?,
    }
    Ok(content.clone())
}

fn media(content: &Value, kind: &str) -> Result<(), GraphError> {
    let given = |field: &str| content.get(field).and_then(Value::as_str);
    match (given("id"), given("link")) {
        (Some(id), None) if !id.is_empty() => {}
        (None, Some(link)) if link.starts_with("http://") || link.starts_with("https://") => {}
        (None, None) => {
            return Err(GraphError::missing(&format!(
                "{kind}.id or {kind}.link is missing"
            )));
        }
        _ => {
            return Err(GraphError::value(&format!(
                "{kind}: exactly one of id and link"
            )));
        }
    }
    let allowed: &[&str] = match kind {
        "audio" => &["id", "link", "voice"],
        "sticker" => &["id", "link"],
        "document" => &["id", "link", "caption", "filename"],
        _ => &["id", "link", "caption"],
    };
    let fields = content.as_object();
    let unexpected = fields
        .into_iter()
        .flat_map(Map::keys)
        .find(|name| !allowed.contains(&name.as_str()));
    if let Some(name) = unexpected {
        let message = format!("Unexpected key \"{name}\" on param \"{kind}\".");
        return Err(GraphError::parameter(&message));
    }
    longest(content, kind, "caption", MAX_CAPTION)
}

fn longest(content: &Value, kind: &str, field: &str, most: usize) -> Result<(), GraphError> {
    let length = content[field]
        .as_str()
        .map_or(0, |text| text.chars().count());
    if length <= most {
        return Ok(());
    }
    let message = format!("Param {kind}['{field}'] must be at most {most} characters long.");
    Err(GraphError::parameter(&message))
}

fn text<'a>(body: &'a Object, field: &str) -> Result<Option<&'a str>, GraphError> {
    match body.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => {
            let message = format!("Param {field} must be a string.");
            Err(GraphError::parameter(&message))
        }
    }
}

//! Anything as a provider's answer to a send: a line with the status, headers, and, behind an empty
//! line, the body. Where there is none, the answer broke off.

use std::sync::LazyLock;

use chrono::{DateTime, Utc};
use gateway::provider::whatsapp::{Account, is_number, is_user_id};
use gateway::provider::wire::Wire;
use gateway::provider::{Answer, ErrorKind, Failure, MAX_RETRY_AFTER, Outcome, Recipient};
use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use crate::bounds::within;

/// The most that the client hands over of a body.
const LONGEST: usize = 64 * 1024;
const SECRETS: [&str; 3] = ["token-1234567890", "secret-1234567890", "verify-1234567890"];

static WHATSAPP: LazyLock<Wire> = LazyLock::new(|| {
    let [token, secret, verify] = SECRETS;
    Wire::Whatsapp(Box::new(Account {
        phone_number_id: "106540352242922".into(),
        access_token: token.into(),
        app_secrets: vec![secret.into()],
        verify_tokens: vec![verify.into()],
        graph_url: url().into(),
        graph_version: "v26.0".into(),
    }))
});
static MOCK_META: LazyLock<Wire> = LazyLock::new(|| Wire::mock_meta(&url()));

fn url() -> Url {
    Url::parse("https://graph.example").unwrap()
}

/// Nothing fails; a success without the message's id is none, and one with it is never missed.
pub fn check(input: &[u8]) {
    let (status, headers, body) = read(input);
    let answer = Answer {
        status,
        headers: &headers,
        body,
        at: DateTime::<Utc>::from_timestamp(1_700_000_000, 0).unwrap(),
    };
    let json = body.and_then(json);
    let json = json.as_ref();
    let plain = json.filter(|json| body.is_some_and(|body| is_plain(body, json)));
    for (wire, secrets, id) in [
        (&*WHATSAPP, &SECRETS[..], json.map(id_of_whatsapp)),
        (&*MOCK_META, &[], plain.map(id_of_mock_meta)),
    ] {
        let outcome = within(input.len(), || wire.classify(&answer));
        match &outcome {
            Outcome::Accepted {
                provider_message_id,
                recipient,
            } => {
                assert!((200..300).contains(&status) && body.is_some());
                assert!(is_id(provider_message_id), "{provider_message_id:?}");
                assert_recipient(recipient);
                // What no tree can be made of has it somewhere.
                let expected = id.unwrap_or_else(|| Some(provider_message_id.clone()));
                assert_eq!(Some(provider_message_id), expected.as_ref());
            }
            Outcome::Failed(failure) => {
                let missed = id.flatten().filter(|_| (200..300).contains(&status));
                assert_eq!(missed, None, "{failure:?}");
                assert_failure(failure, status);
                let is_shown = secrets.iter().any(|secret| failure.detail.contains(secret));
                assert!(!is_shown, "{failure:?}");
            }
        }
    }
}

/// The status, the headers and the body.
fn read(input: &[u8]) -> (u16, HeaderMap, Option<&[u8]>) {
    let mut rest = Some(input);
    let mut line = || {
        let text = rest?;
        let end = text.iter().position(|&byte| byte == b'\n');
        rest = end.map(|end| &text[end + 1..]);
        Some(&text[..end.unwrap_or(text.len())])
    };
    let status = line().and_then(|line| str::from_utf8(line).ok()?.trim().parse().ok());
    let mut headers = HeaderMap::new();
    while let Some(line) = line().filter(|line| !line.is_empty()) {
        let colon = line.iter().position(|&byte| byte == b':');
        let (name, value) = line.split_at(colon.unwrap_or(line.len()));
        let value = value.strip_prefix(b":").unwrap_or(value).trim_ascii();
        let name = HeaderName::from_bytes(name).ok();
        if let Some((name, value)) = name.zip(HeaderValue::from_bytes(value).ok()) {
            headers.insert(name, value);
        }
    }
    let body = rest.map(|body| &body[..body.len().min(LONGEST)]);
    let status = status.filter(|status| (100..=999).contains(status));
    (status.unwrap_or(200), headers, body)
}

/// A body that is one JSON object, read in another way. Of a name that is there twice, the last one
/// counts.
fn json(body: &[u8]) -> Option<Value> {
    let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
    let value: Value = serde_json::from_str(&String::from_utf8_lossy(body)).ok()?;
    value.is_object().then_some(value)
}

/// The id of a message that was taken over.
fn id_of_whatsapp(answer: &Value) -> Option<String> {
    let is_error = !matches!(answer["error"], Value::Null | Value::Bool(false));
    let id = answer["messages"][0]["id"].as_str();
    id.filter(|id| !is_error && is_id(id)).map(str::to_owned)
}

fn id_of_mock_meta(answer: &Value) -> Option<String> {
    let is_refused = answer["success"] == false;
    let id = answer["providerMessageId"].as_str();
    id.filter(|id| !is_refused && is_id(id)).map(str::to_owned)
}

/// Whether this reader can tell what the mock means: no name that means something is there twice,
/// for then each one counts, and the id is no number, whose digits count.
fn is_plain(body: &[u8], answer: &Value) -> bool {
    let text = String::from_utf8_lossy(body);
    let is_once = |name: &str| text.matches(name).count() <= 1;
    let names = is_once("success") && is_once("providerMessageId") && !text.contains(r"\u");
    names && !answer["providerMessageId"].is_number()
}

fn is_id(id: &str) -> bool {
    (1..=255).contains(&id.chars().count()) && !id.chars().any(char::is_control)
}

fn assert_recipient(recipient: &Recipient) {
    assert!(recipient.number.as_deref().is_none_or(is_number));
    assert!(recipient.user_id.as_deref().is_none_or(is_user_id));
}

fn assert_failure(failure: &Failure, status: u16) {
    assert_eq!(failure.http_status, Some(status));
    let detail = &failure.detail;
    assert!(detail.chars().count() <= 500 && !detail.chars().any(char::is_control));
    let wait = failure.retry_after;
    assert!(wait.is_none_or(|wait| failure.retryable && wait <= MAX_RETRY_AFTER));
    assert!(failure.retryable || !failure.ambiguous, "{failure:?}");
    assert_eq!(failure.counts, failure.kind != ErrorKind::Unauthorized);
    if failure.kind == ErrorKind::Unreadable && (200..300).contains(&status) {
        // The message may have been taken over all the same.
        assert!(failure.ambiguous, "{failure:?}");
    }
}

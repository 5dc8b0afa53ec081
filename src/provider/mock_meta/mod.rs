//! The wire of the mock provider: a text and an idempotency key.

mod answer;

use chrono::{DateTime, Utc};
use reqwest::Url;
use serde::Serialize;

use self::answer::{Answer, Told};
use super::call::Call;
use super::{ErrorKind, Failure, Outcome, Outgoing, Reach, Recipient, clean, parse_retry_after};
use crate::channel::Channel;
use crate::peer;
use crate::process::hidden::Hidden;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    channel: Channel,
    to: &'a str,
    text: &'a str,
    client_message_id: &'a str,
}

/// Where messages are posted, below the provider's base URL.
pub(super) fn messages_url(base: &Url) -> Hidden<Url> {
    peer::below(base, "/messages").into()
}

/// The call that sends a message.
pub(super) fn encode(url: &Hidden<Url>, outgoing: &Outgoing) -> Call {
    let key = outgoing.message_id.to_string();
    let outbound = &outgoing.outbound;
    let request = Request {
        channel: outbound.channel,
        to: &outbound.participant_id,
        text: &outbound.text,
        client_message_id: outbound.client_message_id.as_deref().unwrap_or(&key),
    };
    let body = serde_json::to_vec(&request).expect("texts are JSON");
    Call::post(url.clone(), body).with("idempotency-key", &key)
}

/// What an answer means. `body` is at most its first 64 KiB, none where it broke off.
pub(super) fn classify(
    status: u16,
    retry_after: Option<&str>,
    body: Option<&[u8]>,
    now: DateTime<Utc>,
) -> Outcome {
    let answer = body.and_then(Answer::read).unwrap_or_default();
    let is_success = (200..300).contains(&status);
    let refused = answer.success == Some(Told::No);
    if is_success
        && matches!(answer.success, None | Some(Told::Yes))
        && let Some(provider_message_id) = answer.provider_message_id
    {
        return Outcome::Accepted {
            provider_message_id,
            recipient: Recipient::default(),
        };
    }
    let (kind, retryable) = match status {
        429 => (ErrorKind::RateLimited, true),
        500.. => (ErrorKind::ServerError, true),
        _ if refused => (ErrorKind::Rejected, answer.retryable),
        200..300 => (ErrorKind::Unreadable, true),
        _ => (ErrorKind::Rejected, false),
    };
    let detail = match (kind, answer.error) {
        (_, Some(error)) => clean(&error),
        (ErrorKind::Unreadable, None) => {
            "a success that cannot be read, or has no providerMessageId".into()
        }
        (_, None) => format!("the provider answered {status}"),
    };
    Outcome::Failed(Failure {
        kind,
        http_status: Some(status),
        detail,
        retryable,
        ambiguous: kind.is_ambiguous(),
        retry_after: retryable
            .then(|| retry_after.and_then(|value| parse_retry_after(value, now)))
            .flatten(),
        code: None,
        reach: if kind == ErrorKind::RateLimited {
            Reach::Channel
        } else {
            Reach::Message
        },
        counts: true,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;
    use crate::json;
    use crate::provider::{MAX_DETAIL, MAX_PROVIDER_ID, MAX_RETRY_AFTER};

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000, 0).unwrap()
    }

    fn failure(status: u16, retry_after: Option<&str>, body: &str) -> Failure {
        match classify(status, retry_after, Some(body.as_bytes()), now()) {
            Outcome::Failed(failure) => failure,
            Outcome::Accepted { .. } => panic!("accepted: {status} {body}"),
        }
    }

    fn accepted(body: impl AsRef<[u8]>) -> Option<String> {
        match classify(200, None, Some(body.as_ref()), now()) {
            Outcome::Accepted {
                provider_message_id,
                ..
            } => Some(provider_message_id),
            Outcome::Failed(_) => None,
        }
    }

    #[test]
    fn a_success_with_an_id_is_an_acceptance_whatever_else_it_says() {
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        let longest = "é".repeat(255);
        for (body, id) in [
            (r#"{"success":true,"providerMessageId":"msg_1"}"#.to_owned(), "msg_1"),
            (r#"{"providerMessageId":"msg_1"}"#.to_owned(), "msg_1"),
            (format!(r#"{{"success":true,"providerMessageId":"{longest}"}}"#), &longest),
            (r#"{"success":true,"providerMessageId":"x","retryable":"no"}"#.to_owned(), "x"),
            (r#"{"success":"yes","providerMessageId":"x","error":{"a":[1]},"timestamp":7,"retryable":[]}"#.to_owned(), "x"),
            (r#"{"success":null,"providerMessageId":"x","error":"\ud800\u0000"}"#.to_owned(), "x"),
            (r#"{"success":1,"providerMessageId":"x","\udc00":"\ud83d\ud83d"}"#.to_owned(), "x"),
            (format!(r#"{{"error":{deep},"providerMessageId":"x","success":true}}"#), "x"),
            (r#"{"error":1e999999,"providerMessageId":"x"}"#.to_owned(), "x"),
            (r#"{"error":"a","error":"b","retryable":1,"retryable":2,"providerMessageId":"x"}"#.to_owned(), "x"),
            (r#"{"success":true,"success":true,"provider\u004dessageId":"x"}"#.to_owned(), "x"),
            (r#"{"providerMessageId":"x","providerMessageId":null}"#.to_owned(), "x"),
            ("\u{FEFF} {\"providerMessageId\":\"x\"}\r\n".to_owned(), "x"),
            (r#"{"providerMessageId":"x"}<br>Deprecated: a function on line 1"#.to_owned(), "x"),
            (r#"{"providerMessageId":"a\ud800"}"#.to_owned(), "a\u{FFFD}"),
            (r#"{"providerMessageId":7}"#.to_owned(), "7"),
            (r#"{"providerMessageId":-0}"#.to_owned(), "-0"),
            (r#"{"providerMessageId":12345678901234567890123}"#.to_owned(), "12345678901234567890123"),
            (r#"{"providerMessageId":1e3}"#.to_owned(), "1e3"),
            (r#"{"providerMessageId":1.0}"#.to_owned(), "1.0"),
        ] {
            assert_eq!(accepted(&body).as_deref(), Some(id), "{body:.200}");
        }
        let latin = accepted(b"{\"error\":\"caf\xE9\",\"providerMessageId\":\"x\"}");
        assert_eq!(latin.as_deref(), Some("x"));
    }

    #[test]
    fn a_success_without_a_readable_id_may_be_an_acceptance() {
        let too_long = "é".repeat(256);
        for body in [
            "",
            "<html>",
            "null",
            "[]",
            "{}",
            r#"[{"providerMessageId":"x"}]"#,
            r#"{"success":true}"#,
            r#"{"success":true,"providerMessageId":""}"#,
            r#"{"success":true,"providerMessageId":null}"#,
            r#"{"success":true,"providerMessageId":["x"]}"#,
            r#"{"success":true,"providerMessageId":true}"#,
            r#"{"success":true,"providerMessageId":1.5}"#,
            r#"{"success":true,"providerMessageId":1e999}"#,
            r#"{"success":true,"providerMessageId":"a\u0000b"}"#,
            r#"{"success":true,"providerMessageId":"a\nb"}"#,
            &format!(r#"{{"success":true,"providerMessageId":"{too_long}"}}"#),
            &format!(
                r#"{{"success":true,"providerMessageId":{}}}"#,
                "9".repeat(256)
            ),
            r#"{"success":true,"providerMessageId":"x""#,
            r#"{"success":true,"success":false,"providerMessageId":"x"}"#,
            r#"{"success":true,"providerMessageId":"x"} {"success":false}"#,
            r#"Notice {"success":true,"providerMessageId":"x"}"#,
        ] {
            let failure = failure(200, None, body);
            assert_eq!(
                (failure.kind, failure.retryable, failure.ambiguous),
                (ErrorKind::Unreadable, true, true),
                "{body}"
            );
        }
    }

    #[test]
    fn a_failure_keeps_what_can_be_read_of_it() {
        for (status, body, detail, retryable) in [
            (
                200,
                r#"{"success":false,"error":"busy","retryable":"true"}"#,
                "busy",
                true,
            ),
            (
                200,
                r#"{"success":false,"error":"busy","retryable":"no"}"#,
                "busy",
                false,
            ),
            (
                400,
                r#"{"success":false,"error":"no such user","retryable":7}"#,
                "no such user",
                false,
            ),
            (
                409,
                r#"{"success":false,"error":"a\ud800\u0000b","retryable":true}"#,
                "a\u{FFFD}\u{FFFD}b",
                true,
            ),
            (
                200,
                r#"{"success":false,"providerMessageId":"x","error":["no"]}"#,
                "the provider answered 200",
                false,
            ),
            (
                503,
                "\u{FEFF}{\"success\":0,\"error\":\"down\"}",
                "down",
                true,
            ),
        ] {
            let failure = failure(status, None, body);
            assert_eq!(
                (&*failure.detail, failure.retryable),
                (detail, retryable),
                "{body}"
            );
        }
    }

    #[test]
    fn each_answer_has_its_kind_and_is_retryable_or_not() {
        use ErrorKind::{RateLimited, Rejected, ServerError};
        for (status, body, kind, retryable) in [
            (429, "", RateLimited, true),
            (500, "", ServerError, true),
            (
                503,
                r#"{"success":false,"retryable":false}"#,
                ServerError,
                true,
            ),
            (302, "", Rejected, false),
            (400, "", Rejected, false),
            (
                422,
                r#"{"success":false,"error":"no","retryable":false}"#,
                Rejected,
                false,
            ),
            (409, r#"{"success":false,"retryable":true}"#, Rejected, true),
            (200, r#"{"success":false}"#, Rejected, false),
            (
                200,
                r#"{"success":false,"error":{"code":1}}"#,
                Rejected,
                false,
            ),
            (200, r#"{"success":false,"retryable":true}"#, Rejected, true),
        ] {
            let failure = failure(status, None, body);
            assert_eq!(
                (failure.kind, failure.retryable),
                (kind, retryable),
                "{status} {body}"
            );
            assert_eq!(failure.http_status, Some(status));
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_at_most_an_hour() {
        let wait = |value: &str| failure(429, Some(value), "").retry_after;
        assert_eq!(wait("2"), Some(Duration::from_secs(2)));
        assert_eq!(wait(" 0 "), Some(Duration::ZERO));
        assert_eq!(wait("7200"), Some(MAX_RETRY_AFTER));
        assert_eq!(wait(&"9".repeat(40)), Some(MAX_RETRY_AFTER));
        let date = httpdate::fmt_http_date((now() + chrono::Duration::seconds(90)).into());
        assert_eq!(wait(&date), Some(Duration::from_secs(90)));
        let past = httpdate::fmt_http_date((now() - chrono::Duration::seconds(90)).into());
        assert_eq!(wait(&past), Some(Duration::ZERO));
        assert_eq!(wait("299.997"), Some(Duration::from_millis(299_997)));
        assert_eq!(wait("0.5"), Some(Duration::from_millis(500)));
        assert_eq!(wait("3600.5"), Some(MAX_RETRY_AFTER));
        for nonsense in ["", ".", "soon", "-1", "1.2.3", "1,5", "1e3", "inf", "٣"] {
            assert_eq!(wait(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn a_detail_is_short_and_has_no_control_characters() {
        let body = serde_json::json!({ "error": format!("a\u{0}b\r\n{}", "x".repeat(1000)) });
        let detail = failure(500, None, &body.to_string()).detail;
        assert_eq!(detail.chars().count(), 500);
        assert!(detail.starts_with("abx"));
    }

    /// Answers as providers give them, and not.
    fn any_body() -> impl Strategy<Value = Vec<u8>> {
        let value = r#"(true|false|null|-?[1-9][0-9]{0,30}(\.[0-9]{1,5})?|"([ !#-\[\]-~é]|\\u[0-9a-f]{4}){0,300}"|\[\]|\{\})"#;
        let object = (value, value, value, value).prop_map(|(success, id, error, retryable)| {
            format!(r#"{{"success":{success},"providerMessageId":{id},"error":{error},"retryable":{retryable}}}"#)
                .into_bytes()
        });
        let cut = (object.clone(), 0_usize..100).prop_map(|(mut body, length)| {
            body.truncate(length);
            body
        });
        prop_oneof![object, cut, proptest::collection::vec(any::<u8>(), 0..200)]
    }

    proptest! {
        #[test]
        fn whatever_a_provider_answers_means_something_bounded(
            status in 100_u16..=999,
            retry_after in proptest::option::of("[0-9]{0,30}|\\PC{0,40}|[A-Z][a-z]{2}, [0-9]{2} Nov [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT"),
            body in proptest::option::of(any_body()),
        ) {
            match classify(status, retry_after.as_deref(), body.as_deref(), now()) {
                Outcome::Accepted { provider_message_id, .. } => {
                    prop_assert!((200..300).contains(&status));
                    let length = provider_message_id.chars().count();
                    prop_assert!((1..=MAX_PROVIDER_ID).contains(&length));
                    let body = body.unwrap();
                    let mut values = serde_json::Deserializer::from_slice(&body).into_iter();
                    let fields: BTreeMap<String, Box<RawValue>> = values.next().unwrap().unwrap();
                    prop_assert_ne!(fields["success"].get(), "false");
                    let id = fields["providerMessageId"].get();
                    let text: Option<String> =
                        serde_json::from_str(&json::repaired(id.as_bytes())).ok();
                    prop_assert_eq!(&provider_message_id, text.as_deref().unwrap_or(id));
                }
                Outcome::Failed(failure) => {
                    prop_assert_eq!(failure.http_status, Some(status));
                    prop_assert!(failure.detail.chars().count() <= MAX_DETAIL);
                    prop_assert!(!failure.detail.chars().any(char::is_control));
                    prop_assert!(failure.retry_after.is_none_or(|wait| wait <= MAX_RETRY_AFTER));
                    prop_assert!(failure.retryable || failure.retry_after.is_none());
                    if status == 429 || status >= 500 {
                        prop_assert!(failure.retryable);
                    }
                }
            }
        }
    }
}

//! What Meta's answer to a send means: by the error's code first, by the HTTP status where there is
//! none that is known. An error is one whatever the status is.

use std::time::Duration;

use reqwest::header::RETRY_AFTER;

use super::codes::{self, Class};
use super::{Account, is_number, is_user_id};
use crate::json;
use crate::provider::call::Answer;
use crate::provider::fields::{Object, integer};
use crate::provider::{
    ErrorKind, Failure, MAX_RETRY_AFTER, Outcome, Reach, Recipient, clean, is_provider_id,
    parse_retry_after,
};

/// How much of the account's rate is used up, and when there is some again.
const USAGE: &str = "x-business-use-case-usage";
/// A template is known to all of Meta's machines after some minutes.
const TEMPLATE_IS_SYNCING: i64 = 134_101;
const TEMPLATE_SYNC: Duration = Duration::from_mins(10);

/// What an answer says is wrong.
#[derive(Debug, Default)]
struct Fault {
    code: Option<i64>,
    subcode: Option<i64>,
    text: Option<String>,
    is_transient: bool,
}

/// What an answer means.
pub(in crate::provider) fn classify(account: &Account, answer: &Answer<'_>) -> Outcome {
    let text = answer.body.map(json::text);
    let body = text.as_deref().and_then(Object::first);
    let fault = body.as_ref().and_then(fault);
    if let Some(fault) = fault {
        return failed(account, answer, &fault);
    }
    if !(200..300).contains(&answer.status) {
        return failed(account, answer, &Fault::default());
    }
    let body = body.unwrap_or_default();
    let id = body.first_of("messages").and_then(|it| it.string("id"));
    match id.filter(|id| is_provider_id(id)) {
        Some(provider_message_id) => Outcome::Accepted {
            provider_message_id,
            recipient: recipient(&body),
        },
        None => Outcome::Failed(Failure {
            http_status: Some(answer.status),
            ..Failure::new(
                ErrorKind::Unreadable,
                "a success that cannot be read, or has no id of the message",
            )
        }),
    }
}

/// Who the recipient is, as far as it is told and can be one's id.
fn recipient(body: &Object<'_>) -> Recipient {
    let contact = body.first_of("contacts").unwrap_or_default();
    Recipient {
        number: contact.string("wa_id").filter(|id| is_number(id)),
        user_id: contact.string("user_id").filter(|id| is_user_id(id)),
    }
}

/// The error of an answer, as far as it can be read.
fn fault(body: &Object<'_>) -> Option<Fault> {
    let value = body.get("error").filter(|value| value.get() != "false")?;
    let Some(error) = Object::of(value) else {
        return Some(Fault {
            text: body.string("error"),
            ..Fault::default()
        });
    };
    let number = |name| error.get(name).and_then(integer);
    let data = error.object("error_data").unwrap_or_default();
    let details = data.string("details").or_else(|| error.string("details"));
    let text = match (error.string("message"), details) {
        (Some(message), Some(details)) if !message.contains(&*details) => {
            Some(format!("{message}: {details}"))
        }
        (message, details) => message.or(details),
    };
    Some(Fault {
        code: number("code"),
        subcode: number("error_subcode"),
        text,
        is_transient: error
            .get("is_transient")
            .is_some_and(|value| value.get().trim_matches('"') == "true"),
    })
}

fn failed(account: &Account, answer: &Answer<'_>, fault: &Fault) -> Outcome {
    let status = answer.status;
    let known = fault
        .code
        .and_then(|code| codes::class(code, fault.subcode));
    let (class, kind) = match (known, status) {
        (Some(class), _) => (class, kind_of(class)),
        (None, 429) => (Class::Throttled, ErrorKind::RateLimited),
        (None, _) if fault.is_transient => (Class::Maybe, ErrorKind::ServerError),
        // A status of its own says whose fault it is, where no code does.
        (None, 401) if fault.code.is_none() => (Class::Unauthorized, ErrorKind::Unauthorized),
        // What it said broke off; but a refusal it was.
        (None, 400..500) if answer.body.is_none() => (Class::Postponed, ErrorKind::Unreadable),
        (None, 300..500) => (Class::Never, ErrorKind::Rejected),
        (None, 200..300) => (Class::Maybe, ErrorKind::Unreadable),
        (None, _) => (Class::Maybe, ErrorKind::ServerError),
    };
    let retryable = !matches!(class, Class::Never | Class::WindowClosed);
    let text = fault.text.as_deref().map(|text| {
        let visible: String = text.chars().filter(|it| !it.is_control()).collect();
        clean(&account.without_secrets(&visible))
    });
    Outcome::Failed(Failure {
        kind,
        http_status: Some(status),
        detail: text
            .filter(|text| !text.is_empty())
            .unwrap_or_else(|| format!("the provider answered {status}")),
        retryable,
        ambiguous: class == Class::Maybe,
        retry_after: retryable
            .then(|| retry_after(answer, class, fault.code))
            .flatten(),
        code: fault.code,
        reach: match class {
            Class::Throttled | Class::Unauthorized => Reach::Channel,
            Class::PairThrottled => Reach::Conversation,
            Class::Postponed | Class::WindowClosed | Class::Never | Class::Maybe => Reach::Message,
        },
        counts: class != Class::Unauthorized,
    })
}

fn kind_of(class: Class) -> ErrorKind {
    match class {
        Class::Throttled | Class::PairThrottled | Class::Postponed => ErrorKind::RateLimited,
        Class::Unauthorized => ErrorKind::Unauthorized,
        Class::WindowClosed => ErrorKind::WindowClosed,
        Class::Never => ErrorKind::Rejected,
        Class::Maybe => ErrorKind::ServerError,
    }
}

/// The wait that is asked for: the longest of those that are named, and of an hour.
fn retry_after(answer: &Answer<'_>, class: Class, code: Option<i64>) -> Option<Duration> {
    let header = answer
        .header(RETRY_AFTER.as_str())
        .and_then(|value| parse_retry_after(value, answer.at));
    let usage = answer.header(USAGE).filter(|_| class == Class::Throttled);
    let syncing = (code == Some(TEMPLATE_IS_SYNCING)).then_some(TEMPLATE_SYNC);
    [header, usage.and_then(regained_in), syncing]
        .into_iter()
        .flatten()
        .max()
}

/// When the account has some rate again: Meta counts in minutes. None: it has some.
fn regained_in(usage: &str) -> Option<Duration> {
    let usage = Object::first(usage)?;
    let minutes = usage.fields().flat_map(|(id, _)| {
        let cases: Vec<&serde_json::value::RawValue> = usage
            .get(id)
            .and_then(|cases| serde_json::from_str(cases.get()).ok())
            .unwrap_or_default();
        let minutes = cases.into_iter().filter_map(|case| {
            let case = Object::of(case)?;
            case.get("estimated_time_to_regain_access")
                .and_then(integer)
        });
        minutes.collect::<Vec<_>>()
    });
    let minutes = minutes.max().filter(|minutes| *minutes > 0)?;
    let wait = Duration::from_secs(minutes.unsigned_abs().saturating_mul(60));
    Some(wait.min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Utc};
    use proptest::prelude::*;
    use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
    use serde_json::{Value, json};

    use super::super::tests::account;
    use super::*;
    use crate::provider::{MAX_DETAIL, MAX_PROVIDER_ID};

    fn told(status: u16, headers: &[(&'static str, &str)], body: Option<&str>) -> Outcome {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| {
                let value = HeaderValue::from_str(value).unwrap();
                (HeaderName::from_static(name), value)
            })
            .collect();
        let answer = Answer {
            status,
            headers: &headers,
            body: body.map(str::as_bytes),
            at: DateTime::<Utc>::from_timestamp(1_700_000_000, 0).unwrap(),
        };
        classify(&account(), &answer)
    }

    fn failure(status: u16, body: &str) -> Failure {
        match told(status, &[], Some(body)) {
            Outcome::Failed(failure) => failure,
            accepted @ Outcome::Accepted { .. } => panic!("{accepted:?}: {status} {body}"),
        }
    }

    fn error(code: impl Into<Value>) -> String {
        json!({ "error": { "message": "m", "type": "OAuthException", "code": code.into(), "fbtrace_id": "A" } }).to_string()
    }

    #[test]
    fn an_acceptance_has_the_message_s_id_and_who_the_recipient_is() {
        let whole = json!({
            "messaging_product": "whatsapp",
            "contacts": [{ "input": "+525512345678", "wa_id": "5215512345678", "user_id": "MX.1" }],
            "messages": [{ "id": "wamid.HBg=", "message_status": "held_for_quality_assessment" }]
        });
        for (status, body, number, user_id) in [
            (200, whole.to_string(), Some("5215512345678"), Some("MX.1")),
            (201, whole.to_string(), Some("5215512345678"), Some("MX.1")),
            (200, r#"{"messages":[{"id":"wamid.HBg="}],"error":null}"#.into(), None, None),
            (200, r#"{"contacts":[],"messages":[{"id":"wamid.HBg="}]}"#.into(), None, None),
            (
                200,
                r#"{"contacts":[{"wa_id":"..","user_id":"US.ENT.1"}],"messages":[{"id":"wamid.HBg="},7]}"#.into(),
                None,
                None,
            ),
            (200, "\u{FEFF}{\"contacts\":7,\"messages\":[{\"id\":\"wamid.HBg=\"}]} ".into(), None, None),
        ] {
            let expected = Outcome::Accepted {
                provider_message_id: "wamid.HBg=".into(),
                recipient: Recipient {
                    number: number.map(str::to_owned),
                    user_id: user_id.map(str::to_owned),
                },
            };
            assert_eq!(told(status, &[], Some(&body)), expected, "{body}");
        }
    }

    #[test]
    fn a_success_without_an_id_may_be_an_acceptance() {
        let long = json!({ "messages": [{ "id": "x".repeat(256) }] }).to_string();
        for body in [
            "",
            "<html>",
            "null",
            "{}",
            r#"{"success":true}"#,
            r#"{"messages":[]}"#,
            r#"{"messages":{"id":"x"}}"#,
            r#"{"messages":[{"id":""}]}"#,
            r#"{"messages":[{"id":7}]}"#,
            r#"{"messages":[{"id":"a\u0000"}]}"#,
            r#"{"messages":[{"id":"x"}"#,
            &long,
        ] {
            let failure = failure(200, body);
            let expected = (ErrorKind::Unreadable, true, true, Reach::Message);
            let told = (
                failure.kind,
                failure.retryable,
                failure.ambiguous,
                failure.reach,
            );
            assert_eq!(told, expected, "{body}");
        }
    }

    #[test]
    fn the_code_decides_whatever_the_status_is() {
        use ErrorKind::{RateLimited, Rejected, ServerError, Unauthorized, WindowClosed};
        use Reach::{Channel, Conversation, Message};
        for status in [200, 400, 401, 403, 404, 429, 500, 503] {
            for (code, kind, (retryable, ambiguous, counts), reach) in [
                (131_056, RateLimited, (true, false, true), Conversation),
                (130_429, RateLimited, (true, false, true), Channel),
                (80007, RateLimited, (true, false, true), Channel),
                (131_064, RateLimited, (true, false, true), Message),
                (190, Unauthorized, (true, false, false), Channel),
                (0, Unauthorized, (true, false, false), Channel),
                (131_042, Unauthorized, (true, false, false), Channel),
                (131_047, WindowClosed, (false, false, true), Message),
                (131_026, Rejected, (false, false, true), Message),
                (134_102, Rejected, (false, false, true), Message),
                (131_000, ServerError, (true, true, true), Message),
            ] {
                for spelled in [json!(code), json!(code.to_string())] {
                    let failure = failure(status, &error(spelled));
                    let told = (failure.retryable, failure.ambiguous, failure.counts);
                    assert_eq!(failure.kind, kind, "{status} {code}");
                    assert_eq!(told, (retryable, ambiguous, counts), "{status} {code}");
                    assert_eq!(failure.reach, reach, "{status} {code}");
                    assert_eq!(failure.code, Some(code));
                    assert_eq!(failure.http_status, Some(status));
                }
            }
        }
    }

    #[test]
    fn without_a_known_code_the_status_decides() {
        use ErrorKind::{RateLimited, Rejected, ServerError, Unauthorized, Unreadable};
        let unknown = error(999_999);
        let transient = r#"{"error":{"message":"m","code":999999,"is_transient":true}}"#;
        let closed =
            r#"{"error":{"code":100,"error_subcode":33,"message":"Unsupported post request"}}"#;
        for (status, body, kind, retryable, ambiguous) in [
            (400, Some(&*unknown), Rejected, false, false),
            (401, Some(&*unknown), Rejected, false, false),
            (429, Some(&*unknown), RateLimited, true, false),
            (500, Some(&*unknown), ServerError, true, true),
            (200, Some(&*unknown), Unreadable, true, true),
            (400, Some(transient), ServerError, true, true),
            (429, Some(transient), RateLimited, true, false),
            (400, Some(closed), Unauthorized, true, false),
            (400, Some("<html>"), Rejected, false, false),
            (302, Some(""), Rejected, false, false),
            (401, Some(""), Unauthorized, true, false),
            (403, Some(""), Rejected, false, false),
            (400, None, Unreadable, true, false),
            (429, None, RateLimited, true, false),
            (502, Some("Bad Gateway"), ServerError, true, true),
            (503, None, ServerError, true, true),
            (200, None, Unreadable, true, true),
            (400, Some(r#"{"error":"no"}"#), Rejected, false, false),
            (
                400,
                Some(r#"{"error":{"code":true}}"#),
                Rejected,
                false,
                false,
            ),
        ] {
            match told(status, &[], body) {
                Outcome::Failed(failure) => {
                    let told = (failure.kind, failure.retryable, failure.ambiguous);
                    assert_eq!(told, (kind, retryable, ambiguous), "{status} {body:?}");
                }
                accepted @ Outcome::Accepted { .. } => panic!("{accepted:?}"),
            }
        }
    }

    #[test]
    fn a_detail_is_what_meta_says_without_our_secrets() {
        for (body, expected) in [
            (
                json!({ "error": { "message": "(#131047) Re-engagement message", "code": 131_047,
                    "error_data": { "messaging_product": "whatsapp", "details": "More than 24 hours" } } }),
                "(#131047) Re-engagement message: More than 24 hours",
            ),
            (
                json!({ "error": { "message": "Malformed access token token-12\u{0}34567890", "code": 190 } }),
                "Malformed access token [hidden]",
            ),
            (
                json!({ "error": { "message": "same", "code": 1, "error_data": { "details": "same" } } }),
                "same",
            ),
            (json!({ "error": { "code": 1, "details": "d" } }), "d"),
            (json!({ "error": "text" }), "text"),
            (
                json!({ "error": { "code": 100 } }),
                "the provider answered 400",
            ),
        ] {
            assert_eq!(failure(400, &body.to_string()).detail, expected, "{body}");
        }
        // Not even the beginning of one, where it is cut off.
        let long = format!("{}token-1234567890", "x".repeat(490));
        let body = json!({ "error": { "message": long, "code": 190 } }).to_string();
        let detail = failure(400, &body).detail;
        assert!(
            !detail.contains("token") && detail.chars().count() <= MAX_DETAIL,
            "{detail}"
        );
    }

    #[test]
    fn the_wait_is_what_a_header_asks_for_in_minutes_or_seconds() {
        let wait = |code: i64, headers: &[(&'static str, &str)]| match told(
            400,
            headers,
            Some(&error(code)),
        ) {
            Outcome::Failed(failure) => failure.retry_after.map(|wait| wait.as_secs()),
            Outcome::Accepted { .. } => panic!("accepted"),
        };
        let usage = r#"{"102":[{"type":"messaging","call_count":100,"estimated_time_to_regain_access":0},{"estimated_time_to_regain_access":19}],"7":[]}"#;
        assert_eq!(wait(80007, &[(USAGE, usage)]), Some(19 * 60));
        assert_eq!(
            wait(80007, &[(USAGE, usage), ("retry-after", "5")]),
            Some(19 * 60)
        );
        assert_eq!(wait(130_429, &[("retry-after", "5")]), Some(5));
        assert_eq!(wait(130_429, &[]), None);
        // It says nothing of other errors.
        assert_eq!(wait(131_056, &[(USAGE, usage)]), None);
        assert_eq!(wait(131_026, &[("retry-after", "5")]), None);
        assert_eq!(wait(134_101, &[]), Some(600));
        for nothing in [
            "",
            "[]",
            "{}",
            r#"{"102":[{"estimated_time_to_regain_access":0}]}"#,
            r#"{"102":{"estimated_time_to_regain_access":9}}"#,
            r#"{"102":[{"estimated_time_to_regain_access":-9}]}"#,
        ] {
            assert_eq!(wait(80007, &[(USAGE, nothing)]), None, "{nothing}");
        }
        let long = r#"{"1":[{"estimated_time_to_regain_access":9223372036854775807}]}"#;
        assert_eq!(wait(4, &[(USAGE, long)]), Some(3600));
    }

    fn any_body() -> impl Strategy<Value = String> {
        let code = prop_oneof![
            Just("131056".to_owned()),
            (0_i64..200_000).prop_map(|code| code.to_string()),
            any::<i64>().prop_map(|code| code.to_string()),
            "\"[0-9]{1,25}\"|null|true|1e9|\\[\\]|\\{\\}",
        ];
        let text = r#""([ !#-\[\]-~é]|\\u[0-9a-f]{4}){0,600}""#;
        let object = (code, text, text, any::<bool>()).prop_map(|(code, text, id, accepted)| {
            if accepted {
                format!(r#"{{"messages":[{{"id":{id}}}],"contacts":[{{"wa_id":{text}}}]}}"#)
            } else {
                format!(r#"{{"error":{{"message":{text},"code":{code},"error_data":{{"details":{id}}}}}}}"#)
            }
        });
        let cut = (object.clone(), 0_usize..100)
            .prop_map(|(body, length)| body.chars().take(length).collect());
        prop_oneof![object, cut, "\\PC{0,200}"]
    }

    proptest! {
        #[test]
        fn whatever_meta_answers_means_something_bounded(
            status in 100_u16..=999,
            usage in "[ -~]{0,80}",
            body in proptest::option::of(any_body()),
        ) {
            match told(status, &[(USAGE, &usage)], body.as_deref()) {
                Outcome::Accepted { provider_message_id, .. } => {
                    prop_assert!((200..300).contains(&status));
                    let length = provider_message_id.chars().count();
                    prop_assert!((1..=MAX_PROVIDER_ID).contains(&length));
                }
                Outcome::Failed(failure) => {
                    prop_assert_eq!(failure.http_status, Some(status));
                    prop_assert!((1..=MAX_DETAIL).contains(&failure.detail.chars().count()));
                    prop_assert!(!failure.detail.chars().any(char::is_control));
                    prop_assert!(failure.retry_after.is_none_or(|wait| wait <= MAX_RETRY_AFTER));
                    prop_assert!(failure.retryable || !failure.ambiguous);
                    prop_assert_eq!(failure.counts, failure.kind != ErrorKind::Unauthorized);
                }
            }
        }
    }
}

//! What comes from outside: bounded, parsed, validated, and refused with an answer that names the field.

use std::borrow::Cow;
use std::str::FromStr;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::{Bytes, BytesMut};
use chrono::{DateTime, Datelike, SubsecRound, Utc};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use validator::{Validate, ValidationError, ValidationErrors, ValidationErrorsKind};

use super::fields::{Fields, is_unspeakable};
use super::once::Once;
use super::problem::{FieldError, Problem};
use crate::channel::Channel;
use crate::edge::has_no_coding;
use crate::json::repaired;

/// The largest body that is taken in, in bytes.
pub const MAX_BODY: usize = 64 * 1024;
/// How much of a larger one is read and thrown away, so that the caller reads the answer, in bytes.
const MAX_DISCARDED: usize = 1024 * 1024;
/// How long a body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest event id or participant, in characters.
pub const MAX_NAME: usize = 160;
/// The longest `clientMessageId`, in characters.
pub const MAX_CLIENT_MESSAGE_ID: usize = 128;
/// The longest outbound text, in characters (Unicode scalar values).
pub const MAX_TEXT: usize = 4096;

/// What has come of a body, at most [`MAX_BODY`] of it, and what is wrong with the whole.
#[derive(Debug)]
pub struct Arrived {
    /// As it came.
    pub body: Bytes,
    /// Why there is no more.
    pub problem: Option<Problem>,
}

/// Reads a body.
pub async fn read(mut body: Body) -> Arrived {
    let deadline = tokio::time::Instant::now() + BODY_TIMEOUT;
    let mut kept = BytesMut::new();
    let mut length = 0;
    let problem = loop {
        let frame = match tokio::time::timeout_at(deadline, body.frame()).await {
            Err(_) => break Some(Problem::too_slow("the body did not arrive in time")),
            Ok(Some(Err(_))) => break Some(Problem::invalid("the body broke off")),
            Ok(Some(Ok(frame))) => frame,
            Ok(None) if length <= MAX_BODY => break None,
            Ok(None) => break Some(too_large()),
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        length += data.len();
        let room = MAX_BODY - kept.len();
        kept.extend_from_slice(&data[..data.len().min(room)]);
        if length > MAX_DISCARDED {
            break Some(too_large());
        }
    };
    Arrived {
        body: kept.freeze(),
        problem,
    }
}

fn too_large() -> Problem {
    Problem::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "too_large",
        format!("the body is larger than {MAX_BODY} bytes"),
    )
}

/// A JSON body, validated.
#[derive(Debug)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned + Validate, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let Arrived { body, problem } = read(body).await;
        match problem {
            Some(problem) => Err(problem),
            None => json(&parts.headers, &body, None).map(Self),
        }
    }
}

/// Parses a JSON body and validates it. What no text can hold is U+FFFD in the field for which that is `forgiven`; any other is
/// refused for it.
pub fn json<T: DeserializeOwned + Validate>(
    headers: &HeaderMap,
    body: &[u8],
    forgiven: Option<&str>,
) -> Result<T, Problem> {
    if !has_no_coding(headers) {
        return Err(Problem::unsupported_coding());
    }
    if !is_json(headers) {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            "the content type must be application/json",
        ));
    }
    let readable = repaired(body);
    // Else a list would be read as the fields in their order, and a text be repeated in what is said about it.
    if !readable.trim_ascii_start().starts_with('{') {
        return Err(Problem::invalid("the body is not a JSON object"));
    }
    let mut once = Once::default();
    let mut deserializer = serde_json::Deserializer::from_str(&readable);
    let value = T::deserialize(once.of(&mut deserializer))
        .map_err(|error| not_read::<T>(&readable, &error))?;
    deserializer
        .end()
        .map_err(|error| Problem::invalid(format!("the body is not JSON: {error}")))?;
    let mut errors = Vec::new();
    if let Cow::Owned(_) = readable {
        let is_refused = |name: &str| once.known.contains(&name) && forgiven != Some(name);
        errors.extend(
            Fields::of(body)
                .filter(|field| is_refused(&field.name) && is_unspeakable(field.value))
                .map(|field| {
                    FieldError::new(field.name, "must not have NUL or half a surrogate pair")
                }),
        );
    }
    checked(value, &once, errors)
}

/// What is wrong with a body that cannot be read. It is read again for that, since to know all the way where one is costs too much
/// for those that can.
fn not_read<T: DeserializeOwned>(readable: &str, error: &serde_json::Error) -> Problem {
    let mut once = Once::default();
    let mut deserializer = serde_json::Deserializer::from_str(readable);
    let again: Result<T, _> = serde_path_to_error::deserialize(once.of(&mut deserializer));
    match again {
        Err(again) if error.is_data() && again.path().iter().len() > 0 => {
            Problem::field(&again.path().to_string(), type_error(again.inner()))
        }
        _ => Problem::invalid(format!(
            "the body is not a JSON object of this kind: {error}"
        )),
    }
}

/// The value, if neither its own validation nor anybody else has found anything: else all that was found, a line a field.
fn checked<T: Validate>(value: T, once: &Once, mut errors: Vec<FieldError>) -> Result<T, Problem> {
    let twice = once.repeated.iter();
    errors.splice(
        0..0,
        twice.map(|name| FieldError::new(*name, "must not be there twice")),
    );
    if let Err(invalid) = value.validate() {
        errors.extend(named(&invalid));
    }
    if errors.is_empty() {
        return Ok(value);
    }
    Err(Problem::fields(errors))
}

/// Says what is wrong without repeating the value: that may be a message's text.
fn type_error(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let expected = message
        .rsplit_once("expected ")
        .map_or("another type", |(_, rest)| rest);
    let expected = expected.split(" at line").next().unwrap_or(expected);
    format!("must be {expected}")
}

fn is_json(headers: &HeaderMap) -> bool {
    let essence = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .map(|essence| essence.trim().as_bytes());
    essence.is_some_and(|essence| {
        let begins = |with: &[u8]| {
            let start = essence.get(..with.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(with))
        };
        let ends = |with: &[u8]| {
            let end = essence.len().checked_sub(with.len());
            end.is_some_and(|end| essence[end..].eq_ignore_ascii_case(with))
        };
        essence.eq_ignore_ascii_case(b"application/json")
            || (begins(b"application/") && ends(b"+json"))
    })
}

/// Query parameters, validated.
#[derive(Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned + Validate, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        let deserializer =
            serde_urlencoded::Deserializer::new(form_urlencoded::parse(query.as_bytes()));
        let mut once = Once::default();
        let deserializer = once.of(deserializer);
        let value: T = serde_path_to_error::deserialize(deserializer).map_err(|error| {
            let field = error.path().to_string();
            if field == "." {
                Problem::invalid(format!("the query cannot be read: {}", error.inner()))
            } else {
                Problem::field(&field, format!("cannot be read: {}", error.inner()))
            }
        })?;
        checked(value, &once, Vec::new()).map(Self)
    }
}

/// The id in a path; any other spelling names nothing.
#[derive(Debug)]
pub struct Id<T>(pub T);

impl<T: FromStr, S: Send + Sync> FromRequestParts<S> for Id<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let unknown = || Problem::not_found("nothing has this id");
        let params = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|_| unknown())?;
        let (_, id) = params.iter().next().ok_or_else(unknown)?;
        id.parse().map(Self).map_err(|_| unknown())
    }
}

/// All invalid fields, in the API's spelling.
fn named(errors: &ValidationErrors) -> Vec<FieldError> {
    let mut fields = Vec::new();
    for (field, kind) in errors.errors() {
        let ValidationErrorsKind::Field(errors) = kind else {
            continue;
        };
        for error in errors {
            let message = error.message.clone().unwrap_or_else(|| error.code.clone());
            fields.push(FieldError::new(camel_case(field), message));
        }
    }
    fields
}

fn camel_case(snake_case: &str) -> String {
    let mut words = snake_case.split('_');
    let mut name = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        name.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        name.push_str(letters.as_str());
    }
    name
}

fn refuse(message: impl Into<std::borrow::Cow<'static, str>>) -> ValidationError {
    ValidationError::new("invalid").with_message(message.into())
}

/// Validates a channel.
pub fn channel(name: &str) -> Result<(), ValidationError> {
    match Channel::parse(name) {
        Some(_) => Ok(()),
        None => Err(refuse("must be whatsapp or instagram")),
    }
}

/// Validates an event id or a participant.
pub fn name(name: &str) -> Result<(), ValidationError> {
    short(name, MAX_NAME)
}

/// Validates a `clientMessageId`.
pub fn client_message_id(id: &str) -> Result<(), ValidationError> {
    short(id, MAX_CLIENT_MESSAGE_ID)
}

fn short(name: &str, longest: usize) -> Result<(), ValidationError> {
    if !(1..=longest).contains(&name.chars().count()) {
        return Err(refuse(format!("must have 1 to {longest} characters")));
    }
    if name.chars().any(char::is_control) {
        return Err(refuse("must not have control characters"));
    }
    Ok(())
}

/// Validates an inbound text; the limit of the body is its limit.
pub fn inbound_text(text: &str) -> Result<(), ValidationError> {
    if text.is_empty() {
        return Err(refuse("must not be empty"));
    }
    Ok(())
}

/// Validates an outbound text.
pub fn outbound_text(text: &str) -> Result<(), ValidationError> {
    if !(1..=MAX_TEXT).contains(&text.chars().count()) {
        return Err(refuse(format!("must have 1 to {MAX_TEXT} characters")));
    }
    Ok(())
}

/// Validates a whole number of a query.
pub fn within<const MIN: u32, const MAX: u32>(text: &str) -> Result<(), ValidationError> {
    match text.parse() {
        Ok(number) if (MIN..=MAX).contains(&number) => Ok(()),
        _ => Err(refuse(format!("must be {MIN} to {MAX}"))),
    }
}

/// Validates a time.
pub fn timestamp(text: &str) -> Result<(), ValidationError> {
    match parse_timestamp(text) {
        Some(_) => Ok(()),
        None => Err(refuse(
            "must be a time as in RFC 3339, such as 2025-01-01T10:00:00Z, from year 1 to 9999",
        )),
    }
}

/// The time of an RFC 3339 text, cut to milliseconds; its year in UTC is 1 to 9999.
#[must_use]
pub fn parse_timestamp(text: &str) -> Option<DateTime<Utc>> {
    let time = DateTime::parse_from_rfc3339(text)
        .ok()?
        .to_utc()
        .trunc_subsecs(3);
    (1..=9999).contains(&time.year()).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_named_as_in_the_api() {
        assert_eq!(camel_case("client_message_id"), "clientMessageId");
        assert_eq!(camel_case("to"), "to");
    }

    #[test]
    fn a_time_is_cut_to_milliseconds_and_stays_within_four_digits() {
        let cut = parse_timestamp("2025-01-01T12:00:00.123999+02:00").unwrap();
        assert_eq!(cut.to_rfc3339(), "2025-01-01T10:00:00.123+00:00");
        let first = parse_timestamp("0000-12-31T23:00:00-01:00").unwrap();
        assert_eq!(first.to_rfc3339(), "0001-01-01T00:00:00+00:00");
        for text in [
            "",
            "2025-01-01",
            "2025-01-01T10:00:00",
            "1735725600",
            "9999-12-31T23:59:59-01:00",
            "0000-01-01T00:00:00+01:00",
            "0000-12-31T23:59:59.999Z",
            "0001-01-01T00:59:59.999+01:00",
            "+12025-01-01T10:00:00Z",
        ] {
            assert!(parse_timestamp(text).is_none(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn every_time_is_cut_to_milliseconds(micros in -62_135_596_800_000_000_i64..=253_402_300_799_999_999) {
            let at = DateTime::from_timestamp_micros(micros).unwrap();
            let cut = parse_timestamp(&at.to_rfc3339()).unwrap();
            proptest::prop_assert_eq!(cut.timestamp_millis(), at.trunc_subsecs(3).timestamp_millis());
            proptest::prop_assert_eq!(cut.timestamp_subsec_micros() % 1000, 0);
        }

        #[test]
        fn what_is_read_as_a_time_has_four_digits_of_year(
            text in "\\PC{0,40}|[+-]?[0-9]{4,5}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{1,12})?(Z|[+-][0-9]{2}:[0-9]{2})",
        ) {
            if let Some(time) = parse_timestamp(&text) {
                proptest::prop_assert!((1..=9999).contains(&time.year()));
                proptest::prop_assert_eq!(time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true).len(), 24);
            }
        }
    }
}

//! Requests as types: read, parsed, and refused with an answer that names every faulty field.

use std::borrow::Cow;
use std::str::FromStr;

use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use heck::ToLowerCamelCase;
use serde::de::DeserializeOwned;
use validator::{Validate, ValidationErrors};

use super::body::{self, Received};
use super::once::Once;
use super::problem::{FieldError, Problem, kind};
use super::route::BodyLimit;
use crate::edge::has_no_coding;
use crate::json::fields::{Fields, is_unspeakable};
use crate::json::repaired;

/// A JSON body whose fields are all valid.
#[derive(Debug)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned + Validate, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        Self::fitting(request, |_| Vec::new()).await
    }
}

impl<T: DeserializeOwned + Validate> Json<T> {
    /// The same, where more than the fields themselves decides what is valid: `misfits` tells those
    /// that do not fit, and all faults are named together.
    pub async fn fitting(
        request: Request,
        misfits: impl FnOnce(&T) -> Vec<FieldError>,
    ) -> Result<Self, Problem> {
        let (headers, bytes) = receive(request).await?;
        read(&headers, &bytes, None, misfits).map(Self)
    }
}

/// The same, where a request may come without a body.
#[derive(Debug)]
pub struct OptionalJson<T>(pub Option<T>);

impl<T: DeserializeOwned + Validate, S: Send + Sync> FromRequest<S> for OptionalJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let (headers, bytes) = receive(request).await?;
        if bytes.is_empty() {
            return Ok(Self(None));
        }
        json(&headers, &bytes, None).map(|value| Self(Some(value)))
    }
}

async fn receive(request: Request) -> Result<(HeaderMap, Bytes), Problem> {
    let (parts, body) = request.into_parts();
    let limit = BodyLimit::of(&parts.extensions);
    let Received { bytes, problem } = body::read(body, limit).await;
    match problem {
        Some(problem) => Err(problem),
        None => Ok((parts.headers, bytes)),
    }
}

/// Parses a JSON body whose fields are all [`super::field::Parsed`].
///
/// A character that no text can hold (U+0000, half a surrogate pair) becomes U+FFFD in the field
/// `repairable`; any other field is refused for it.
pub fn json<T: DeserializeOwned + Validate>(
    headers: &HeaderMap,
    body: &[u8],
    repairable: Option<&str>,
) -> Result<T, Problem> {
    read(headers, body, repairable, |_| Vec::new())
}

fn read<T: DeserializeOwned + Validate>(
    headers: &HeaderMap,
    body: &[u8],
    repairable: Option<&str>,
    misfits: impl FnOnce(&T) -> Vec<FieldError>,
) -> Result<T, Problem> {
    if !has_no_coding(headers) {
        return Err(Problem::unsupported_coding());
    }
    if !is_json(headers) {
        return Err(Problem::of(
            kind::UNSUPPORTED_MEDIA_TYPE,
            "the content type must be application/json",
        ));
    }
    let readable = repaired(body);
    // serde would read a list as the fields in their order, and repeat a text in its error.
    if !readable.trim_ascii_start().starts_with('{') {
        return Err(Problem::invalid("the body is not a JSON object"));
    }
    let mut once = Once::default();
    let mut deserializer = serde_json::Deserializer::from_str(&readable);
    let value = T::deserialize(once.of(&mut deserializer))
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|error| Problem::invalid(format!("the body is not JSON: {error}")))?;
    let mut errors = Vec::new();
    if let Cow::Owned(_) = readable {
        let may_be_repaired = |name: &str| !once.known.contains(&name) || repairable == Some(name);
        let broken = Fields::of(body)
            .filter(|field| !may_be_repaired(&field.name) && is_unspeakable(field.value));
        let message = "must not have NUL or half a surrogate pair";
        errors.extend(broken.map(|field| FieldError::new(field.name, message)));
    }
    valid(value, &once, errors, misfits)
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

/// The parameters of a query, all of them valid.
#[derive(Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned + Validate, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        let pairs = form_urlencoded::parse(query.as_bytes());
        let mut once = Once::default();
        let value = T::deserialize(once.of(serde_urlencoded::Deserializer::new(pairs)))
            .map_err(|error| Problem::invalid(format!("the query cannot be read: {error}")))?;
        valid(value, &once, Vec::new(), |_| Vec::new()).map(Self)
    }
}

/// The request, if all of its fields are valid and none is there twice; else every fault.
fn valid<T: Validate>(
    request: T,
    once: &Once,
    broken: Vec<FieldError>,
    misfits: impl FnOnce(&T) -> Vec<FieldError>,
) -> Result<T, Problem> {
    let twice = once.repeated.iter();
    let mut errors: Vec<FieldError> = twice
        .map(|name| FieldError::new(*name, "must not be there twice"))
        .collect();
    errors.extend(broken);
    if let Err(invalid) = request.validate() {
        errors.extend(named(&invalid));
    }
    errors.extend(misfits(&request));
    if errors.is_empty() {
        return Ok(request);
    }
    Err(Problem::fields(errors))
}

/// What is wrong with the fields, named in the API's spelling.
fn named(errors: &ValidationErrors) -> impl Iterator<Item = FieldError> {
    errors
        .field_errors()
        .into_iter()
        .flat_map(|(field, errors)| {
            let parts: Vec<_> = field.split('.').map(str::to_lower_camel_case).collect();
            let name = parts.join(".");
            errors
                .iter()
                .map(move |error| FieldError::new(name.clone(), error.to_string()))
        })
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

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;
    use crate::http::field::{Fault, Field, Parsed, identifier, parsed};

    #[derive(Debug)]
    struct OrderId(String);

    impl Field for OrderId {
        fn parse(text: &str) -> Result<Self, Fault> {
            identifier(text, 8).map(Self)
        }
    }

    #[derive(Debug, serde::Deserialize, Validate)]
    #[serde(rename_all = "camelCase")]
    struct Order {
        #[validate(custom(function = parsed))]
        order_id: Parsed<OrderId>,
        #[validate(custom(function = parsed))]
        is_paid: Option<Parsed<bool>>,
    }

    fn order(body: &str) -> Result<Order, Problem> {
        let json = HeaderValue::from_static("application/json");
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, json)]);
        super::json(&headers, body.as_bytes(), None)
    }

    #[test]
    fn all_faults_of_a_body_are_named_together_and_none_repeats_a_value() {
        let missing = "is required";
        let not_text = "must be a string";
        let twice = "must not be there twice";
        for (body, expected) in [
            ("{}", &[("orderId", missing)][..]),
            (r#"{"orderId":null,"isPaid":null}"#, &[("orderId", missing)]),
            (
                r#"{"orderId":4711,"isPaid":["4711",{"a":1}]}"#,
                &[("isPaid", not_text), ("orderId", not_text)],
            ),
            (
                r#"{"orderId":{"a":["4711"]},"isPaid":"4711"}"#,
                &[("isPaid", "must be true or false"), ("orderId", not_text)],
            ),
            (
                r#"{"orderId":-4711.5,"isPaid":true}"#,
                &[("isPaid", not_text), ("orderId", not_text)],
            ),
            (
                r#"{"orderId":"4711-4711","isPaid":"false"}"#,
                &[("orderId", "must have 1 to 8 characters")],
            ),
            (
                r#"{"orderId":"\u0000","isPaid":"true","isPaid":4711}"#,
                &[
                    ("isPaid", twice),
                    ("orderId", "must not have NUL or half a surrogate pair"),
                ],
            ),
        ] {
            let errors = order(body).unwrap_err().errors;
            let errors: Vec<_> = errors
                .iter()
                .map(|error| (&*error.field, &*error.message))
                .collect();
            assert_eq!(errors, expected, "{body}");
        }
    }

    #[test]
    fn a_valid_body_gives_its_values() {
        let order = order(r#"{"x":[1],"isPaid":"true","orderId":"\u0041 47"}"#).unwrap();
        assert_eq!(order.order_id.value().0, "A 47");
        assert!(order.is_paid.unwrap().value());
    }

    #[test]
    fn what_follows_a_fault_must_be_json_too() {
        for body in [r#"{"orderId":[1,{"a":}]}"#, r#"{"orderId":1e999}"#, "{} {}"] {
            let problem = order(body).unwrap_err();
            assert!(problem.errors.is_empty(), "{body}");
            assert!(problem.detail.starts_with("the body is not JSON"), "{body}");
        }
    }
}

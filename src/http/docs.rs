//! The OpenAPI document: the handlers describe their successes, and what every operation of a kind can answer is added here.

use axum::http::StatusCode;
use utoipa::OpenApi;
use utoipa::openapi::path::{Operation, ParameterIn};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, HeaderBuilder, Ref, RefOr, Response, ResponseBuilder};

use super::problem::ProblemBody;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "gateway",
        description = "A messaging gateway between Meta-like channels and a customer inbox.\n\nClients must accept new fields and new enum values in answers. Every error is `application/problem+json`, with a `code` for programs. A request that was answered with 503 was not stored, or is not known to be: repeating it is always safe.",
    ),
    components(schemas(ProblemBody)),
    tags(
        (name = "webhooks", description = "What the provider calls"),
        (name = "messages", description = "Sending, and looking after what failed"),
        (name = "inbox", description = "Conversations and their messages"),
        (name = "operations", description = "Health and metrics"),
    ),
)]
struct Document;

/// The document without its operations.
#[must_use]
pub fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

/// Adds what every operation of a kind can answer, and the ways to prove who calls.
#[must_use]
pub fn complete(mut document: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
    if let Some(components) = &mut document.components {
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("One of `API_KEYS`; needed only when those are set"))
            .build();
        components.add_security_scheme("apiKey", SecurityScheme::Http(bearer));
    }
    for (path, item) in &mut document.paths.paths {
        for operation in [&mut item.get, &mut item.post].into_iter().flatten() {
            complete_operation(path, operation);
        }
    }
    document
}

fn complete_operation(path: &str, operation: &mut Operation) {
    let parameters = operation.parameters.as_deref().unwrap_or_default();
    let has_query = parameters
        .iter()
        .any(|parameter| matches!(parameter, RefOr::T(parameter) if parameter.parameter_in == ParameterIn::Query));
    let has_id = path.contains("{id}");
    let has_body = operation.request_body.is_some();
    let is_webhook = path.starts_with("/webhooks/");
    let is_probe = matches!(path, "/health" | "/ready");
    let is_open = is_webhook || is_probe;

    let mut add = |status: StatusCode, description: &str| {
        let responses = &mut operation.responses.responses;
        responses
            .entry(status.as_u16().to_string())
            .or_insert_with(|| RefOr::T(problem(status, description)));
    };
    if has_query || has_body {
        add(
            StatusCode::BAD_REQUEST,
            "`invalid_request`: `errors` names all fields that are missing or invalid.",
        );
    }
    if has_id {
        add(StatusCode::NOT_FOUND, "`not_found`: nothing has this id.");
    }
    if path.ends_with("/retry") {
        add(StatusCode::CONFLICT, "`not_failed`: it has not failed.");
    }
    if path.ends_with("/cancel") {
        add(
            StatusCode::CONFLICT,
            "`not_cancelable`: it is sent, or an attempt is in flight.",
        );
    }
    if has_body {
        add(
            StatusCode::REQUEST_TIMEOUT,
            "`invalid_request`: the body did not arrive in time.",
        );
        add(
            StatusCode::PAYLOAD_TOO_LARGE,
            "`too_large`: the body is larger than 64 KiB.",
        );
        add(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "`unsupported_media_type`: the content type is not `application/json`.",
        );
    }
    if is_webhook {
        add(
            StatusCode::UNAUTHORIZED,
            "`invalid_signature`: a webhook secret is set, and the signature is missing or wrong.",
        );
    } else if !is_probe {
        add(
            StatusCode::UNAUTHORIZED,
            "`unauthorized`: keys are set, and none of them was given.",
        );
    }
    if path != "/health" {
        add(
            StatusCode::SERVICE_UNAVAILABLE,
            "`database_unavailable`, `overloaded`: not done, or not known to be; repeating is safe.",
        );
        add(
            StatusCode::INTERNAL_SERVER_ERROR,
            "`internal`: a mistake of the gateway.",
        );
    }
    if !is_open {
        let none: [String; 0] = [];
        operation.security = Some(vec![
            SecurityRequirement::new("apiKey", none),
            SecurityRequirement::default(),
        ]);
    }
}

fn problem(status: StatusCode, description: &str) -> Response {
    let schema = Ref::from_schema_name("Problem");
    let code = description
        .trim_start_matches('`')
        .split('`')
        .next()
        .unwrap_or_default();
    let example = serde_json::json!({
        "type": "about:blank",
        "title": status.canonical_reason(),
        "status": status.as_u16(),
        "code": code,
        "detail": description,
        "requestId": "req_01941f297c0070008000000000000003",
    });
    let content = ContentBuilder::new()
        .schema(Some(schema))
        .example(Some(example))
        .build();
    let mut response = ResponseBuilder::new()
        .description(description)
        .content("application/problem+json", content);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        let seconds = HeaderBuilder::new().description(Some("seconds")).build();
        response = response.header("Retry-After", seconds);
    }
    response.build()
}

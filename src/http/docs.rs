//! The OpenAPI document: the handlers describe their successes, and what every operation of a kind can answer is added here. It is
//! the same for everybody: what this very process demands of its callers is nobody's business.

use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::get;
use bytes::Bytes;
use utoipa::OpenApi;
use utoipa::openapi::path::{Operation, ParameterIn};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{
    Components, ContentBuilder, Header, HeaderBuilder, ObjectBuilder, Ref, RefOr, Response,
    ResponseBuilder, Type,
};
use utoipa_swagger_ui::{self as swagger_ui, SwaggerUi};

use super::key::{listed, scopes_for};
use super::problem::ProblemBody;

const KEY: &str = "apiKey";
const SIGNATURE: &str = "webhookSignature";
const REQUEST_ID: &str = "X-Request-Id";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "gateway",
        description = "A messaging gateway between Meta-like channels and a customer inbox.\n\nClients must accept new fields and new enum values in answers. Every error is `application/problem+json`, with a `code` for programs. A request that was answered with 503 was not stored, or is not known to be: repeating it is always safe.\n\nEvery answer carries `X-Request-Id`: the caller's, if it is visible ASCII of at most 128 characters, else a new one. The log has it in every line about the request. Unknown fields and query parameters are ignored; a known one that is given twice is refused. A trailing slash in a path makes no difference.",
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

/// The page of the document, and the document. All of it is in memory once, whoever reads how much of it.
pub fn page<S: Clone + Send + Sync + 'static>(document: &utoipa::openapi::OpenApi) -> Router<S> {
    const DOCUMENT: &str = "/api/openapi.json";
    // Without a validator: the page would tell a stranger where this gateway is.
    let config = swagger_ui::Config::from(DOCUMENT).validator_url("none");
    let page: Router<S> = SwaggerUi::new("/api").config(config).into();
    let document = serde_json::to_vec(document).map(Bytes::from);
    let document = document.map_err(|error| {
        tracing::error!(%error, "the OpenAPI document cannot be written");
        StatusCode::INTERNAL_SERVER_ERROR
    });
    let get_document = async move || {
        let json = [(header::CONTENT_TYPE, "application/json")];
        document.clone().map(|document| (json, document))
    };
    page.route(DOCUMENT, get(get_document))
}

/// The document without its operations.
#[must_use]
pub fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

/// Adds what every operation of a kind can answer, and the ways to prove who calls; what there is no secret for needs no proof.
#[must_use]
pub fn complete(mut document: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
    complete_components(document.components.get_or_insert_default());
    for (path, item) in &mut document.paths.paths {
        for operation in [&mut item.get, &mut item.post].into_iter().flatten() {
            add_problems(path, operation);
            operation.security = security(path);
            for response in operation.responses.responses.values_mut() {
                if let RefOr::T(response) = response {
                    let header = Ref::new(format!("#/components/headers/{REQUEST_ID}"));
                    let headers = &mut response.headers;
                    headers.insert(REQUEST_ID.to_owned(), RefOr::Ref(header));
                }
            }
        }
    }
    document
}

fn complete_components(components: &mut Components) {
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("The secret of one of `API_KEYS`; needed only when those are set. A key has scopes, of which none implies another: `inbox` for conversations, `send` for sending, `admin` for the metrics. With `inbox` or `admin` a key reads all messages, with `send` alone those that a key of its name has sent; what it reads, it may retry and cancel with `send` or `admin`."))
        .build();
    let signature = ApiKeyValue::with_description(
        "X-Hub-Signature-256",
        "`sha256=` and the hex HMAC-SHA256 of the raw body by one of `WEBHOOK_SECRET`; needed only when those are set.",
    );
    components.add_security_scheme(KEY, SecurityScheme::Http(bearer));
    components.add_security_scheme(SIGNATURE, SecurityScheme::ApiKey(ApiKey::Header(signature)));
    let request_id = described(Type::String, "The id that this request has in the logs.");
    let headers = &mut components.headers;
    headers.insert(REQUEST_ID.to_owned(), RefOr::T(request_id));
}

/// What an operation may demand of its callers, if it ever demands anything: nothing, where there are no secrets.
fn security(path: &str) -> Option<Vec<SecurityRequirement>> {
    let scheme = match path {
        "/health" | "/ready" => return None,
        path if path.starts_with("/webhooks/") => SIGNATURE,
        _ => KEY,
    };
    let none: [String; 0] = [];
    Some(vec![
        SecurityRequirement::new(scheme, none),
        SecurityRequirement::default(),
    ])
}

fn add_problems(path: &str, operation: &mut Operation) {
    let parameters = operation.parameters.as_deref().unwrap_or_default();
    let has_query = parameters
        .iter()
        .any(|parameter| matches!(parameter, RefOr::T(parameter) if parameter.parameter_in == ParameterIn::Query));
    let has_id = path.contains("{id}");
    let has_body = operation.request_body.is_some();
    let is_webhook = path.starts_with("/webhooks/");
    let is_probe = matches!(path, "/health" | "/ready");

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
    if path == "/messages/send" {
        add(
            StatusCode::CONFLICT,
            "`client_message_id_taken`: the record with this `clientMessageId` is none that the key may see.",
        );
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
            "`unsupported_media_type`: the content type is not `application/json`, or the body has a content coding; then the answer has `Accept-Encoding`.",
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
    if !is_probe {
        let lacks = if is_webhook {
            String::new()
        } else {
            format!("the key lacks the scope {}; or ", listed(scopes_for(path)))
        };
        let secret = if is_webhook {
            "webhook secrets"
        } else {
            "keys"
        };
        let description = format!(
            "`forbidden`: {lacks}no {secret} are set, and a web page of another origin asks, or one that calls this machine by another name."
        );
        add(StatusCode::FORBIDDEN, &description);
    }
    if is_probe {
        add(
            StatusCode::FORBIDDEN,
            "`forbidden`: no keys are set, and a web page of another origin asks.",
        );
    }
    if path != "/health" {
        add(
            StatusCode::SERVICE_UNAVAILABLE,
            "`database_unavailable`, `overloaded`: not done, or not known to be; repeating is safe.",
        );
    }
    if !is_probe {
        add(
            StatusCode::INTERNAL_SERVER_ERROR,
            "`internal`: a mistake of the gateway.",
        );
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
        let seconds = described(Type::Integer, "How long to wait, in seconds.");
        response = response.header("Retry-After", seconds);
    }
    if status == StatusCode::UNSUPPORTED_MEDIA_TYPE {
        let coding = described(Type::String, "`identity`, where that is what was wrong.");
        response = response.header("Accept-Encoding", coding);
    }
    if code == "unauthorized" {
        let scheme = described(Type::String, "`Bearer`, and the realm.");
        response = response.header("WWW-Authenticate", scheme);
    }
    response.build()
}

fn described(kind: Type, description: &str) -> Header {
    HeaderBuilder::new()
        .schema(Some(ObjectBuilder::new().schema_type(kind)))
        .description(Some(description))
        .build()
}

//! The OpenAPI document. A handler describes its successes; its security and its problems are added
//! here, from the rules of its route.
//!
//! The document is the same for everybody: a stranger must not learn from it whether this process
//! asks for keys or signatures.

use std::collections::BTreeMap;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::get;
use bytes::Bytes;
use utoipa::OpenApi;
use utoipa::openapi::path::{Operation, ParameterIn, PathItem, Paths};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{
    Components, ContentBuilder, Header, HeaderBuilder, ObjectBuilder, Ref, RefOr, Response,
    ResponseBuilder, Schema, Type,
};
use utoipa_swagger_ui::{self as swagger_ui, SwaggerUi};

use super::key::join_or;
use super::problem::ProblemBody;
use super::problem::kind::{self, Kind};
use super::route::{Access, BodyLimit, Rules};

const KEY: &str = "apiKey";
const COOKIE: &str = "session";
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
        (name = "session", description = "Browsers, which have a cookie in place of a key"),
        (name = "operations", description = "Health and metrics"),
    ),
)]
struct Document;

/// The page of the document, and the document itself, which is in memory only once.
pub fn page<S: Clone + Send + Sync + 'static>(document: &utoipa::openapi::OpenApi) -> Router<S> {
    const DOCUMENT: &str = "/api/openapi.json";
    // Without a validator: the page would tell a stranger where this gateway is.
    let config = swagger_ui::Config::from(DOCUMENT).validator_url("none");
    let page: Router<S> = SwaggerUi::new("/api").config(config).into();
    let document = serde_json::to_vec(document).expect("a document has only names and texts");
    let document = Bytes::from(document);
    let get_document = async move || {
        (
            [(header::CONTENT_TYPE, "application/json")],
            document.clone(),
        )
    };
    page.route(DOCUMENT, get(get_document))
}

/// The document without its operations.
#[must_use]
pub fn document() -> utoipa::openapi::OpenApi {
    let mut document = Document::openapi();
    complete_components(document.components.get_or_insert_default());
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
    let cookie = ApiKeyValue::with_description(
        "gateway_3000",
        "What `POST /session` sets: `__Host-gateway` over https, else `gateway_` and the port. It stands for the key that it was got with, and only for pages of this origin. `Authorization` wins over it.",
    );
    components.add_security_scheme(COOKIE, SecurityScheme::ApiKey(ApiKey::Cookie(cookie)));
    components.add_security_scheme(KEY, SecurityScheme::Http(bearer));
    components.add_security_scheme(SIGNATURE, SecurityScheme::ApiKey(ApiKey::Header(signature)));
    let request_id = described(Type::String, "The id that this request has in the logs.");
    let headers = &mut components.headers;
    headers.insert(REQUEST_ID.to_owned(), RefOr::T(request_id));
}

/// Adds to the operations of a route what its rules say.
pub fn complete(paths: &mut Paths, rules: &Rules) {
    for operation in paths.paths.values_mut().flat_map(operations) {
        operation.security = security(rules.access);
        complete_body(operation);
        for (status, problems) in problems(operation, rules) {
            let responses = &mut operation.responses.responses;
            responses
                .entry(status.as_u16().to_string())
                .or_insert_with(|| RefOr::T(response(status, &problems)));
        }
        for response in operation.responses.responses.values_mut() {
            if let RefOr::T(response) = response {
                let header = Ref::new(format!("#/components/headers/{REQUEST_ID}"));
                let headers = &mut response.headers;
                headers.insert(REQUEST_ID.to_owned(), RefOr::Ref(header));
            }
        }
    }
}

/// A body that may be missing is never `null`.
fn complete_body(operation: &mut Operation) {
    let Some(RefOr::T(body)) = &mut operation.request_body else {
        return;
    };
    for content in body.content.values_mut() {
        if let RefOr::T(content) = content
            && let Some(RefOr::T(Schema::OneOf(schemas))) = &content.schema
        {
            content.schema = schemas.items.first().cloned();
        }
    }
}

/// The operations of a path, whatever their methods.
fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let operations = [
        &mut item.get,
        &mut item.put,
        &mut item.post,
        &mut item.delete,
        &mut item.options,
        &mut item.head,
        &mut item.patch,
        &mut item.trace,
    ];
    operations.into_iter().flatten()
}

/// How callers prove who they are, or nothing where no secret is set.
fn security(access: Access) -> Option<Vec<SecurityRequirement>> {
    let schemes: &[&str] = match access {
        Access::Open | Access::LogIn | Access::Handshake => return None,
        Access::Key(_) => &[KEY, COOKIE],
        Access::Signature => &[SIGNATURE],
    };
    let none: [String; 0] = [];
    let schemes = schemes.iter();
    let mut all: Vec<_> = schemes
        .map(|scheme| SecurityRequirement::new(*scheme, none.clone()))
        .collect();
    all.push(SecurityRequirement::default());
    Some(all)
}

/// Of each status the codes, and when they are answered.
type Problems = BTreeMap<StatusCode, Vec<(&'static str, String)>>;

/// The problems that an operation can answer with.
fn problems(operation: &Operation, rules: &Rules) -> Problems {
    let mut problems = Problems::new();
    let mut tell = |kind: Kind, when: String| {
        let same_status = problems.entry(kind.status).or_default();
        same_status.push((kind.code, when));
    };
    let mut tell_usual = |kind: Kind| tell(kind, kind.when.to_owned());
    let parameters = operation.parameters.as_deref().unwrap_or_default();
    let has_parameter = |place: ParameterIn| {
        parameters.iter().any(|parameter| match parameter {
            RefOr::T(parameter) => parameter.parameter_in == place,
            RefOr::Ref(_) => false,
        })
    };
    let has_body = operation.request_body.is_some();

    if has_body || has_parameter(ParameterIn::Query) {
        tell_usual(kind::INVALID_REQUEST);
    }
    if has_parameter(ParameterIn::Path) {
        tell_usual(kind::NOT_FOUND);
    }
    if has_body {
        tell_usual(kind::TOO_SLOW);
        tell_usual(kind::UNSUPPORTED_MEDIA_TYPE);
    }
    for kind in rules.problems {
        tell_usual(*kind);
    }
    match rules.access {
        Access::Open | Access::Handshake => {}
        Access::Key(_) => tell_usual(kind::UNAUTHORIZED),
        Access::LogIn => tell_usual(Kind {
            when: "`key`, or an `Authorization` that was given too, is none of the keys.",
            ..kind::UNAUTHORIZED
        }),
        Access::Signature => tell_usual(kind::INVALID_SIGNATURE),
    }
    if rules.access != Access::Open {
        tell_usual(kind::DATABASE_UNAVAILABLE);
        tell_usual(kind::OVERLOADED);
        tell_usual(kind::INTERNAL);
    }
    if has_body {
        tell(kind::TOO_LARGE, larger_than(rules.body_limit));
    }
    tell(kind::FORBIDDEN, forbidden(rules.access));
    problems
}

fn larger_than(BodyLimit(bytes): BodyLimit) -> String {
    const KIB: usize = 1024;
    const MIB: usize = 1024 * KIB;
    let size = if bytes.is_multiple_of(MIB) {
        format!("{} MiB", bytes / MIB)
    } else {
        format!("{} KiB", bytes / KIB)
    };
    format!("the body is larger than {size}.")
}

fn forbidden(access: Access) -> String {
    let (lacks, secrets) = match access {
        Access::Open => {
            return "no keys are set, and a web page of another origin asks.".to_owned();
        }
        Access::Handshake => return "the mode or the token is wrong.".to_owned(),
        Access::LogIn => {
            return "a web page of another origin asks; or there is a cookie, and nothing says which page asks.".to_owned();
        }
        Access::Key(scopes) => (
            format!(
                "the key lacks the scope {}; or the request is by cookie, and not from a page of this origin; or ",
                join_or(scopes)
            ),
            "keys",
        ),
        Access::Signature => (String::new(), "webhook secrets"),
    };
    format!(
        "{lacks}no {secrets} are set, and a web page of another origin asks, or one that calls this machine by another name."
    )
}

/// The codes of a status in front of when they are answered; what they have in common is said once.
fn description(problems: &[(&str, String)]) -> String {
    let mut texts = Vec::new();
    for same in problems.chunk_by(|(_, when), (_, next)| when == next) {
        let codes: Vec<String> = same.iter().map(|(code, _)| format!("`{code}`")).collect();
        let when = same.first().map_or("", |(_, when)| when);
        texts.push(format!("{}: {when}", codes.join(", ")));
    }
    texts.join(" ")
}

/// The response for the problems of one status; its example has the code of the first.
fn response(status: StatusCode, problems: &[(&'static str, String)]) -> Response {
    let code = problems.first().map_or("", |(code, _)| code);
    let description = description(problems);
    let example = serde_json::json!({
        "type": "about:blank",
        "title": status.canonical_reason(),
        "status": status.as_u16(),
        "code": code,
        "detail": description,
        "requestId": "req_01941f297c0070008000000000000003",
    });
    let content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name("Problem")))
        .example(Some(example))
        .build();
    let mut response = ResponseBuilder::new()
        .description(description)
        .content("application/problem+json", content);
    if [
        StatusCode::SERVICE_UNAVAILABLE,
        StatusCode::TOO_MANY_REQUESTS,
    ]
    .contains(&status)
    {
        let seconds = described(Type::Integer, "How long to wait, in seconds.");
        response = response.header("Retry-After", seconds);
    }
    if status == StatusCode::UNSUPPORTED_MEDIA_TYPE {
        let coding = described(Type::String, "`identity`, where that is what was wrong.");
        response = response.header("Accept-Encoding", coding);
    }
    if code == kind::UNAUTHORIZED.code {
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

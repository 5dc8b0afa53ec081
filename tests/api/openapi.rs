//! The OpenAPI document: it has the routes of the contract, no other, and says of each what is
//! true.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::whatsapp::CONNECTED;
use crate::support::{System, hello};

/// The routes of the contract, beside those of the document itself.
pub const ROUTES: [(&str, &str); 23] = [
    ("POST", "/webhooks/mock-meta"),
    ("GET", "/webhooks/whatsapp"),
    ("POST", "/webhooks/whatsapp"),
    ("POST", "/messages/send"),
    ("GET", "/messages/{id}"),
    ("GET", "/messages/{id}/media"),
    ("GET", "/messages"),
    ("POST", "/messages/{id}/retry"),
    ("POST", "/messages/{id}/cancel"),
    ("GET", "/conversations"),
    ("GET", "/conversations/{id}"),
    ("POST", "/conversations/{id}/read"),
    ("POST", "/conversations/{id}/close"),
    ("POST", "/conversations/{id}/reopen"),
    ("POST", "/conversations/{id}/archive"),
    ("POST", "/conversations/{id}/unarchive"),
    ("POST", "/session"),
    ("GET", "/session"),
    ("DELETE", "/session"),
    ("GET", "/events"),
    ("GET", "/health"),
    ("GET", "/ready"),
    ("GET", "/metrics"),
];

async fn document(system: &System) -> Value {
    let answer = system.client.get("/api/openapi.json").await;
    assert!(
        answer
            .header("content-type")
            .unwrap()
            .starts_with("application/json")
    );
    answer.expect(200)
}

/// Each operation of the document, with its method and path.
fn operations(document: &Value) -> Vec<(String, String, &Value)> {
    let paths = document["paths"].as_object().unwrap().iter();
    let operations = paths.flat_map(|(path, item)| {
        let methods = item.as_object().unwrap().iter();
        methods.map(move |(method, operation)| (method.to_uppercase(), path.clone(), operation))
    });
    operations.collect()
}

/// What a reference refers to, or the thing itself.
fn resolve<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    // A body that may be missing is of the schema, or null.
    let value = value["oneOf"].get(0).unwrap_or(value);
    match value["$ref"].as_str() {
        Some(reference) => document.pointer(&reference[1..]).unwrap(),
        None => value,
    }
}

fn names(list: &Value) -> BTreeSet<String> {
    let list = list.as_array().unwrap().iter();
    list.map(|name| name.as_str().unwrap().to_owned()).collect()
}

fn keys(object: &Value) -> BTreeSet<String> {
    object.as_object().unwrap().keys().cloned().collect()
}

#[tokio::test]
async fn the_document_has_exactly_the_routes_of_the_contract() {
    let system = System::start().await;
    let document = document(&system).await;
    let documented: BTreeSet<_> = operations(&document)
        .into_iter()
        .map(|(method, path, _)| (method, path))
        .collect();
    let promised: BTreeSet<_> = ROUTES
        .map(|(method, path)| (method.into(), path.into()))
        .into();
    assert_eq!(documented, promised);
}

#[tokio::test]
async fn every_documented_operation_is_there() {
    let system = System::start().await;
    let document = document(&system).await;
    for (method, path, operation) in operations(&document) {
        let id = "msg_01941f297c0070008000000000000001";
        let url = system.client.url(&path.replace("{id}", id));
        let request = system
            .client
            .http
            .request(Method::from_bytes(method.as_bytes()).unwrap(), url);
        let answer = system.client.call(request).await.unwrap();
        assert!(
            answer.status < 500 && answer.status != 405,
            "{method} {path}: {}",
            answer.text
        );
        assert_ne!(answer.json()["detail"], "no such route", "{method} {path}");
        let documented = operation["responses"].get(answer.status.to_string());
        assert!(
            documented.is_some(),
            "{method} {path} does not document {}",
            answer.status
        );
    }
}

#[tokio::test]
async fn each_operation_has_an_id_of_its_own_and_a_summary() {
    let system = System::start().await;
    let document = document(&system).await;
    let mut ids = BTreeSet::new();
    for (method, path, operation) in operations(&document) {
        let id = operation["operationId"].as_str().unwrap();
        assert!(ids.insert(id.to_owned()), "{id} is there twice");
        assert!(
            operation["summary"].is_string(),
            "{method} {path} has no summary"
        );
    }
}

#[tokio::test]
async fn every_error_is_documented_as_a_problem() {
    let system = System::start().await;
    let document = document(&system).await;
    let mut errors = 0;
    for (method, path, operation) in operations(&document) {
        for (status, response) in operation["responses"].as_object().unwrap() {
            if status.as_str() < "400" {
                continue;
            }
            let place = format!("{method} {path} {status}");
            errors += 1;
            let content = keys(&response["content"]);
            assert_eq!(
                content,
                ["application/problem+json".to_owned()].into(),
                "{place}"
            );
            let content = &response["content"]["application/problem+json"];
            assert_eq!(
                content["schema"]["$ref"], "#/components/schemas/Problem",
                "{place}"
            );
            assert!(
                response["description"].as_str().unwrap().starts_with('`'),
                "{place}"
            );
            let has = |name: &str| !response["headers"][name].is_null();
            let may_be_repeated = ["429", "503"].contains(&status.as_str());
            assert_eq!(has("Retry-After"), may_be_repeated, "{place}");
            let asks_for_key = status == "401" && !path.starts_with("/webhooks/");
            assert_eq!(has("WWW-Authenticate"), asks_for_key, "{place}");
        }
    }
    assert!(errors > 50, "{errors}");
}

#[tokio::test]
async fn each_kind_of_operation_documents_the_errors_that_it_can_have() {
    let system = System::start().await;
    let document = document(&system).await;
    for (method, path, operation) in operations(&document) {
        let documented = keys(&operation["responses"]);
        let mut expected = vec![];
        if path != "/health" {
            expected.push("503");
        }
        if path != "/health" && path != "/ready" {
            expected.push("403");
        }
        let is_handshake = method == "GET" && path == "/webhooks/whatsapp";
        if path != "/health" && path != "/ready" && !is_handshake {
            expected.push("401");
        }
        if path.contains("{id}") {
            expected.push("404");
        }
        if path.ends_with("/retry") || path.ends_with("/cancel") {
            expected.push("409");
        }
        if operation["requestBody"].is_object() {
            expected.extend(["400", "413", "415"]);
        }
        for status in expected {
            assert!(
                documented.contains(status),
                "{method} {path} lacks {status}"
            );
        }
    }
}

#[tokio::test]
async fn every_answer_is_documented_with_its_request_id() {
    let system = System::start().await;
    let document = document(&system).await;
    for (method, path, operation) in operations(&document) {
        for (status, response) in operation["responses"].as_object().unwrap() {
            let header = resolve(&document, &response["headers"]["X-Request-Id"]);
            assert_eq!(
                header["schema"]["type"], "string",
                "{method} {path} {status}"
            );
        }
    }
}

#[tokio::test]
async fn the_document_is_the_same_whatever_this_gateway_demands_of_its_callers() {
    let mut documents = Vec::new();
    for secrets in [
        &[][..],
        &[("API_KEYS", "a-key")],
        &[("WEBHOOK_SECRET", "a-secret")],
        &[("API_KEYS", "a-key"), ("WEBHOOK_SECRET", "a-secret")],
    ] {
        let system = System::with(secrets).await;
        let document = document(&system).await;
        for (method, path, operation) in operations(&document) {
            let expected = match path.as_str() {
                "/health" | "/ready" => Value::Null,
                "/webhooks/whatsapp" if method == "GET" => Value::Null,
                "/webhooks/mock-meta" | "/webhooks/whatsapp" => {
                    json!([{ "webhookSignature": [] }, {}])
                }
                "/session" if method != "GET" => Value::Null,
                _ => json!([{ "apiKey": [] }, { "session": [] }, {}]),
            };
            let place = format!("{method} {path} with {secrets:?}");
            assert_eq!(operation["security"], expected, "{place}");
        }
        let schemes = &document["components"]["securitySchemes"];
        assert_eq!(schemes["apiKey"]["scheme"], "bearer");
        assert_eq!(schemes["webhookSignature"]["name"], "X-Hub-Signature-256");
        assert_eq!(schemes["session"]["in"], "cookie");
        documents.push(system.client.get("/api/openapi.json").await.text);
    }
    documents.dedup();
    assert_eq!(documents.len(), 1, "a stranger can tell what is asked for");
}

/// The scopes of which a key needs one, as the document says it of an operation.
fn scopes(operation: &Value) -> BTreeSet<&str> {
    let description = operation["responses"]["403"]["description"].as_str();
    let said = description
        .unwrap()
        .split("the key lacks the scope ")
        .nth(1);
    let said = said.and_then(|text| text.split(';').next());
    let said = said.unwrap_or_default();
    said.split([',', ' '])
        .filter(|word| !["", "or"].contains(word))
        .collect()
}

#[tokio::test]
async fn each_operation_demands_of_its_callers_what_the_document_says() {
    const SCOPES: [&str; 3] = ["inbox", "send", "admin"];
    let keys = SCOPES.map(|scope| format!("{scope}:the-key-for-{scope}:{scope}"));
    let secrets = [
        ("API_KEYS", &*keys.join(",")),
        ("WEBHOOK_SECRET", "a-secret"),
    ];
    let system = System::with(&[&secrets[..], &CONNECTED].concat()).await;
    let document = document(&system).await;
    for (method, path, operation) in operations(&document) {
        let url = path.replace("{id}", "msg_01941f297c0070008000000000000001");
        let call = async |scope: Option<&str>| {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let mut request = system.client.http.request(method, system.client.url(&url));
            if let Some(scope) = scope {
                request = request.bearer_auth(format!("the-key-for-{scope}"));
            }
            system.client.call(request).await.unwrap()
        };
        let place = format!("{method} {path}");
        let stranger = call(None).await;
        let demanded = operation["security"][0].as_object();
        match demanded.and_then(|scheme| scheme.keys().next()) {
            // It is what a stranger logs in by.
            None if place == "POST /session" => {
                stranger.expect_problem(415, "unsupported_media_type");
            }
            // Meta proves itself by a token.
            None if place == "GET /webhooks/whatsapp" => {
                assert_eq!(stranger.fields(), ["hub.mode"]);
            }
            None => assert!(stranger.status < 400, "{place}: {}", stranger.text),
            Some(scheme) if scheme == "webhookSignature" => {
                stranger.expect_problem(401, "invalid_signature");
            }
            Some(_) => {
                stranger.expect_problem(401, "unauthorized");
                let demanded = scopes(operation);
                assert!(
                    demanded.iter().all(|scope| SCOPES.contains(scope)),
                    "{place}"
                );
                assert!(!demanded.is_empty(), "{place}");
                for scope in SCOPES {
                    let answer = call(Some(scope)).await;
                    assert_ne!(answer.status, 401, "{place} with {scope}");
                    let is_admitted = answer.status != 403;
                    let is_named = demanded.contains(scope);
                    assert_eq!(
                        is_admitted, is_named,
                        "{place} with {scope}: {}",
                        answer.text
                    );
                }
            }
        }
    }
}

#[tokio::test]
async fn ids_and_cursors_are_documented_in_their_one_spelling() {
    let system = System::start().await;
    let document = document(&system).await;
    let place = "^(7f|80)[0-9a-f]{46}$";
    let message = "^msg_[0-9a-f]{32}$";
    let conversation = "^conv_[0-9a-f]{32}$";
    for (_, path, operation) in operations(&document) {
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let is_of_messages = path.starts_with("/messages");
            let expected = match parameter["name"].as_str().unwrap() {
                "id" | "cursor" if is_of_messages => message,
                "id" => conversation,
                "cursor" => place,
                _ => continue,
            };
            assert_eq!(parameter["schema"]["pattern"], expected, "{path}");
            assert!(parameter["description"].is_string(), "{path}");
        }
    }
    for (schema, property, expected) in [
        ("Message", "id", message),
        ("Message", "conversationId", conversation),
        ("Conversation", "id", conversation),
        ("Receipt", "messageId", message),
        ("Receipt", "conversationId", conversation),
        ("PageMeta", "nextCursor", place),
        ("UnsentMeta", "nextCursor", message),
    ] {
        let property = &document["components"]["schemas"][schema]["properties"][property];
        assert_eq!(
            resolve(&document, property)["pattern"],
            expected,
            "{schema}"
        );
    }
}

#[tokio::test]
async fn the_examples_of_the_document_work() {
    let system = System::start().await;
    let document = document(&system).await;
    let mut bodies = 0;
    system.send("user-123", "Hi").await;
    for (_, path, operation) in operations(&document) {
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
        // What Meta posts is documented by Meta.
        if schema.is_null() || path == "/webhooks/whatsapp" {
            continue;
        }
        bodies += 1;
        let mut body = json!({});
        for (name, property) in resolve(&document, schema)["properties"]
            .as_object()
            .unwrap()
        {
            // What is answered must be there.
            if name == "replyTo" {
                continue;
            }
            let one = property["examples"].get(0);
            let example = one.unwrap_or(&property["example"]);
            let first_value = &resolve(&document, property)["enum"][0];
            body[name] = if example.is_null() {
                first_value.clone()
            } else {
                example.clone()
            };
            assert!(!body[name].is_null(), "{path} {name} has no example");
        }
        let conversation = system.client.conversation("user-123").await;
        let path = path.replace("{id}", conversation["id"].as_str().unwrap());
        let answer = system.client.post(&path, &body).await;
        // Where there are no keys, no example can be one.
        let expected: &[u16] = if path == "/session" {
            &[401]
        } else {
            &[200, 201]
        };
        assert!(expected.contains(&answer.status), "{path}: {}", answer.text);
    }
    assert_eq!(bodies, 4);
}

#[tokio::test]
async fn the_document_says_which_fields_of_a_request_are_required() {
    let system = System::start().await;
    let document = document(&system).await;
    for (path, required) in [
        (
            "/webhooks/mock-meta",
            &["channel", "eventId", "from", "text", "timestamp"][..],
        ),
        // A message of another type than text has a content instead of a text.
        ("/messages/send", &["channel", "to"]),
        ("/session", &["key"]),
    ] {
        let body = &document["paths"][path]["post"]["requestBody"];
        assert_eq!(body["required"], true, "{path}");
        let schema = resolve(&document, &body["content"]["application/json"]["schema"]);
        assert_eq!(
            names(&schema["required"]),
            names(&json!(required)),
            "{path}"
        );
    }
    let parameters = document["paths"]["/messages"]["get"]["parameters"]
        .as_array()
        .unwrap();
    let required = parameters
        .iter()
        .filter(|parameter| parameter["required"] == true);
    assert_eq!(
        required
            .map(|parameter| &parameter["name"])
            .collect::<Vec<_>>(),
        ["status"]
    );
}

#[tokio::test]
async fn the_document_says_how_long_ids_may_be_and_that_a_header_can_stand_for_one() {
    let system = System::start().await;
    let document = document(&system).await;
    for (schema, field, longest) in [
        ("EventRequest", "eventId", 160),
        ("EventRequest", "from", 160),
        ("SendRequest", "to", 160),
        ("SendRequest", "clientMessageId", 128),
    ] {
        let property = &document["components"]["schemas"][schema]["properties"][field];
        assert_eq!(property["maxLength"], longest, "{property}");
    }
    let parameters = &document["paths"]["/messages/send"]["post"]["parameters"];
    let key = &parameters[0];
    assert_eq!(
        (&key["name"], &key["in"]),
        (&json!("Idempotency-Key"), &json!("header"))
    );
    assert_eq!(key["required"], false);
    assert_eq!(key["schema"]["maxLength"], 128, "{key}");
    assert_eq!(key["schema"]["pattern"], "^[!-~]*$", "{key}");
    let refused = &document["paths"]["/messages/send"]["post"]["responses"]["415"];
    assert!(
        refused["headers"]["Accept-Encoding"].is_object(),
        "{refused}"
    );
}

#[tokio::test]
async fn answers_have_the_fields_that_the_document_says_and_no_others() {
    let system = System::start().await;
    let document = document(&system).await;
    let schema = |name: &str| &document["components"]["schemas"][name];
    let receipt = system.client.webhook(&hello("evt_1")).await;
    let list = system.client.get("/conversations").await.expect(200);
    let message = system.send("user-1", "Hi").await;
    let problem = system
        .client
        .get("/conversations?page=0")
        .await
        .expect_problem(400, "invalid_request");
    for (name, answer) in [
        ("Receipt", &receipt.expect(200)),
        ("ConversationList", &list),
        ("PageMeta", &list["meta"]),
        ("Conversation", &list["data"][0]),
        ("Message", &message),
        ("Problem", &problem),
    ] {
        assert_eq!(keys(&schema(name)["properties"]), keys(answer), "{name}");
        if name != "Problem" {
            assert_eq!(names(&schema(name)["required"]), keys(answer), "{name}");
        }
    }
}

#[tokio::test]
async fn the_documentation_for_people_comes_from_inside_the_program() {
    let system = System::start().await;
    let answer = system.client.get("/api").await;
    assert!(
        answer.status == 200 || answer.header("location") == Some("/api/"),
        "{answer:?}"
    );
    let page = system.client.get("/api/").await;
    page.expect(200);
    assert!(
        page.header("content-type")
            .unwrap()
            .starts_with("text/html")
    );

    let attributes = page.text.split(['"', '\'']).collect::<Vec<_>>();
    let linked = attributes
        .windows(2)
        .filter(|pair| pair[0].ends_with("src=") || pair[0].ends_with("href="));
    let assets: Vec<_> = linked.map(|pair| pair[1]).collect();
    assert!(assets.len() >= 4, "{assets:?}");
    for asset in assets {
        assert!(!asset.contains("//"), "{asset} is somewhere else");
        let path = asset.trim_start_matches("./");
        let answer = system.client.get(&format!("/api/{path}")).await;
        answer.expect(200);
        assert!(!answer.text.is_empty(), "{path}");
    }
    let initializer = system.client.get("/api/swagger-initializer.js").await.text;
    assert!(initializer.contains("/api/openapi.json"), "{initializer}");
}

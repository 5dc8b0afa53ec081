//! `POST /{version}/{phone number id}/messages`. Nothing here recognises a repeated call: each one
//! that is accepted is a message more.

use std::time::Instant;

use axum::body::Body;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use hmac::{Hmac, KeyInit, Mac};
use rand::RngExt;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use sha2::Sha256;

use super::errors::GraphError;
use super::request::{self, Request, Send};
use super::statuses::{self, Accepted};
use super::{fate, names, opaque};
use crate::answer::{Cut, Refusal};
use crate::app::{App, SharedApp, State};
use crate::body;
use crate::call::{self, Call};
use crate::chance::{self, CallPlan};
use crate::edge::Peer;
use crate::fault::Fault;
use crate::ledger::LedgerSend;
use crate::wire::{Channel, SendRequest};

/// A call that has been found right, on its way to be accepted.
struct Sending {
    app: SharedApp,
    key: String,
    phone_number_id: String,
    send: Send,
    request: SendRequest,
}

/// Answers a call.
pub(crate) async fn post(
    app: SharedApp,
    peer: Peer,
    phone_number_id: String,
    headers: HeaderMap,
    proof: Option<String>,
    body: Body,
) -> Response {
    let asked = read(&app, &phone_number_id, &headers, proof.as_deref(), body).await;
    let send = match asked {
        Ok(Request::Send(send)) => *send,
        Ok(Request::MarkRead) => {
            app.state().stats.whatsapp.read_marks += 1;
            return axum::Json(json!({ "success": true })).into_response();
        }
        Err(error) => {
            tracing::info!(code = error.code, "call refused");
            app.state().stats.whatsapp.refused += 1;
            return error.into_response();
        }
    };
    if let Err(limited) = within_pair_limit(&app, &send) {
        return limited.into_response();
    }
    let Some(permit) = app.call_permit() else {
        return Refusal::overloaded("too many calls at once").into_response();
    };
    let request = SendRequest {
        channel: Channel::Whatsapp,
        to: send.to.clone(),
        text: send.text(),
        client_message_id: send.opaque.clone().unwrap_or_default(),
    };
    let key = send.opaque.as_deref().map(key_of);
    let (call, plan) = Call::begin(&app, key, &request, |state, key, number| {
        at_random(app.seed, state, key, number)
    });
    app.state().stats.whatsapp.calls += 1;
    tracing::info!(key = %call.key, kind = %send.kind, call = call.start.number, plan = ?call::LoggedPlan(&plan), "WhatsApp call");
    let sending = Sending {
        app: app.clone(),
        key: call.key.clone(),
        phone_number_id,
        send,
        request,
    };
    let fault = plan.fault.clone();
    call.answer(&peer, permit, &fault, sending.complete(plan))
        .await
}

/// The message that a call is an attempt of: repeats of it can be counted.
fn key_of(opaque: &str) -> String {
    match opaque::parse(opaque) {
        Some(opaque) => opaque.message_id,
        None => opaque.to_owned(),
    }
}

fn at_random(seed: u64, state: &State, key: &str, number: u64) -> CallPlan {
    let codes = &state.graph.behaviour.codes;
    chance::plan_call_with(seed, &state.behaviour, key, number, |_, rng| {
        let (code, is_usual) = (codes.at(rng.random()), rng.random_bool(0.5));
        let statuses = super::codes::of(code).statuses;
        Fault::Code {
            code,
            http_status: Some(statuses[usize::from(!is_usual)]),
            accepted: false,
        }
    })
}

async fn read(
    app: &App,
    phone_number_id: &str,
    headers: &HeaderMap,
    proof: Option<&str>,
    body: Body,
) -> Result<Request, GraphError> {
    authorize(app, headers, proof)?;
    body::require_json(headers)
        .map_err(|_| GraphError::parameter("The Content-Type must be application/json."))?;
    let body = body::read(body).await;
    let body = body.map_err(|_| GraphError::parameter("The body cannot be read."))?;
    let configured = app.graph.phone_number_id.as_deref();
    if configured.is_some_and(|configured| configured != phone_number_id) {
        return Err(GraphError::object("post", phone_number_id));
    }
    request::parse(&body)
}

/// Lets in whoever has the token, and a proof of it that is right, if there is one.
pub(crate) fn authorize(
    app: &App,
    headers: &HeaderMap,
    proof: Option<&str>,
) -> Result<(), GraphError> {
    let given = headers.get(AUTHORIZATION);
    let given = given.and_then(|value| value.to_str().ok());
    let token = given
        .and_then(|value| value.strip_prefix("Bearer "))
        .map(str::trim);
    let token = token
        .filter(|token| !token.is_empty())
        .ok_or_else(GraphError::token)?;
    let is_right = match &app.state().graph.access_token {
        Some(expected) => expected.expose_secret() == token,
        None => true,
    };
    if !is_right {
        return Err(GraphError::token());
    }
    let (Some(secret), Some(proof)) = (&app.graph.app_secret, proof) else {
        return Ok(());
    };
    let mac = Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes());
    let mac = mac
        .expect("HMAC takes a key of any length")
        .chain_update(token);
    let proof = hex::decode(proof).map_err(|_| GraphError::proof())?;
    mac.verify_slice(&proof).map_err(|_| GraphError::proof())
}

/// Takes one message from the recipient's allowance, if there is such a limit.
fn within_pair_limit(app: &App, send: &Send) -> Result<(), GraphError> {
    let mut state = app.state();
    if !state.graph.behaviour.pair_limit || state.graph.pairs.take(&send.to, Instant::now()) {
        return Ok(());
    }
    let limited = &mut state.stats.whatsapp.pair_limited;
    *limited += 1;
    // Meta has been seen to answer with either status.
    let status = if limited.is_multiple_of(2) { 403 } else { 400 };
    Err(GraphError::of(131_056)
        .with_status(status)
        .with_details("Message failed to send because there were too many messages sent from this phone number to the same phone number in a short period of time."))
}

impl Sending {
    async fn complete(self, plan: CallPlan) -> Response {
        call::delay(&plan).await;
        let app = self.app.clone();
        match plan.fault {
            Fault::Ok | Fault::Delay { .. } => axum::Json(self.accept().await).into_response(),
            Fault::LostAnswer => {
                self.accept().await;
                Cut::Close.into_response()
            }
            Fault::Unreadable => {
                self.accept().await;
                let half = r#"{"messaging_product":"whatsapp","contacts":[{"inp"#;
                ([(CONTENT_TYPE, "application/json")], half).into_response()
            }
            Fault::Reset => Cut::Reset.into_response(),
            Fault::Hang => Cut::Close.into_response(),
            Fault::Reject => GraphError::of(131_026).into_response(),
            Fault::RateLimit { retry_after } => {
                let error = GraphError::of(130_429).with_status(429);
                call::with_headers(&app, error.into_response(), retry_after)
            }
            Fault::ServerError {
                http_status,
                retry_after,
            } => {
                let code = if http_status == 503 { 2 } else { 131_000 };
                let error = GraphError::of(code).with_status(http_status);
                call::with_headers(&app, error.into_response(), retry_after)
            }
            Fault::Status {
                http_status,
                body,
                retry_after,
            } => {
                let response = answered(http_status, body);
                call::with_headers(&app, response, retry_after)
            }
            Fault::Code {
                code,
                http_status,
                accepted,
            } => {
                if accepted {
                    self.accept().await;
                }
                let error = GraphError::of(code).with_status(http_status);
                call::with_headers(&app, error.into_response(), None)
            }
        }
    }

    /// Accepts the message, and begins its statuses. Returns the answer of a success.
    async fn accept(self) -> Value {
        let wamid = names::wamid();
        let send = self.send;
        let named = send.opaque.as_deref().and_then(opaque::parse);
        let entry = LedgerSend {
            provider_message_id: wamid.clone(),
            message_id: named.as_ref().map(|opaque| opaque.message_id.clone()),
            attempt: named.map(|opaque| opaque.attempt),
            opaque: send.opaque.clone(),
            addressed_by: send.addressed_by.to_owned(),
            kind: send.kind.clone(),
            content: send.content,
            reply_to: send.reply_to,
        };
        let (fate, rewrite) = {
            let mut state = self.app.state();
            let (_, earlier) = state.ledger.accept_send(&self.key, &self.request, entry);
            state.stats.accepted += 1;
            state.stats.total_messages += 1;
            state.stats.whatsapp.double_sends += u64::from(earlier > 0);
            let behaviour = &state.graph.behaviour;
            let is_audio = send.kind == "audio";
            let fate = fate::draw(self.app.seed, behaviour, &self.key, earlier + 1, is_audio);
            (fate, behaviour.rewrite_numbers)
        };
        let known_as = match send.addressed_by {
            "to" if rewrite => names::rewritten(&send.to),
            _ => send.to,
        };
        let id = match send.addressed_by {
            "to" => "wa_id",
            _ => "user_id",
        };
        let answer = json!({
            "messaging_product": "whatsapp",
            "contacts": [{ "input": send.input, id: known_as }],
            "messages": [{ "id": wamid }],
        });
        let accepted = Accepted {
            wamid,
            to: known_as,
            opaque: send.opaque,
            phone_number_id: self.phone_number_id,
        };
        statuses::follow(&self.app, accepted, fate).await;
        answer
    }
}

/// A scripted answer: this body, or the error that goes with the status.
fn answered(http_status: u16, body: Option<Value>) -> Response {
    let status = StatusCode::from_u16(http_status);
    let status = status.expect("a script's status is checked, and code gives one of three digits");
    if let Some(body) = body {
        return call::given(status, body);
    }
    let code = match http_status {
        401 => 190,
        403 => 10,
        429 => 130_429,
        503 => 2,
        500.. => 131_000,
        _ => 100,
    };
    GraphError::of(code)
        .with_status(http_status)
        .into_response()
}

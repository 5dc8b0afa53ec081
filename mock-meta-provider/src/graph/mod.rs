//! WhatsApp's wire, as Meta's Graph API has it: `POST /{version}/{phone number id}/messages`,
//! media, statuses, and events of every type.
//!
//! The modules from the top down:
//!
//! - `routes`: which requests are Graph's; `simulate`: `POST /simulate/…`; `admin`: configuration
//! - `messages`: calls that send; `media`: what is downloaded; `statuses`: what became of a message
//! - `inbound`: what customers do; `item`, `content`: one of these in Meta's form; `asked`: which
//! - `envelope`: the bodies of webhooks, and their way to the webhook
//! - `state`: what changes while it runs; `store`: media; `pair`: the limit for one recipient
//! - `fate`: what is drawn for an accepted message
//! - `request`: what a call asks for; `opaque`: whose message it is
//! - `errors`: Graph's answers other than a success; `codes`: Meta's codes
//! - `settings`, `behaviour`: what can be configured; `names`: ids that are made up

pub(crate) mod admin;
mod asked;
pub(crate) mod behaviour;
mod codes;
mod content;
mod envelope;
mod errors;
mod fate;
mod inbound;
mod item;
pub(crate) mod media;
pub(crate) mod messages;
mod names;
mod opaque;
pub(crate) mod pair;
mod request;
pub(crate) mod routes;
pub(crate) mod settings;
pub(crate) mod simulate;
pub(crate) mod state;
mod statuses;
mod store;

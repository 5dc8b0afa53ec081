//! Operation: how the programs start and end, what they say, what they keep to themselves, and what
//! they survive.

mod clear_text;
mod configuration;
mod levers;
mod lifecycle;
mod logs;
mod neighbours;
mod networks;
mod observability;
mod other_users;
mod outages;
mod retention;
mod secrecy;
mod secrets;
mod settings;
mod traces;

//! Receipts: how far an outbound message has come at its recipient's, by the provider's id for it.
//! A status is kept whatever is known of its message, and settles one whose answer was lost.

pub mod receipts;
mod recipient;
pub mod retention;
mod steps;
pub(crate) mod store;

/// What a status was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noted {
    /// It tells more than was known.
    New,
    /// Nothing has changed by it.
    Known,
}

//! What can be asked of the inbox, and what can happen to it.

use gateway::channel::Channel;

/// What a conversation is known by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    pub channel: Channel,
    pub participant: String,
}

/// What a provider's clock says about an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// A time long ago, in milliseconds since 1970.
    Past(i64),
    /// So many seconds after five minutes from the case's beginning: ahead, but not too far.
    Ahead(u8),
    /// So many hours from the case's beginning: too far ahead, to be listed as if it were ten
    /// minutes.
    FarAhead(u32),
}

/// Where a message is listed, before its id decides. What is listed by the database's clock is
/// known by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Past(i64),
    Present(usize),
    Ahead(u8),
    FarAhead(usize),
}

/// A webhook.
#[derive(Debug, Clone)]
pub struct Event {
    pub id: String,
    pub address: Address,
    pub text: String,
    pub clock: Clock,
}

/// A request to send.
#[derive(Debug, Clone)]
pub struct Outgoing {
    pub address: Address,
    pub text: String,
    pub key: Option<String>,
    /// Through the gateway that leaves all first attempts to workers.
    pub deferred: bool,
}

/// How the provider fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    ServerError,
    Reject,
    LoseAnswer,
    Reset,
    Unreadable,
    /// And its channel is paused, for longer than any case takes.
    RateLimit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    Read,
    Close,
    Reopen,
    Archive,
    Unarchive,
}

/// One step of a case.
#[derive(Debug, Clone)]
pub enum Transition {
    /// Events, each with another id and so many times, all at once.
    Receive {
        events: Vec<Event>,
        copies: usize,
    },
    /// So many times at once; more than once only with a key.
    Send {
        outgoing: Outgoing,
        copies: usize,
    },
    /// The provider fails in one way with all messages to a participant, from now on.
    Treat {
        participant: String,
        mood: Mood,
    },
    /// The provider accepts everything again.
    Heal,
    Mark(Mark, Address),
    /// The message that is so many before the newest: that stays the same when a case is made
    /// smaller before it.
    Retry(usize),
    Cancel(usize),
    /// The pauses of all channels end.
    Resume,
    /// A worker does what is due, apart from what a paused channel holds back. A pause that this
    /// leads to ends at once, and the worker goes on.
    Work,
    /// The same after the backoffs of these channels have ended.
    WorkLater,
}

//! The tables, what each process knows, and what is on its way from the provider, at one moment.

pub use crate::proof::model::state::{DueAt, Token};

/// A message is known by its place in `messages` and `deliveries`; each has a conversation of its
/// own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub messages: Vec<Message>,
    pub deliveries: Vec<Option<Delivery>>,
    pub processes: Vec<Process>,
    /// The messages whose statuses are on their way, in the order in which they were accepted.
    pub underway: Vec<usize>,
    /// No status comes.
    pub is_incident: bool,
    /// What may still happen.
    pub trouble: Trouble,
}

/// A row of `messages`, with what is known of it by its receipts, and what is true of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Message {
    pub status: Status,
    /// A status of it has come.
    pub is_told: bool,
    /// It is parked, or was when it was last touched.
    pub is_held: bool,
    /// An operator has sent it again, knowing that it may be there twice then.
    pub is_insisted: bool,
    /// How often the participant got it.
    pub deliveries: u8,
    /// One of them will never come.
    pub is_lost: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    Pending,
    Sent,
    Failed,
}

/// A row of `deliveries`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Delivery {
    pub due_at: DueAt,
    pub lease_token: Option<Token>,
    /// Claims that nobody has settled.
    pub unsettled: u8,
    /// `unsure_since`: clocks are not told, only which messages were accepted by calls that began
    /// after it. A set.
    pub doubt: Option<u8>,
}

/// What a process is at, and all that it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Process {
    Idle,
    Leased(Lease),
    /// The call is in flight.
    Calling(Lease),
    /// It still is, and the provider has accepted.
    Taken(Lease),
    /// It has been answered so; `mark_sent` follows.
    Accepted(Lease),
    /// The attempt has failed; `mark_failed` follows.
    Failed {
        lease: Lease,
        is_ambiguous: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lease {
    pub message: usize,
    pub token: Token,
    /// By the process's own clock.
    pub has_ended: bool,
    /// A claim before this one was never settled.
    pub is_interrupted: bool,
    /// It was in doubt, and whether there is evidence that it was not accepted.
    pub evidence: Option<bool>,
    /// The messages that have been in doubt since before the call began. A set.
    pub doubted: u8,
}

/// How often each thing may happen that nobody wishes for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Trouble {
    /// A process dies, and what it knew with it.
    pub crashes: u8,
    /// A lease ends although its holder lives.
    pub delays: u8,
    /// An attempt fails.
    pub failures: u8,
    /// No status comes for longer than anything waits.
    pub incidents: u8,
    /// One status never comes, although others do.
    pub losses: u8,
    /// A status comes that somebody else has made up.
    pub forgeries: u8,
    /// An operator retries or cancels.
    pub operations: u8,
}

impl Delivery {
    pub fn is_leased(self) -> bool {
        self.due_at == DueAt::Future && self.lease_token.is_some()
    }

    pub fn is_waiting(self) -> bool {
        self.due_at == DueAt::Future && self.lease_token.is_none()
    }

    pub fn is_parked(self) -> bool {
        self.due_at == DueAt::Null
    }
}

impl Process {
    /// The lease under which it makes, or has made, an attempt.
    pub fn lease(&self) -> Option<&Lease> {
        match self {
            Self::Idle => None,
            Self::Leased(lease)
            | Self::Calling(lease)
            | Self::Taken(lease)
            | Self::Accepted(lease)
            | Self::Failed { lease, .. } => Some(lease),
        }
    }

    pub fn lease_mut(&mut self) -> Option<&mut Lease> {
        match self {
            Self::Idle => None,
            Self::Leased(lease)
            | Self::Calling(lease)
            | Self::Taken(lease)
            | Self::Accepted(lease)
            | Self::Failed { lease, .. } => Some(lease),
        }
    }
}

impl State {
    /// All that is in the queue.
    pub fn queue(&self) -> impl Iterator<Item = (usize, Delivery)> {
        let rows = self.deliveries.iter().enumerate();
        rows.filter_map(|(message, delivery)| Some((message, (*delivery)?)))
    }

    /// Whether a call for it is in flight.
    pub fn is_called(&self, message: usize) -> bool {
        let is_it = |process: &Process| match process {
            Process::Calling(lease) | Process::Taken(lease) => lease.message == message,
            _ => false,
        };
        self.processes.iter().any(is_it)
    }

    /// Whether a status has come of one of these messages.
    pub fn has_evidence(&self, accepted: u8) -> bool {
        let mut messages = self.messages.iter().enumerate();
        messages.any(|(m, message)| message.is_told && accepted & bit(m) != 0)
    }

    /// A token that nobody holds.
    pub fn new_token(&self) -> Token {
        let leases = self.processes.iter().filter_map(Process::lease);
        let rows = self
            .queue()
            .filter_map(|(_, delivery)| delivery.lease_token);
        let held: Vec<Token> = leases.map(|lease| lease.token).chain(rows).collect();
        let mut free = (0..=Token::MAX).filter(|token| !held.contains(token));
        free.next().expect("fewer holders than tokens")
    }
}

/// A message in a set.
pub fn bit(message: usize) -> u8 {
    1 << message
}

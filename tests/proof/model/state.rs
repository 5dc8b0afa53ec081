//! The tables and what each process knows: everything that is, at one moment.

/// A message is known by its place in `messages` and `deliveries`; all are of one conversation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// `conversations.outbound_seq`
    pub outbound_seq: u8,
    pub messages: Vec<Message>,
    pub deliveries: Vec<Option<Delivery>>,
    pub processes: Vec<Process>,
    /// What may still happen.
    pub trouble: Trouble,
}

/// A row of `messages`, what its sender was told, and what the provider's ledger has under its id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Message {
    /// None: there is no row.
    pub status: Option<Status>,
    /// Whether the sender has its 201. Until then it asks again.
    pub is_acknowledged: bool,
    /// How often the participant got it.
    pub deliveries: u8,
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
    pub seq: u8,
    pub due_at: DueAt,
    pub lease_token: Option<Token>,
    pub claims: u8,
    pub failed_attempts: u8,
}

/// Clocks are not told, only whether a moment has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DueAt {
    Past,
    Future,
    /// Parked.
    Null,
}

pub type Token = u8;

/// What a process is at, and all that it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Process {
    Idle,
    /// `enqueue` has begun: `outbound_seq`, and whether anything was in the queue, in its snapshot.
    Accepting {
        message: usize,
        seen_seq: u8,
        seen_queue: bool,
    },
    /// `claim` has found this due. Only without its row lock: with it, this and the commit are one
    /// step.
    Claiming {
        message: usize,
    },
    /// It may call the provider.
    Leased(Lease),
    /// The call is in flight.
    Calling(Lease),
    /// The provider has accepted; `mark_sent` follows.
    Accepted(Lease),
    /// The attempt has failed, perhaps for good; `mark_failed` follows.
    Failed {
        lease: Lease,
        is_final: bool,
    },
    /// `mark_sent` has begun: which blocked one came next, in its snapshot. Only where it releases
    /// that one itself.
    Finishing {
        lease: Lease,
        next: Option<usize>,
    },
    /// `release` follows.
    Unreleased,
    /// `release` has begun: the blocked head in its snapshot.
    Releasing {
        head: usize,
        seq: u8,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lease {
    pub message: usize,
    pub token: Token,
    /// By the process's own clock, which was read before the database was asked.
    pub has_ended: bool,
    /// A claim before this one was never settled, and such messages are held.
    pub is_doubtful: bool,
}

/// How often each thing may happen that nobody wishes for. What the engine does itself has no
/// limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Trouble {
    /// A process dies, and what it knew with it. To all others a connection that is lost between
    /// two statements is the same.
    pub crashes: u8,
    /// A lease ends although its holder lives: it was too slow, before its call or after it.
    pub delays: u8,
    /// An attempt fails.
    pub failures: u8,
    /// An operator retries or cancels.
    pub operations: u8,
}

impl Delivery {
    pub fn is_leased(self) -> bool {
        self.due_at == DueAt::Future && self.lease_token.is_some()
    }

    pub fn is_waiting(self) -> bool {
        self.due_at == DueAt::Future && self.lease_token.is_none() && self.claims > 0
    }

    pub fn is_blocked(self) -> bool {
        self.due_at == DueAt::Future && self.lease_token.is_none() && self.claims == 0
    }

    pub fn is_parked(self) -> bool {
        self.due_at == DueAt::Null
    }
}

impl Process {
    /// The lease under which it makes, or has made, an attempt.
    pub fn lease(&self) -> Option<&Lease> {
        match self {
            Self::Leased(lease)
            | Self::Calling(lease)
            | Self::Accepted(lease)
            | Self::Failed { lease, .. }
            | Self::Finishing { lease, .. } => Some(lease),
            _ => None,
        }
    }

    pub fn lease_mut(&mut self) -> Option<&mut Lease> {
        match self {
            Self::Leased(lease)
            | Self::Calling(lease)
            | Self::Accepted(lease)
            | Self::Failed { lease, .. }
            | Self::Finishing { lease, .. } => Some(lease),
            _ => None,
        }
    }

    pub fn is_calling(&self, message: usize) -> bool {
        matches!(self, Self::Calling(lease) if lease.message == message)
    }
}

impl State {
    /// All that is in the queue.
    pub fn queue(&self) -> impl Iterator<Item = (usize, Delivery)> {
        let rows = self.deliveries.iter().enumerate();
        rows.filter_map(|(message, delivery)| Some((message, (*delivery)?)))
    }

    /// What is in front in the queue; parked ones are in nobody's way.
    pub fn head(&self) -> Option<(usize, Delivery)> {
        let unfinished = self.queue().filter(|(_, delivery)| !delivery.is_parked());
        unfinished.min_by_key(|(_, delivery)| delivery.seq)
    }

    /// A token that nobody holds. One that is forgotten everywhere is as good as new, and makes
    /// fewer states.
    pub fn new_token(&self) -> Token {
        let leases = self.processes.iter().filter_map(Process::lease);
        let held: Vec<Token> = leases
            .map(|lease| lease.token)
            .chain(
                self.queue()
                    .filter_map(|(_, delivery)| delivery.lease_token),
            )
            .collect();
        (0..=Token::MAX)
            .find(|token| !held.contains(token))
            .expect("fewer holders than tokens")
    }
}

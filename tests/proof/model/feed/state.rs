//! The database, and what a client knows: everything that is, at one moment.

/// A transaction is known by its place in `transactions`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The transaction id that is given out next.
    pub next_id: Id,
    /// `feed.deleted_below`
    pub deleted_below: Id,
    /// Which history of the database this is.
    pub epoch: u8,
    pub transactions: Vec<Transaction>,
    pub client: Client,
    /// What may still happen.
    pub trouble: Trouble,
}

pub type Id = u8;

/// One that writes a row of `changes`, or a foreign one, which never does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Transaction {
    pub is_foreign: bool,
    pub phase: Phase,
    /// Whether the client knows of its change: it was told, or has fetched everything since.
    pub is_known: bool,
    /// How often it was told in the present connection; more than twice makes no difference.
    pub told: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// It has no id, or its last try came to nothing.
    New,
    /// It has its id, and its row, which nobody sees yet.
    Open(Id),
    Committed {
        position: Id,
        /// Whether it outlives a crash.
        is_flushed: bool,
        /// Whether its row has been deleted.
        is_deleted: bool,
    },
    /// A foreign one is over, however it ended.
    Over,
}

/// A client and the part of the program that reads for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Client {
    pub connection: Connection,
    /// That of the connection; without one that of the client's token. None: it has no token.
    pub position: Option<Position>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Connection {
    Away,
    Open,
    /// The rows are read, and the running transactions are not yet. Only where these are two
    /// statements.
    RowsRead,
}

/// Everything below `next` is known or did not happen, except what is pending.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    pub epoch: u8,
    pub next: Id,
    pub pending: Vec<Id>,
}

/// How often each thing may happen that nobody wishes for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Trouble {
    /// A transaction comes to nothing, and is tried again.
    pub aborts: u8,
    /// The database dies, and every open transaction with it.
    pub crashes: u8,
    /// The client or its program goes away; what is left is the token.
    pub disconnects: u8,
    /// A row is deleted because it is old.
    pub deletions: u8,
    /// The database goes on from an earlier state: a dump, a standby that had not everything.
    pub restores: u8,
}

impl Transaction {
    pub fn has_begun(self) -> bool {
        self.phase != Phase::New
    }

    pub fn open_id(self) -> Option<Id> {
        match self.phase {
            Phase::Open(id) => Some(id),
            _ => None,
        }
    }

    /// The position of its row, also of one that has been deleted.
    pub fn position(self) -> Option<Id> {
        match self.phase {
            Phase::Committed { position, .. } => Some(position),
            _ => None,
        }
    }

    /// The position of its row, if that is there to read.
    pub fn row(self) -> Option<Id> {
        let is_deleted = matches!(
            self.phase,
            Phase::Committed {
                is_deleted: true,
                ..
            }
        );
        self.position().filter(|_| !is_deleted)
    }
}

impl State {
    /// The ids of the running transactions, as a snapshot has them.
    pub fn running(&self) -> impl Iterator<Item = Id> {
        self.transactions
            .iter()
            .copied()
            .filter_map(Transaction::open_id)
    }

    pub fn has_row(&self, position: Id) -> bool {
        let mut rows = self
            .transactions
            .iter()
            .copied()
            .filter_map(Transaction::row);
        rows.any(|row| row == position)
    }
}

//! Which records were changed, and the records themselves, some at a time.

use std::collections::BTreeSet;

use super::Reason;
use super::event::{Kind, Piece};
use super::store::Change;
use crate::conversation::store as conversations;
use crate::conversation::view::ConversationView;
use crate::database::bounded;
use crate::database::pool::Pool;
use crate::error::Result;
use crate::id::{ConversationId, MessageId};
use crate::message::store as messages;
use crate::message::view::MessageView;

/// How many records are loaded at once.
const PIECE: usize = 200;

/// Beyond so many rows or records fetching again is cheaper.
const MOST_ROWS: usize = 5000;
const MOST: usize = 10_000;

/// The records that rows name, each once.
#[derive(Debug, Default)]
pub struct Records {
    rows: usize,
    conversations: BTreeSet<ConversationId>,
    created: BTreeSet<MessageId>,
    updated: BTreeSet<MessageId>,
}

impl Records {
    /// Adds what these rows name; why that cannot be told one by one.
    pub fn add(&mut self, rows: impl IntoIterator<Item = Change>) -> Option<Reason> {
        for row in rows {
            if row.is_bulk {
                return Some(Reason::Bulk);
            }
            self.rows += 1;
            self.conversations.extend(row.conversation_ids);
            self.created.extend(row.created_ids);
            self.updated.extend(row.updated_ids);
        }
        // What is new is told as new, whatever has become of it since.
        self.updated.retain(|id| !self.created.contains(id));
        let is_too_far = self.rows > MOST_ROWS || self.len() > MOST;
        is_too_far.then_some(Reason::TooFar)
    }

    fn len(&self) -> usize {
        self.conversations.len() + self.created.len() + self.updated.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Loads some of them as they are now, and takes those away; none when there are no more.
    /// Nothing is taken away when that fails.
    pub async fn load(&mut self, pool: &Pool) -> Result<Option<Piece>> {
        let mut piece = Piece::default();
        if !self.conversations.is_empty() {
            let ids = first(&self.conversations);
            for row in bounded(conversations::list_changed(pool, &ids)).await? {
                piece.add_conversation(row.channel, &ConversationView::from(row));
            }
            leave(&mut self.conversations, &ids);
            return Ok(Some(piece));
        }
        let (kind, of_kind) = if self.created.is_empty() {
            (Kind::MessageUpdated, &mut self.updated)
        } else {
            (Kind::MessageCreated, &mut self.created)
        };
        if of_kind.is_empty() {
            return Ok(None);
        }
        let ids = first(of_kind);
        for row in bounded(messages::list_changed(pool, &ids)).await? {
            let (channel, conversation_id) = (row.channel, row.conversation_id);
            piece.add_message(kind, channel, conversation_id, &MessageView::from(row));
        }
        leave(of_kind, &ids);
        Ok(Some(piece))
    }
}

fn first<T: Copy>(ids: &BTreeSet<T>) -> Vec<T> {
    ids.iter().copied().take(PIECE).collect()
}

fn leave<T: Ord>(ids: &mut BTreeSet<T>, loaded: &[T]) {
    for id in loaded {
        ids.remove(id);
    }
}

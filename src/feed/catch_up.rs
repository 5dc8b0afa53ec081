//! What one subscriber has missed: the rows between its position and the one that it joins at.

use super::Reason;
use super::event::Piece;
use super::records::Records;
use super::store::{self, MOST_ROWS};
use super::subscribers::{Feed, Joined};
use super::token::{Epoch, Position};
use crate::database::bounded;
use crate::error::{Error, Result};

/// What is read of what a subscriber has missed.
#[derive(Debug)]
pub struct CatchUp {
    epoch: Epoch,
    from: Position,
    /// Where its queue begins.
    until: Position,
    records: Records,
    is_read: bool,
}

/// What comes next.
#[derive(Debug)]
pub enum Missed {
    /// Some of it.
    Some(Piece),
    /// It cannot be told one by one.
    Reset(Reason),
    /// That was all.
    End,
}

impl CatchUp {
    /// For a subscriber that was told everything up to `from`, and then joined.
    #[must_use]
    pub fn new(from: Position, joined: &Joined) -> Self {
        Self {
            epoch: joined.epoch.clone(),
            from,
            until: joined.position.clone(),
            records: Records::default(),
            is_read: false,
        }
    }

    /// Reads the next of it.
    pub async fn next(&mut self, feed: &Feed) -> Result<Missed> {
        let permit = feed.catching_up.acquire().await;
        let _permit = permit.map_err(|_| Error::Interrupted)?;
        while !self.is_read {
            if let Some(reason) = self.read(feed).await? {
                return Ok(Missed::Reset(reason));
            }
        }
        let piece = self.records.load(&feed.pool).await?;
        Ok(piece.map_or(Missed::End, Missed::Some))
    }

    /// Reads rows; why what they name cannot be told one by one.
    async fn read(&mut self, feed: &Feed) -> Result<Option<Reason>> {
        let (look, rows) = bounded(store::read(&feed.pool, &self.from)).await?;
        if look.is_copy || look.epoch != self.epoch || look.is_beyond(&self.from) {
            return Ok(Some(Reason::Epoch));
        }
        if look.is_expired(&self.from, &rows) {
            return Ok(Some(Reason::Expired));
        }
        let next = look.behind(&self.from, &rows).next();
        self.is_read = rows.len() < MOST_ROWS || next >= self.until.next();
        // Of the transactions below, those that it has missed had ended before it joined.
        self.from = Position::new(next, &[]);
        // What it has not missed yet comes by the queue.
        let missed = rows.into_iter();
        let missed = missed.filter(|row| self.until.has_seen(row.position));
        Ok(self.records.add(missed))
    }
}

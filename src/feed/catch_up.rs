//! What one subscriber has missed: the rows between its position and the one that it joins at.

use super::Reason;
use super::event::Piece;
use super::records::Records;
use super::store::{self, MOST_ROWS};
use super::subscribers::{Feed, Joined};
use super::token::{Epoch, Position};
use crate::database::bounded;
use crate::error::{Error, Result};

/// The most rows, and the most records, that are told one by one: beyond them fetching again is
/// cheaper.
const MOST_MISSED_ROWS: usize = 5000;
const MOST_MISSED: usize = 10_000;

/// What is read of what a subscriber has missed.
#[derive(Debug)]
pub struct CatchUp {
    epoch: Epoch,
    from: Position,
    /// Where its queue begins.
    until: Position,
    records: Records,
    rows: usize,
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
            rows: 0,
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
        if look.is_copy || look.epoch != self.epoch {
            return Ok(Some(Reason::Epoch));
        }
        if look.is_beyond(&self.from) {
            return Ok(Some(Reason::Epoch));
        }
        if look.is_expired(&self.from, &rows) {
            return Ok(Some(Reason::Expired));
        }
        let (found, behind) = (rows.len(), look.behind(&self.from, &rows));
        let is_last = found < usize::try_from(MOST_ROWS).unwrap_or(usize::MAX)
            || behind.next() >= self.until.next();
        // What is not seen there comes by the queue.
        for row in rows {
            if self.until.has_seen(row.position) {
                if row.is_bulk {
                    return Ok(Some(Reason::Bulk));
                }
                self.rows += 1;
                self.records.add(row);
            }
        }
        if self.records.len() > MOST_MISSED || self.rows > MOST_MISSED_ROWS {
            return Ok(Some(Reason::TooFar));
        }
        self.is_read = is_last;
        self.from = settled(&behind);
        Ok(None)
    }
}

/// The same without running transactions: of those below, what the subscriber has missed had ended
/// before it joined, and so was read.
fn settled(position: &Position) -> Position {
    Position::new(position.next(), &[])
}

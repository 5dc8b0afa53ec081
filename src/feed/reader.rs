//! The task that reads what was changed, and tells all subscribers. It reads only while somebody
//! listens.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use metrics::gauge;
use tokio::sync::{Notify, mpsc};
use tokio::time::sleep;

use super::Reason;
use super::event::{Piece, id_line};
use super::records::Records;
use super::store::{self, Look, MOST_ROWS};
use super::subscribers::{Join, Joined, Subscribers};
use super::token::{Epoch, Position};
use crate::database::bounded;
use crate::database::pool::Pool;
use crate::error::fault::{Outage, Unavailable};
use crate::error::{Causes, Error, Result};
use crate::log_throttle::LogThrottle;

/// How often other processes' changes are looked for.
const POLL: Duration = Duration::from_millis(250);
/// The least time between two looks, however much this process changes.
const LEAST_PAUSE: Duration = Duration::from_millis(50);
/// The pause after a look, as a multiple of what it took: at most a fifth of the time goes to it.
const PAUSE: u32 = 4;
/// The pause after a reset: whatever has made it necessary may soon make another one necessary. It
/// doubles with each that follows at once, so many times.
const RESET_PAUSE: Duration = Duration::from_millis(400);
const MOST_DOUBLINGS: u32 = 2;
/// The pauses after a failure: the first one, and the longest.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(1);
/// The pause between parts of one look, so that subscribers who keep up have room.
const PART_PAUSE: Duration = Duration::from_millis(5);
/// How fast all subscribers together are told: what is sent takes time from writers.
const BYTES_A_MICROSECOND: usize = 100;
/// Beyond this time fetching again is cheaper.
const MOST_TELLING: Duration = Duration::from_secs(3);

/// Reads what was changed.
#[derive(Debug)]
pub struct Reader {
    pool: Pool,
    subscribers: Arc<Subscribers>,
    joins: mpsc::Receiver<Join>,
    /// Raised when this process has changed something.
    changed: Arc<Notify>,
    /// How long to leave the database alone.
    owed: Duration,
    /// How many resets have followed one another at once.
    resets: u32,
    failing: LogThrottle,
}

/// Where all subscribers are.
struct Place {
    epoch: Epoch,
    position: Position,
    id: Bytes,
    /// The database's time, and when that was.
    now: (DateTime<Utc>, Instant),
}

impl Place {
    fn new(look: &Look, position: Position) -> Self {
        Self {
            id: id_line(&look.epoch.token(&position)),
            epoch: look.epoch.clone(),
            position,
            now: (look.at, Instant::now()),
        }
    }
}

/// What a look has found.
enum Found {
    /// These are new, and the position is behind them.
    Records(Records, Look, Position),
    /// Subscribers have to fetch again what they show.
    Reset(Reason, Look, Position),
    /// Another history begins: look again.
    Other,
}

impl Reader {
    /// A reader for these subscribers.
    #[must_use]
    pub fn new(
        pool: Pool,
        subscribers: Arc<Subscribers>,
        joins: mpsc::Receiver<Join>,
        changed: Arc<Notify>,
    ) -> Self {
        Self {
            pool,
            subscribers,
            joins,
            changed,
            owed: Duration::ZERO,
            resets: 0,
            failing: LogThrottle::default(),
        }
    }

    /// Reads whenever somebody listens, until nobody can begin to.
    pub async fn run(mut self) {
        while let Some(join) = self.joins.recv().await {
            self.serve(join).await;
            gauge!("gateway_feed_lag_seconds").set(0.0);
            gauge!("gateway_feed_pending").set(0.0);
        }
    }

    /// Reads until nobody listens any more.
    async fn serve(&mut self, first: Join) {
        let (mut joining, mut place) = (vec![first], None);
        let mut retry = FIRST_RETRY;
        loop {
            while let Ok(join) = self.joins.try_recv() {
                joining.push(join);
            }
            joining.retain(|join| !join.answer.is_closed());
            if joining.is_empty() && self.subscribers.is_empty() {
                return;
            }
            let pause = match self.look(&mut place).await {
                Ok(pause) => {
                    retry = FIRST_RETRY;
                    pause.max(std::mem::take(&mut self.owed))
                }
                Err(error) => {
                    self.note(&error);
                    for join in joining.drain(..) {
                        // It may have given up.
                        join.answer.send(Err(unavailable(&error))).ok();
                    }
                    retry = LAST_RETRY.min(retry * 2);
                    retry
                }
            };
            if let Some(place) = &place {
                for join in joining.drain(..) {
                    self.admit(join, place);
                }
            }
            sleep(pause).await;
            tokio::select! {
                () = self.changed.notified() => {}
                () = sleep(POLL.saturating_sub(pause)) => {}
                Some(join) = self.joins.recv() => joining.push(join),
            }
        }
    }

    fn admit(&self, join: Join, place: &Place) {
        let (now, since) = place.now;
        let elapsed = TimeDelta::from_std(since.elapsed()).unwrap_or_default();
        let joined = Joined {
            subscription: self.subscribers.add(join.filter, &place.id),
            epoch: place.epoch.clone(),
            position: place.position.clone(),
            id: place.id.clone(),
            now: now + elapsed,
        };
        // Whoever has given up is removed with its subscription.
        join.answer.send(Ok(joined)).ok();
    }

    /// Looks once, and tells what is new; how long to wait at least before the next look.
    async fn look(&mut self, place: &mut Option<Place>) -> Result<Duration> {
        let reading = Instant::now();
        let found = match place {
            Some(place) => self.find(place).await?,
            None => self.find_end().await?,
        };
        self.owed = reading.elapsed() * PAUSE;
        let (records, look, position) = match found {
            Found::Other => return Ok(Duration::ZERO),
            Found::Reset(reason, look, position) => {
                let new = Place::new(&look, position);
                let pause = self.reset(reason, &new.id);
                *place = Some(new);
                return Ok(pause);
            }
            Found::Records(records, look, position) => (records, look, position),
        };
        if let Some(place) = place
            && place.position == position
        {
            place.now = (look.at, Instant::now());
            return Ok(LEAST_PAUSE);
        }
        let new = Place::new(&look, position);
        let pause = match self.tell(records).await {
            None => {
                self.resets = 0;
                self.subscribers.end(&new.id);
                LEAST_PAUSE
            }
            Some(reason) => self.reset(reason, &new.id),
        };
        *place = Some(new);
        Ok(pause)
    }

    /// Has all subscribers fetch again what they show; how long to wait before the next look.
    fn reset(&mut self, reason: Reason, id: &Bytes) -> Duration {
        self.subscribers.reset(reason, id);
        let pause = RESET_PAUSE * 2_u32.pow(self.resets);
        self.resets = MOST_DOUBLINGS.min(self.resets + 1);
        pause
    }

    /// Looks for the first time: what there is already is not told.
    async fn find_end(&self) -> Result<Found> {
        let (look, _) = bounded(store::read(&self.pool, &Position::end())).await?;
        if look.is_copy {
            return self.adopt(None).await;
        }
        let fresh = look.fresh();
        Ok(Found::Records(Records::default(), look, fresh))
    }

    /// Reads all that is new.
    async fn find(&self, place: &Place) -> Result<Found> {
        let (mut position, mut records) = (place.position.clone(), Records::default());
        let mut oldest = None;
        loop {
            let (look, rows) = bounded(store::read(&self.pool, &position)).await?;
            if look.is_copy {
                return self.adopt(None).await;
            }
            let reset = |reason, look: Look| {
                let fresh = look.fresh();
                Ok(Found::Reset(reason, look, fresh))
            };
            if look.epoch != place.epoch {
                return reset(Reason::Epoch, look);
            }
            if look.is_beyond(&position) {
                // The server has forgotten transactions: a copy of its files was put back.
                return self.adopt(Some(look.epoch_id)).await;
            }
            if look.is_expired(&position, &rows) {
                return reset(Reason::Expired, look);
            }
            let is_last = rows.len() < MOST_ROWS;
            position = look.behind(&position, &rows);
            oldest = rows.iter().map(|row| row.at).chain(oldest).min();
            if let Some(reason) = records.add(rows) {
                return reset(reason, look);
            }
            if is_last {
                measure(&look, oldest, &position);
                return Ok(Found::Records(records, look, position));
            }
        }
    }

    /// Ends a history, with its positions.
    async fn adopt(&self, ended: Option<uuid::Uuid>) -> Result<Found> {
        tracing::warn!("the database has another history than its positions: the feed begins anew");
        while bounded(store::adopt(&self.pool, ended)).await? {}
        Ok(Found::Other)
    }

    /// Tells all subscribers of these records; why that has ended before all were told.
    async fn tell(&mut self, mut records: Records) -> Option<Reason> {
        let (mut retry, began) = (FIRST_RETRY, Instant::now());
        while !records.is_empty() && !self.subscribers.is_empty() {
            if began.elapsed() > MOST_TELLING {
                return Some(Reason::TooFar);
            }
            let loading = Instant::now();
            match records.load(&self.pool).await {
                Ok(Some(piece)) => {
                    self.owed += loading.elapsed() * PAUSE;
                    self.hand_over(piece).await;
                    if !records.is_empty() {
                        sleep(std::mem::take(&mut self.owed)).await;
                    }
                    retry = FIRST_RETRY;
                }
                Ok(None) => break,
                Err(error @ (Error::Unavailable(_) | Error::Locked)) => {
                    self.note(&error);
                    sleep(retry).await;
                    retry = LAST_RETRY.min(retry * 2);
                }
                Err(error) => {
                    self.note(&error);
                    return Some(Reason::Bulk);
                }
            }
        }
        None
    }

    async fn hand_over(&self, piece: Piece) {
        let parts = piece.parts();
        let count = parts.len();
        for (number, part) in (1..).zip(parts) {
            let bytes = self.subscribers.push(&part) / BYTES_A_MICROSECOND;
            let mut pause = Duration::from_micros(u64::try_from(bytes).unwrap_or_default());
            if number < count {
                pause = pause.max(PART_PAUSE);
            }
            sleep(pause).await;
        }
    }

    fn note(&mut self, error: &Error) {
        let cause = Causes(error).to_string();
        if let Some(passed_over) = self.failing.admit(&cause) {
            tracing::warn!(
                error = cause,
                passed_over,
                "feed could not be read, retrying"
            );
        }
    }
}

/// Whoever wants to listen is told to come again.
fn unavailable(error: &Error) -> Error {
    match error {
        Error::Unavailable(unavailable) => unavailable.clone().into(),
        _ => Unavailable::from(Outage::NoAnswer).into(),
    }
}

fn measure(look: &Look, oldest: Option<DateTime<Utc>>, position: &Position) {
    let lag = (look.at - oldest.unwrap_or(look.at)).to_std();
    gauge!("gateway_feed_lag_seconds").set(lag.unwrap_or_default());
    let pending = u32::try_from(position.pending().len());
    gauge!("gateway_feed_pending").set(pending.unwrap_or(u32::MAX));
}

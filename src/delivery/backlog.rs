//! How much is in the queue, at a cost that does not grow with what is parked.

use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::store::{self, Backlog};
use crate::database::pool::Pool;

/// So many parked ones are counted whenever somebody asks.
const COUNTED: i64 = 1000;
/// How old the number may be when there are more.
const FRESH: Duration = Duration::from_mins(1);

/// The last count of what is parked, where that is much.
#[derive(Debug, Default)]
pub struct Parked(Mutex<Option<(Instant, i64)>>);

impl Parked {
    /// How much is in the queue.
    pub async fn backlog(&self, pool: &Pool) -> sqlx::Result<Backlog> {
        let mut backlog = store::backlog(pool, COUNTED + 1).await?;
        if backlog.parked > COUNTED {
            backlog.parked = self.all(pool).await?;
        }
        Ok(backlog)
    }

    async fn all(&self, pool: &Pool) -> sqlx::Result<i64> {
        let mut last = self.0.lock().await;
        match *last {
            Some((at, parked)) if at.elapsed() < FRESH => Ok(parked),
            _ => {
                let parked = store::count_parked(pool).await?;
                *last = Some((Instant::now(), parked));
                Ok(parked)
            }
        }
    }
}

//! Connections for reads, operators' actions and claims. They are made when they are needed, and
//! closed when they are idle. Claims have a pool of their own.
//!
//! Unlike sqlx's pool, this one says why there is no connection, makes do with the connections it
//! has when the server has no more, and can give one to a writer.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use sqlx::postgres::{PgQueryResult, PgRow, PgStatement, PgTypeInfo, Postgres};
use sqlx::{Connection as _, Either, Execute, Executor, PgConnection, SqlStr};
use tokio::sync::Notify;
use tokio::time::{timeout, timeout_at};

use super::connect::{self, Limits, limited};
use super::limits::{CONNECT_TIMEOUT, STATEMENT_TIMEOUT, timed_out};
use super::plans::{Plans, Settings, Work};
use super::target::Target;
use super::{pooler, store};
use crate::error::fault::{Fault, Outage, Unavailable, fault};

/// How long a connection may be idle, and how often idle ones are checked.
const MAX_IDLE: Duration = Duration::from_secs(30);
const CHECK_EVERY: Duration = Duration::from_secs(2);
/// How long a check of a connection may take: the rest of [`CONNECT_TIMEOUT`] is for a new one.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);
/// While one server is being promoted, none can be written to: how often to try again, and for how
/// long.
const PROMOTION_POLL: Duration = Duration::from_millis(250);
const PROMOTION_WAIT: Duration = Duration::from_secs(1);
/// How often to look whether the server has room for a first connection, and for how long.
const ROOM_POLL: Duration = Duration::from_millis(50);
const ROOM_WAIT: Duration = Duration::from_secs(5);
/// How long to make no further connection after the server had no more of them.
const FULL_FOR: Duration = Duration::from_secs(5);

/// At most this many connections, none before the first use. Callers get them in the order in which
/// they ask.
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

struct Inner {
    target: Target,
    limits: Limits,
    settings: Settings,
    max: usize,
    /// The pool that gives a connection when the server has no more.
    lender: Option<Pool>,
    /// Whoever holds it is next.
    line: tokio::sync::Mutex<()>,
    /// Wakes whoever is next.
    changed: Notify,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Those that are in use, or being opened.
    used: usize,
    /// The others; the most recently used is at the end.
    idle: VecDeque<Idle>,
    /// Until when no further connection is made.
    full_until: Option<Instant>,
    /// Why the last attempt to get a connection failed.
    trouble: Option<Unavailable>,
}

struct Idle {
    connection: PgConnection,
    since: Instant,
    checked_at: Instant,
}

impl State {
    fn size(&self) -> usize {
        self.used + self.idle.len()
    }
}

/// A connection's place among those in use. Dropping it frees the place.
struct Place(Arc<Inner>);

impl Place {
    fn take(pool: &Arc<Inner>, state: &mut State) -> Self {
        state.used += 1;
        Self(Arc::clone(pool))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.state().used -= 1;
        self.0.changed.notify_one();
    }
}

enum Turn {
    Reuse(PgConnection, Place),
    Open(Place),
}

impl Pool {
    /// A pool of at most `max` connections for a running gateway.
    #[must_use]
    pub fn new(target: impl Into<Target>, max: u32) -> Self {
        let settings = Plans::default().of(Work::Reads);
        Self::with(limited(target.into()), Limits::Ours, settings, max)
    }

    /// One connection beside this pool, for what must not wait for the pool's users. When the
    /// server has no more, it is taken from the pool.
    #[must_use]
    pub fn one_more(&self) -> Self {
        let Inner {
            limits, settings, ..
        } = *self.0;
        let target = self.0.target.clone();
        Self::make(target, limits, settings, 1, Some(self.clone()))
    }

    /// A pool whose connections have these limits and settings.
    #[must_use]
    pub fn with(target: Target, limits: Limits, settings: Settings, max: u32) -> Self {
        Self::make(target, limits, settings, max, None)
    }

    fn make(
        target: Target,
        limits: Limits,
        settings: Settings,
        max: u32,
        lender: Option<Self>,
    ) -> Self {
        let inner = Arc::new(Inner {
            target,
            limits,
            settings,
            max: usize::try_from(max).unwrap_or(usize::MAX).max(1),
            lender,
            line: tokio::sync::Mutex::default(),
            changed: Notify::new(),
            state: Mutex::default(),
        });
        tokio::spawn(look_after(Arc::downgrade(&inner)));
        Self(inner)
    }

    /// Whether both are the same pool.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// How many connections are open, and how many of those are idle.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize) {
        let state = self.0.state();
        (state.size(), state.idle.len())
    }

    /// A connection, within [`CONNECT_TIMEOUT`].
    ///
    /// # Errors
    /// `PoolTimedOut` when all were in use for that long, else why there is none.
    pub async fn acquire(&self) -> sqlx::Result<Pooled> {
        let began = Instant::now();
        let deadline = began + CONNECT_TIMEOUT;
        loop {
            let turn = timeout_at(deadline.into(), self.turn()).await;
            let Ok(turn) = turn else {
                // The connections in use may themselves be waiting for the database: say why the
                // last attempt failed.
                let trouble = self.0.state().trouble.clone();
                return Err(trouble.map_or(sqlx::Error::PoolTimedOut, Into::into));
            };
            let ready = timeout_at(deadline.into(), self.prepare(turn)).await;
            let ready = ready.unwrap_or_else(|_| Err(timed_out()));
            self.0.state().trouble = ready.as_ref().err().map(Unavailable::from);
            match ready {
                Err(error) if self.can_do_without(&error) => {}
                Err(error) if is_read_only(&error) && began.elapsed() < PROMOTION_WAIT => {
                    tokio::time::sleep(PROMOTION_POLL).await;
                }
                ready => return ready,
            }
        }
    }

    /// Makes its first connection, also where the server has room for it only a moment later: a
    /// session counts until its process has ended, which is after it was closed.
    pub async fn wait_for_room(&self) -> sqlx::Result<()> {
        let began = Instant::now();
        loop {
            match self.acquire().await {
                Err(error)
                    if fault(&error) == Fault::Away(Outage::Full)
                        && began.elapsed() < ROOM_WAIT =>
                {
                    tokio::time::sleep(ROOM_POLL).await;
                }
                acquired => {
                    acquired?.ended(&Ok(()));
                    return Ok(());
                }
            }
        }
    }

    /// Gives one of its connections away for good: to a writer, when the server has no more.
    pub async fn part_with_one(&self) -> sqlx::Result<PgConnection> {
        self.0.state().full_until = Some(Instant::now() + FULL_FOR);
        let mut pooled = self.acquire().await?;
        pooled.connection.take().ok_or(sqlx::Error::PoolClosed)
    }

    async fn prepare(&self, turn: Turn) -> sqlx::Result<Pooled> {
        let place = match turn {
            Turn::Reuse(mut connection, place) => {
                if self.0.is_usable(&mut connection).await {
                    return Ok(Pooled::new(connection, place));
                }
                self.0.close_idle();
                place
            }
            Turn::Open(place) => place,
        };
        let pool = &*self.0;
        let connected = connect::connect(&pool.target, pool.limits, pool.settings).await;
        let connection = match (connected, &pool.lender) {
            (Err(error), Some(lender)) if fault(&error) == Fault::Away(Outage::Full) => {
                Box::pin(lender.part_with_one()).await?
            }
            (connected, _) => connected?.0,
        };
        Ok(Pooled::new(connection, place))
    }

    /// Whether the server has no more connections, but this pool has some.
    fn can_do_without(&self, error: &sqlx::Error) -> bool {
        if fault(error) != Fault::Away(Outage::Full) {
            return false;
        }
        let mut state = self.0.state();
        state.full_until = Some(Instant::now() + FULL_FOR);
        state.size() > 0
    }

    /// Waits for an idle connection, or for room for one more.
    async fn turn(&self) -> Turn {
        let _next = self.0.line.lock().await;
        loop {
            {
                let mut state = self.0.state();
                if let Some(idle) = state.idle.pop_back() {
                    return Turn::Reuse(idle.connection, Place::take(&self.0, &mut state));
                }
                let full = state.full_until.is_some_and(|until| Instant::now() < until);
                if state.size() == 0 || (state.size() < self.0.max && !full) {
                    return Turn::Open(Place::take(&self.0, &mut state));
                }
            }
            self.0.changed.notified().await;
        }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a connection answers and, if that is needed, can be written to. One round trip.
    async fn is_usable(&self, connection: &mut PgConnection) -> bool {
        match timeout(CHECK_TIMEOUT, store::session_state(connection)).await {
            Ok(Ok(state)) => state.writable || self.target.only_reads(),
            Ok(Err(_)) | Err(_) => false,
        }
    }

    /// After one that could not be used: the others most likely lead to the same server.
    fn close_idle(&self) {
        let idle = std::mem::take(&mut self.state().idle);
        drop(idle);
    }

    /// An idle connection that was not checked for a while.
    fn next_to_check(self: &Arc<Self>) -> Option<(Idle, Place)> {
        let mut state = self.state();
        let is_next = |idle: &Idle| idle.checked_at.elapsed() >= CHECK_EVERY;
        let at = state.idle.iter().position(is_next)?;
        let idle = state.idle.remove(at)?;
        Some((idle, Place::take(self, &mut state)))
    }
}

fn is_read_only(error: &sqlx::Error) -> bool {
    fault(error) == Fault::Away(Outage::ReadOnly)
}

/// Closes what has been idle for long, or is of no use any more, until the pool is dropped.
async fn look_after(pool: Weak<Inner>) {
    loop {
        tokio::time::sleep(CHECK_EVERY).await;
        let Some(pool) = pool.upgrade() else { return };
        while let Some((mut idle, place)) = pool.next_to_check() {
            if idle.since.elapsed() >= MAX_IDLE {
                // If it cannot be closed cleanly, it is dropped.
                timeout(CONNECT_TIMEOUT, idle.connection.close()).await.ok();
            } else if pool.is_usable(&mut idle.connection).await {
                put_back(idle.connection, place, idle.since);
            } else {
                pool.close_idle();
            }
        }
    }
}

/// A connection that returns to its pool when it is dropped.
pub struct Pooled {
    connection: Option<PgConnection>,
    place: Option<Place>,
    /// Whether nothing is left to be read from it.
    clean: bool,
}

impl Pooled {
    fn new(connection: PgConnection, place: Place) -> Self {
        Self {
            connection: Some(connection),
            place: Some(place),
            clean: false,
        }
    }

    /// The connection, for a statement.
    pub fn connection(&mut self) -> sqlx::Result<&mut PgConnection> {
        self.connection.as_mut().ok_or(sqlx::Error::PoolClosed)
    }

    /// Takes note of how a statement ended.
    pub fn ended<T>(&mut self, result: &sqlx::Result<T>) {
        match result {
            Ok(_) => self.clean = true,
            Err(error) => {
                pooler::note(error);
                // Another connection may lead to a server that can be written to; and a shared one
                // is of no use.
                if let Fault::Away(Outage::ReadOnly | Outage::Pooler) = fault(error) {
                    self.connection = None;
                }
            }
        }
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        let (Some(mut connection), Some(place)) = (self.connection.take(), self.place.take())
        else {
            return;
        };
        if self.clean {
            put_back(connection, place, Instant::now());
            return;
        }
        // A statement may have been cut short: read its rest first, or give the connection up.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        runtime.spawn(async move {
            let ended = timeout(STATEMENT_TIMEOUT, connection.ping()).await;
            if matches!(ended, Ok(Ok(()))) && place.0.is_usable(&mut connection).await {
                put_back(connection, place, Instant::now());
            }
        });
    }
}

fn put_back(connection: PgConnection, place: Place, since: Instant) {
    let idle = Idle {
        connection,
        since,
        checked_at: Instant::now(),
    };
    let mut state = place.0.state();
    let at = state.idle.partition_point(|other| other.since <= since);
    state.idle.insert(at, idle);
    drop(state);
    drop(place);
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (size, idle) = self.sizes();
        write!(f, "Pool({size} open, {idle} idle, of {})", self.0.max)
    }
}

/// Each statement has a connection only while it runs. Its rows are gathered first, so that a slow
/// reader does not hold the connection.
impl<'p> Executor<'p> for &'_ Pool {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxStream<'e, sqlx::Result<Either<PgQueryResult, PgRow>>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let pool = self.clone();
        let gathered = async move {
            let mut pooled = pool.acquire().await?;
            let gathered = pooled.connection()?.fetch_many(query).try_collect().await;
            pooled.ended(&gathered);
            let gathered: Vec<_> = gathered?;
            Ok::<_, sqlx::Error>(stream::iter(gathered).map(Ok))
        };
        stream::once(gathered).try_flatten().boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, sqlx::Result<Option<PgRow>>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let mut steps = self.fetch_many(query);
        Box::pin(async move {
            while let Some(step) = steps.try_next().await? {
                if let Either::Right(row) = step {
                    return Ok(Some(row));
                }
            }
            Ok(None)
        })
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, sqlx::Result<PgStatement>>
    where
        'p: 'e,
    {
        let pool = self.clone();
        Box::pin(async move {
            let mut pooled = pool.acquire().await?;
            let prepared = pooled.connection()?.prepare_with(sql, parameters).await;
            pooled.ended(&prepared);
            prepared
        })
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, sqlx::Result<sqlx::Describe<Postgres>>>
    where
        'p: 'e,
    {
        let pool = self.clone();
        Box::pin(async move {
            let mut pooled = pool.acquire().await?;
            let described = pooled.connection()?.describe(sql).await;
            pooled.ended(&described);
            described
        })
    }
}

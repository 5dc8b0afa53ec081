//! The sessions of this process: looked up in the database, and remembered for a moment.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::store::{self, Found};
use super::watch::Watched;
use super::{MAX_OF_KEY, Origin, Session, Token};
use crate::caller::{Caller, SessionId};
use crate::database::pool::Pool;
use crate::database::{CONNECT_TIMEOUT, bounded};
use crate::error::{Causes, Error, Result};
use crate::tasks::Tasks;

/// How long the answer of a look-up holds.
const FRESH: Duration = Duration::from_secs(2);
/// How many answers are remembered.
const MAX_KNOWN: usize = 4096;
/// Strangers can make up cookies: all look-ups together use no more connections than this.
const LOOK_UPS: usize = 2;
/// How often the use of a session is written.
const TOUCH_EVERY: Duration = Duration::from_mins(1);
/// How many old sessions a log-in deletes.
const PRUNED: i64 = 1000;
/// How many log-ins are tried in `PER`.
const MAX_LOG_INS: usize = 10;
const PER: Duration = Duration::from_secs(1);

/// All sessions, as this process sees them.
#[derive(Debug)]
pub struct Sessions {
    pool: Pool,
    tasks: Tasks,
    known: Mutex<HashMap<SessionId, Known>>,
    look_ups: Semaphore,
    watched: Watched,
    log_ins: Mutex<[Option<Instant>; MAX_LOG_INS]>,
}

/// What is remembered of a session.
#[derive(Debug, Clone)]
struct Known {
    /// When the database was asked.
    asked_at: Instant,
    /// None: there is no such session.
    session: Option<Session>,
    /// When it ends by itself.
    ends_at: Instant,
    /// When its use is to be written.
    touch_at: Instant,
}

/// What the database has said of a session.
#[derive(Debug, Clone)]
pub enum Answer {
    /// It lasts.
    Alive(Session),
    /// It has ended, or never was.
    Ended,
}

impl Answer {
    /// The session, if it lasts.
    #[must_use]
    pub fn session(self) -> Option<Session> {
        match self {
            Self::Alive(session) => Some(session),
            Self::Ended => None,
        }
    }
}

impl Known {
    fn nothing(asked_at: Instant) -> Self {
        Self {
            asked_at,
            session: None,
            ends_at: asked_at,
            touch_at: asked_at,
        }
    }

    fn of(found: Found, asked_at: Instant) -> Option<(SessionId, Self)> {
        let id = SessionId(found.token_hash.try_into().ok()?);
        let origin = Origin {
            key_hash: found.key_hash.try_into().ok()?,
            scopes: found.scopes,
        };
        let session = Session {
            origin,
            expires_at: found.expires_at,
        };
        let seconds = |seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default();
        let known = Self {
            asked_at,
            session: Some(session),
            ends_at: asked_at + seconds(found.ends_in),
            touch_at: asked_at + TOUCH_EVERY.saturating_sub(seconds(found.unused_for)),
        };
        Some((id, known))
    }
}

impl Sessions {
    /// Those in this database. What need not be waited for runs in `tasks`.
    #[must_use]
    pub fn new(pool: Pool, tasks: Tasks) -> Arc<Self> {
        Arc::new(Self {
            pool,
            tasks,
            known: Mutex::default(),
            look_ups: Semaphore::new(LOOK_UPS),
            watched: Watched::default(),
            log_ins: Mutex::default(),
        })
    }

    /// The session, if it was looked up a moment ago: then nothing has to be waited for.
    #[must_use]
    pub fn known(&self, id: SessionId) -> Option<Answer> {
        let now = Instant::now();
        let known = self.lock();
        let known = known.get(&id)?;
        let is_fresh = now.duration_since(known.asked_at) < FRESH;
        let alive = known.session.as_ref().filter(|_| now < known.ends_at);
        is_fresh.then(|| alive.cloned().map_or(Answer::Ended, Answer::Alive))
    }

    /// The session, unless it has ended.
    ///
    /// # Errors
    /// The database is away, or too many others ask.
    pub async fn find(&self, id: SessionId) -> Result<Option<Session>> {
        if let Some(known) = self.known(id) {
            return Ok(known.session());
        }
        let permit = timeout(CONNECT_TIMEOUT, self.look_ups.acquire()).await;
        let Ok(Ok(_permit)) = permit else {
            return Err(Error::Overloaded("session"));
        };
        // Somebody else may have asked meanwhile.
        if let Some(known) = self.known(id) {
            return Ok(known.session());
        }
        self.look_up(&[id]).await?;
        Ok(self.known(id).and_then(Answer::session))
    }

    /// Asks the database for these, and remembers the answers.
    pub(super) async fn look_up(&self, ids: &[SessionId]) -> Result<()> {
        let asked_at = Instant::now();
        let found = bounded(store::find(&self.pool, ids)).await?;
        let found = found
            .into_iter()
            .filter_map(|found| Known::of(found, asked_at));
        let mut found: HashMap<SessionId, Known> = found.collect();
        for id in ids {
            let known = found.remove(id);
            let ends_at = known.as_ref().map(|known| known.ends_at);
            self.watched.set(*id, ends_at);
            self.remember(*id, known.unwrap_or_else(|| Known::nothing(asked_at)));
        }
        Ok(())
    }

    fn remember(&self, id: SessionId, known: Known) {
        let mut all = self.lock();
        if let Some(before) = all.get(&id) {
            // The answer to an earlier question.
            if before.asked_at > known.asked_at {
                return;
            }
        }
        if all.len() >= MAX_KNOWN {
            let now = Instant::now();
            all.retain(|_, known| now.duration_since(known.asked_at) < FRESH);
            if all.len() >= MAX_KNOWN {
                all.clear();
            }
        }
        all.insert(id, known);
    }

    /// Notes that a request has used the session. That is written seldom, and never waited for.
    pub fn used(self: &Arc<Self>, id: SessionId) {
        let now = Instant::now();
        let is_due = self.lock().get_mut(&id).is_some_and(|known| {
            let is_due = now >= known.touch_at;
            if is_due {
                known.touch_at = now + TOUCH_EVERY;
            }
            is_due
        });
        if is_due {
            let pool = self.pool.clone();
            self.tasks.spawn(async move {
                let touched = store::touch(&pool, id, TOUCH_EVERY.as_secs_f64());
                log_failure(bounded(touched).await);
            });
        }
    }

    /// Whether one more log-in may be tried in this second; counts it if so.
    #[must_use]
    pub fn admit_log_in(&self) -> bool {
        let now = Instant::now();
        let mut tries = self.log_ins.lock().unwrap_or_else(PoisonError::into_inner);
        let free = tries
            .iter_mut()
            .find(|at| at.is_none_or(|at| now.duration_since(at) >= PER));
        match free {
            Some(free) => {
                *free = Some(now);
                true
            }
            None => false,
        }
    }

    /// Begins a session with a new token. It takes the place of the key's oldest one if the key
    /// has too many.
    ///
    /// # Errors
    /// It is not stored, or not known to be.
    pub async fn begin(&self, origin: &Origin) -> Result<Token> {
        for _ in 0..MAX_OF_KEY {
            let token = Token::random();
            if bounded(store::begin(&self.pool, token.id(), origin)).await? {
                let pool = self.pool.clone();
                self.tasks.spawn(async move {
                    log_failure(bounded(store::prune(&pool, PRUNED)).await);
                });
                return Ok(token);
            }
        }
        Err(Error::Overloaded("log-in"))
    }

    /// Ends sessions: here at once, in other processes within seconds.
    ///
    /// # Errors
    /// They may not have ended.
    pub async fn end(&self, ids: &[SessionId]) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        bounded(store::end(&self.pool, ids)).await?;
        for id in ids {
            self.remember(*id, Known::nothing(Instant::now()));
            self.watched.set(*id, None);
        }
        Ok(())
    }

    /// Returns when the caller's session has ended, five seconds later at most; never, if it has
    /// none. While the database is away only the session's own time ends it.
    ///
    /// A stream awaits this beside its events, and so does not make its session used.
    pub async fn ended(&self, caller: &Caller) {
        let Some(id) = caller.session() else {
            return std::future::pending().await;
        };
        let watch = self.watched.add(id);
        while !watch.has_ended() {
            if let Some(ids) = watch.turn().await
                && let Err(error) = self.look_up(&ids).await
            {
                tracing::debug!(error = %Causes(&error), "the sessions of streams could not be looked up");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn log_failure(done: Result<()>) {
    if let Err(error) = done {
        tracing::warn!(error = %Causes(&error), "the use of a session could not be written");
    }
}

//! Takes a signed body in: finds its items, hands them in a part after the other, and counts what
//! became of them.

use std::collections::HashSet;

use bytes::Bytes;
use chrono::{TimeDelta, Utc};
use futures_util::future::join_all;
use metrics::{Counter, counter};
use tokio::sync::Semaphore;

use super::{Arrival, Became, News, store};
use crate::crash::{self, Point};
use crate::database::bounded;
use crate::database::pool::Pool;
use crate::database::writer::Writer;
use crate::error::{Causes, Error, Result};
use crate::handles::Handles;
use crate::provider::hashed_id;
use crate::provider::whatsapp::events::{Ignored, Item, NotAnObject, Origin, StatusUpdate};
use crate::provider::whatsapp::parse;
use crate::receipt::Noted;
use crate::receipt::receipts::Receipts;
use crate::webhook::count_events;
use crate::webhook::ingest::{self, Ingest};

/// Bodies that are looked through at once. Of large ones, no more have their items in memory.
const MOST_PARSED: usize = 4;
/// A body is large that has more bytes: Meta's have one message, mostly.
const LARGE: usize = 64 * 1024;
/// Items that are handed in at once: as many as a batch has.
const PART: usize = 64;
/// Bodies that nobody can read of which the newest are kept.
const MOST_UNREADABLE: i64 = 100;

static PARSING: Semaphore = Semaphore::const_new(MOST_PARSED);
static LARGE_BODIES: Semaphore = Semaphore::const_new(MOST_PARSED);

/// Where items are handed in.
#[derive(Debug, Clone, Copy)]
pub struct Intake<'a> {
    /// For messages, and what has come about them.
    pub ingest: &'a Writer<Ingest>,
    /// For statuses.
    pub receipts: &'a Writer<Receipts>,
    /// For what nobody can read.
    pub pool: &'a Pool,
}

/// How many items a body had, and what became of them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Taken {
    /// All items.
    pub received: u64,
    /// Those of them that were stored before.
    pub duplicates: u64,
    /// Those of them that change nothing.
    pub ignored: u64,
}

/// An item that is handed in.
enum Unit {
    Arrival(Arrival),
    Status(Box<StatusUpdate>),
}

/// Items that are handed in at once.
#[derive(Default)]
struct Part {
    units: Vec<Unit>,
    wamids: HashSet<String>,
}

impl Part {
    /// Whether these must be stored before this one: it could answer one of them.
    fn must_go_before(&self, unit: &Unit) -> bool {
        let Unit::Arrival(arrival) = unit else {
            return self.units.len() >= PART;
        };
        let answered = match &arrival.news {
            News::Message(message) => message.reply_to.as_ref(),
            News::Amendment(_) | News::Link(_) => None,
        };
        self.units.len() >= PART || answered.is_some_and(|wamid| self.wamids.contains(wamid))
    }

    fn push(&mut self, unit: Unit) {
        if let Unit::Arrival(arrival) = &unit
            && let News::Message(message) = &arrival.news
        {
            self.wamids.extend(message.wamid.clone());
        }
        self.units.push(unit);
    }
}

/// What is kept of an item that the database refuses.
struct Kept {
    hashed_id: Option<String>,
    raw: Bytes,
}

impl Unit {
    fn kept(&self) -> Kept {
        let (id, raw) = match self {
            Self::Arrival(arrival) => match &arrival.news {
                News::Message(message) => (Some(&message.event_id), message.raw.clone()),
                News::Amendment(amendment) => (Some(&amendment.event_id), amendment.raw.clone()),
                News::Link(_) => (None, Bytes::new()),
            },
            Self::Status(status) => (Some(&status.wamid), Bytes::new()),
        };
        let hashed_id = id.map(|id| hashed_id(id));
        Kept { hashed_id, raw }
    }
}

impl Intake<'_> {
    /// Stores all items of a signed body. One that the database refuses is kept as it came, and
    /// stops no other.
    ///
    /// # Errors
    /// Not all of it was stored, or is not known to be: repeating it is safe.
    pub async fn take(&self, phone_number_id: &str, body: Bytes) -> Result<Taken> {
        let is_large = body.len() > LARGE;
        let _place = if is_large {
            LARGE_BODIES.acquire().await.ok()
        } else {
            None
        };
        let Ok(items) = find_items(phone_number_id, body.clone()).await? else {
            self.keep_unreadable(&body).await?;
            return Ok(Taken::default());
        };
        let mut taken = Taken::default();
        let mut part = Part::default();
        let mut failure = None;
        for (position, item) in (0..).zip(items) {
            count_item(&item);
            let unit = match item {
                Item::Ignored(Ignored::Broken) => {
                    self.keep_unreadable(&body).await?;
                    continue;
                }
                Item::Ignored(_) => {
                    taken.received += 1;
                    taken.ignored += 1;
                    count_events("ignored", 1);
                    continue;
                }
                Item::Message(message) => Unit::Arrival(Arrival::new(News::Message(message))),
                Item::Amendment(mut amendment) => {
                    // Meta tells seconds: of two in one, the later in the body is the later one.
                    amendment.at += TimeDelta::microseconds(position % 1_000_000);
                    Unit::Arrival(Arrival::new(News::Amendment(amendment)))
                }
                Item::Link(link) => Unit::Arrival(Arrival::new(News::Link(link))),
                Item::Status(status) => Unit::Status(status),
            };
            taken.received += 1;
            if part.must_go_before(&unit) {
                let units = std::mem::take(&mut part).units;
                self.hand_in(units, &mut taken, &mut failure).await;
                if failure.as_ref().is_some_and(is_about_all) {
                    break;
                }
            }
            part.push(unit);
        }
        if !failure.as_ref().is_some_and(is_about_all) {
            self.hand_in(part.units, &mut taken, &mut failure).await;
        }
        crash::point(Point::AfterIngest);
        tracing::debug!(
            received = taken.received,
            duplicates = taken.duplicates,
            ignored = taken.ignored,
            stored = failure.is_none(),
            "received"
        );
        failure.map_or(Ok(taken), Err)
    }

    /// Hands them in together, and waits for all of them.
    async fn hand_in(&self, units: Vec<Unit>, taken: &mut Taken, failure: &mut Option<Error>) {
        let submitted = units.into_iter().map(async |unit| {
            let kept = unit.kept();
            (kept, self.submit(unit).await)
        });
        for (kept, became) in join_all(submitted).await {
            let result = match became {
                Ok(Became::New) => "new",
                Ok(Became::Duplicate) => {
                    taken.duplicates += 1;
                    "duplicate"
                }
                Ok(Became::Ignored) => {
                    taken.ignored += 1;
                    "ignored"
                }
                Err(error @ Error::Refused(_)) => {
                    let event = kept.hashed_id;
                    tracing::error!(event, error = %Causes(&error), "an item of a webhook could not be stored: it is kept as it came");
                    taken.ignored += 1;
                    if let Err(error) = self.keep(&kept.raw).await {
                        failure.get_or_insert(error);
                    }
                    "refused"
                }
                Err(error) => {
                    if failure.is_none() || is_about_all(&error) {
                        *failure = Some(error);
                    }
                    "not_stored"
                }
            };
            count_events(result, 1);
        }
    }

    async fn submit(&self, unit: Unit) -> Result<Became> {
        match unit {
            Unit::Arrival(arrival) => {
                match self.ingest.submit(ingest::Item::Arrival(arrival)).await? {
                    ingest::Answer::Arrival(became) => Ok(became),
                    ingest::Answer::Event(_) => Err(Error::Interrupted),
                }
            }
            Unit::Status(status) => match self.receipts.submit(*status).await? {
                Noted::New => Ok(Became::New),
                Noted::Known => Ok(Became::Duplicate),
            },
        }
    }

    /// Keeps a body that is no JSON object: repeating it would mend nothing.
    async fn keep_unreadable(&self, body: &[u8]) -> Result<()> {
        tracing::error!(
            length = body.len(),
            "a signed webhook is no JSON object: it is kept as it came"
        );
        count_events("unreadable", 1);
        self.keep(body).await
    }

    async fn keep(&self, body: &[u8]) -> Result<()> {
        bounded(store::keep_unreadable(self.pool, body, MOST_UNREADABLE)).await
    }
}

/// Whether the items that follow would fail, too.
fn is_about_all(error: &Error) -> bool {
    matches!(
        error,
        Error::Unavailable(_) | Error::Overloaded(_) | Error::Interrupted
    )
}

/// Finds the items, without holding up other requests.
async fn find_items(
    phone_number_id: &str,
    body: Bytes,
) -> Result<std::result::Result<Vec<Item>, NotAnObject>> {
    let _place = PARSING.acquire().await;
    if body.len() <= LARGE {
        return Ok(parse(&body, phone_number_id, Utc::now()));
    }
    let phone_number_id = phone_number_id.to_owned();
    let found = tokio::task::spawn_blocking(move || parse(&body, &phone_number_id, Utc::now()));
    found.await.map_err(|_| Error::Interrupted)
}

/// Counts an item, by what it is.
fn count_item(item: &Item) {
    let name = match item {
        Item::Message(message) if message.origin == Origin::Customer => "message",
        Item::Message(_) => "echo",
        Item::Amendment(amendment) => amendment.change.name(),
        Item::Status(_) => "status",
        Item::Link(_) => "link",
        Item::Ignored(why) => why.into(),
    };
    ITEMS
        .of(
            name,
            |name| counter!("gateway_whatsapp_items_total", "item" => name),
        )
        .increment(1);
}

static ITEMS: Handles<&str, Counter> = Handles::new();

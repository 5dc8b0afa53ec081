//! Transactions do not end in the order of their numbers. A reader that goes by an ascending number
//! misses some of them; this one does not, and waits for nobody.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use sqlx::{ConnectOptions as _, Row as _};

use super::write;
use crate::support::{Client, Database, Listener, System, event};

/// Rows get an ascending number too, and transactions end up to 4 ms after that.
const SLOW_COMMITS: &str = "
    alter table changes add column number bigserial;
    create function slow() returns trigger language plpgsql as $$ begin perform pg_sleep(random() * 0.004); return null; end $$;
    create constraint trigger slow after insert on changes deferrable initially deferred for each row execute function slow()";
/// The least messages, and the most.
const LEAST: usize = 600;
const MOST: usize = 60_000;
/// The message after all others, and the one after that was told.
const LAST: [&str; 2] = ["the last one", "the end"];

/// Reads the rows as one would with an ascending number, until told to end; how many it has missed.
async fn missed_by_number(database: &Database, missed: &AtomicUsize, end: &AtomicBool) {
    let mut connection = database.options().connect().await.unwrap();
    let (mut last, mut seen) = (0_i64, 0_i64);
    while !end.load(Ordering::Relaxed) {
        let new = "select number from changes where number > $1 order by number";
        let rows = sqlx::query(new)
            .bind(last)
            .fetch_all(&mut connection)
            .await
            .unwrap();
        seen += i64::try_from(rows.len()).unwrap();
        last = rows.last().map_or(last, |row| row.get(0));
        let all = "select count(*) from changes where number <= $1";
        let all: i64 = sqlx::query(all)
            .bind(last)
            .fetch_one(&mut connection)
            .await
            .unwrap()
            .get(0);
        missed.store(usize::try_from(all - seen).unwrap(), Ordering::Relaxed);
    }
}

/// Webhooks and sends, until told to end; how many.
async fn call(client: Client, caller: usize, end: Arc<AtomicBool>) -> usize {
    let mut count = 0;
    while count < MOST / 8 && !end.load(Ordering::Relaxed) {
        let key = format!("{caller}-{count}");
        let user = format!("user-{}", count % 7);
        if caller.is_multiple_of(2) {
            let event = event(&key, &user, &key, "2025-01-01T10:00:00Z");
            client.webhook(&event).await.expect(200);
        } else {
            let send = serde_json::json!({ "channel": "whatsapp", "to": user, "text": key });
            client.post("/messages/send", &send).await.expect(201);
        }
        count += 1;
    }
    count
}

/// How often each text is told as new.
async fn listen(mut listener: Listener, client: Client) -> BTreeMap<String, usize> {
    let mut told = BTreeMap::new();
    let mut events = listener.until_text(LAST[0]).await;
    write(&client, [LAST[1]]).await;
    events.extend(listener.until_text(LAST[1]).await);
    for event in events {
        assert_ne!(event.kind, "reset", "{event:?}");
        if let Some(message) = event.message("message.created") {
            *told
                .entry(message["text"].as_str().unwrap().to_owned())
                .or_default() += 1;
        }
    }
    told
}

#[tokio::test]
async fn nothing_is_missed_where_a_reader_by_ascending_numbers_misses_some() {
    let system = System::start().await;
    let (_other, other) = system.another(&[]).await;
    system.database.execute(SLOW_COMMITS).await;
    let _foreign = open_transaction(&Database::new().await).await;
    let mut listening = Vec::new();
    for client in [&system.client, &other] {
        let listener = Listener::open(client, "").await;
        listening.push(tokio::spawn(listen(listener, client.clone())));
    }

    let (end, ended) = (Arc::new(AtomicBool::new(false)), AtomicBool::new(false));
    let callers: Vec<_> = (0..16)
        .map(|number| {
            let client = if number % 4 < 2 {
                &system.client
            } else {
                &other
            };
            tokio::spawn(call(client.clone(), number, Arc::clone(&end)))
        })
        .collect();
    let missed = AtomicUsize::new(0);
    let by_number = missed_by_number(&system.database, &missed, &ended);
    let count = async {
        crate::support::eventually("a reader by numbers has missed some", async || {
            let stored = system.database.count("select count(*) from messages").await;
            let is_enough = stored >= i64::try_from(LEAST).unwrap();
            (is_enough && missed.load(Ordering::Relaxed) > 0).then_some(())
        })
        .await;
        end.store(true, Ordering::Relaxed);
        let mut count = 0;
        for caller in callers {
            count += caller.await.unwrap();
        }
        ended.store(true, Ordering::Relaxed);
        count
    };
    let (count, ()) = tokio::join!(count, by_number);
    assert!(missed.load(Ordering::Relaxed) > 0);
    write(&system.client, [LAST[0]]).await;
    for listening in listening {
        let told = listening.await.unwrap();
        assert_eq!(told.len(), count + 2, "some were missed");
        let twice: Vec<_> = told.iter().filter(|(_, times)| **times > 1).collect();
        assert!(twice.is_empty(), "{twice:?}");
    }
}

/// A transaction of another database that has a number, and goes on.
async fn open_transaction(database: &Database) -> sqlx::PgConnection {
    let mut connection = database.options().connect().await.unwrap();
    sqlx::raw_sql("begin; select pg_current_xact_id()")
        .execute(&mut connection)
        .await
        .unwrap();
    connection
}

#[tokio::test]
async fn a_transaction_that_stays_open_holds_up_nothing_and_what_it_wrote_is_told_at_its_end() {
    let system = System::start().await;
    write(&system.client, ["before"]).await;
    let other = Database::new().await;
    let _foreign = open_transaction(&other).await;
    let mut ours = open_transaction(&system.database).await;
    let mut listener = Listener::open(&system.client, "").await;
    write(&system.client, ["meanwhile"]).await;
    listener.until_text("meanwhile").await;
    let position = listener.id.clone();
    let write_and_end = "insert into changes (updated_ids) select array[id] from messages where text = 'before'; commit";
    sqlx::raw_sql(write_and_end)
        .execute(&mut ours)
        .await
        .unwrap();
    let mut again = Listener::resume(&system.client, &position).await;
    for listener in [&mut listener, &mut again] {
        let told = listener
            .until(|event| event.kind == "message.updated")
            .await;
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(told[0].data["message"]["text"], "before");
    }
}

//! One schema for each gateway, of any number on one database; and what a schema is, however it
//! came about.

use std::time::Duration;

use futures_util::future::join_all;
use gateway::database;
use serde_json::json;
use sqlx::migrate::{Migrate as _, Migrator};
use sqlx::{ConnectOptions as _, PgConnection};
use tokio::time::timeout;

use crate::support::{Client, Database, Program, System, event, eventually, mock, serve};

/// What a schema is made of, a line each.
async fn made_of(connection: &mut PgConnection) -> Vec<String> {
    sqlx::query_scalar(
        "select format('%s %s %s %s %s %s %s', c.relname, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attcollation::regcollation,
           a.attnotnull, pg_get_expr(d.adbin, d.adrelid))
         from pg_attribute a join pg_class c on c.oid = a.attrelid left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
         where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and a.attnum > 0 and not a.attisdropped
         union all
         select format('%s %s %s %s %s', conrelid::regclass, conname, pg_get_constraintdef(oid), condeferred, convalidated)
         from pg_constraint where connamespace = 'public'::regnamespace
         union all
         select indexdef from pg_indexes where schemaname = 'public'
         union all
         select format('%s %s', relname, reloptions) from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p')
         union all
         select format('%s %s', version, checksum) from _sqlx_migrations
         order by 1",
    )
    .fetch_all(connection)
    .await
    .unwrap()
}

#[tokio::test]
async fn a_schema_is_the_same_whoever_has_made_it_and_from_whichever_version() {
    let files = sqlx::migrate!();
    let by_sqlx = Database::new().await;
    let mut expected = by_sqlx.options().connect().await.unwrap();
    files.run(&mut expected).await.unwrap();
    let expected = made_of(&mut expected).await;
    for line in [
        "deliveries deliveries_traceparent_check CHECK ((length(traceparent) = 55)) f t",
        "messages messages_conversation_id_fkey FOREIGN KEY (conversation_id) REFERENCES conversations(id) DEFERRABLE INITIALLY DEFERRED t t",
    ] {
        assert!(
            expected.iter().any(|one| one == line),
            "{line}: {expected:#?}"
        );
    }

    let versions = [0, 1, 3, 6, 8, files.iter().count()];
    join_all(versions.map(async |applied| {
        let database = Database::new().await;
        let mut connection = database.options().connect().await.unwrap();
        let older = files.iter().take(applied).cloned().collect();
        let older = Migrator::with_migrations(older);
        older.run(&mut connection).await.unwrap();
        let rest = files.iter().count() - applied;
        let done = database::migrate(&database.options().into()).await.unwrap();
        assert_eq!(done, rest);
        assert_eq!(made_of(&mut connection).await, expected, "from {applied}");
        // And sqlx's own migrator finds everything in order.
        sqlx::migrate!().run(&mut connection).await.unwrap();
    }))
    .await;
}

/// The URL of a schema of this database.
fn schema(database: &Database, name: &str) -> String {
    format!("{}&options=-c%20search_path%3D{name}", database.url())
}

#[tokio::test]
async fn gateways_on_schemas_of_one_database_see_nothing_of_each_other() {
    let database = Database::new().await;
    database
        .execute("create schema blue; create schema green; create schema empty")
        .await;
    let (blue, green) = (schema(&database, "blue"), schema(&database, "green"));
    let (blue_mock, green_mock) = tokio::join!(mock(), mock());
    // They migrate at once.
    let (blue_environment, green_environment) =
        ([("DATABASE_URL", &*blue)], [("DATABASE_URL", &*green)]);
    let (blue_gateway, green_gateway) = tokio::join!(
        serve(&database, &blue_mock, &blue_environment),
        serve(&database, &green_mock, &green_environment)
    );
    let gateways = [
        ("blue", Client::new(blue_gateway.url()), &blue_mock),
        ("green", Client::new(green_gateway.url()), &green_mock),
    ];

    // The same keys are new in each.
    blue_mock.script("user-2", [mock_meta_provider::Fault::Reject]);
    let mut ids = Vec::new();
    for (name, client, mock) in &gateways {
        let event = event("evt_1", "user-1", name, "2025-01-01T10:00:00Z");
        let taken = client.webhook(&event).await.expect(200);
        assert_eq!(taken["duplicate"], false, "{name}");
        let body = json!({ "channel": "whatsapp", "to": "user-2", "text": name, "clientMessageId": "key-1" });
        let sent = client.post("/messages/send", &body).await.expect(201);
        let status = if *name == "blue" { "FAILED" } else { "SENT" };
        assert_eq!(sent["status"], status, "{name}");
        assert_eq!(mock.stats().calls, 1, "{name}");
        ids.push(taken["conversationId"].as_str().unwrap().to_owned());
    }
    let tables = "select count(*) from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace";
    assert_eq!(database.count(tables).await, 0);
    for (at, (name, client, _)) in gateways.iter().enumerate() {
        let list = client.get("/conversations").await.expect(200);
        let previews = list["data"].as_array().unwrap().iter();
        let previews: Vec<_> = previews.map(|one| &one["lastMessagePreview"]).collect();
        assert_eq!(previews, [name, name]);
        let others = format!("/conversations/{}", ids[1 - at]);
        client.get(&others).await.expect(404);
        let parked = client.metric("gateway_deliveries{state=\"parked\"}").await;
        assert_eq!(parked > 0.5, *name == "blue", "{name}: {parked}");
    }

    // What is done to one is not done to the other, nor to a schema that has no gateway yet.
    let forgotten = Program::new("forget")
        .args(&["whatsapp", "user-1"])
        .env("DATABASE_URL", &green)
        .finish()
        .await;
    assert_eq!(forgotten.code, Some(0), "{forgotten:?}");
    for (name, text) in [("blue", "blue"), ("green", "")] {
        let text = format!(
            "select count(*) from {name}.messages where direction = 'INBOUND' and text = '{text}'"
        );
        assert_eq!(database.count(&text).await, 1, "{name}");
    }
    let listed = async |name: &str| {
        let listed = Program::new("retry")
            .args(&["--list", "--json"])
            .env("DATABASE_URL", &schema(&database, name))
            .finish()
            .await;
        assert_eq!(listed.code, Some(0), "{listed:?}");
        listed.data().as_array().unwrap().len()
    };
    assert_eq!((listed("blue").await, listed("green").await), (1, 0));
    let pending = Program::new("migrate")
        .args(&["--status", "--json"])
        .env("DATABASE_URL", &schema(&database, "empty"))
        .finish()
        .await;
    let pending = pending.data();
    assert!(
        pending
            .as_array()
            .unwrap()
            .iter()
            .all(|one| one["applied"] == false),
        "{pending}"
    );
}

#[tokio::test]
async fn a_migration_of_one_schema_that_waits_does_not_hold_up_another() {
    let database = Database::new().await;
    database
        .execute("create schema blue; create schema green")
        .await;
    let migrate = |name: &str| {
        let url = schema(&database, name);
        Program::new("migrate").env("DATABASE_URL", &url).finish()
    };
    assert_eq!(migrate("blue").await.code, Some(0));
    database
        .execute("delete from blue._sqlx_migrations where version = 11")
        .await;
    let mut lock = database.options().connect().await.unwrap();
    let hold = "begin; lock table blue.messages";
    sqlx::raw_sql(hold).execute(&mut lock).await.unwrap();
    let (blue, ()) = tokio::join!(migrate("blue"), async {
        eventually("it waits", async || {
            let waits = "select count(*) from pg_locks where relation = 'blue.messages'::regclass and not granted";
            (database.count(waits).await == 1).then_some(())
        })
        .await;
        let green = timeout(Duration::from_secs(30), migrate("green"));
        let green = green.await.expect("it waits for the other schema");
        assert_eq!(green.code, Some(0), "{green:?}");
        sqlx::raw_sql("rollback").execute(&mut lock).await.unwrap();
    });
    assert_eq!(blue.code, Some(0), "{blue:?}");
}

#[tokio::test]
async fn who_migrates_waits_for_a_program_that_locks_the_database_for_it() {
    let database = Database::new().await;
    let mut older = database.options().connect().await.unwrap();
    older.lock().await.unwrap();
    let migrating = Program::new("migrate").env("DATABASE_URL", database.url());
    let (migrated, ()) = tokio::join!(migrating.finish(), async {
        eventually("it waits", async || {
            let waits = "select count(*) from pg_stat_activity where datname = current_database() and wait_event = 'advisory'";
            (database.count(waits).await == 1).then_some(())
        })
        .await;
        older.unlock().await.unwrap();
    });
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
}

/// Makes each message that is inserted note the settings that it is planned by.
const NOTES: &str = "create table notes (plan_cache_mode text, walks_only text);
    create function note() returns trigger language plpgsql as $$ begin
      insert into notes select current_setting('plan_cache_mode'), current_setting('enable_seqscan'); return new; end $$;
    create trigger note before insert on messages for each row execute function note()";

#[tokio::test]
async fn what_is_written_is_planned_as_the_setting_says() {
    for (environment, expected) in [
        (&[][..], "force_generic_plan off"),
        (&[("DATABASE_PLANS", "generic")], "force_generic_plan off"),
        (&[("DATABASE_PLANS", "custom")], "force_custom_plan on"),
    ] {
        let system = System::with(environment).await;
        system.database.execute(NOTES).await;
        let event = event("evt_1", "user-1", "Hi", "2025-01-01T10:00:00Z");
        system.client.webhook(&event).await.expect(200);
        assert_eq!(system.send("user-1", "Hi").await["status"], "SENT");
        let notes = "select plan_cache_mode || ' ' || walks_only from notes";
        let notes: Vec<String> = sqlx::query_scalar(notes)
            .fetch_all(system.database.pool())
            .await
            .unwrap();
        assert_eq!(notes, [expected, expected]);
    }
    let refused = Program::new("worker")
        .env("DATABASE_PLANS", "none")
        .finish()
        .await;
    assert_eq!(refused.code, Some(2));
    assert!(
        refused.stderr.contains("DATABASE_PLANS") || refused.stderr.contains("--database-plans"),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_message_whose_conversation_another_has_just_made_is_put_into_that_one() {
    let system = System::start().await;
    let mut other = system.database.options().connect().await.unwrap();
    let id = "018f0000-0000-7000-8000-000000000001";
    let first = format!(
        "begin; insert into conversations (id, channel, participant_id, last_message_id, last_message_at, last_message_preview)
         values ('{id}', 'whatsapp', 'user-1', '{id}', 'epoch', '')"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(first))
        .execute(&mut other)
        .await
        .unwrap();
    let body =
        json!({ "channel": "whatsapp", "to": "user-1", "text": "Hi", "clientMessageId": "key-1" });
    let send = async || system.client.post("/messages/send", &body).await;
    let (mut sent, ()) = tokio::join!(send(), async {
        eventually("it waits for the conversation", async || {
            let waits = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like '-- message::enqueue%'";
            (system.database.count(waits).await == 1).then_some(())
        })
        .await;
        sqlx::raw_sql("commit").execute(&mut other).await.unwrap();
    });
    // It may have waited for as long as it is let.
    if sent.status == 503 {
        sent = send().await;
    }
    let sent = sent.expect(201);
    assert_eq!(
        sent["conversationId"],
        format!("conv_{}", id.replace('-', ""))
    );
    let messages = "select count(*) from messages";
    assert_eq!(system.database.count(messages).await, 1);
}

#[tokio::test]
async fn any_foreign_key_that_an_accept_breaks_is_a_lost_race() {
    let system = System::start().await;
    for constraint in [
        "",
        "messages_conversation_id_fkey_102011",
        "messages_conversation_id_fkey",
    ] {
        system
            .database
            .execute(&format!(
                "create sequence losses;
                 create function lose() returns trigger language plpgsql as $$ begin
                   if nextval('losses') <= 2 then
                     raise exception using errcode = '23503', message = 'a foreign key is violated', constraint = '{constraint}';
                   end if;
                   return new; end $$;
                 create trigger lose before insert on messages for each row execute function lose()"
            ))
            .await;
        assert_eq!(
            system.send("user-1", "Hi").await["status"],
            "SENT",
            "{constraint}"
        );
        let tries = system.database.count("select last_value from losses").await;
        assert_eq!(tries, 3);
        system
            .database
            .execute("drop trigger lose on messages; drop function lose; drop sequence losses")
            .await;
    }
}

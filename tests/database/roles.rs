//! Other roles of the same database: none runs code as the gateway, or owns what it writes into.

use serde_json::json;
use sqlx::ConnectOptions as _;

use super::assert_refused;
use crate::support::{
    Client, Database, Postgres, Program, System, assert_full_service, event, hello, mock, run,
    serve_at,
};

/// What takes the place of a function of PostgreSQL wherever its own does not match exactly, and
/// leaves a trace.
const TRAPS: &str = "
    create table public.trace (who text, what text);
    grant insert on public.trace to public;
    create function public.spy(text) returns void language sql volatile as
      $$ insert into public.trace values (current_user, $1) $$;
    create function public.grow(a text[], b text) returns text[] language plpgsql as
      $$ begin perform public.spy('array_agg ' || b); return array_append(a, b); end $$;
    create function public.grow(a uuid[], b uuid) returns uuid[] language plpgsql as
      $$ begin perform public.spy('array_agg uuid'); return array_append(a, b); end $$;
    create function public.first(a uuid, b uuid) returns uuid language plpgsql as
      $$ begin perform public.spy('first_value'); return coalesce(a, b); end $$;
    create function public.one_more(a bigint, b text) returns bigint language plpgsql as
      $$ begin perform public.spy('count'); return a + 1; end $$;
    create aggregate public.array_agg(text) (sfunc = public.grow, stype = text[], initcond = '{}');
    create aggregate public.array_agg(uuid) (sfunc = public.grow, stype = uuid[], initcond = '{}');
    create aggregate public.first_value(uuid) (sfunc = public.first, stype = uuid);
    create aggregate public.count(text) (sfunc = public.one_more, stype = bigint, initcond = '0');
    create function public.cardinality(text[]) returns int language plpgsql as
      $$ begin perform public.spy('cardinality'); return array_length($1, 1); end $$;
    create function public.unnest(uuid[]) returns setof uuid language plpgsql as
      $$ begin perform public.spy('unnest'); return query select pg_catalog.unnest($1); end $$;
    create function public.unnest(text[]) returns setof text language plpgsql as
      $$ begin perform public.spy('unnest'); return query select pg_catalog.unnest($1); end $$;
    create function public.power(integer, numeric) returns numeric language plpgsql as
      $$ begin perform public.spy('power'); return pg_catalog.power($1::numeric, $2); end $$;
    create function public.make_interval(secs double precision) returns interval language plpgsql as
      $$ begin perform public.spy('make_interval'); return pg_catalog.make_interval(secs => secs); end $$;
    create function public.make_interval(days integer) returns interval language plpgsql as
      $$ begin perform public.spy('make_interval'); return pg_catalog.make_interval(days => days); end $$;
    create function public.to_timestamp(numeric) returns timestamptz language plpgsql as
      $$ begin perform public.spy('to_timestamp'); return pg_catalog.to_timestamp($1::float8); end $$;
    create function public.generate_series(integer, bigint) returns setof bigint language plpgsql as
      $$ begin perform public.spy('generate_series'); return query select pg_catalog.generate_series($1, $2); end $$;
    create function public.json_build_object(text, text, text, text, text, text, text, text, text, text) returns json language plpgsql as
      $$ begin perform public.spy('json_build_object'); return '{}'; end $$;
    create function public.times(bigint, interval) returns interval language plpgsql as
      $$ begin perform public.spy('bigint * interval'); return $1::float8 * $2; end $$;
    create function public.times(integer, interval) returns interval language plpgsql as
      $$ begin perform public.spy('integer * interval'); return $1::float8 * $2; end $$;
    create function public.times(interval, bigint) returns interval language plpgsql as
      $$ begin perform public.spy('interval * bigint'); return $1 * $2::float8; end $$;
    create function public.times(integer, numeric) returns numeric language plpgsql as
      $$ begin perform public.spy('integer * numeric'); return $1::numeric * $2; end $$;
    create function public.times(numeric, integer) returns numeric language plpgsql as
      $$ begin perform public.spy('numeric * integer'); return $1 * $2::numeric; end $$;
    create function public.minus(double precision, integer) returns double precision language plpgsql as
      $$ begin perform public.spy('float - integer'); return $1 - $2::float8; end $$;
    create function public.by(double precision, integer) returns double precision language plpgsql as
      $$ begin perform public.spy('float / integer'); return $1 / $2::float8; end $$;
    create function public.by(bigint, numeric) returns numeric language plpgsql as
      $$ begin perform public.spy('bigint / numeric'); return $1::numeric / $2; end $$;
    create function public.plus(integer, numeric) returns numeric language plpgsql as
      $$ begin perform public.spy('integer + numeric'); return $1::numeric + $2; end $$;
    create function public.join_texts(text, uuid) returns text language plpgsql as
      $$ begin perform public.spy('text || uuid'); return pg_catalog.textcat($1, $2::text); end $$;
    create function public.join_texts(text, bigint) returns text language plpgsql as
      $$ begin perform public.spy('text || bigint'); return pg_catalog.textcat($1, $2::text); end $$;
    create operator public.* (leftarg = bigint, rightarg = interval, function = public.times);
    create operator public.* (leftarg = integer, rightarg = interval, function = public.times);
    create operator public.* (leftarg = interval, rightarg = bigint, function = public.times);
    create operator public.* (leftarg = integer, rightarg = numeric, function = public.times);
    create operator public.* (leftarg = numeric, rightarg = integer, function = public.times);
    create operator public.- (leftarg = double precision, rightarg = integer, function = public.minus);
    create operator public./ (leftarg = double precision, rightarg = integer, function = public.by);
    create operator public./ (leftarg = bigint, rightarg = numeric, function = public.by);
    create operator public.+ (leftarg = integer, rightarg = numeric, function = public.plus);
    create operator public.|| (leftarg = text, rightarg = uuid, function = public.join_texts);
    create operator public.|| (leftarg = text, rightarg = bigint, function = public.join_texts);
    reset role";

/// Somebody else who may connect to the database.
async fn mallory(database: &Database) -> String {
    let name = database.name().replace("test_", "mallory_");
    database.execute(&format!("create role {name} login")).await;
    name
}

async fn assert_accepted(url: &str, because: &str) {
    for command in [&["migrate"][..], &["retry", "--list"]] {
        let done = Program::on(url, command).finish().await;
        assert_eq!(done.code, Some(0), "{because}: {command:?}: {done:?}");
    }
}

#[tokio::test]
async fn a_schema_in_which_everybody_may_create_is_refused_before_anything_of_theirs_runs() {
    let database = Database::new().await;
    let mallory = mallory(&database).await;
    database
        .execute(&format!(
            "grant create on schema public to public; set role {mallory}; {TRAPS}"
        ))
        .await;
    assert_refused(
        &database,
        &["`revoke create on schema public from public`", "run code"],
    )
    .await;
    let count = "select count(*) from trace";
    assert_eq!(database.count(count).await, 0);
    let made = "select count(*) from pg_tables where tablename = 'conversations'";
    assert_eq!(database.count(made).await, 0);
    database
        .execute("revoke create on schema public from public")
        .await;
    assert_accepted(database.url(), "what was said mends it").await;
    assert_eq!(database.count(count).await, 0);
}

#[tokio::test]
async fn each_schema_of_the_search_path_is_looked_at_and_each_role_is_named() {
    let database = Database::new().await;
    let mallory = mallory(&database).await;
    let group = mallory.replace("mallory", "group");
    let name = database.name();
    let revokes = [
        format!("`revoke create on schema \"Chat\" from {mallory}`"),
        format!("`revoke create on schema public from {group}`"),
    ];
    let revokes = revokes.each_ref().map(String::as_str);
    database
        .execute(&format!(
            "create role {group}; create schema \"Chat\"; grant create on schema \"Chat\" to {mallory};
             grant create on schema public to {group}; alter database {name} set search_path = \"Chat\", public"
        ))
        .await;
    assert_refused(&database, &revokes).await;
    // Not where no statement looks.
    let elsewhere = format!("{}&options[search_path]=app", database.url());
    database.execute("create schema app").await;
    assert_accepted(&elsewhere, "the open schemas are not on the path").await;
    // Also where the path is the URL's.
    let open = format!("{}&options=-csearch_path%3Dpublic", database.url());
    let refused = Program::on(&open, &["migrate"]).end().await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains(revokes[1]), "{refused:?}");
}

#[tokio::test]
async fn whoever_rules_the_database_anyway_may_create() {
    let database = Database::new().await;
    let name = database.name();
    let [owner, heir, service, chief, keeper] = ["owner", "heir", "service", "chief", "keeper"]
        .map(|role| name.replace("test_", &format!("{role}_")));
    database
        .execute(&format!(
            "create role {owner} login; create role {heir} login in role {owner}; create role {service} login;
             create role {chief} superuser; create role {keeper} login; alter database {name} owner to {owner};
             create schema chat authorization {keeper}; grant usage, create on schema chat to {keeper}, {owner};
             grant create on schema public to {owner}, {heir}, {chief}, pg_database_owner;
             alter database {name} set search_path = chat, public"
        ))
        .await;
    let url = |role: &str| database.url().replace("//gateway@", &format!("//{role}@"));
    // Migrated by the owner, served by another.
    assert_accepted(&url(&owner), "the database's owner").await;
    database
        .execute(&format!(
            "grant usage, create on schema chat to {service};
             grant select on all tables in schema chat to {service}, {heir}, {keeper}"
        ))
        .await;
    assert_accepted(&url(&service), "it may create itself").await;
    // To others than the service, it is another role.
    let revoke = format!("revoke create on schema chat from {service}");
    for role in [&keeper, &heir, &owner] {
        let refused = Program::on(&url(role), &["migrate"]).end().await;
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(
            refused.stderr.contains(&format!("`{revoke}`")),
            "{refused:?}"
        );
    }
    database.execute(&revoke).await;
    for role in [&keeper, &heir, &owner] {
        assert_accepted(&url(role), role).await;
    }
}

#[tokio::test]
async fn tables_of_another_role_are_refused_by_every_command() {
    for table in [
        "table messages (id uuid)",
        "table _sqlx_migrations (version bigint, success boolean)",
        "view channels as select 'whatsapp'::text as channel",
    ] {
        let database = Database::new().await;
        let mallory = mallory(&database).await;
        let made = format!(
            "grant create on schema public to public; set role {mallory}; create {table}; reset role;
             revoke create on schema public from public"
        );
        database.execute(&made).await;
        let name = table.split(' ').nth(1).unwrap();
        let mends = format!("`alter table public.{name} owner to gateway`");
        assert_refused(&database, &[&mends, "belong to another role"]).await;
    }
}

#[tokio::test]
async fn a_month_of_bodies_of_another_role_is_refused() {
    let database = Database::new().await;
    assert_accepted(database.url(), "its own").await;
    let mallory = mallory(&database).await;
    let month = "select max(inhrelid::regclass::text) from pg_inherits where inhparent = 'webhook_bodies'::regclass
        and inhrelid <> 'webhook_bodies_rest'::regclass";
    let month: String = sqlx::query_scalar(month)
        .fetch_one(database.pool())
        .await
        .unwrap();
    let given = format!("alter table {month} owner to {mallory}");
    database.execute(&given).await;
    let mends = format!("`alter table public.{month} owner to gateway`");
    assert_refused(&database, &[&mends, "belong to another role"]).await;
}

#[tokio::test]
async fn a_service_that_is_a_member_of_the_tables_owner_is_served() {
    let database = Database::new().await;
    let name = database.name();
    let [owner, service] =
        ["owner", "service"].map(|role| name.replace("test_", &format!("{role}_")));
    database
        .execute(&format!(
            "create role {owner} login; create role {service} login; create schema chat;
             grant all on schema chat to {owner}; grant {owner} to {service};
             alter database {name} set search_path = chat"
        ))
        .await;
    let url = |role: &str| database.url().replace("//gateway@", &format!("//{role}@"));
    assert_accepted(&url(&owner), "it owns them").await;
    database
        .execute(&format!(
            "grant usage on schema chat to {service}; revoke all on schema chat from {owner}"
        ))
        .await;
    assert_accepted(&url(&service), "it may become their owner").await;
    database
        .execute(&format!(
            "revoke {owner} from {service}; grant select on all tables in schema chat to {service}"
        ))
        .await;
    let refused = Program::on(&url(&service), &["migrate"]).end().await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let mends = "`alter table chat.messages owner to gateway`";
    assert!(refused.stderr.contains(mends), "{refused:?}");
}

/// A schema with what mallory has left there while it was open.
async fn trapped() -> Database {
    let database = Database::new().await;
    let mallory = mallory(&database).await;
    database
        .execute(&format!(
            "grant create on schema public to public; set role {mallory}; {TRAPS};
             revoke create on schema public from public"
        ))
        .await;
    // They work.
    let sprung = [
        "select array_agg(x)::text from unnest(array['a']) x",
        "select cardinality(array['a'])",
        "select 2::bigint * interval '1 s'",
        "select power(2, 2.0)",
        "select 1::float8 - 1",
    ];
    for statement in sprung {
        database.execute(statement).await;
    }
    assert!(database.count("select count(*) from trace").await >= 5);
    database
        .execute("set lock_timeout = 0; truncate trace")
        .await;
    database
}

#[tokio::test]
async fn what_another_role_has_left_in_the_schema_is_never_called() {
    let database = trapped().await;
    for (command, arguments) in [
        ("migrate", &[][..]),
        ("seed", &[]),
        (
            "seed",
            &[
                "--conversations",
                "20",
                "--messages",
                "400",
                "--random-seed",
                "7",
            ],
        ),
    ] {
        let done = run(&database, command, arguments).finish().await;
        assert_eq!(done.code, Some(0), "{done:?}");
    }
    let mock = mock().await;
    mock.script_always(None, mock_meta_provider::Fault::Reject);
    for order in ["none", "conversation"] {
        let gateway = Program::new("serve")
            .env("DATABASE_URL", database.url())
            .env("PROVIDER_URL", &mock.url())
            .env("DELIVERY_ORDER", order)
            .env("PROVIDER_MAX_PER_SECOND", "50")
            .start();
        gateway.logged("ready").await;
        let client = Client::new(gateway.url());
        let hello = event(
            &format!("evt_{order}"),
            "user-1",
            "private text",
            "2025-01-01T10:00:00Z",
        );
        client.webhook(&hello).await.expect(200);
        client.webhook(&hello).await.expect(200);
        let send = json!({ "channel": "whatsapp", "to": "user-1", "text": "Merhaba", "clientMessageId": order });
        client.post("/messages/send", &send).await.expect(201);
        client.post("/messages/send", &send).await.expect(200);
        for path in [
            "/conversations?page=2",
            "/messages?status=FAILED",
            "/metrics",
            "/ready",
        ] {
            assert_eq!(client.get(path).await.status, 200, "{path}");
        }
        let list = client.get("/conversations?limit=1").await.expect(200);
        let cursor = list["meta"]["nextCursor"].as_str().unwrap();
        client
            .get(&format!("/conversations?cursor={cursor}"))
            .await
            .expect(200);
        let id = list["data"][0]["id"].as_str().unwrap().to_owned();
        for verb in ["read", "close", "archive"] {
            let path = format!("/conversations/{id}/{verb}");
            assert_eq!(client.post_empty(&path).await.status, 200, "{path}");
        }
    }
    let retry = run(&database, "retry", &["--all"])
        .env("PROVIDER_URL", &mock.url())
        .finish()
        .await;
    assert_eq!(retry.code, Some(1), "{retry:?}");
    let list = run(
        &database,
        "retry",
        &["--list", "--kind", "rejected", "--since", "1h", "--json"],
    );
    list.finish().await.data();
    let traces = "select coalesce(string_agg(distinct what, ', '), '') from trace";
    let traces: String = sqlx::query_scalar(traces)
        .fetch_one(database.pool())
        .await
        .unwrap();
    assert_eq!(traces, "");
}

#[tokio::test]
async fn a_right_that_is_granted_later_runs_nothing_and_is_seen_by_the_next_connection() {
    let system = System::start().await;
    let mallory = mallory(&system.database).await;
    let grant = format!("grant create on schema public to public; set role {mallory}; {TRAPS}");
    system.database.execute(&grant).await;
    // Its writers are connected already.
    let hello = event("evt_1", "user-1", "private text", "2025-01-01T10:00:00Z");
    system.client.webhook(&hello).await.expect(200);
    let send = json!({ "channel": "whatsapp", "to": "user-1", "text": "Merhaba" });
    system
        .client
        .post("/messages/send", &send)
        .await
        .expect(201);
    assert_eq!(system.database.count("select count(*) from trace").await, 0);
    assert_refused(
        &system.database,
        &["`revoke create on schema public from public`"],
    )
    .await;
}

#[tokio::test]
async fn the_private_database_of_an_older_postgresql_is_closed_at_its_start() {
    let postgres = Postgres::start().await;
    // As it was born up to version 14.
    let open = "grant create on schema public to public";
    let mut connection = postgres.embedded.options().connect().await.unwrap();
    sqlx::raw_sql(open).execute(&mut connection).await.unwrap();
    drop(connection);
    let postgres = postgres.restart().await;
    let mut connection = postgres.embedded.options().connect().await.unwrap();
    let is_open = "select exists (select from pg_namespace, aclexplode(nspacl) where nspname = 'public' and grantee = 0 and privilege_type = 'CREATE')";
    let is_open: bool = sqlx::query_scalar(is_open)
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert!(!is_open);
}

/// Runs what the container of PostgreSQL runs when it makes its database.
fn make_roles(postgres: &Postgres) {
    let options = postgres.embedded.options();
    let socket = options.get_socket().unwrap();
    let made = std::process::Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.docker/roles.sh"))
        .env("PGHOST", socket)
        .env("POSTGRES_USER", "gateway")
        .env("POSTGRES_DB", "gateway")
        .env("POSTGRES_OWNER_PASSWORD", "it's")
        .env("POSTGRES_SERVICE_PASSWORD", "it's")
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
}

#[tokio::test]
async fn the_roles_of_the_containers_are_enough_and_none_is_a_superuser() {
    for is_old in [false, true] {
        let postgres = Postgres::start().await;
        let options = postgres.embedded.options();
        let socket = options.get_socket().unwrap().display().to_string();
        let socket = socket.replace('/', "%2F");
        let url = |role: &str| format!("postgres://{role}@localhost/gateway?host={socket}");
        if is_old {
            // As it was before there were such roles.
            assert_accepted(&url("gateway"), "its superuser").await;
        }
        make_roles(&postgres);
        make_roles(&postgres);
        assert_accepted(&url("gateway_owner"), "it owns them").await;
        let mut connection = options.connect().await.unwrap();
        // A later migration's.
        for statement in [
            "set role gateway_owner",
            "create table later (id bigint)",
            "set role gateway_service",
            "insert into later values (1)",
        ] {
            sqlx::raw_sql(statement)
                .execute(&mut connection)
                .await
                .unwrap();
        }
        let create = sqlx::raw_sql("create table mine (id bigint)");
        assert!(create.execute(&mut connection).await.is_err());
        let supers = "select count(*) from pg_roles where rolname like 'gateway\\_%' and (rolsuper or rolcreaterole or rolcreatedb)";
        let supers: i64 = sqlx::query_scalar(supers)
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert_eq!(supers, 0);
        let months = "select count(*) from pg_inherits where inhparent = 'webhook_bodies'::regclass
            and inhrelid <> 'webhook_bodies_rest'::regclass and has_table_privilege('gateway_service', inhrelid, 'truncate')";
        let months: i64 = sqlx::query_scalar(months)
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert_eq!(months, 13, "that it may empty as a whole");

        let mock = mock().await;
        let url = url("gateway_service");
        let serve = ["serve", "--no-migrate"];
        let (_gateway, client) = serve_at(&url, &mock.url(), &serve, &[]).await;
        client.webhook(&hello("evt_1")).await.expect(200);
        assert_full_service(&client).await;
        for command in [
            &["seed"][..],
            &["seed", "--messages", "40"],
            &["forget", "whatsapp", "user-1"],
            &["retry", "--list"],
        ] {
            let done = Program::on(&url, command).finish().await;
            assert_eq!(done.code, Some(0), "{done:?}");
        }
    }
}

//! Statements about the database itself.

use std::collections::HashSet;
use std::time::Duration;

use sqlx::{AssertSqlSafe, PgConnection, PgExecutor};

/// The migrator's own table. `sqlx`'s program goes by it too.
pub const MIGRATIONS_TABLE: &str = "_sqlx_migrations";
/// The tables of the gateway, and the migrator's own. The months of a partitioned table go with it.
pub const TABLES: [&str; 16] = [
    "conversations",
    "messages",
    "webhook_events",
    "webhook_bodies",
    "webhook_bodies_rest",
    "deliveries",
    "channels",
    "changes",
    "feed",
    "sessions",
    "unread",
    "receipts",
    "amendments",
    "aliases",
    "unreadable_webhooks",
    MIGRATIONS_TABLE,
];

/// What a new connection says of its session and of the database.
#[derive(Debug, Clone)]
pub struct Session {
    /// Whether no other connection shares the session. A shared one has none of the settings.
    pub is_own: bool,
    /// Whether nothing can be written through it.
    pub read_only: bool,
    /// How texts are stored.
    pub encoding: String,
    /// PostgreSQL's version, such as 150004.
    pub version: i32,
    /// The limit of a statement, in milliseconds; 0: none.
    pub statement_timeout_ms: i64,
    /// The limit of waiting for a lock, in milliseconds; 0: none.
    pub lock_timeout_ms: i64,
    /// Settings that are off and should be on: what is committed might be lost.
    pub at_risk: String,
    /// Statements that take from other roles the right to create in a schema of the search path.
    pub open: Vec<String>,
    /// Statements that take the gateway's tables from other roles.
    pub foreign: Vec<String>,
}

/// What may change while a connection is open.
#[derive(Debug, Clone)]
pub struct SessionState {
    /// Whether something can be written through it.
    pub writable: bool,
    /// As in a [`Session`].
    pub at_risk: String,
}

/// What a process of the server waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// Such as `Lock`.
    pub kind: Option<String>,
    /// Such as `advisory`, or `SyncRep`.
    pub event: Option<String>,
    /// The standbys that must confirm a commit.
    pub standbys: String,
    /// Who holds what it waits for.
    pub holders: Vec<String>,
}

/// Gives a connection these settings, has every commit wait until it is on disk (and on a
/// synchronous standby, if there is one), and asks the database about itself and about the roles
/// that could change what its statements do. With a name, only if its session has that name:
/// another client's session must not get the settings.
///
/// Trusted are superusers, the database's owner (who may set any role's search path), a schema's
/// owner in that schema, this role, and whoever may become one of them. A table's owner is also
/// trusted if this role is a member of it, unless this role is a superuser, which counts as a
/// member of every role.
pub async fn set_up_session(
    connection: &mut PgConnection,
    name: Option<&str>,
    settings: &[(&str, &str)],
) -> sqlx::Result<Session> {
    let (names, values): (Vec<&str>, Vec<&str>) = settings.iter().copied().unzip();
    // set_config returns what it has set. Without reading that, nothing would wait for it.
    sqlx::query_as!(
        Session,
        r#"-- database::set_up_session
select $4::text is null or coalesce(current_setting('gateway.session', true) = $4, false) as "is_own!",
  pg_is_in_recovery() or current_setting('transaction_read_only') = 'on' as "read_only!",
  current_setting('server_encoding') as "encoding!",
  current_setting('server_version_num')::int as "version!",
  (extract(epoch from current_setting('statement_timeout')::interval) * 1000::numeric)::bigint as "statement_timeout_ms!",
  (extract(epoch from current_setting('lock_timeout')::interval) * 1000::numeric)::bigint as "lock_timeout_ms!",
  pg_catalog.concat_ws(', ', case when current_setting('fsync') <> 'on' then 'fsync' end,
    case when current_setting('full_page_writes') <> 'on' then 'full_page_writes' end) as "at_risk!",
  array(
    select pg_catalog.format('revoke create on schema %I from %s', n.nspname, case a.grantee when 0 then 'public' else pg_catalog.quote_ident(r.rolname) end)
    from pg_catalog.pg_namespace n cross join lateral pg_catalog.aclexplode(n.nspacl) a left join pg_catalog.pg_roles r on r.oid = a.grantee
    where n.nspname = any(pg_catalog.current_schemas(false)) and a.privilege_type = 'CREATE'
      and not coalesce(r.rolname = 'pg_database_owner' or pg_catalog.pg_has_role(r.oid, n.nspowner, 'member')
        or pg_catalog.pg_has_role(r.oid, base.datdba, 'member') or pg_catalog.pg_has_role(r.oid, me.oid, 'member'), false)
    limit 5) as "open!",
  array(
    select pg_catalog.format('alter table %I.%I owner to %I', n.nspname, t.relname,
      pg_catalog.pg_get_userbyid(case pg_catalog.pg_get_userbyid(n.nspowner) when 'pg_database_owner' then base.datdba else n.nspowner end))
    from (
      select pg_catalog.to_regclass(named.name)::oid as oid from pg_catalog.unnest($3::text[]) as named (name)
      union
      select part.inhrelid from pg_catalog.pg_inherits part where part.inhparent = pg_catalog.to_regclass('webhook_bodies')::oid) as ours
    join pg_catalog.pg_class t on t.oid = ours.oid join pg_catalog.pg_namespace n on n.oid = t.relnamespace
    where not (pg_catalog.pg_has_role(t.relowner, n.nspowner, 'member') or pg_catalog.pg_has_role(t.relowner, base.datdba, 'member')
      or pg_catalog.pg_has_role(t.relowner, me.oid, 'member') or not me.rolsuper and pg_catalog.pg_has_role(me.oid, t.relowner, 'member'))
    limit 10) as "foreign!"
from (
  select pg_catalog.count(pg_catalog.set_config(name, value, false)) from (
    select name, value from unnest($1::text[], $2::text[]) as wanted (name, value)
    union all select 'synchronous_commit', 'on' where current_setting('synchronous_commit') not in ('on', 'remote_apply')
  ) as settings
  where $4::text is null or current_setting('gateway.session', true) = $4
) as given,
  pg_catalog.pg_database base, pg_catalog.pg_roles me
where base.datname = current_database() and me.rolname = current_user"#,
        &names as &[&str],
        &values as &[&str],
        &TABLES as &[&str],
        name
    )
    .fetch_one(connection)
    .await
}

/// Gives the session a name.
pub async fn name_session(connection: &mut PgConnection, name: &str) -> sqlx::Result<()> {
    sqlx::query_scalar!(
        r#"-- database::name_session
select pg_catalog.set_config('gateway.session', $1, false) as "name!""#,
        name
    )
    .fetch_one(connection)
    .await?;
    Ok(())
}

/// The name of the session.
pub async fn session_name(connection: &mut PgConnection) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar!(
        r#"-- database::session_name
select current_setting('gateway.session', true) as "name""#
    )
    .fetch_one(connection)
    .await
}

/// Checks an open connection again.
pub async fn session_state(connection: &mut PgConnection) -> sqlx::Result<SessionState> {
    sqlx::query_as!(
        SessionState,
        r#"-- database::session_state
select not (pg_is_in_recovery() or current_setting('transaction_read_only') = 'on') as "writable!",
  pg_catalog.concat_ws(', ', case when current_setting('fsync') <> 'on' then 'fsync' end,
    case when current_setting('full_page_writes') <> 'on' then 'full_page_writes' end) as "at_risk!""#
    )
    .fetch_one(connection)
    .await
}

/// Waits until what was read before is as safe as an own commit.
///
/// A commit that waits for a standby can become visible too early: when the waiting process, or
/// PostgreSQL, was ended. A failover could then lose it. Before acknowledging what was only read,
/// make a commit that waits for everything before it. If commits wait for no standby, nothing is
/// written. It writes a log record and locks no row, so it is in nobody's way.
pub async fn confirm(executor: impl PgExecutor<'_>) -> sqlx::Result<()> {
    sqlx::query_scalar!(
        r#"-- database::confirm
select case when current_setting('synchronous_standby_names') <> '' then pg_catalog.pg_logical_emit_message(true, 'gateway', ''::text) end is not null as "waited!""#
    )
    .fetch_one(executor)
    .await?;
    Ok(())
}

/// Whether the server encrypts this connection.
pub async fn is_encrypted(connection: &mut PgConnection) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"-- database::is_encrypted
select coalesce((select ssl from pg_catalog.pg_stat_ssl where pid = pg_catalog.pg_backend_pid()), false) as "encrypted!""#
    )
    .fetch_one(connection)
    .await
}

/// How many connections the server allows this role in this database.
pub async fn connection_limit(connection: &mut PgConnection) -> sqlx::Result<i32> {
    sqlx::query_scalar!(
        r#"-- database::connection_limit
select case when role.rolsuper then server.most
  else least(server.most - server.reserved, nullif(role.rolconnlimit, -1), nullif(base.datconnlimit, -1)) end as "room!"
from pg_catalog.pg_roles role, pg_catalog.pg_database base, (
  select current_setting('max_connections')::int as most,
    current_setting('superuser_reserved_connections')::int + coalesce(current_setting('reserved_connections', true)::int, 0) as reserved
) server
where role.rolname = session_user and base.datname = current_database()"#
    )
    .fetch_one(connection)
    .await
}

/// The versions of the applied migrations; none if the database was never migrated.
pub async fn applied_migrations(connection: &mut PgConnection) -> sqlx::Result<HashSet<i64>> {
    if !has_migrations(connection).await? {
        return Ok(HashSet::new());
    }
    // Checked at run time: the table is the migrator's, not a part of the schema.
    let versions: Vec<i64> = sqlx::query_scalar(
        "-- database::applied_migrations
select version from _sqlx_migrations where success",
    )
    .fetch_all(connection)
    .await?;
    Ok(versions.into_iter().collect())
}

/// The name of the database.
pub async fn database_name(connection: &mut PgConnection) -> sqlx::Result<String> {
    sqlx::query_scalar!(
        r#"-- database::database_name
select current_database()::text as "name!""#
    )
    .fetch_one(connection)
    .await
}

/// Waits until nobody else migrates this schema, or holds the key of the database that `sqlx`
/// locks.
pub async fn lock_migrations(connection: &mut PgConnection, database: i64) -> sqlx::Result<()> {
    sqlx::query!(
        "-- database::lock_migrations
select pg_catalog.pg_advisory_lock_shared($1)::text as shared,
  pg_catalog.pg_advisory_lock(pg_catalog.hashtextextended('gateway migrates ' || current_schema::text, 0))::text as own",
        database
    )
    .fetch_one(connection)
    .await?;
    Ok(())
}

/// Lets others migrate it.
pub async fn unlock_migrations(connection: &mut PgConnection, database: i64) -> sqlx::Result<()> {
    sqlx::query!(
        "-- database::unlock_migrations
select pg_catalog.pg_advisory_unlock(pg_catalog.hashtextextended('gateway migrates ' || current_schema::text, 0)) as own,
  pg_catalog.pg_advisory_unlock_shared($1) as shared",
        database
    )
    .fetch_one(connection)
    .await?;
    Ok(())
}

/// Runs one statement of a migration.
pub async fn change_schema(connection: &mut PgConnection, statement: &str) -> sqlx::Result<()> {
    // Checked at run time: a migration makes the schema that it would be checked against. It is
    // prepared, so that two statements at once are refused.
    sqlx::query(AssertSqlSafe(statement.to_owned()))
        .persistent(false)
        .execute(connection)
        .await?;
    Ok(())
}

async fn has_migrations(connection: &mut PgConnection) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"-- database::has_migrations
select pg_catalog.to_regclass('_sqlx_migrations') is not null as "known!""#
    )
    .fetch_one(connection)
    .await
}

/// The id of the server process behind this connection.
pub async fn backend_pid(connection: &mut PgConnection) -> sqlx::Result<i32> {
    sqlx::query_scalar!(
        r#"-- database::backend_pid
select pg_catalog.pg_backend_pid() as "process!""#
    )
    .fetch_one(connection)
    .await
}

/// What a server process of this role waits for; none if there is no such process.
pub async fn find_wait(connection: &mut PgConnection, process: i32) -> sqlx::Result<Option<Wait>> {
    sqlx::query_as!(
        Wait,
        r#"-- database::find_wait
select own.wait_event_type as "kind", own.wait_event as "event", current_setting('synchronous_standby_names') as "standbys!", array(
    select case when other.pid is null then 'a prepared transaction'
      else pg_catalog.format('process %s (%s, role %s%s)', other.pid, coalesce(nullif(other.application_name, ''), 'without a name'), other.usename,
        ', ' || other.state || coalesce(' for ' || floor(extract(epoch from now() - other.state_change)) || ' s', '')) end
    from pg_catalog.unnest(pg_catalog.pg_blocking_pids(own.pid)) as blocker (pid) left join pg_catalog.pg_stat_activity other on other.pid = blocker.pid
    limit 3) as "holders!"
from pg_catalog.pg_stat_activity own where own.pid = $1"#,
        process
    )
    .fetch_optional(connection)
    .await
}

/// Ends a server process of this role.
pub async fn end_process(connection: &mut PgConnection, process: i32) -> sqlx::Result<()> {
    sqlx::query_scalar!(
        r#"-- database::end_process
select pg_catalog.pg_terminate_backend($1) as "ended!""#,
        process
    )
    .fetch_one(connection)
    .await?;
    Ok(())
}

/// Creates the database of a private PostgreSQL.
pub async fn create_gateway(connection: &mut PgConnection) -> sqlx::Result<()> {
    // Checked at run time: it cannot be prepared.
    sqlx::raw_sql(
        "-- database::create_gateway
create database gateway",
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Lets only its owner create in the schema of a private PostgreSQL. Up to version 14 everybody
/// may.
pub async fn close_schema(connection: &mut PgConnection) -> sqlx::Result<()> {
    // Checked at run time: it cannot be prepared.
    sqlx::raw_sql(
        "-- database::close_schema
revoke create on schema public from public",
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Changes how long this connection waits for a lock.
pub async fn set_lock_timeout(connection: &mut PgConnection, wait: Duration) -> sqlx::Result<()> {
    let milliseconds = wait.as_millis().to_string();
    sqlx::query_scalar!(
        r#"-- database::set_lock_timeout
select pg_catalog.set_config('lock_timeout', $1, false) as "value!""#,
        milliseconds
    )
    .fetch_one(connection)
    .await?;
    Ok(())
}

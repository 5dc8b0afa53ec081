#!/bin/bash
# The roles of a new database, made by the postgres image when it makes the database: `gateway_owner` migrates and owns the tables,
# `gateway_service` serves, with rights on the data alone. Neither is a superuser. A database that is older than this file gets them by
# running it once (src/docs/operations.md, "Docker"); again changes nothing.
set -eu
psql -v ON_ERROR_STOP=1 -U "$POSTGRES_USER" -d "$POSTGRES_DB" \
  -v owner_password="$POSTGRES_OWNER_PASSWORD" -v service_password="$POSTGRES_SERVICE_PASSWORD" -v database="$POSTGRES_DB" <<'SQL'
select 'create role gateway_owner login' where not exists (select from pg_roles where rolname = 'gateway_owner') \gexec
select 'create role gateway_service login' where not exists (select from pg_roles where rolname = 'gateway_service') \gexec
alter role gateway_owner password :'owner_password';
alter role gateway_service password :'service_password';

alter database :"database" owner to gateway_owner;
revoke create on schema public from public;
alter schema public owner to gateway_owner;
select format('alter table %s owner to gateway_owner', oid::regclass) from pg_class
  where relnamespace = 'public'::regnamespace and relkind in ('r', 'p') \gexec

-- What there is, and what later migrations make.
grant usage on schema public to gateway_service;
grant select, insert, update, delete on all tables in schema public to gateway_service;
alter default privileges for role gateway_owner in schema public grant select, insert, update, delete on tables to gateway_service;
alter default privileges for role gateway_owner in schema public grant usage on sequences to gateway_service;
SQL

#!/bin/bash
# Runs once, when the data folder is made: the service's database, the role that owns it, and a second one to log in as,
# so that a new password need not lock out replicas with the old one (docs/4-runbook.md, New secrets). Whoever logs in as
# NAME-other is the owner from then on, so that all objects stay its own. No role is a superuser. Sourced by the image's
# entrypoint, which runs files that are not executable in its own shell.
owner="${SLIPWAY_USER%-other}"
PGPASSWORD="$(cat /run/secrets/POSTGRES_SUPERUSER_PASSWORD)" psql --quiet --no-psqlrc --set=ON_ERROR_STOP=1 \
    --username="$POSTGRES_USER" --dbname=postgres \
    --set=role="$owner" --set=other="${owner}-other" --set=database="$SLIPWAY_DB" <<'SQL'
\set password `cat /run/secrets/POSTGRES_PASSWORD`
CREATE ROLE :"role" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD :'password';
CREATE ROLE :"other" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD :'password' IN ROLE :"role";
ALTER ROLE :"other" SET role = :'role';
CREATE DATABASE :"database" OWNER :"role";
REVOKE CONNECT ON DATABASE :"database" FROM PUBLIC;
\connect :"database"
CREATE EXTENSION IF NOT EXISTS pg_stat_statements;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT ALL ON SCHEMA public TO :"role";
SQL

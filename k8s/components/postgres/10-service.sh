#!/bin/bash
# Runs once, when the data folder is made: the service's role and database. The role is no superuser and owns nothing
# but its database. Sourced by the image's entrypoint, which runs files that are not executable in its own shell.
PGPASSWORD="$(cat /run/secrets/POSTGRES_SUPERUSER_PASSWORD)" psql --quiet --no-psqlrc --set=ON_ERROR_STOP=1 \
    --username="$POSTGRES_USER" --dbname=postgres \
    --set=role="$SLIPWAY_USER" --set=database="$SLIPWAY_DB" <<'SQL'
\set password `cat /run/secrets/POSTGRES_PASSWORD`
CREATE ROLE :"role" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD :'password';
CREATE DATABASE :"database" OWNER :"role";
REVOKE CONNECT ON DATABASE :"database" FROM PUBLIC;
\connect :"database"
CREATE EXTENSION IF NOT EXISTS pg_stat_statements;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT ALL ON SCHEMA public TO :"role";
SQL

#!/bin/sh
# Runs once, when PostgreSQL's volume is new: the ledger is a database of its own with a user of its own.
set -eu
psql --username "$POSTGRES_USER" --dbname postgres --set ON_ERROR_STOP=1 --set password="$LEDGER_PASSWORD" <<'SQL'
CREATE ROLE patching LOGIN PASSWORD :'password';
CREATE DATABASE patching OWNER patching;
REVOKE ALL ON DATABASE patching FROM PUBLIC;
SQL

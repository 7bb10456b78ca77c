#!/usr/bin/env bash
# Gives MLflow a database of its own, beside Airflow's. PostgreSQL's image runs it once, on an empty volume.
set -euo pipefail

psql --set ON_ERROR_STOP=1 --username "${POSTGRES_USER}" --dbname "${POSTGRES_DB}" \
  --set password="${MLFLOW_DB_PASSWORD}" <<'SQL'
CREATE ROLE mlflow LOGIN PASSWORD :'password';
CREATE DATABASE mlflow OWNER mlflow;
SQL

#!/usr/bin/env bash
# Brings databases and buckets to where the other services need them. Runs at every `docker compose up`, and
# changes nothing the second time.
set -euo pipefail

airflow db migrate

airflow users create \
  --role Admin \
  --username "${ADMIN_USER}" \
  --password "${ADMIN_PASSWORD}" \
  --email "${ADMIN_EMAIL}" \
  --firstname Airflow \
  --lastname Admin

python - <<'PYTHON'
from airflow.providers.amazon.aws.hooks.s3 import S3Hook

hook = S3Hook(aws_conn_id="artifacts_s3")
for bucket in ("ml-artifacts", "mlflow"):
    if not hook.check_for_bucket(bucket):
        hook.create_bucket(bucket)
    print(f"bucket {bucket} is there")
PYTHON

# SPDX-License-Identifier: Apache-2.0
"""Airflow's public REST API, as far as the demo and the end-to-end tests ask it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import httpx

from demo.errors import ApiError

Json = dict[str, Any]
PAGE = 100  # rows; Airflow's own limit of a page
REFUSALS = 5
REFUSED_WAIT = 2.0  # seconds
FINISHED = ("success", "failed", "skipped", "upstream_failed", "removed")


class AirflowApi:
    """
    A client of one Airflow whose every visitor is an admin (``simple_auth_manager_all_admins``).

    :param base_url: Address of the api-server, without a path.
    """

    def __init__(self, base_url: str, *, timeout: float = 120.0) -> None:
        self.base_url = base_url
        # Proxies are for the outside; this server is on our own machine.
        self._http = httpx.Client(base_url=base_url, timeout=timeout, trust_env=False)
        self._token: str | None = None

    def close(self) -> None:
        self._http.close()

    def request(self, method: str, path: str, **options: Any) -> Any:
        """
        Return what the server answers, decoded. Raises ApiError unless that is a success.

        What can be asked twice is asked again where the database refused: of two components that write at the
        same time, SQLite refuses one at once if it read before the other wrote, however long it may wait.
        """
        for _ in range(REFUSALS):
            try:
                return self._request(method, path, **options)
            except ApiError as exc:
                if method == "POST" or not _is_of_the_database(exc):
                    raise
            time.sleep(REFUSED_WAIT)
        return self._request(method, path, **options)

    def _request(self, method: str, path: str, **options: Any) -> Any:
        for _ in range(2):
            if self._token is None:
                self._token = self._send("GET", "/auth/token")["access_token"]
            try:
                return self._send(
                    method, f"/api/v2{path}", headers={"Authorization": f"Bearer {self._token}"}, **options
                )
            except ApiError as exc:
                if exc.status != httpx.codes.UNAUTHORIZED:
                    raise
                self._token = None  # expired: ask for another, once
        raise ApiError(f"Airflow refuses its own token for {method} {path}", httpx.codes.UNAUTHORIZED)

    def _send(self, method: str, path: str, **options: Any) -> Any:
        try:
            answer = self._http.request(method, path, **options)
        except httpx.HTTPError as exc:
            raise ApiError(f"{method} {self.base_url}{path}: {exc!r}") from exc
        if answer.is_error:
            raise ApiError(
                f"{method} {path}: {answer.status_code} {answer.text[:500]}", status=answer.status_code
            )
        return answer.json() if answer.content else None

    def _pages(self, path: str, field: str, params: Mapping[str, Any]) -> Iterator[Json]:
        offset = 0
        while True:
            page = self.request("GET", path, params={**params, "limit": PAGE, "offset": offset})
            rows = page[field]
            yield from rows
            offset += len(rows)
            if not rows or offset >= page["total_entries"]:
                return

    def health(self) -> dict[str, str | None]:
        """Return the status of each component, None for one that never reported; needs no token."""
        parts = self._send("GET", "/api/v2/monitor/health")
        return {name: (part or {}).get("status") for name, part in parts.items()}

    def dags(self) -> dict[str, Json]:
        return {row["dag_id"]: row for row in self._pages("/dags", "dags", {"exclude_stale": True})}

    def import_errors(self) -> list[Json]:
        return list(self._pages("/importErrors", "import_errors", {}))

    def unpause(self, dag_id: str) -> None:
        self.request(
            "PATCH", f"/dags/{dag_id}", params={"update_mask": "is_paused"}, json={"is_paused": False}
        )

    def pause(self, dag_id: str) -> None:
        self.request(
            "PATCH", f"/dags/{dag_id}", params={"update_mask": "is_paused"}, json={"is_paused": True}
        )

    def trigger(self, dag_id: str, *, conf: Json | None = None, logical_date: datetime | None = None) -> str:
        """Start a run by hand; returns its id."""
        when = logical_date.isoformat() if logical_date else None
        run = self.request("POST", f"/dags/{dag_id}/dagRuns", json={"logical_date": when, "conf": conf or {}})
        return str(run["dag_run_id"])

    def backfill(self, dag_id: str, first: datetime, last: datetime, *, max_active_runs: int = 4) -> int:
        """Ask for a run of each interval that starts in ``[first, last]``; returns the backfill's id."""
        body = {
            "dag_id": dag_id,
            "from_date": first.isoformat(),
            "to_date": last.isoformat(),
            "max_active_runs": max_active_runs,
        }
        return int(self.request("POST", "/backfills", json=body)["id"])

    def drop_backfills(self, dag_id: str) -> None:
        """Cancel the unfinished backfills of a DAG and delete all its backfill runs."""
        for row in self._pages("/backfills", "backfills", {"dag_id": dag_id}):
            if row["completed_at"] is None:
                self.request("PUT", f"/backfills/{row['id']}/cancel")
        for run in self.dag_runs(dag_id, run_type="backfill"):
            self.request("DELETE", f"/dags/{dag_id}/dagRuns/{run['dag_run_id']}")

    def dag_runs(self, dag_id: str = "~", **filters: Any) -> list[Json]:
        """Return runs, the oldest data interval first; ``~`` stands for every DAG."""
        order = {"order_by": "run_after", **filters}
        return list(self._pages(f"/dags/{dag_id}/dagRuns", "dag_runs", order))

    def dag_run(self, dag_id: str, run_id: str) -> Json:
        run: Json = self.request("GET", f"/dags/{dag_id}/dagRuns/{run_id}")
        return run

    def clear(self, dag_id: str, run_id: str) -> None:
        """Run all tasks of a finished run again."""
        self.request("POST", f"/dags/{dag_id}/dagRuns/{run_id}/clear", json={"dry_run": False})

    def upstream_asset_events(self, dag_id: str, run_id: str) -> list[Json]:
        path = f"/dags/{dag_id}/dagRuns/{run_id}/upstreamAssetEvents"
        events: list[Json] = self.request("GET", path)["asset_events"]
        return events

    def task_instances(
        self, dag_id: str = "~", run_id: str = "~", *, states: Sequence[str] = (), **filters: Any
    ) -> list[Json]:
        params: Json = {**filters, **({"state": list(states)} if states else {})}
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances"
        return list(self._pages(path, "task_instances", params))

    def task_instance(self, dag_id: str, run_id: str, task_id: str) -> Json:
        row: Json = self.request("GET", f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}")
        return row

    def extra_links(self, dag_id: str, run_id: str, task_id: str) -> dict[str, str | None]:
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/links"
        links: dict[str, str | None] = self.request("GET", path)["extra_links"]
        return links

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value") -> Any:
        """Return an XCom as it is stored. Raises ApiError with status 404 where there is none."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/{key}"
        return self.request("GET", path)["value"]

    def xcoms(self, dag_id: str, run_id: str, key: str = "return_value") -> dict[str, Any]:
        """Return the values of a run's tasks that were not mapped, by task id."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/~/xcomEntries"
        rows = list(self._pages(path, "xcom_entries", {"xcom_key": key, "map_index": -1}))
        return {row["task_id"]: self.xcom(dag_id, run_id, row["task_id"], key) for row in rows}

    def asset_events(self, **filters: Any) -> list[Json]:
        return list(self._pages("/assets/events", "asset_events", filters))

    def task_log(self, task: Json) -> list[str]:
        """Return the lines of a task instance's last try, in the order of the log."""
        path = (
            f"/dags/{task['dag_id']}/dagRuns/{task['dag_run_id']}/taskInstances/{task['task_id']}"
            f"/logs/{max(task['try_number'], 1)}"
        )
        answer = self.request("GET", path, params={"full_content": True, "map_index": task["map_index"]})
        return [line for row in answer["content"] for line in log_lines(row)]


def _is_of_the_database(exc: ApiError) -> bool:
    return exc.status == httpx.codes.INTERNAL_SERVER_ERROR and '"Database error"' in str(exc)


def log_lines(row: Json | str) -> Iterator[str]:
    """Write one structured log row as a reader wants it, an exception with its innermost frames."""
    if isinstance(row, str):
        yield row
        return
    text = str(row.get("event", ""))
    if text.startswith(("::group::", "::endgroup::")):
        return
    stamp = str(row.get("timestamp") or "")[11:19]
    yield " ".join(part for part in (stamp, str(row.get("level") or "").upper(), text) if part)
    for error in row.get("error_detail") or ():
        for frame in (error.get("frames") or ())[-4:]:
            yield f"    {frame.get('filename')}:{frame.get('lineno')} in {frame.get('name')}"
        yield f"  {error.get('exc_type')}: {error.get('exc_value')}"

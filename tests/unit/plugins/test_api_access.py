# SPDX-License-Identifier: Apache-2.0
"""Who is let in, and what every answer has in common."""

from __future__ import annotations

from typing import Any

import pytest


def test_nobody_is_told_to_log_in(api: Any) -> None:
    answer = api(None).get("status")

    assert answer.status_code == 401
    assert answer.json() == {"detail": "Not authenticated", "code": "not_authenticated"}


@pytest.mark.parametrize("token", ["nonsense", "a.b.c"])
def test_a_forged_token_is_refused(api: Any, token: str) -> None:
    client = api(None)
    client.headers["Authorization"] = f"Bearer {token}"

    assert client.get("status").status_code == 403


def test_a_user_without_any_right_is_refused(api: Any) -> None:
    answer = api("guest", None).get("status")

    assert answer.status_code == 403
    assert answer.json()["code"] == "forbidden"


@pytest.mark.parametrize("role", ["VIEWER", "USER", "OP", "ADMIN"])
def test_whoever_may_read_dags_is_let_in(api: Any, role: str) -> None:
    answer = api("somebody", role).get("status")

    assert answer.status_code == 200
    assert answer.json()["user"] == "somebody"


def test_the_login_may_come_by_cookie_as_from_the_ui(api: Any) -> None:
    token = api("somebody", "USER").headers["Authorization"].removeprefix("Bearer ")
    client = api(None)
    client.cookies["_token"] = token

    assert client.get("status").json()["user"] == "somebody"


def test_where_artifacts_are_is_configuration(api: Any, artifact_root: Any) -> None:
    assert api("admin", "ADMIN").get("status").json()["artifact_root"] == f"file://{artifact_root}"
    assert api("nobody", None).get("status").status_code == 403


@pytest.mark.parametrize(("user", "path"), [("viewer", "status"), ("viewer", "nowhere"), (None, "status")])
def test_answers_are_kept_by_nobody_and_errors_too(api: Any, user: str | None, path: str) -> None:
    headers = api(user).get(path).headers

    assert headers["cache-control"] == "no-store"
    assert headers["vary"] == "Cookie, Authorization"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_nothing_can_be_changed(api: Any, method: str) -> None:
    answer = api("admin", "ADMIN").request(method, "status")

    assert answer.status_code == 405
    assert answer.json()["code"] == "invalid"


def test_what_nobody_expected_is_answered_without_its_text(api: Any, mocker: Any) -> None:
    from airflow_ml_provider.plugins.api import answers, status

    def fails() -> None:
        raise RuntimeError("the password is hunter2")

    mocker.patch.object(status, "load_settings", fails)
    log = mocker.patch.object(answers, "log")
    answer = api().get("status")

    assert answer.status_code == 500
    assert answer.json() == {"detail": "Answering failed; the API server's log says why.", "code": "internal"}
    assert answer.headers["cache-control"] == "no-store"
    log.exception.assert_called_once()

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import socket
from pathlib import Path

import pytest

from demo.__main__ import main
from demo.output import Output
from demo.ports import LOOPBACK


@pytest.mark.parametrize(("option", "purpose"), [("--airflow-port", "Airflow"), ("--mlflow-port", "MLflow")])
def test_a_taken_port_is_told_and_fails(
    option: str, purpose: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        port = server.getsockname()[1]
        code = main([option, str(port), "--folder", str(tmp_path / "demo"), "--dags", str(tmp_path)])
    assert code == 1
    assert f"port {port} of {LOOPBACK} is wanted for {purpose}" in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


def test_a_folder_of_somebody_else_is_told_and_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    assert main(["--folder", str(tmp_path)]) == 1
    assert "no earlier cluster made it" in capsys.readouterr().err
    assert (tmp_path / "thesis.tex").exists()


def test_stopping_where_nothing_runs_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--stop", "--folder", str(tmp_path)]) == 0
    assert "nothing runs" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["0", "65536", "http"])
def test_a_port_that_is_none_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--airflow-port", text])
    assert caught.value.code == 2
    assert text in capsys.readouterr().err


def test_output_that_nobody_watches_is_plain_text() -> None:
    stream = io.StringIO()
    output = Output(stream)
    with output.working():
        output.doing("never shown")
        output.line("version 2 is champion [really]", "green")
    output.table("Evaluations", ("day", "#flights"), [("2013-03-01", "950")])
    text = stream.getvalue()
    assert "\x1b" not in text
    assert "never shown" not in text
    assert " s  version 2 is champion [really]\n" in text
    assert "2013-03-01" in text

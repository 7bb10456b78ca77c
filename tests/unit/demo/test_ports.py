# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import socket

import pytest

from demo.errors import PortTakenError
from demo.ports import LOOPBACK, free_ports, require_free


def test_free_ports_differ_and_can_be_listened_on() -> None:
    ports = free_ports(5)
    assert len(set(ports)) == 5
    for port in ports:
        with socket.create_server((LOOPBACK, port)):
            pass


def test_a_port_that_somebody_listens_on_is_refused_by_number_and_purpose() -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(PortTakenError, match=rf"port {port} .* is wanted for Airflow"):
            require_free(port, "Airflow")


def test_a_port_that_was_just_left_is_free() -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        port = server.getsockname()[1]
        # A connection that the server closes first leaves the port in TIME_WAIT.
        with socket.create_connection((LOOPBACK, port)) as client:
            accepted, _ = server.accept()
            accepted.close()
            client.recv(1)
    assert require_free(port, "Airflow") == port

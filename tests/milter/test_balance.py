"""Sessions spread over the workers; a sibling that hangs costs a moment, not the service."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from relaywarden_milter.balance import HOLD_SECONDS, Balance, Board
from testbed.factories import SidecarFactory, WorkFolder
from testbed.milterclient import MilterClient
from testbed.ports import HOST, free_port
from testbed.process import freeze, wait_for


class Door:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def hold_back(self) -> None:
        self.said.append("hold back")

    def listen_again(self) -> None:
        self.said.append("listen again")


def test_a_worker_holds_back_while_it_is_ahead_and_never_for_long() -> None:
    board, door = Board(2), Door()
    balance = Balance(board, 0, door)
    balance.start()
    balance.has(1)
    assert door.said == []  # one more than the other is no lead
    balance.has(2)
    wait_for("listening", lambda: door.said == ["hold back", "listen again"])  # although the other never caught up
    board.sessions[1] = 5
    balance.has(3)
    assert door.said == ["hold back", "listen again"]
    balance.close()
    balance.has(50)
    assert board.sessions[0] == 3  # the place is another's now


def listeners(pid: int) -> int:
    """Sessions of a worker, as far as sockets tell."""
    count = 0
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            count += str(entry.readlink()).startswith("socket:")
        except FileNotFoundError:
            continue  # closed by now
    return count


def workers(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("kind", ["unix", "inet"])
def test_sessions_are_spread_over_the_workers(kind: str, work_folder: WorkFolder, sidecar_factory: SidecarFactory) -> None:
    work, port = work_folder("balance"), free_port()
    listen = f"unix:{work}/milter" if kind == "unix" else f"inet:{HOST}:{port}"
    sidecar = sidecar_factory({"store": f"sqlite:///{work}/ledger.db", "milter": {"listen": listen, "workers": 2}}, "milter")
    address: Any = f"{work}/milter" if kind == "unix" else (HOST, port)
    before = {pid: listeners(pid) for pid in workers(sidecar.pid)}
    clients = []
    for _ in range(24):
        clients.append(client := MilterClient(address))
        client.negotiate()
        client.begin()
    sessions = [listeners(pid) - count for pid, count in before.items()]
    assert sum(sessions) >= 20  # a door may have had a socket of its own
    assert min(sessions) >= 8, sessions
    for client in clients:
        client.close()


def test_a_sibling_that_hangs_does_not_keep_connections_out(work_folder: WorkFolder, sidecar_factory: SidecarFactory) -> None:
    work = work_folder("hangs")
    config = {"store": f"sqlite:///{work}/ledger.db", "milter": {"listen": f"unix:{work}/milter", "workers": 2}}
    sidecar = sidecar_factory(config, "milter")
    hung = workers(sidecar.pid)[0]
    freeze(hung)
    try:
        began = time.monotonic()
        clients = []
        for _ in range(10):
            clients.append(client := MilterClient(f"{work}/milter"))
            client.negotiate()
            client.begin()
        assert time.monotonic() - began < 10 * HOLD_SECONDS + 4
        for client in clients:
            client.close()
    finally:
        os.kill(hung, signal.SIGCONT)

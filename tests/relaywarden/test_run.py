"""`relaywarden run`: every program under one supervisor, one metrics endpoint, restarts, reload, an orderly stop."""

from __future__ import annotations

import os
import signal
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from testbed.factories import WorkFolder
from testbed.policypeer import DUNNO, Peer, request
from testbed.ports import HOST, free_port
from testbed.process import wait_for
from testbed.sidecar import Sidecar


@pytest.fixture
def running(work_folder: WorkFolder) -> Iterator[Sidecar]:
    work = work_folder("run")
    config: dict[str, Any] = {
        "store": f"sqlite:///{work}/ledger.db",
        "policyd": {"listen": f"unix:{work}/policy", "workers": 2},
        "milter": {"listen": f"unix:{work}/milter", "workers": 1},
        "metrics": {"listen": f"inet:{HOST}:{free_port()}"},
        "plans": {"p": {"limits": [{"recipients": "1000/hour"}]}},
        "tenants": {"acme": {"plan": "p"}},
    }
    with Sidecar(work, config, "run") as sidecar:
        yield sidecar
    assert "Traceback" not in sidecar.log.read_text()


def children(pid: int) -> list[int]:
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")


def scraped(sidecar: Sidecar) -> str:
    address = sidecar.config["metrics"]["listen"].removeprefix("inet:")
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as reply:
        return str(reply.read().decode())


def test_one_endpoint_tells_of_all_programs(running: Sidecar) -> None:
    with closing(Peer.of(running)) as peer:
        assert [peer.ask(request()) for _ in range(3)] == [DUNNO] * 3
    labels = 'cause="admitted",limit="",observed="false",state="RCPT",verdict="dunno"'
    line = f"relaywarden_policyd_decisions_total{{{labels}}} 3.0"
    wait_for("the decisions to show", lambda: line in scraped(running), log=running.log)
    for name in (
        "relaywarden_policyd_store_up",
        "relaywarden_policyd_open_tickets",
        "relaywarden_milter_message_seconds_count",
    ):
        assert name in scraped(running)
    assert "relaywarden_policyd_store_up 1.0" in scraped(running).splitlines()
    assert "acme" not in scraped(running)  # no label carries a tenant


def test_a_program_that_dies_is_started_again(running: Sidecar) -> None:
    (policyd,) = (pid for pid in children(running.pid) if " policyd" in command_line(pid))
    os.kill(policyd, signal.SIGKILL)

    def answers() -> bool:
        try:
            with closing(Peer.of(running)) as peer:
                return peer.ask(request()) == DUNNO
        except OSError:
            return False

    said = "program ended, starting it again"
    wait_for("its end to be noticed", lambda: said in running.log.read_text(), log=running.log)
    wait_for("policyd to answer again", answers, log=running.log)


def reloaded(sidecar: Sidecar) -> bool:
    text = sidecar.log.read_text()
    return text.count("the configuration was read again") == 2 and "reloaded worker=0" in text


def test_hangup_reloads_all_and_term_stops_all(running: Sidecar) -> None:
    os.kill(running.pid, signal.SIGHUP)
    wait_for("both programs to reload", lambda: reloaded(running), log=running.log)
    programs = children(running.pid)
    workers = [worker for program in programs for worker in children(program)]
    assert running.stop() == 0
    for pid in [*programs, *workers]:
        assert not Path(f"/proc/{pid}").exists()


def test_no_orphans_after_an_outright_kill(running: Sidecar) -> None:
    programs = children(running.pid)
    workers = [worker for program in programs for worker in children(program)]
    os.kill(running.pid, signal.SIGKILL)
    wait_for("all to end", lambda: not any(alive(pid) for pid in [*programs, *workers]), log=running.log)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_program_that_cannot_start_ends_run(work_folder: WorkFolder) -> None:
    work = work_folder("run")
    sidecar = Sidecar(work, {"policyd": {"listen": f"unix:{work}/no/such/policy"}}, "run")
    sidecar.write()
    done = sidecar.cli("run")
    assert done.returncode == 2
    assert f"the folder {work}/no/such does not exist" in done.stderr


def test_two_programs_alone_on_one_file_both_serve_mail(work_folder: WorkFolder) -> None:
    """The second finds the metrics' port taken: it says so and goes on."""
    work = work_folder("alone")
    config: dict[str, Any] = {
        "store": f"sqlite:///{work}/ledger.db",
        "policyd": {"listen": f"unix:{work}/policy"},
        "milter": {"listen": f"unix:{work}/milter"},
        "metrics": {"listen": f"inet:{HOST}:{free_port()}"},
        "plans": {"p": {}},
        "tenants": {"acme": {"plan": "p"}},
    }
    with Sidecar(work, config, "policyd"), Sidecar(work, config, "milter") as milter:
        assert "going on without metrics" in milter.log.read_text()

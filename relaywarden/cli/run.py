"""run - start every configured program under one supervisor, each in a process of its own.

SIGTERM and SIGINT stop all, SIGHUP reloads all.  A program that ends is started again after a delay that doubles while it
keeps ending early.  A program that cannot start at all (exit code 2: its configuration or address is not usable) ends
`run` too, so that a service manager sees it.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import click

from relaywarden import logs, metrics
from relaywarden.config.load import load
from relaywarden.config.settings import Settings
from relaywarden.errors import RelaywardenError
from relaywarden.workers import SIGNALS, become_child

log = logging.getLogger(__name__)
_CANNOT_START = 2
_YOUNG_SECONDS = 10.0


@dataclass(slots=True)
class _Program:
    """One program under supervision."""

    name: str
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    delay: float = 0.0
    due: float = 0.0


@click.command()
@click.pass_obj
def run(config: Path) -> None:
    """Start every configured program: policyd and milter where they listen, monitor where it has a source."""
    settings = load(config)
    logs.configure(settings.log, "run")
    programs = [_Program(name) for name in configured(settings)]
    if not programs:
        raise RelaywardenError(f"{config}: nothing to run; set policyd.listen, milter.listen, or a source of monitor")
    stop_metrics = None
    if settings.metrics.listen is not None:
        metrics.prepare()
        stop_metrics = metrics.serve(settings.metrics.listen)
        os.environ[metrics.SERVED] = "1"
    stop_timeout = settings.milter.drain_timeout / 1000 + 10
    try:
        sys.exit(_supervise(config, programs, stop_timeout))
    finally:
        if stop_metrics is not None:
            stop_metrics()


def configured(settings: Settings) -> list[str]:
    """Names of the programs that the settings give an address, or a source."""
    wanted = {
        "policyd": settings.policyd.listen,
        "milter": settings.milter.listen,
        "monitor": settings.monitor.sources,
    }
    return [name for name, given in wanted.items() if given]


def _supervise(config: Path, programs: list[_Program], stop_timeout: float) -> int:
    previous: set[int] = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    status = 0
    try:
        for program in programs:
            _start(config, program, previous)
        while status == 0 and (number := _wait(programs)) not in (signal.SIGTERM, signal.SIGINT):
            if number == signal.SIGHUP:
                _signal(programs, signal.SIGHUP)
            status = _reap(programs)
            for program in programs:
                if program.process is None and status == 0 and time.monotonic() >= program.due:
                    _start(config, program, previous)
    finally:
        _stop(programs, stop_timeout)
    return status


def _start(config: Path, program: _Program, mask: set[int]) -> None:
    program.started = time.monotonic()
    command = [sys.executable, "-m", "relaywarden", "--config", str(config), program.name]
    parent = os.getpid()
    program.process = subprocess.Popen(
        command,
        preexec_fn=lambda: None if become_child(parent, mask) else os._exit(1),  # noqa: PLW1509  # takes no lock
    )
    logs.event(log, logging.INFO, "started", program=program.name, pid=program.process.pid)


def _wait(programs: list[_Program]) -> int:
    waiting = [program.due for program in programs if program.process is None]
    if not waiting:
        return signal.sigwaitinfo(SIGNALS).si_signo
    info = signal.sigtimedwait(SIGNALS, max(0.0, min(waiting) - time.monotonic()))
    return info.si_signo if info else 0


def _reap(programs: list[_Program]) -> int:
    for program in programs:
        status = program.process.poll() if program.process else None
        if status is None:
            continue
        now = time.monotonic()
        young = now - program.started < _YOUNG_SECONDS
        program.delay = min(30.0, max(0.5, program.delay * 2)) if young else 0.0
        program.process, program.due = None, now + program.delay
        if status == _CANNOT_START and young:
            logs.event(log, logging.ERROR, "a program cannot start; its own lines above say why", program=program.name)
            return _CANNOT_START
        logs.event(
            log, logging.WARNING, "program ended, starting it again", program=program.name, status=status, delay=program.delay
        )
    return 0


def _signal(programs: list[_Program], number: signal.Signals) -> None:
    for program in programs:
        if program.process is not None:
            program.process.send_signal(number)


def _stop(programs: list[_Program], timeout: float) -> None:
    _signal(programs, signal.SIGTERM)
    deadline = time.monotonic() + timeout
    for program in programs:
        if program.process is None:
            continue
        try:
            program.process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            logs.event(
                log, logging.WARNING, "program did not stop in time and is killed", program=program.name, seconds=timeout
            )
            program.process.kill()
            program.process.wait()

"""pmta - the same reaction for PowerMTA: command lines of `pmta`, and who runs them.

    paused    pmta disable source --reenable-after=600s IP DOMAIN/VMTA     undone by: pmta enable source IP DOMAIN/VMTA
    spared    pmta set queue --mode=backoff DOMAIN/VMTA                    undone by: pmta set queue --mode=normal DOMAIN/VMTA

(PowerMTA 5.0 user's guide, pmta's own list of commands.)  The milter sends nothing more to a paused member; this stops what
PowerMTA has in its queues already.  A member that is spared, because nobody else could carry its mail, is slowed down at least.
One command for each domain that the member met at the provider, at most 20; `*/VMTA` where the reaction is about all providers.

Commands are lists of arguments, never a text for a shell.  Domains come from recipients and are hostile: what is no plain host
name is left out, and named in `left_out`.

How it fails: `plan` raises PmtaError for a member or an address that cannot be one.  `run` never raises for what a command
does: each has a Result, which says how it ended.  One that cannot be started, or takes too long, ends the row: PowerMTA does
not answer, and each of the others would wait as long.

Known limits: queues that PowerMTA rolls up (`yahoo.rollup/VMTA`) have a name of its own configuration, which is not known here.
PowerMTA takes disabled sources and modes of queues as said; that they are as they should be, nobody asks.  In
backoff mode a queue stays until `backoff-to-normal-after`, which is never by default.
"""

from __future__ import annotations

import ipaddress
import math
import os
import re
import selectors
import shlex
import signal
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import IO

from relaywarden.errors import RelaywardenError
from relaywarden.warmup import EVERY
from relaywarden_monitor.react import MOST_DOMAINS, Kind, Reaction

Command = tuple[str, ...]  # the arguments behind the program's name

TIMEOUT_SECONDS = 10.0
_LONGEST_OUTPUT = 2_000  # octets that are kept of what a command says
_READ = 65_536
_POLL_SECONDS = 0.05
_VMTA = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")


class PmtaError(RelaywardenError):
    """A command line for PowerMTA cannot be made."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What PowerMTA would have to be told, and how that is taken back."""

    commands: tuple[Command, ...] = ()
    undo: tuple[Command, ...] = ()
    left_out: tuple[str, ...] = ()  # domains that are none, as plain ASCII


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended."""

    command: Command
    status: int | None  # exit status; negative: killed by that signal; None: it did not end by itself, or did not begin
    output: str  # what it said, standard error included: one line of plain ASCII
    problem: str = ""  # why it failed; empty: it did not

    @property
    def succeeded(self) -> bool:
        """Whether PowerMTA took it."""
        return not self.problem


def plan(reaction: Reaction, ip: str) -> Plan:
    """The commands for a reaction; `ip`: the member's source address.  None for a notice, or one that is only observed."""
    if reaction.kind is Kind.NOTICE or reaction.observed:
        return Plan()
    vmta = reaction.member
    if not _VMTA.fullmatch(vmta):
        raise PmtaError(f"expected the name of a virtual MTA of letters, digits, _ and -, got {vmta!r:.80}")
    try:
        address = str(ipaddress.ip_address(ip))
    except ValueError as error:
        raise PmtaError(f"{vmta}: expected its source address, got {ip!r:.80}") from error
    fit, left_out = _sorted_out(reaction.domains)
    queues = [f"{domain}/{vmta}" for domain in (["*"] if reaction.provider == EVERY else fit)]
    if reaction.kind is Kind.SPARED:
        done = [("set", "queue", "--mode=backoff", queue) for queue in queues]
        undo = [("set", "queue", "--mode=normal", queue) for queue in queues]
        return Plan(tuple(done), tuple(undo), left_out)
    after = f"--reenable-after={max(1, math.ceil(reaction.seconds))}s"
    disable: list[Command] = [("disable", "source", after, address, queue) for queue in queues]
    enable: list[Command] = [("enable", "source", address, queue) for queue in queues]
    return Plan(tuple(disable), tuple(enable), left_out)


def text(commands: Iterable[Command], program: str = "pmta") -> str:
    """The commands for a person to paste, one a line."""
    return "\n".join(shlex.join([program, *command]) for command in commands)


def run(commands: Sequence[Command], program: str, timeout: float = TIMEOUT_SECONDS) -> list[Result]:
    """Run the commands one after the other; `timeout` in seconds, for each.  One that PowerMTA refuses does not end the row."""
    results: list[Result] = []
    for command in commands:
        if results and results[-1].status is None:
            results.append(Result(command, None, "", "not run, as the one before did not end"))
        else:
            results.append(_run(command, program, timeout))
    return results


def _run(command: Command, program: str, timeout: float) -> Result:
    try:
        process = subprocess.Popen(
            [program, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that what it started ends with it
        )
    except (OSError, ValueError) as error:  # ValueError: a NUL in an argument
        return Result(command, None, "", f"{program} cannot be started: {getattr(error, 'strerror', None) or error}")
    with process:
        assert process.stdout is not None  # noqa: S101  # PIPE was asked for
        said = _plain(_output(process.pid, process.stdout, time.monotonic() + timeout))
        in_time = _has_ended(process.pid)
        os.killpg(process.pid, signal.SIGKILL)  # it has not been waited for, so the number is still its own
        status = process.wait()
    if not in_time:
        return Result(command, None, said, f"no end within {timeout:g} seconds")
    return Result(command, status, said, "" if status == 0 else f"exit status {status}")


def _output(pid: int, stream: IO[bytes], deadline: float) -> bytes:
    """What it says until it ends or the time is up; beyond _LONGEST_OUTPUT it is read, but not kept.

    The end of the process counts, not the end of the stream: something left in the background may hold that open.
    """
    kept = b""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0:
            if not selector.get_map():
                time.sleep(min(left, _POLL_SECONDS))
            elif selector.select(min(left, _POLL_SECONDS)):
                piece = os.read(stream.fileno(), _READ)
                kept += piece[: _LONGEST_OUTPUT - len(kept)]
                if not piece:
                    selector.unregister(stream)
                continue
            if _has_ended(pid):
                break
    return kept


def _has_ended(pid: int) -> bool:
    """Whether a child has ended; it can still be waited for."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _sorted_out(domains: Iterable[str]) -> tuple[list[str], tuple[str, ...]]:
    """The domains that can stand in a command line, and the others."""
    fit: dict[str, None] = {}
    left_out = []
    for domain in domains:
        name = domain.lower().rstrip(".")
        if len(name) <= 253 and domain.isascii() and all(map(_LABEL.fullmatch, name.split("."))):
            fit[name] = None
        else:
            left_out.append(_plain(domain[:80].encode("ascii", "backslashreplace")))
    return list(fit)[:MOST_DOMAINS], tuple(left_out)


def _plain(octets: bytes) -> str:
    line = " ".join(octets.decode("ascii", "backslashreplace").split())
    return "".join(char if char.isprintable() else "?" for char in line)

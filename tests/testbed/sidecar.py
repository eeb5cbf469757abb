"""relaywarden itself, as an operator runs it: a YAML file and `relaywarden --config FILE run|policyd|milter|monitor`.

It is ready when each socket that the started program listens on gives an answer in its protocol (a listening socket
alone accepts before any worker runs): policyd answers a request without a login, which charges nobody, and the milter
negotiates; the monitor, which may listen nowhere, says that it is ready.  `cli` runs the other commands with the same file.
Fails with StartError and the end of its output.

Known limit: the programs' logs and metrics show these first clients.
"""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from testbed.process import Process

_LISTENS = {"run": ("policyd", "milter"), "policyd": ("policyd",), "milter": ("milter",), "monitor": ()}
# Each protocol's first request.  The milter's: length, SMFIC_OPTNEG, version 6, all actions, no steps left out.
_HELLO = {
    "policyd": b"request=smtpd_access_policy\nprotocol_state=CONNECT\nprotocol_name=ESMTP\n\n",
    "milter": struct.pack("!IcIII", 13, b"O", 6, 0x1FF, 0),
}


def answers(address: str | tuple[str, int], request: bytes, timeout: float = 2.0) -> bool:
    """Does the server at this Unix path or (host, port) say anything to the request?"""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(timeout)
        try:
            client.connect(address)
            client.sendall(request)
            return bool(client.recv(512))
        except OSError:
            return False


def command() -> list[str]:
    """How to call relaywarden: the script beside this Python, else the package."""
    script = Path(sys.executable).with_name("relaywarden")
    return [str(script)] if script.exists() else [sys.executable, "-m", "relaywarden"]


def addresses(config: Mapping[str, Any], name: str) -> list[str | tuple[str, int]]:
    """The sockets that a program of this configuration listens on."""
    listen = config.get(name, {}).get("listen", [])
    found: list[str | tuple[str, int]] = []
    for address in [listen] if isinstance(listen, str) else listen:
        kind, _, rest = address.partition(":")
        if kind == "unix":
            found.append(rest)
        else:
            host, _, port = rest.rpartition(":")
            found.append((host, int(port)))
    return found


class Sidecar:
    """One program of relaywarden (`run`: all of them); `config` is what the YAML file holds."""

    def __init__(self, work: Path, config: Mapping[str, Any], program: str = "run", prefix: Sequence[str] = ()) -> None:
        """`prefix`: a command that executes the rest of its arguments, such as one that changes what the program sees."""
        self.work, self.config, self.program, self.prefix = work, dict(config), program, list(prefix)
        self.file, self.log = work / "relaywarden.yaml", work / f"{program}.log"
        self._process: Process | None = None

    def write(self) -> None:
        """(Again) the file; a running program sees it when it reloads."""
        self.work.mkdir(parents=True, exist_ok=True)
        self.file.write_text(yaml.safe_dump(self.config, sort_keys=False))

    def start(self) -> Sidecar:
        self.write()
        argv = [*self.prefix, *command(), "--config", str(self.file), self.program]
        self._process = Process(f"relaywarden {self.program}", argv, self.log, ready=self._accepts)
        self._process.start()
        return self

    def cli(self, *arguments: str, text: str | None = None, columns: int = 120) -> subprocess.CompletedProcess[str]:
        """Run another command of relaywarden on the same configuration."""
        argv = [*command(), "--config", str(self.file), *arguments]
        env = {"COLUMNS": str(columns), "PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LANG": "C.UTF-8"}
        return subprocess.run(argv, input=text, capture_output=True, text=True, check=False, env=env, timeout=60)

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError("relaywarden is not running")
        return self._process.pid

    def alive(self) -> bool:
        return self._process is not None and self._process.alive()

    def stop(self) -> int | None:
        """Stop it and give back its exit status."""
        process, self._process = self._process, None
        return process.stop(grace=20.0) if process is not None else None

    def _accepts(self) -> bool:
        if self.program == "monitor" and "ready" not in self.log.read_text():
            return False
        return all(
            answers(address, _HELLO[name]) for name in _LISTENS[self.program] for address in addresses(self.config, name)
        )

    def __enter__(self) -> Sidecar:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

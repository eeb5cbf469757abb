"""addresses - where a program listens: `unix:/path`, `inet:host:port`, in Postfix's notation.

A Unix socket is bound under a temporary name and renamed into place, so that a client never meets a path without a
listener; a stale path left by a dead program is replaced, one that still answers is an error.  Known limit: the check for
a living listener and the rename are two steps; two programs started at the same instant on one path can race, and the
later one wins.
"""

from __future__ import annotations

import contextlib
import grp
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path

from relaywarden.errors import RelaywardenError, SpecError

BACKLOG = 1024


@dataclass(frozen=True, slots=True)
class Address:
    """A listening address: a Unix socket `path`, or an inet `host` (name or literal) and `port`."""

    path: str | None
    host: str = ""
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> Address:
        """From `unix:/path` or `inet:host:port` (`inet:[::1]:port` for IPv6); raises SpecError."""
        kind, _, rest = text.partition(":")
        if kind == "unix" and rest:
            return cls(rest)
        host, _, port = rest.rpartition(":")
        if kind == "inet" and host and port.isdecimal() and int(port) <= 65535:
            return cls(None, host.strip("[]"), int(port))
        raise SpecError(f"expected unix:/path or inet:host:port, got {text!r}")

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"inet:[{self.host}]:{self.port}" if ":" in self.host else f"inet:{self.host}:{self.port}"


def listen(address: Address, *, mode: int = 0o660, group: str | None = None) -> socket.socket:
    """A non-blocking listening socket; raises RelaywardenError naming the address and what to do."""
    try:
        return _listen_unix(address.path, mode, group) if address.path is not None else _listen_inet(address)
    except OSError as error:
        raise RelaywardenError(f"cannot listen on {address}: {error.strerror or error}") from error


def _listen_inet(address: Address) -> socket.socket:
    family, kind, proto, _, target = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, kind, proto)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Accepted sockets inherit it on Linux: without it Nagle and delayed ACK stall small request/reply exchanges.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return _start(sock, target)


def _listen_unix(path_text: str, mode: int, group: str | None) -> socket.socket:
    path = Path(path_text)
    if not path.parent.is_dir():
        raise RelaywardenError(f"cannot listen on unix:{path}: the folder {path.parent} does not exist; create it first")
    _refuse_living(path)
    staging = path.with_name(f".{path.name}.{os.getpid()}")
    staging.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    _start(sock, str(staging))
    staging.chmod(mode)
    owner_group = group or _folder_group(path.parent)
    with contextlib.suppress(LookupError, PermissionError):  # not root: the folder's own group rules then apply
        os.chown(staging, -1, grp.getgrnam(owner_group).gr_gid)
    staging.rename(path)
    return sock


def _folder_group(folder: Path) -> str:
    """The group of the folder, so that whoever may enter it (Postfix) may also connect."""
    return grp.getgrgid(folder.stat().st_gid).gr_name


def _refuse_living(path: Path) -> None:
    if not path.exists():
        return
    if not stat.S_ISSOCK(path.stat().st_mode):
        raise RelaywardenError(f"cannot listen on unix:{path}: it exists and is not a socket; remove it or choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            return  # stale: nobody listens, so it may be replaced
    raise RelaywardenError(f"cannot listen on unix:{path}: another program is listening there")


def _start(sock: socket.socket, target: object) -> socket.socket:
    try:
        sock.bind(target)  # type: ignore[arg-type]  # getaddrinfo's sockaddr or a path, as the family wants
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock

"""Free loopback ports for the services of the testbed.

A port is looked for below the kernel's ephemeral range, so that no outgoing connection takes it between the choice and
the service's own bind.  Two test processes on one machine do not get the same port either: a chosen port is reserved by
binding an abstract Unix socket that carries its number, which the kernel frees when this process ends.

Fails with RuntimeError when a few hundred tries find nothing.  Known limits: Linux only (abstract sockets); a program
outside the testbed can still take the port first, the service then fails to start and says so in its log.
"""

from __future__ import annotations

import atexit
import random
import socket

HOST = "127.0.0.1"
_LOWEST, _HIGHEST = 20_000, 32_000
_reserved: list[socket.socket] = []  # kept referenced, so kept bound


def free_port(host: str = HOST) -> int:
    """A TCP and UDP port that nobody listens on, reserved for this process until it ends."""
    for _ in range(500):
        port = random.randint(_LOWEST, _HIGHEST)
        if _reserve(port) and _bindable(host, port):
            return port
    raise RuntimeError(f"no free port between {_LOWEST} and {_HIGHEST} on {host}")


def _reserve(port: int) -> bool:
    lock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        lock.bind(f"\0relaywarden-testbed-port-{port}")
    except OSError:
        lock.close()
        return False
    _reserved.append(lock)
    atexit.register(lock.close)
    return True


def _bindable(host: str, port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind((host, port))
            except OSError:
                return False
    return True


def accepts(address: str | tuple[str, int], timeout: float = 1.0) -> bool:
    """Does something accept connections at this Unix path or (host, port)?"""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(timeout)
        try:
            probe.connect(address)
        except OSError:
            return False
    return True

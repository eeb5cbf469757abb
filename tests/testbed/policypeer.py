"""A peer of policyd as Postfix' smtpd is one: a connection that stays open, requests with the attributes that matter."""

from __future__ import annotations

import itertools
import os
import socket

from testbed.sidecar import Sidecar, addresses

DUNNO = b"action=DUNNO\n\n"
_instances = itertools.count()


def request(
    login: str = "acme", recipient: str = "bob@x.example", instance: str = "", state: str = "RCPT", **more: str
) -> bytes:
    instance = instance or f"{os.getpid():x}.{next(_instances):x}"
    attributes = {
        "request": "smtpd_access_policy", "protocol_state": state, "instance": instance, "sasl_username": login,
        "sender": "a=b@acme.example", "recipient": recipient, "client_address": "192.0.2.1", "client_port": "4711", **more,
    }  # fmt: skip
    return "".join(f"{name}={value}\n" for name, value in attributes.items()).encode() + b"\n"


class Peer:
    """A connection as smtpd holds one."""

    def __init__(self, address: str | tuple[str, int]) -> None:
        self.sock = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        self.sock.settimeout(10)
        try:
            self.sock.connect(address)
        except OSError:
            self.sock.close()
            raise
        self._rest = b""

    @classmethod
    def of(cls, sidecar: Sidecar) -> Peer:
        """Connected to the first address that its policyd listens on."""
        return cls(addresses(sidecar.config, "policyd")[0])

    def ask(self, data: bytes, pieces: int | None = None) -> bytes:
        """Send, in pieces if wanted, and wait for one reply."""
        for start in range(0, len(data), pieces or len(data)):
            self.sock.sendall(data[start : start + (pieces or len(data))])
        return self.reply()

    def reply(self) -> bytes:
        """The next reply; empty when the server closed."""
        while b"\n\n" not in self._rest:
            try:
                data = self.sock.recv(65536)
            except ConnectionResetError:  # it closed with bytes of ours unread
                data = b""
            if not data:
                assert not self._rest
                return b""
            self._rest += data
        found, _, self._rest = self._rest.partition(b"\n\n")
        return found + b"\n\n"

    def close(self) -> None:
        self.sock.close()

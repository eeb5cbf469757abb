"""Listening addresses: notation, modes, and paths that are or are not free."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from relaywarden.addresses import Address, listen
from relaywarden.errors import RelaywardenError, SpecError


@pytest.mark.parametrize("text", ["unix:/run/x", "inet:127.0.0.1:10040", "inet:[::1]:25"])
def test_notation_reads_and_prints(text: str) -> None:
    assert str(Address.parse(text)) == text


@pytest.mark.parametrize("text", ["", "unix:", "inet:25", "inet:host:", "inet:host:99999", "tcp:1:2", "/run/x"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(SpecError, match="expected unix:/path or inet:host:port"):
        Address.parse(text)


def test_a_unix_socket_has_tight_modes_and_replaces_a_stale_one(tmp_path: Path) -> None:
    os.chown(tmp_path, -1, 2)
    address = Address.parse(f"unix:{tmp_path}/s")
    for _ in range(2):  # the second finds the path that the first left behind
        sock = listen(address)
        status = (tmp_path / "s").stat()
        assert stat.S_IMODE(status.st_mode) == 0o660
        assert status.st_gid == 2
        assert not sock.getblocking()
        sock.close()
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_a_living_socket_is_not_stolen(tmp_path: Path) -> None:
    address = Address.parse(f"unix:{tmp_path}/s")
    with listen(address), pytest.raises(RelaywardenError, match="another program is listening"):
        listen(address)


def test_errors_name_the_address(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RelaywardenError, match="is not a socket"):
        listen(Address.parse(f"unix:{tmp_path}/file"))
    with pytest.raises(RelaywardenError, match=r"the folder .* does not exist"):
        listen(Address.parse(f"unix:{tmp_path}/no/such"))
    with listen(Address.parse("inet:127.0.0.1:0")) as sock:
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        port = sock.getsockname()[1]
        with pytest.raises(RelaywardenError, match=f"cannot listen on inet:127.0.0.1:{port}: Address already in use"):
            listen(Address.parse(f"inet:127.0.0.1:{port}"))

"""The store of a body: in memory, in a file, and on a file system that is full."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaywarden_milter.spool import Spool


def descriptors() -> list[str]:
    """What the open descriptors of this process stand for."""
    names = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            names.append(str(entry.readlink()))
        except OSError:
            continue  # the one that listed the folder
    return sorted(names)


@contextmanager
def no_file_larger_than(octets: int) -> Iterator[None]:
    """What a full disk does, for this process: writing beyond it fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (octets, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@given(st.lists(st.binary(max_size=50)), st.integers(min_value=0, max_value=300))
def test_what_goes_in_comes_out_as_often_as_wanted(chunks: list[bytes], in_memory: int) -> None:
    before = descriptors()
    spool = Spool(in_memory)
    written = b""
    for chunk in chunks:
        spool.write(chunk)
        written += chunk
        assert spool.size == len(written)
    assert b"".join(spool) == b"".join(spool) == written
    assert (descriptors() == before) is (len(written) <= in_memory)
    spool.close()
    assert descriptors() == before
    assert (spool.size, list(spool)) == (0, [])


def test_reading_and_writing_take_turns() -> None:
    spool = Spool(10)
    for number in range(100):
        spool.write(b"%04d" % number)
        assert b"".join(spool) == b"".join(b"%04d" % n for n in range(number + 1))
    half_read = iter(spool)
    assert next(half_read).startswith(b"0000")
    assert b"".join(spool).endswith(b"0099")
    spool.close()


def test_up_to_the_bound_pieces_are_kept_without_a_copy() -> None:
    spool, piece = Spool(200), bytes(100)
    spool.write(piece)
    spool.write(piece)
    assert all(kept is piece for kept in spool)
    spool.write(b"x")
    assert not spool._chunks  # all of it is in the file now
    spool.close()


def test_the_file_is_private_and_has_no_name() -> None:
    before = descriptors()
    spool = Spool(0)
    spool.write(b"secret")
    (name,) = [name for name in descriptors() if name not in before]
    assert name.endswith("(deleted)")
    assert not Path(name.removesuffix(" (deleted)")).exists()
    (entry,) = [path for path in Path("/proc/self/fd").iterdir() if path.is_symlink() and str(path.readlink()) == name]
    assert entry.stat().st_mode & 0o777 == 0o600
    spool.close()


def test_a_full_disk_is_an_error_and_leaves_no_descriptor() -> None:
    before = descriptors()
    with no_file_larger_than(100_000):
        spool = Spool(1000)
        spool.write(bytes(1000))
        for _ in range(9):
            spool.write(bytes(10_000))
        with pytest.raises(OSError, match="too large"):
            spool.write(bytes(10_000))
        spool.close()
        whole = Spool(200_000)
        whole.write(bytes(200_000))
        with pytest.raises(OSError, match="too large"):  # already while it moves from memory
            whole.write(b"x")
        assert descriptors() == before
        assert b"".join(whole) == bytes(200_000)
        whole.close()


def test_a_file_that_lost_its_end_does_not_read_as_a_shorter_message() -> None:
    spool = Spool(0)
    spool.write(bytes(300_000))
    assert spool._file is not None
    os.ftruncate(spool._file.fileno(), 200_000)
    with pytest.raises(OSError, match="ends after 200000 of 300000"):
        list(spool)
    spool.close()

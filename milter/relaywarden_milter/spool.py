"""spool - octets that arrive in pieces and are read again later: in memory up to a bound, in a temporary file beyond it.

The pieces are kept as they came, without copying.  The first one that goes over the bound moves all of them to a file
without a name (`tempfile.TemporaryFile`, mode 0600), which is gone with its descriptor, also when the process is killed.

How it fails: OSError of `write` and of reading when the file system is full or broken; the spool is of no use then and
must be closed.  A short file is an error too: it never reads as a shorter message.

Known limits: the folder is that of TMPDIR, by default /tmp; where that is a tmpfs, the file is memory as well, though not
that of the process.  One thread at a time.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from typing import BinaryIO

IN_MEMORY = 2**20
_PIECE = 2**17


class Spool:
    """Write pieces, then iterate over them as often as needed."""

    __slots__ = ("_chunks", "_file", "_in_memory", "size")

    def __init__(self, in_memory: int = IN_MEMORY) -> None:
        """`in_memory`: the octets that are kept without a file."""
        self.size = 0  # octets written
        self._in_memory = in_memory
        self._chunks: list[bytes] = []
        self._file: BinaryIO | None = None

    def write(self, chunk: bytes) -> None:
        """The next piece; raises OSError."""
        if self._file is None:
            if self.size + len(chunk) <= self._in_memory:
                self._chunks.append(chunk)
                self.size += len(chunk)
                return
            self._file = self._moved()
        _write_all(self._file, chunk)
        self.size += len(chunk)

    def __iter__(self) -> Iterator[bytes]:
        """All pieces from the start; in a file they are cut anew.  Raises OSError."""
        if self._file is None:
            yield from self._chunks
            return
        descriptor, at = self._file.fileno(), 0
        while at < self.size:
            piece = os.pread(descriptor, min(_PIECE, self.size - at), at)
            if not piece:
                raise OSError(errno.EIO, f"a temporary file ends after {at} of {self.size} octets")
            at += len(piece)
            yield piece

    def close(self) -> None:
        """Forget everything and give the file back; the spool is empty then."""
        file, self._file = self._file, None
        self._chunks, self.size = [], 0
        if file is not None:
            file.close()  # unbuffered: nothing is left to be written, so nothing can fail

    def _moved(self) -> BinaryIO:
        file: BinaryIO = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  # `close` closes it
        try:
            for chunk in self._chunks:
                _write_all(file, chunk)
        except OSError:
            file.close()
            raise
        self._chunks = []
        return file


def _write_all(file: BinaryIO, chunk: bytes) -> None:
    """A raw file takes what fits, and says so only by a number."""
    left = memoryview(chunk)
    while left:
        left = left[file.write(left) :]

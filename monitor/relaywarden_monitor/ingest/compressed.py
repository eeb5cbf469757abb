"""compressed - the bytes of a file by offset, whether it is plain or compressed (gzip, bzip2, xz, zstd).

What a file is, its first bytes say, not its name.  A plain file is read where it is asked for.  A compressed one is a stream:
it is decompressed from its beginning up to the offset, and stays open there; members and frames that follow one another
are one stream, as with `cat a.gz b.gz`.

How it fails: OSError if a file cannot be read.  A compressed file that ends too early, because it is still being written, is
as long as what there is of it.  One that is damaged ends before the damage, and `damage` says so.

Known limits: going back in a compressed file starts over.  Memory is bounded, not time: a file that unpacks to terabytes is
read for hours.
"""

from __future__ import annotations

import bz2
import lzma
import os
import stat
import zlib
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol

import zstandard

BLOCK: Final = 256 * 1024  # bytes that are read of a plain file at once
# The most that one byte can become is some 30 KiB (zstd): so little is unpacked at a time that memory stays bounded.
_PIECE = 1024
_MAGIC_LENGTH = 10
_MAGIC = {
    b"\x1f\x8b\x08": "gzip",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}
_BZIP2_HEAD, _BZIP2_BLOCK = b"BZh", b"1AY&SY"  # with a digit between them; letters alone could be those of a log


class _Decompressor(Protocol):
    eof: bool
    unused_data: bytes

    def decompress(self, data: bytes, /) -> bytes: ...


class Content:
    """An open file.  The caller closes it, or uses it in a `with`."""

    def __init__(self, path: Path) -> None:
        """Raises OSError, also for what is not a regular file."""
        # Without O_NONBLOCK a pipe that someone put there would stop us for ever.
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        self.path = path
        self.status = self.restat()
        if not stat.S_ISREG(self.status.st_mode):
            os.close(self._descriptor)
            raise OSError(f"{path}: expected a regular file")
        kind = _kind(os.pread(self._descriptor, _MAGIC_LENGTH, 0))
        self._stream = _Stream(self._descriptor, kind) if kind else None

    @property
    def packed(self) -> bool:
        """Compressed: its real size is not known before it was read."""
        return self._stream is not None

    @property
    def complete(self) -> bool:
        """Nothing can come after what was read: the end of a compressed file was found."""
        return self._stream is not None and self._stream.complete

    @property
    def damage(self) -> str:
        """Why a compressed file cannot be read further."""
        return self._stream.damage if self._stream else ""

    def restat(self) -> os.stat_result:
        """The file's state now, kept in `status`."""
        self.status = os.fstat(self._descriptor)
        return self.status

    def read_at(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes (uncompressed) from this offset; less only where the file ends.  Raises OSError."""
        if self._stream:
            return self._stream.read_at(offset, size)
        data = os.pread(self._descriptor, size, offset)
        while len(data) < size and (more := os.pread(self._descriptor, size - len(data), offset + len(data))):
            data += more
        return data

    def close(self) -> None:
        """Once only."""
        os.close(self._descriptor)

    def __enter__(self) -> Content:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class _Stream:
    """What comes out of a compressed file: a window of bytes that moves on."""

    def __init__(self, descriptor: int, kind: str) -> None:
        self._descriptor, self._kind = descriptor, kind
        self._begin()

    def _begin(self) -> None:
        self._at = 0  # where the next compressed bytes are read
        self._window = bytearray()
        self._start = 0  # uncompressed offset of the window
        self._decompressor = _decompressor(self._kind)
        self.complete, self.damage = False, ""

    def read_at(self, offset: int, size: int) -> bytes:
        if offset < self._start:
            self._begin()
        while self._start + len(self._window) < offset + size and self._more():
            if self._start + len(self._window) <= offset:
                self._start += len(self._window)
                self._window.clear()
        skip = offset - self._start
        data = bytes(self._window[skip : skip + size])
        if skip > BLOCK:  # seldom: to move what is behind costs a copy of the rest
            del self._window[:skip]
            self._start = offset
        return data

    def _more(self) -> bool:
        """Unpack a little more; False at the end, or at what is the end for now."""
        if self.complete or self.damage:
            return False
        piece = os.pread(self._descriptor, _PIECE, self._at)
        if not piece:
            self.complete = self._decompressor.eof
            return False
        self._at += len(piece)
        try:
            while piece:
                if self._decompressor.eof:
                    piece = piece.lstrip(b"\0")  # tapes and disks pad files with zeros
                    if not piece:
                        break
                    self._decompressor = _decompressor(self._kind)
                self._window += self._decompressor.decompress(piece)
                piece = self._decompressor.unused_data if self._decompressor.eof else b""
        except (zlib.error, lzma.LZMAError, zstandard.ZstdError, OSError, EOFError) as error:
            self.damage = str(error) or type(error).__name__
        return True


def _kind(magic: bytes) -> str:
    """gzip, xz, zstd, bzip2; empty: plain."""
    if magic.startswith(_BZIP2_HEAD) and magic[4:].startswith(_BZIP2_BLOCK):
        return "bzip2"
    return next((kind for begin, kind in _MAGIC.items() if magic.startswith(begin)), "")


def _decompressor(kind: str) -> _Decompressor:
    made: Any
    if kind == "gzip":
        made = zlib.decompressobj(wbits=31)
    elif kind == "bzip2":
        made = bz2.BZ2Decompressor()
    elif kind == "xz":
        made = lzma.LZMADecompressor(memlimit=256 * 2**20)
    else:
        made = zstandard.ZstdDecompressor(max_window_size=128 * 2**20).decompressobj()
    decompressor: _Decompressor = made
    return decompressor

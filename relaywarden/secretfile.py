"""secretfile - read a file that holds a key or a secret, and look at who else may.

How it fails: KeyFileError with the file, what is wrong and what was expected.  A file that others may write is never used; one
that others may read comes with a warning: refusing it would stop mail without making the secret any more secret.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from relaywarden.errors import KeyFileError


def read(path: Path, what: str, largest: int) -> tuple[bytes, str]:
    """The file's octets, at most `largest`, and a warning about its permissions; `what` is its name in texts."""
    try:
        # Opened so that a FIFO does not wait for a writer; what it is, the descriptor says, whatever the name is by now.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(largest + 1) if stat.S_ISREG(mode) else b""
    except OSError as error:
        raise KeyFileError(f"{path}: cannot read the {what}: {error.strerror or error}") from error
    if not stat.S_ISREG(mode) or len(data) > largest:
        raise KeyFileError(f"{path}: not a {what} file (expected a regular file of at most {largest} bytes)")
    if mode & stat.S_IWOTH:
        raise KeyFileError(f"{path}: anybody may change this {what}; expected chmod o-rwx {path}")
    return data, f"{path}: anybody may read this {what}; expected chmod o-rwx {path}" if mode & stat.S_IROTH else ""

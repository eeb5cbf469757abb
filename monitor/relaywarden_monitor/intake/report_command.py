"""report_command - `relaywarden report`: a report from a Postfix pipe(8) transport into the spool of the monitor.

Standard input is the message; it is written to `monitor.spool`/reports as into a maildir (tmp, fsync, then new, mode 0600),
with the envelope recipient in a first line of its own.  The ledger is not asked: the mail is safe even with the store down.

How it fails: exit status 75 (EX_TEMPFAIL, sysexits.h), with the reason on standard error, which Postfix logs; it keeps the
message and tries again.  Never another failure: pipe(8) would bounce a complaint back to who complains.

Known limits: of a message larger than `monitor.max_report_size` the rest is read and dropped.
"""

from __future__ import annotations

import os
import secrets
import socket
import sys
import time
from pathlib import Path
from typing import BinaryIO

import click

from relaywarden.config.load import load
from relaywarden.errors import RelaywardenError
from relaywarden_monitor.intake.deliver import marked

EX_TEMPFAIL = 75
FOLDER = "reports"
_CHUNK = 1 << 20


@click.command()
@click.option("--to", "recipient", default="", help="envelope recipient: in master.cf, ${recipient}")
@click.pass_context
def report(ctx: click.Context, recipient: str) -> None:
    """Store one bounce message or complaint, read from standard input, for the monitor."""
    try:
        settings = load(ctx.obj).monitor
        if settings.spool is None:
            raise RelaywardenError("monitor.spool is not set: expected the folder that the monitor reads")  # noqa: TRY301
        store(settings.spool / FOLDER, marked(take(sys.stdin.buffer, settings.max_report_size), recipient))
    except (RelaywardenError, OSError) as error:
        click.echo(f"relaywarden report: {error}", err=True)
        ctx.exit(EX_TEMPFAIL)


def take(source: BinaryIO, most: int) -> bytes:
    """The first `most` octets of a stream, which is read to its end: pipe(8) takes a broken pipe for a failure."""
    data = source.read(most)
    while source.read(_CHUNK):
        pass
    return data


def store(folder: Path, data: bytes) -> Path:
    """Write one message into a maildir so that it is whole or not there; raises OSError."""
    for name in ("tmp", "new", "cur"):
        (folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
    host = socket.gethostname().replace("/", "\\057").replace(":", "\\072")
    name = f"{time.time_ns() / 1e9:.6f}.P{os.getpid()}R{secrets.token_hex(8)}.{host}"
    staged, final = folder / "tmp" / name, folder / "new" / name
    handle = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(handle)
        staged.rename(final)
    except OSError:
        staged.unlink(missing_ok=True)
        raise
    _sync_folder(folder / "new")
    return final


def _sync_folder(folder: Path) -> None:
    """The name must survive a crash too, before Postfix forgets the message."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

"""hearing - a thread that reads the words of operator and monitor (`relaywarden.steering`) once a second.

One small read a second and worker, whatever the mail; so `keys switch`, `pools pause` or a diverted tenant holds from the next
second on, on every host, and no message waits for the store.

How it fails: with the store down the last words heard stay in force; it is logged once, and once when they are heard again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from relaywarden import steering
from relaywarden.errors import StoreUnavailableError
from relaywarden.ledger.operations import Ledger
from relaywarden.logs import event
from relaywarden.steering import Words

log = logging.getLogger(__name__)
EVERY = 1.0  # seconds
_CLOSING = 5.0


class Hearing:
    """One per process."""

    def __init__(self, connect: Callable[[], Ledger], tell: Callable[[Words], None], every: float = EVERY) -> None:
        """`tell` is called with the words each time they were read, from a thread of its own."""
        self._connect, self._tell, self._every = connect, tell, every
        self._ledger: Ledger | None = None
        self._deaf = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hearing", daemon=True)

    def start(self) -> None:
        """Start listening; after fork, with signals blocked."""
        self._thread.start()

    def close(self) -> None:
        """Stop listening and give back the connection."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(_CLOSING)

    def _run(self) -> None:
        while True:
            self._listen()
            if self._stopping.wait(self._every):
                break
        if self._ledger is not None:
            self._ledger.close()

    def _listen(self) -> None:
        try:
            if self._ledger is None:
                self._ledger = self._connect()
            words = steering.read(self._ledger)
        except StoreUnavailableError as error:
            if not self._deaf:
                event(log, logging.WARNING, "steering cannot be read; what was said last holds on", error=error)
            self._deaf = True
            return
        if self._deaf:
            event(log, logging.INFO, "steering is read again")
            self._deaf = False
        try:
            self._tell(words)
        except Exception:
            log.exception("steering could not be carried out")  # never the end of hearing

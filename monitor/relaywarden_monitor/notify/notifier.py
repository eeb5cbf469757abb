"""notifier - everybody who is to be told: the log at once, each webhook and the mail by a courier of its own.

Channels are named log, mail, webhook-1, webhook-2, ... by their place in the settings: so a corrected URL takes over what waits
for the wrong one.  Who swaps two webhooks sends what waits to the other one.

How it fails: settings that cannot work (a URL, a secret file, an address) raise before anything changes; at a reload the old
ones stay in force.  `courier` and the channels say the rest.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from functools import partial

from relaywarden.config.monitor_settings import NotifySettings
from relaywarden.errors import RelaywardenError
from relaywarden.logs import event
from relaywarden_monitor.notify import meters
from relaywarden_monitor.notify.channel import Backoff, Channel
from relaywarden_monitor.notify.courier import Courier
from relaywarden_monitor.notify.log import LogChannel
from relaywarden_monitor.notify.mail import Mail
from relaywarden_monitor.notify.notice import Kind, Notice, NoticeError, Severity
from relaywarden_monitor.notify.outbox import CAPACITY
from relaywarden_monitor.notify.store import Store
from relaywarden_monitor.notify.webhook import Webhook

log = logging.getLogger(__name__)
STOP_SECONDS = 5.0


class Notifier:
    """One per monitor; `submit` from any thread, the rest from one."""

    def __init__(
        self,
        settings: NotifySettings,
        store: Store,
        *,
        host: str = "",
        backoff: Backoff | None = None,
        capacity: int = CAPACITY,
    ) -> None:
        """`host`: who tells (default: this host's name).  Raises RelaywardenError: which setting or file is wrong."""
        self._store, self._host, self._backoff, self._capacity = store, host or socket.gethostname(), backoff, capacity
        self._log = LogChannel()
        self._couriers = {channel.name: self._courier(channel, settings) for channel in channels(settings, self._host)}

    def start(self) -> None:
        """Start the threads; after fork, with signals blocked."""
        self._remove_orphans()
        for courier in self._couriers.values():
            courier.start()

    def submit(self, notice: Notice) -> None:
        """Have everybody told; waits for nothing but the log."""
        self._log.tell([notice])
        for courier in self._couriers.values():
            courier.submit(notice)

    def reload(self, settings: NotifySettings) -> None:
        """Go on by new settings; raises RelaywardenError, the old ones then stay in force.  Waits for nobody."""
        wanted = {channel.name: channel for channel in channels(settings, self._host)}
        couriers = {}
        for name, channel in wanted.items():
            if name in self._couriers:
                couriers[name] = self._couriers[name]
                couriers[name].change(channel, batch=settings.batch / 1000, keep=settings.keep / 1000)
            else:
                couriers[name] = self._courier(channel, settings)
                couriers[name].start()
        gone = [courier for name, courier in self._couriers.items() if name not in wanted]
        self._couriers = couriers  # as a whole, for threads that submit now
        for courier in gone:
            courier.ask_to_stop(0.0, discard=True)

    def stop(self, timeout: float = STOP_SECONDS) -> int:
        """Tell what waits, for up to `timeout` seconds; how many notices are left, counted for each channel.

        The last call: nobody looks at what is submitted later.
        """
        deadline = time.monotonic() + timeout
        for courier in self._couriers.values():
            courier.ask_to_stop(timeout)
        left = {name: courier.join(max(0.0, deadline - time.monotonic())) for name, courier in self._couriers.items()}
        for name, count in left.items():
            if count:
                event(log, logging.WARNING, "notices wait in the store for the next start", channel=name, count=count)
        return sum(left.values())

    def _courier(self, channel: Channel, settings: NotifySettings) -> Courier:
        return Courier(
            channel, self._store, batch=settings.batch / 1000, keep=settings.keep / 1000, backoff=self._backoff,
            capacity=self._capacity,
        )  # fmt: skip

    def _remove_orphans(self) -> None:
        """What waits for channels that the settings no longer have."""
        try:
            for key, _ in self._store.all():
                name = key.partition("/")[0]
                if name not in self._couriers:
                    self._store.remove(key)
                    meters.NOTICES.labels(name, "dropped").inc()
                    event(log, logging.WARNING, "a stored notice is given up, its channel is gone from the settings", key=key)
        except (RelaywardenError, OSError) as error:
            event(log, logging.WARNING, "cannot look for stored notices without a channel; the next start will", error=error)


def channels(settings: NotifySettings, host: str) -> list[Channel]:
    """All but the log; raises RelaywardenError naming the setting that is wrong."""
    made: list[Channel] = []
    try:
        made.extend(make() for _, make in _makers(settings, host))
    except RelaywardenError:
        for channel in made:
            channel.close()
        raise
    return made


def test(settings: NotifySettings, host: str = "") -> list[tuple[str, str | None]]:
    """Tell one information by every channel, now and once: the channels' names, each with an error or None.

    It may take as long as all time-outs together.
    """
    host = host or socket.gethostname()
    notice = Notice.make(
        "test", Kind.INFORMATION, Severity.INFO, subject=host, what="a test of the notices of relaywarden; nothing happened",
        at=time.time(),
    )  # fmt: skip
    LogChannel().tell([notice])
    return [("log", None), *((name, _try(make, notice)) for name, make in _makers(settings, host))]


def _try(make: Callable[[], Channel], notice: Notice) -> str | None:
    try:
        channel = make()
        try:
            channel.tell([notice])
        finally:
            channel.close()
    except RelaywardenError as error:
        return str(error)
    return None


def _makers(settings: NotifySettings, host: str) -> list[tuple[str, Callable[[], Channel]]]:
    """Each channel's name and what makes it."""
    makers: list[tuple[str, Callable[[], Channel]]] = [
        (f"webhook-{number}", partial(_webhook, number, settings, host)) for number in range(1, len(settings.webhooks) + 1)
    ]
    if settings.mail is not None:
        makers.append(("mail", partial(Mail, "mail", settings.mail, host)))
    return makers


def _webhook(number: int, settings: NotifySettings, host: str) -> Channel:
    try:
        return Webhook(f"webhook-{number}", settings.webhooks[number - 1], host)
    except NoticeError as error:
        raise NoticeError(f"notify.webhooks[{number - 1}].url: {error}") from error

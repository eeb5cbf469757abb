"""lookup - asks DNS: not too fast, not too much at once, nothing twice.

One Asker serves one run.  It sends at most `rate` questions a second, evenly spaced, with at most 32 waiting for an answer;
each question waits 3 seconds, and is put twice, to the next name server if there are several.  TCP follows where an answer was
cut (dnspython does it).  Answers are kept for the run, up to 32 MB of them, oldest out first; whoever asks what is being asked
already gets the same answer.

How it fails: never by an exception; a time-out, SERVFAIL, REFUSED, a loop of aliases or garbage is a Reply that FAILED, which
says why.  After 40 time-outs in a row the name servers are asked for the root, which every resolver knows; if that is not
answered either, nothing more is asked in this run, and the log says so.  Names that DNS cannot hold (an empty label, one of 64
octets) are NXDOMAIN without a question.

Known limits: the TCP question after a cut answer does not count for the rate.  TTLs do not matter: a run is short.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Sequence
from itertools import cycle, islice
from typing import TypeVar

import dns.asyncresolver
import dns.exception
import dns.name

from relaywarden.logs import event
from relaywarden_monitor.dnswatch.nameservers import resolve
from relaywarden_monitor.dnswatch.replies import NOWHERE, Question, Reply, Status, Steps

log = logging.getLogger(__name__)
_ATTEMPTS = 2
_PATIENCE = 40  # time-outs in a row
_AT_ONCE = 32
_ROOM = 32 * 2**20  # characters of answers that are kept
_OVERHEAD = 500  # of one kept answer
_GIVEN_UP = Reply(Status.FAILED, why="not asked, as no name server answers", silent=True)
_Result = TypeVar("_Result")


class Asker:
    """One per run and event loop."""

    def __init__(self, resolvers: Sequence[dns.asyncresolver.Resolver], rate: int) -> None:
        """`resolvers`: one for each name server (`nameservers.resolvers`); `rate` in questions a second."""
        self.sent = 0
        self._resolvers, self._gap = resolvers, 1 / rate
        self._due = 0.0
        self._silent, self._gone = 0, False
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._asked: OrderedDict[Question, asyncio.Task[Reply]] = OrderedDict()
        self._held = 0

    async def ask(self, name: str, kind: str) -> Reply:
        """What DNS says; never raises."""
        question = Question(name.rstrip(".").lower(), kind)
        task = self._asked.get(question)
        if task is None:
            absolute = _absolute(question.name)
            if absolute is None:
                return NOWHERE
            task = self._asked[question] = asyncio.create_task(self._put(absolute, kind))
            task.add_done_callback(self._keep)
        return await task

    async def follow(self, steps: Steps[_Result]) -> _Result:
        """Answer a decision's questions until it is made."""
        try:
            question = next(steps)
            while True:
                question = steps.send(await self.ask(*question))
        except StopIteration as end:
            result: _Result = end.value
            return result

    async def _put(self, name: dns.name.Name, kind: str) -> Reply:
        reply = Reply(Status.FAILED, why="there is no name server")
        for resolver in islice(cycle(self._resolvers), max(_ATTEMPTS, min(len(self._resolvers), 3))):
            async with self._slots:
                if self._gone:
                    return _GIVEN_UP
                await self._turn()
                reply = await resolve(resolver, name, kind)
                self._silent = self._silent + 1 if reply.silent else 0
                if self._silent and self._silent % _PATIENCE == 0:
                    await self._probe()
            if not reply.failed:
                break
        return reply

    async def _probe(self) -> None:
        """Is it the domains that are dead, or the name servers?"""
        await self._turn()
        roots = await asyncio.gather(*(resolve(resolver, dns.name.root, "NS") for resolver in self._resolvers))
        if all(reply.silent for reply in roots) and not self._gone:
            self._gone = True
            servers = ", ".join(str(resolver.nameservers[0]) for resolver in self._resolvers)
            event(log, logging.WARNING, "no name server answers; nothing more is asked in this run", servers=servers)

    async def _turn(self) -> None:
        """Wait until the rate allows one more question."""
        now = asyncio.get_running_loop().time()
        due = max(now, self._due)
        self._due = due + self._gap
        self.sent += 1
        if due > now:
            await asyncio.sleep(due - now)

    def _keep(self, task: asyncio.Task[Reply]) -> None:
        if task.cancelled():
            return
        self._held += _size(task.result())
        while self._held > _ROOM and next(iter(self._asked.values())).done():
            _, oldest = self._asked.popitem(last=False)
            self._held -= _size(oldest.result())


def _size(reply: Reply) -> int:
    return _OVERHEAD + sum(map(len, reply.records))


def _absolute(name: str) -> dns.name.Name | None:
    """The name as DNS holds it, without escapes or IDNA: what comes from SPF macros is any text."""
    try:
        return dns.name.Name([*(label.encode("latin-1") for label in name.split(".")), b""])
    except (dns.exception.DNSException, UnicodeEncodeError):
        return None

"""spf - what receivers find when they check SPF (RFC 7208): the result for one address, and which term decided.

The evaluator does no I/O: it yields questions and is sent replies (`replies.Steps`), so tests drive it from a table.  pyspf
was looked at and not taken: it asks DNS itself, blocking, through one function of its module that all callers share, and does
not tell which term of which record matched.

Limits that receivers have (section 4.6.4), each a permerror: 10 terms that need DNS, includes counted; 10 hosts of one
mx; 2 look-ups that find nothing.  Of the names of a ptr or %{p} the first 10 count.

How it fails: a record in error is PERMERROR, a look-up that failed is TEMPERROR, both with a reason.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Generator
from dataclasses import dataclass, field
from enum import Enum

from relaywarden_monitor.dnswatch.replies import Question, Reply, Steps
from relaywarden_monitor.dnswatch.spf_syntax import Address, Mechanism, SpfError, expand, is_spf, letters, parse

MOST_LOOKUPS = 10
MOST_VOID = 2
_MOST_HOSTS = 10


class Result(Enum):
    """RFC 7208 section 2.6."""

    NONE = "none"
    NEUTRAL = "neutral"
    PASS = "pass"  # noqa: S105  # no password
    FAIL = "fail"
    SOFTFAIL = "softfail"
    TEMPERROR = "temperror"
    PERMERROR = "permerror"


_QUALIFIERS = {"+": Result.PASS, "-": Result.FAIL, "~": Result.SOFTFAIL, "?": Result.NEUTRAL}


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result, and why."""

    result: Result
    term: str = ""  # the term that decided, as it was written
    domain: str = ""  # whose record that term is of
    why: str = ""  # of an error
    lookups: int = 0  # terms that needed DNS so far
    notes: frozenset[str] = frozenset()  # "ptr": the record uses it on the way; "all": everybody passes

    def __str__(self) -> str:
        return f"{self.result.value} ({self.why or (f'{self.term} of {self.domain}' if self.term else 'nothing matches')})"


def check(address: Address, sender: str, helo: str) -> Steps[Outcome]:
    """check_host() (section 4) for an envelope sender `local@domain`; yields questions.  Never raises."""
    evaluation = _Evaluation(address, sender, helo)
    try:
        outcome = yield from evaluation.check(sender.rpartition("@")[2])
    except SpfError as error:
        outcome = Outcome(Result.TEMPERROR if error.temporary else Result.PERMERROR, why=str(error))
    notes = evaluation.notes | (
        {"all"} if outcome.result is Result.PASS and outcome.term.lower().lstrip("+") == "all" else set()
    )
    return Outcome(outcome.result, outcome.term, outcome.domain, outcome.why, evaluation.lookups, frozenset(notes))


@dataclass(slots=True)
class _Evaluation:
    """One check of one address."""

    address: Address
    sender: str
    helo: str
    lookups: int = 0
    void: int = 0
    notes: set[str] = field(default_factory=set)

    def check(self, domain: str) -> Steps[Outcome]:
        """The result of one record; raises SpfError."""
        reply = yield from self._ask(domain, "TXT")
        records = [text for text in reply.records if is_spf(text)]
        if not records:
            return Outcome(Result.NONE, domain=domain, why=f"{domain} has no SPF record")
        if len(records) > 1:
            raise SpfError(f"{domain} has {len(records)} SPF records")
        try:
            record = parse(records[0])
        except SpfError as error:
            raise SpfError(f"{error} (of {domain})") from error
        for mechanism in record.mechanisms:
            if (yield from self._matches(mechanism, domain)):
                return Outcome(_QUALIFIERS[mechanism.qualifier], mechanism.text, domain)
        if not record.redirect:
            return Outcome(Result.NEUTRAL, domain=domain)
        self._count(f"redirect={record.redirect}")
        target = yield from self._expand(record.redirect, domain)
        outcome = yield from self.check(target)
        if outcome.result is Result.NONE:
            raise SpfError(f"{domain} redirects to {target}, which has no SPF record")
        return outcome

    def _matches(self, mechanism: Mechanism, domain: str) -> Steps[bool]:
        if mechanism.name == "all":
            return True
        if mechanism.network is not None:
            return self.address in mechanism.network
        self._count(mechanism.text)
        target = (yield from self._expand(mechanism.domain, domain)) if mechanism.domain else domain
        if mechanism.name == "include":
            return (yield from self._included(target, domain))
        if mechanism.name == "exists":
            reply = yield from self._ask(target, "A")
            return bool(self._counted(reply).records)
        if mechanism.name == "a":
            return (yield from self._lives_at(target, mechanism))
        if mechanism.name == "mx":
            return (yield from self._is_mx(target, mechanism))
        self.notes.add("ptr")
        names = yield from self._own_names()
        return any(name == target.lower() or name.endswith("." + target.lower()) for name in names)

    def _included(self, target: str, domain: str) -> Steps[bool]:
        """Section 5.2: only pass matches; that there is no record is an error."""
        outcome = yield from self.check(target)
        if outcome.result is Result.NONE:
            raise SpfError(f"{domain} includes {target}, which has no SPF record")
        return outcome.result is Result.PASS

    def _is_mx(self, target: str, mechanism: Mechanism) -> Steps[bool]:
        reply = yield from self._ask(target, "MX")
        hosts = [host for host in self._counted(reply).records if host]
        if len(hosts) > _MOST_HOSTS:
            raise SpfError(f"{mechanism.text}: {target} has {len(hosts)} mail hosts, expected at most {_MOST_HOSTS}")
        for host in hosts:
            if (yield from self._lives_at(host, mechanism)):
                return True
        return False

    def _lives_at(self, host: str, mechanism: Mechanism) -> Steps[bool]:
        reply = yield from self._addresses(host)
        self._counted(reply)
        four = isinstance(self.address, ipaddress.IPv4Address)
        free = 32 - mechanism.cidr4 if four else 128 - mechanism.cidr6  # bits that do not matter
        return any(int(ipaddress.ip_address(text)) >> free == int(self.address) >> free for text in reply.records)

    def _own_names(self) -> Steps[list[str]]:
        """The names of the address that lead back to it (section 5.5); errors make it have none."""
        reply = yield Question(self.address.reverse_pointer, "PTR")
        if not reply.failed:
            self._counted(reply)
        found = []
        for name in reply.records[:_MOST_HOSTS]:
            back = yield from self._addresses(name, strict=False)
            if str(self.address) in back.records:
                found.append(name)
        return found

    def _addresses(self, host: str, *, strict: bool = True) -> Steps[Reply]:
        kind = "A" if isinstance(self.address, ipaddress.IPv4Address) else "AAAA"
        return (yield from self._ask(host, kind)) if strict else (yield Question(host, kind))

    def _ask(self, name: str, kind: str) -> Generator[Question, Reply, Reply]:
        reply = yield Question(name, kind)
        if reply.failed:
            raise SpfError(f"{kind} of {name}: {reply.why or 'no answer'}", temporary=True)
        return reply

    def _count(self, term: str) -> None:
        self.lookups += 1
        if self.lookups > MOST_LOOKUPS:
            raise SpfError(f"more than {MOST_LOOKUPS} terms that need DNS, the first beyond is {term[:80]}")

    def _counted(self, reply: Reply) -> Reply:
        self.void += not reply.records
        if self.void > MOST_VOID:
            raise SpfError(f"more than {MOST_VOID} look-ups that find nothing")
        return reply

    def _expand(self, text: str, domain: str) -> Steps[str]:
        """A domain-spec as a name (section 7)."""
        if "%" not in text:
            return text.rstrip(".").lower()
        local, _, sender_domain = self.sender.rpartition("@")
        four = isinstance(self.address, ipaddress.IPv4Address)
        dotted = str(self.address) if four else ".".join(self.address.exploded.replace(":", ""))
        values = {
            "s": self.sender, "l": local, "o": sender_domain, "d": domain, "i": dotted, "h": self.helo,
            "v": "in-addr" if four else "ip6", "p": "unknown",
        }  # fmt: skip
        if "p" in letters(text):
            names = yield from self._own_names()
            near = [name for name in names if name == domain] or [name for name in names if name.endswith("." + domain)]
            values["p"] = next(iter(near or names), "unknown")
        return expand(text, values)

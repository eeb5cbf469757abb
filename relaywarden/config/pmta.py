"""pmta - PowerMTA's configuration beside ours: what `relaywarden check --pmta FILE` reads and compares.

What is read: blocks (`<virtual-mta NAME>` ... `</virtual-mta>`, nested or not), directives (`name value ...`; names in any
case, values may be "quoted"), comments from `#` on (`\\x23` is a literal one), and `include FILE`, whose lines count as if they
stood there: a path relative to the including file's folder, `*` and `?` allowed.  Of all that only virtual MTAs, pools and
sources are kept.  Blocks of one kind and name are one, and the last value of a directive counts.

How it fails: never.  Files that cannot be read, circles of includes and blocks that do not close are problems like others.

Known limits: this follows PowerMTA 5.0 and does not replace its own `pmta test config`; other directives are not looked at.
A virtual MTA without its own `smtp-source-host` may inherit one: then its address is not compared.  What a source inherits
from another is not known here: it must say itself what it processes.  How PowerMTA resolves a relative include was not tried
on one.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from relaywarden.config.fields import plain_ip
from relaywarden.config.settings import Settings
from relaywarden.errors import Problem

_WORD = re.compile(r'(?P<comment>#)|"(?P<quoted>[^"]*)"|(?P<plain>[^\s"#]+|")')
_LARGEST_FILE = 16 * 2**20
_MOST_FILES = 10_000  # includes of includes multiply
_DEEPEST = 32
_EVERYBODY = {"0/0", "0.0.0.0/0", "::/0"}
_YES = {"yes", "true", "on", "1"}
_HEADER = "x-virtual-mta"
_ADDRESSES = {"smtp-source-host", "smtp-source-ip"}


@dataclass(slots=True)
class Block:
    """A virtual MTA, a pool or a source; `where` is the file and line on which it first opens."""

    name: str
    where: str
    directives: dict[str, list[tuple[str, str]]] = field(default_factory=dict)  # name in lower case -> (value, where), in order

    def values(self, *names: str) -> list[str]:
        """The first word of each such directive, in order."""
        return [value for name in names for value, _ in self.directives.get(name, [])]

    def says(self, name: str, default: bool) -> bool:
        """The last value of a yes/no directive."""
        values = self.values(name)
        return values[-1].lower() in _YES if values else default


@dataclass(frozen=True, slots=True)
class _Open:
    """A block that was opened and is not closed yet."""

    kind: str
    block: Block
    where: str


@dataclass(slots=True)
class Pmta:
    """The part of a PowerMTA configuration that concerns us."""

    file: str
    vmtas: dict[str, Block] = field(default_factory=dict)
    pools: dict[str, Block] = field(default_factory=dict)
    sources: dict[str, Block] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)  # of the files themselves
    remarks: list[Problem] = field(default_factory=list)
    unread: bool = False  # the file itself could not be read: there is nothing to compare with


def read(path: Path) -> Pmta:
    """Read a PowerMTA configuration with everything it includes; its `problems` say what could not be read."""
    pmta = Pmta(str(path))
    kinds = {"virtual-mta": pmta.vmtas, "virtual-mta-pool": pmta.pools, "source": pmta.sources}
    stack: list[_Open] = []
    for where, words in _Files(pmta).lines(path):
        first = words[0].lower()
        if first.startswith("</"):
            _close(pmta, stack, where, " ".join(words)[2:].rstrip("> ").lower())
        elif first.startswith("<"):
            kind, name = first[1:].rstrip(">"), " ".join(words[1:]).rstrip("> ")
            if not words[-1].endswith(">"):
                pmta.problems.append(Problem(where, f"expected > at the end of <{kind}"))
            stack.append(_Open(kind, kinds.get(kind, {}).setdefault(name, Block(name, where)), where))
        elif stack:
            value = words[1] if len(words) > 1 else ""
            stack[-1].block.directives.setdefault(first, []).append((value, where))
    pmta.problems += [Problem(opened.where, f"<{opened.kind} {opened.block.name}> is not closed") for opened in stack]
    return pmta


def problems(settings: Settings, pmta: Pmta) -> Iterator[Problem]:
    """What would have PowerMTA refuse our mail, send it from another address, or leave our headers in it."""
    yield from pmta.problems
    if pmta.unread:
        return
    for name in sorted(pmta.vmtas.keys() & pmta.pools.keys()):
        what = f"{name} is a pool here and a virtual MTA at {pmta.vmtas[name].where}; the two share one name space"
        yield Problem(pmta.pools[name].where, what)
    if settings.route.header.lower() != _HEADER:
        yield Problem("route.header", f"expected X-Virtual-MTA, which is what PowerMTA reads; got {settings.route.header}")
    for name in settings.pools:
        yield from _pool_problems(settings, pmta, name)
    yield from _source_problems(settings, pmta)


def remarks(settings: Settings, pmta: Pmta) -> Iterator[Problem]:
    """What works but may not be what was meant."""
    yield from pmta.remarks
    if pmta.unread:
        return
    if not settings.route.powermta:
        yield Problem("route.powermta", "false: X-Job and X-Envid are not sent, so PowerMTA's log does not name tenants")
    for name in sorted(settings.pools.keys() & pmta.pools.keys()):
        ours, theirs = set(settings.pools[name].members), set(pmta.pools[name].values("virtual-mta"))
        if ours != theirs:
            what = f"pool {name} has {_listed(theirs)} here, and {_listed(ours)} in pools.{name}"
            yield Problem(pmta.pools[name].where, what)
    for name in sorted({member for pool in settings.pools.values() for member in pool.members} & pmta.vmtas.keys()):
        if not pmta.vmtas[name].values(*_ADDRESSES):
            yield Problem(pmta.vmtas[name].where, f"virtual MTA {name} has no smtp-source-host: its address was not compared")
    everybody = [source for name, source in pmta.sources.items() if name in _EVERYBODY]
    for source in everybody:
        if source.says("smtp-service", True):
            free = " and may choose a virtual MTA" if source.says("process-x-virtual-mta", False) else ""
            yield Problem(source.where, f"source {source.name}: everybody gets service{free}; expected smtp-service no")
    if not everybody:
        yield Problem(pmta.file, "no <source 0/0>: everybody gets service by default; expected one with smtp-service no")
    for source in _trusted(pmta):
        for header in ("x-virtual-mta", "x-job"):
            if source.says(f"retain-{header}", False):
                yield Problem(source.where, f"source {source.name}: retain-{header} leaves the header in the delivered mail")


def _pool_problems(settings: Settings, pmta: Pmta, name: str) -> Iterator[Problem]:
    pool, by_pool = settings.pools[name], settings.route.target == "pool"
    if by_pool and name not in pmta.pools and name not in pmta.vmtas:
        yield Problem(f"pools.{name}", f"no <virtual-mta-pool {name}> in {pmta.file}{_alike(name, [*pmta.pools, *pmta.vmtas])}")
    if by_pool and name in pmta.pools:
        for member, where in pmta.pools[name].directives.get("virtual-mta", []):
            if member not in pmta.vmtas:
                yield Problem(where, f"pool {name}: there is no <virtual-mta {member}>{_alike(member, pmta.vmtas)}")
    for member, values in pool.members.items():
        vmta = pmta.vmtas.get(member)
        if vmta is not None:
            addresses = [_address(value) for value in vmta.values(*_ADDRESSES)]
            if addresses and values.ip not in addresses:
                what = f"virtual MTA {member} sends from {_listed(addresses)}; pools.{name}.members.{member}.ip is {values.ip}"
                yield Problem(vmta.where, what)
        elif not by_pool:
            what = f"no <virtual-mta {member}> in {pmta.file}{_alike(member, pmta.vmtas)}"
            yield Problem(f"pools.{name}.members.{member}", what)


def _source_problems(settings: Settings, pmta: Pmta) -> Iterator[Problem]:
    """Headers that PowerMTA does not process stay in the mail, for the recipient to see."""
    trusted = _trusted(pmta)
    if not trusted:
        what = (
            "no <source> but 0/0 has service and process-x-virtual-mta yes: X-Virtual-MTA would be ignored and left in the mail"
        )
        yield Problem(pmta.file, what)
    if not settings.route.powermta:
        return
    missing = [
        (source, [name for name in ("x-job", "x-envid") if not source.says(f"process-{name}", False)]) for source in trusted
    ]
    if all(names for _, names in missing):  # another one may be for another sender
        for source, names in missing:
            wanted = " and ".join(f"process-{name} yes" for name in names)
            what = f"source {source.name}: expected {wanted} with route.powermta; else the headers are left in the mail"
            yield Problem(source.where, what)


def _trusted(pmta: Pmta) -> list[Block]:
    """The sources from which X-Virtual-MTA is obeyed."""
    return [
        source
        for name, source in pmta.sources.items()
        if name not in _EVERYBODY and source.says("process-x-virtual-mta", False) and source.says("smtp-service", True)
    ]


def _address(value: str) -> str:
    try:
        return plain_ip(value.strip("[]"))
    except ValueError:
        return value


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _alike(name: str, names: Iterable[str]) -> str:
    found = next((other for other in names if other.lower() == name.lower()), None)
    return f"; {found} differs in case" if found else ""


def _close(pmta: Pmta, stack: list[_Open], where: str, kind: str) -> None:
    """End the innermost block of this kind; those inside it were not closed."""
    if kind not in [opened.kind for opened in stack]:
        pmta.problems.append(Problem(where, f"</{kind}> closes nothing"))
        return
    while (inner := stack.pop()).kind != kind:
        what = f"<{inner.kind} {inner.block.name}> is not closed before </{kind}> at {where}"
        pmta.problems.append(Problem(inner.where, what))


class _Files:
    """The lines of a file and of what it includes."""

    def __init__(self, pmta: Pmta) -> None:
        self._pmta = pmta
        self._left = _MOST_FILES

    def lines(self, path: Path, above: tuple[str, ...] = (), included_at: str = "") -> Iterator[tuple[str, list[str]]]:
        """Each line that says something: `file:line` and its words."""
        text = self._text(path, included_at)
        above = (*above, os.path.realpath(path))
        for number, line in enumerate(text.split("\n"), 1):
            words, where = _words(line), f"{path}:{number}"
            if not words:
                continue
            if words[0].lower() != "include" or len(words) < 2:
                yield where, words
                continue
            for file in self._included(path, words[1], where):
                circle = os.path.realpath(file) in above
                if circle or len(above) >= _DEEPEST or self._left <= 0:
                    fault = "includes itself" if circle else "too many includes"
                    self._pmta.problems.append(Problem(where, f"{file}: {fault}"))
                    continue
                yield from self.lines(file, above, where)

    def _included(self, path: Path, name: str, where: str) -> list[Path]:
        if not glob.has_magic(name):
            return [path.parent / name]
        found = sorted(glob.glob(str(Path(glob.escape(str(path.parent))) / name)))  # noqa: PTH207  # Path.glob takes no absolute pattern
        if not found:
            self._pmta.remarks.append(Problem(where, f"no file matches {name}"))
        return [Path(file) for file in found]

    def _text(self, path: Path, included_at: str) -> str:
        self._left -= 1
        reason = "not a regular file"
        try:
            if path.is_file():
                with path.open("rb") as file:
                    data = file.read(_LARGEST_FILE + 1)
                if len(data) <= _LARGEST_FILE:
                    return data.decode("utf-8-sig", "replace").replace("\0", "\ufffd")  # no file name has a NUL
                reason = f"larger than {_LARGEST_FILE} bytes"
            elif not path.exists():
                reason = "no such file"
        except OSError as error:
            reason = str(error.strerror or error)
        self._pmta.unread |= not included_at
        self._pmta.problems.append(Problem(included_at or str(path), f"cannot read {path}: {reason}"))
        return ""


def _words(line: str) -> list[str]:
    words = []
    for match in _WORD.finditer(line):
        if match["comment"]:
            break
        words.append((match["quoted"] if match["quoted"] is not None else match["plain"]).replace(r"\x23", "#"))
    return words

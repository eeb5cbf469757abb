r"""rules - rules for reply texts, read from YAML files: the built-in ones beside this module, and the operator's.

    source: "RFC 5321 2008-10-01"          # of every rule in the file that names none of its own
    rules:
      - name: yahoo-volume                 # stable: logs, metrics and reactions know a rule by it
        match: '\[tss0?4\]'                # a regular expression, or a list of them; case and line breaks do not matter
        providers: [yahoo]                 # of relaywarden.providers; absent: any
        strict: false                      # true: others use these words too, so never ask it about another provider's reply
        category: ip-rate                  # of vocabulary; brings scope, blame and severity along
        scope: ip                          # these three only where the rule differs from its category
        blame: pool
        severity: high
        wait: 4h                           # until the next attempt makes sense, as the provider says
        source: "yahoo-error-codes 2026-02-15"   # where the rule comes from, and its date
        example: "421 4.7.0 [TSS04] ..."   # a reply, or a list of them, that this rule must be the first to match

Patterns meet the canonical text of reply.py: codes first, addresses as <@>, IP addresses as 0.0.0.0, no accents.

How it fails: ConfigError with every fault, each with its file and line.

Known limits: what patterns.py refuses; an operator's file is at most LARGEST_FILE long.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BeforeValidator, Field, ValidationError, field_validator

from relaywarden.config.table import Table
from relaywarden.errors import ConfigError, Problem
from relaywarden.limits import parse_duration
from relaywarden.providers import NAMES
from relaywarden_monitor.classify import patterns
from relaywarden_monitor.classify.reply import fold
from relaywarden_monitor.classify.vocabulary import CATEGORIES
from relaywarden_monitor.verdict import Blame, Scope, Severity

LARGEST_FILE = 1 << 20
_FOLDER = Path(__file__).parent
OWN_FILE = _FOLDER / "own.yaml"
# Asked in this order; the first rule that matches decides.
BUILT_IN = tuple(
    _FOLDER / f"{name}.yaml"
    for name in (
        *("google", "microsoft", "yahoo", "apple", "regional", "america", "filters"),
        *("postfix", "lists", "message", "sender", "mailbox", "transport"),
    )
)
WEAK_FILE = _FOLDER / "weak.yaml"  # asked only where the enhanced code says nothing
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DATED = re.compile(r".*\S \d{4}-\d\d-\d\d")
_TOKEN = re.compile(r"\\.|[^\\]+", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, ready for use."""

    name: str
    patterns: tuple[str, ...]
    category: str
    scope: Scope
    blame: Blame
    severity: Severity
    wait: int | None  # seconds
    providers: frozenset[str]  # empty: any
    strict: bool
    source: str
    examples: tuple[str, ...] = ()
    own: bool = False
    where: str = ""  # file:line


def _one_or_more(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _one_of(what: str, known: Iterable[str], value: Any) -> Any:
    if value not in known:
        raise ValueError(f"expected {what}, one of {', '.join(sorted(known))}; got {str(value)[:60]!r}")
    return value


_Texts = Annotated[list[str], BeforeValidator(_one_or_more)]
_Category = Annotated[str, BeforeValidator(partial(_one_of, "a category", CATEGORIES))]
_Provider = Annotated[str, BeforeValidator(partial(_one_of, "a provider", NAMES))]


class _Entry(Table):
    """A rule as it is written."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")
    match: _Texts = Field(min_length=1)
    category: _Category
    providers: list[_Provider] = Field([])
    strict: bool = False
    scope: Scope | None = None
    blame: Blame | None = None
    severity: Severity | None = None
    wait: int | None = None
    source: str
    example: _Texts = Field([])

    @field_validator("match")
    @classmethod
    def _usable(cls, value: list[str]) -> list[str]:
        return [checked(pattern.replace("\n", "")) for pattern in value]

    @field_validator("wait", mode="before")
    @classmethod
    def _seconds(cls, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise ValueError(f"expected seconds or a duration such as 10m, got {value!r}")  # noqa: TRY004 - pydantic's way
        return value if isinstance(value, int) else parse_duration(value) // 1000

    @field_validator("source")
    @classmethod
    def _dated(cls, value: str) -> str:
        if not _DATED.fullmatch(value):
            raise ValueError(f"expected where the rule comes from and a date, such as 'own-mail-log 2026-11-24', got {value!r}")
        return value


def checked(pattern: str) -> str:
    """The pattern as it is used, for lower-case text without accents; raises ValueError saying what was expected."""
    lowered = _TOKEN.sub(lambda found: found[0] if found[0].startswith("\\") else fold(found[0]), pattern)
    try:
        compiled = re.compile(lowered)
        cost = patterns.study(lowered).cost
    except re.error as error:
        raise ValueError(f"not a regular expression: {error} in {pattern!r}") from error
    except patterns.PatternError as error:
        raise ValueError(f"{error}, in {pattern!r}") from error
    if compiled.match(""):
        raise ValueError(f"expected a pattern that does not match everything, got {pattern!r}")
    if cost > patterns.HIGHEST_COST:
        raise ValueError(f"could take too long on a long text; write .{{0,60}} instead of .*, in {pattern!r}")
    return lowered


def read(path: Path, *, own: bool = False) -> list[Rule]:
    """The rules of one file in their order; raises ConfigError with every fault found."""
    problems: list[Problem] = []
    rules: list[Rule] = []
    seen: dict[str, str] = {}
    for where, document in _entries(path, problems):
        try:
            entry = _Entry.model_validate(document)
        except ValidationError as error:
            problems += [Problem(_key(where, fault["loc"]), _plain(fault["msg"])) for fault in error.errors(include_url=False)]
            continue
        if entry.name in seen:
            problems.append(Problem(f"{where}: {entry.name}", f"this name stands already at {seen[entry.name]}"))
        seen[entry.name] = where
        rules.append(_rule(entry, where, own))
    if problems:
        raise ConfigError(problems)
    return rules


def _rule(entry: _Entry, where: str, own: bool) -> Rule:
    category = CATEGORIES[entry.category]
    return Rule(
        name=entry.name,
        patterns=tuple(entry.match),
        category=entry.category,
        scope=entry.scope or category.scope,
        blame=entry.blame or category.blame,
        severity=entry.severity or category.severity,
        wait=entry.wait,
        providers=frozenset(entry.providers),
        strict=entry.strict,
        source=entry.source,
        examples=tuple(entry.example),
        own=own,
        where=where,
    )


def _entries(path: Path, problems: list[Problem]) -> Iterator[tuple[str, dict[str, Any]]]:
    """`file:line` and content of every rule; what is no rule is a problem."""
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise ConfigError([Problem(str(path), f"cannot read the rules: {error.strerror}")]) from error
    if len(data) > LARGEST_FILE:
        raise ConfigError([Problem(str(path), f"expected at most {LARGEST_FILE} bytes of rules")])
    try:
        node: Any = yaml.compose(data, Loader=_Loader)
        document = _Loader("").construct_document(node) if node else {}
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ConfigError([Problem(where, f"not valid YAML: {getattr(error, 'problem', None) or error}")]) from error
    if not isinstance(document, dict) or not isinstance(document.get("rules"), list) or set(document) - {"source", "rules"}:
        raise ConfigError([Problem(f"{path}:1", "expected a mapping with `rules` (a list), and perhaps `source`")])
    marks = next(value for key, value in node.value if key.value == "rules").value
    for mark, entry in zip(marks, document["rules"], strict=True):
        where = f"{path}:{mark.start_mark.line + 1}"
        if isinstance(entry, dict):
            yield where, {**({"source": document["source"]} if "source" in document else {}), **entry}
        else:
            problems.append(
                Problem(where, f"expected a rule, a mapping with name, match and category; got {str(entry)[:60]!r}")
            )


def _key(where: str, location: tuple[str | int, ...]) -> str:
    return f"{where}: {location[0]}" if location else where


def _plain(message: str) -> str:
    return (
        message.removeprefix("Value error, ")
        .replace("Field required", "expected a value, got nothing")
        .replace("Extra inputs are not permitted", "no such key")
    )

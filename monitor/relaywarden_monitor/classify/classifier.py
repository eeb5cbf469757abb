"""classifier - what a reply text means.

Asked are, in this order: the rules for our own texts; the operator's rules; the built-in rules of the provider that
replied; those of other providers whose words are unmistakable; the general ones.  The first that matches decides.  Where no
text is known, the status code speaks (status.py).  Words that say little (weak.yaml) are asked after an enhanced code that
says something.

Speed: a pattern is tried only where one of its literals (patterns.py) can be in the text, which the four-letter pieces of
both tell by one intersection of sets.  Replies that differ only in addresses and identifiers are one text, and a cache has
the last ones.

How it fails: `load` raises ConfigError for rules that are unusable; `classify` never raises.

Known limit: only the first LONGEST characters of a text are looked at.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path

from relaywarden.providers import OTHER
from relaywarden_monitor.classify import patterns, rules
from relaywarden_monitor.classify.reply import Reply, parse
from relaywarden_monitor.classify.rules import Rule
from relaywarden_monitor.classify.source import provider_of
from relaywarden_monitor.classify.status import by_enhanced, by_stage, fallback
from relaywarden_monitor.classify.vocabulary import CATEGORIES, UNCLEAR
from relaywarden_monitor.verdict import Verdict

_REMEMBERED = 8192
_PIECE = 4
_LABEL = re.compile(
    r"\((s\d{3,5}|as\d{3,10})\)|\[([a-z]{2,5}\d{2,3})\]|\b(aup#[a-z0-9-]{3,12}|(?:ofr|lpn)\w{0,8}_\d{3}|[bdr][lm]0000\d\d)"
)
_OWN, _OPERATOR, _PROVIDER, _GENERAL, _WEAK = range(5)  # order of asking


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a reply means what it means, for people."""

    verdict: Verdict
    rule: Rule
    matched: str  # of the canonical text
    label: str  # the provider's own code in the text (S3150, TSS04, ...), "" where it has none

    @property
    def meaning(self) -> str:
        """The category in words."""
        return CATEGORIES[self.verdict.category].meaning


@dataclass(frozen=True, slots=True)
class _Pattern:
    place: int
    tier: int
    rule: Rule
    find: re.Pattern[str]


class Classifier:
    """Rules, ready to be asked; safe to use from several threads."""

    def __init__(self, ordered: Iterable[tuple[int, Rule]]) -> None:
        """`ordered`: rules with their tier; `load` knows them."""
        self._patterns = [
            _Pattern(place, tier, rule, re.compile(text))
            for place, (tier, rule, text) in enumerate(
                (tier, rule, text) for tier, rule in ordered for text in _alternatives(rule)
            )
        ]
        index = _index([pattern.find.pattern for pattern in self._patterns], self._examples())
        self._pieces = {piece: places for piece, places in index.items() if len(piece) == _PIECE}
        self._known = frozenset(self._pieces)
        short = [(piece, places) for piece, places in index.items() if 0 < len(piece) < _PIECE]
        self._short = [pair for pair in short if pair[0].isascii()]
        self._foreign = [pair for pair in short if not pair[0].isascii()]
        self._always = index.get("", frozenset())
        self._decide = lru_cache(_REMEMBERED)(self._decided)

    @classmethod
    def load(cls, extra: Sequence[Path] = ()) -> Classifier:
        """The built-in rules, and before them the operator's; raises ConfigError with file and line of every fault."""
        ordered = [(_OWN, rule) for rule in rules.read(rules.OWN_FILE, own=True)]
        ordered += [(_OPERATOR, rule) for path in extra for rule in rules.read(path)]
        built_in = [rule for path in rules.BUILT_IN for rule in rules.read(path)]
        ordered += [(_PROVIDER, rule) for rule in built_in if rule.providers]
        ordered += [(_GENERAL, rule) for rule in built_in if not rule.providers]
        ordered += [(_WEAK, rule) for rule in rules.read(rules.WEAK_FILE)]
        return cls(ordered)

    def _examples(self) -> list[str]:
        return [parse(example).text for rule in self.rules for example in rule.examples]

    @property
    def rules(self) -> list[Rule]:
        """All rules, in their order."""
        return list(dict.fromkeys(pattern.rule for pattern in self._patterns))

    def classify(self, reply: str, relay: str = "", status: str = "") -> Verdict:
        """What a reply means; `relay`: the receiving host, `status`: an enhanced status code that came apart.  Never raises."""
        said = parse(reply, status)
        return self._decide(said, provider_of(relay, said.text))

    def explain(self, reply: str, relay: str = "", status: str = "") -> Explanation:
        """The same, with the rule that decided and the part of the text that it matched.  Never raises."""
        said = parse(reply, status)
        provider = provider_of(relay, said.text)
        rule, matched = self._find(said, provider)
        found = _LABEL.search(said.text)
        label = next((part.upper() for part in found.groups() if part), "") if found else ""
        return Explanation(_verdict(rule, said, provider), rule, matched, label)

    def _decided(self, said: Reply, provider: str) -> Verdict:
        return _verdict(self._find(said, provider)[0], said, provider)

    def _find(self, said: Reply, provider: str) -> tuple[Rule, str]:
        text = said.text
        later: list[_Pattern] = []
        for place in self._candidates(text):
            pattern = self._patterns[place]
            if pattern.rule.providers and provider not in pattern.rule.providers:
                if not pattern.rule.strict and (pattern.tier == _PROVIDER or provider == OTHER):
                    later.append(pattern)
                continue
            if pattern.tier == _WEAK and (found := by_enhanced(said)):
                return _first(later, text) or found
            if pattern.tier >= _GENERAL and later:
                if found := _first(later, text):
                    return found
                later = []
            if match := pattern.find.search(text):
                return (by_stage(said) if pattern.rule.category == UNCLEAR else None) or (pattern.rule, match[0])
        return _first(later, text) or fallback(said)

    def _candidates(self, text: str) -> list[int]:
        """Places of the patterns of which a literal may be in the text."""
        hits = self._known.intersection([text[at : at + _PIECE] for at in range(len(text) - _PIECE + 1)])
        places = [self._pieces[hit] for hit in hits]
        places += [found for piece, found in self._short if piece in text]
        if not text.isascii():
            places += [found for piece, found in self._foreign if piece in text]
        return sorted(self._always.union(*places))


def _first(asked: list[_Pattern], text: str) -> tuple[Rule, str] | None:
    for pattern in asked:
        if match := pattern.find.search(text):
            return pattern.rule, match[0]
    return None


def _alternatives(rule: Rule) -> list[str]:
    return [part for pattern in rule.patterns for part in patterns.split(pattern)]


def _verdict(rule: Rule, said: Reply, provider: str) -> Verdict:
    first = said.code // 100 if said.code else int(said.enhanced[:1] or 0)
    return Verdict(
        category=rule.category,
        scope=rule.scope,
        blame=rule.blame,
        severity=rule.severity,
        wait=rule.wait,
        # What only one provider writes names it, where neither host nor marks did.
        provider=next(iter(rule.providers)) if provider == OTHER and len(rule.providers) == 1 else provider,
        rule=rule.name,
        temporary=first == 4 if first else CATEGORIES[rule.category].passing,
        own=rule.own,
    )


def _index(texts: Sequence[str], examples: Sequence[str]) -> dict[str, frozenset[int]]:
    """Which patterns a piece of text may belong to, each literal by its piece that is rarest in replies; "": try always."""
    studied = [patterns.study(text).literals or ("",) for text in texts]
    common = Counter(piece for text in [*examples, *chain(*studied)] for piece in set(_pieces(text)))
    index: dict[str, set[int]] = {}
    for place, literals in enumerate(studied):
        for literal in literals:
            index.setdefault(min(_pieces(literal), key=lambda piece: (common[piece], piece)), set()).add(place)
    return {piece: frozenset(places) for piece, places in index.items()}


def _pieces(literal: str) -> list[str]:
    return [literal[at : at + _PIECE] for at in range(max(1, len(literal) - _PIECE + 1))]

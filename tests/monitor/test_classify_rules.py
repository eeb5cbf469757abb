"""The rule files: every rule is sound, dated, shown by an example that it is the first to match, and quick on hostile texts."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaywarden.errors import ConfigError
from relaywarden_monitor.classify import patterns, rules
from relaywarden_monitor.classify.classifier import Classifier
from relaywarden_monitor.classify.reply import parse
from relaywarden_monitor.classify.rules import Rule
from relaywarden_monitor.classify.vocabulary import CATEGORIES

FILES = (rules.OWN_FILE, *rules.BUILT_IN, rules.WEAK_FILE)
ALL = [rule for path in FILES for rule in rules.read(path)]
CLASSIFIER = Classifier.load()
GOOD = "name: mine\n    match: 'go home'\n    category: ip-blocked\n    source: 'own-log 2026-11-24'\n"


def test_every_file_of_rules_is_read() -> None:
    assert {path.name for path in FILES} == {path.name for path in rules.OWN_FILE.parent.glob("*.yaml")}


def test_names_are_unique() -> None:
    assert len({rule.name for rule in ALL}) == len(ALL)


@pytest.mark.parametrize("rule", ALL, ids=lambda rule: rule.name)
def test_a_rule_is_the_first_to_match_its_examples(rule: Rule) -> None:
    assert rule.examples
    for example in rule.examples:
        found = CLASSIFIER.explain(example)
        assert found.rule.name == rule.name, f"{found.rule.name} matched {found.matched!r} of {example!r}"


@pytest.mark.parametrize("rule", ALL, ids=lambda rule: rule.name)
def test_a_source_has_a_date(rule: Rule) -> None:
    assert re.fullmatch(r"\S.* 20\d\d-[01]\d-[0-3]\d", rule.source)


def test_every_category_is_used_or_stands_for_a_code() -> None:
    assert {rule.category for rule in ALL} | {"unclear"} == set(CATEGORIES)


def _hostile() -> list[str]:
    words = sorted({word for rule in ALL for text in rule.patterns for word in re.findall(r"[a-z]{3,}", text)})
    return [f"{word} " * 400 for word in words[:: len(words) // 40]] + [
        "a" * 5000, "your ip " * 600, "user " * 900, "mailbox quota " * 300, "from: " * 700, "<" * 5000, "@" * 5000,
        "1." * 2500, "a@" * 2500, ":" * 5000, "f:" * 2500, "-" * 5000, "host x " * 700, "550 5.1.1 " * 500,
        "is in a the our some " * 200,
    ]  # fmt: skip


def test_hostile_texts_are_quick() -> None:
    for text in _hostile():
        begun = time.process_time()
        CLASSIFIER.explain(text)
        assert time.process_time() - begun < 0.5, text[:40]


@given(st.sampled_from([text for rule in ALL for text in rule.patterns]), st.data())
def test_whatever_a_pattern_matches_has_one_of_its_literals(pattern: str, data: st.DataObject) -> None:
    literals = patterns.study(pattern).literals
    matching = data.draw(
        st.from_regex(pattern, alphabet=st.characters(codec="ascii")) if pattern.isascii() else st.from_regex(pattern)
    )
    assert not literals or any(literal in matching for literal in literals)


@pytest.mark.parametrize(
    "pattern", ["(a+)+b", "(a|b*)*c", "x.*y.*z", "(a{1,90}){2,}", r"(a)\1", "(?P<n>aaaa)", "(?i)aaaa", "a*", "(x"]
)
def test_what_could_run_for_ever_or_match_anything_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        rules.checked(pattern)


@pytest.mark.parametrize(
    ("pattern", "literals"),
    [
        ("no such (user|mailbox)", {"no such user", "no such mailbox"}),
        ("mail ?box full", {"box full"}),
        (r"\[tss0?4\]", {"[tss"}),
        ("(unknown|bad) .{0,9}recipient", {"recipient"}),
        ("(?!spam)ham|eggs", {"ham", "eggs"}),
        ("[abc]d", set()),
        ("[]a]bcd|[^]]efg", {"bcd", "efg"}),
    ],
)
def test_literals(pattern: str, literals: set[str]) -> None:
    assert set(patterns.study(pattern).literals) == literals


def test_alternatives_apart_are_the_pattern() -> None:
    assert patterns.split(r"a|(b|c)d|[|]|\|") == ["a", "(b|c)d", "[|]", r"\|"]


@pytest.mark.parametrize(
    ("entry", "line", "expected"),
    [
        (GOOD.replace("ip-blocked", "ip-blokced"), 2, "expected a category"),
        (GOOD.replace("go home", "(go"), 2, "not a regular expression"),
        (GOOD.replace("go home", "(g+)+o"), 2, "a repeat within a repeat"),
        (GOOD.replace(" 2026-11-24", ""), 2, "and a date"),
        (GOOD + "    wait: soon\n", 2, "soon"),
        (GOOD + "    providers: [gogle]\n", 2, "expected a provider"),
        (GOOD + "    colour: red\n", 2, "no such key"),
        (GOOD + "  - " + GOOD, 6, "stands already"),
        (GOOD + "  - just text\n", 6, "expected a rule"),
        ("name: [\n", 2, "not valid YAML"),
    ],
)
def test_a_fault_is_named_with_file_and_line(tmp_path: Path, entry: str, line: int, expected: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"rules:\n  - {entry}")
    with pytest.raises(ConfigError, match=expected) as caught:
        Classifier.load([path])
    where = caught.value.problems[0].where
    assert where.startswith(f"{path}:")
    assert expected == "not valid YAML" or where.startswith(f"{path}:{line}")


@pytest.mark.parametrize("content", ["", "just text", "rules: 5", "rules: []\nrule: []", "[" * 2000])
def test_a_file_that_is_no_list_of_rules_is_an_error(tmp_path: Path, content: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError):
        rules.read(path)


def test_a_file_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the rules"):
        rules.read(tmp_path / "none.yaml")


@given(st.text())
def test_a_canonical_text_is_short_printable_and_stays_as_it_is(raw: str) -> None:
    text = parse(raw).text
    assert len(text) <= 1000
    assert text.isprintable()
    assert text == " ".join(text.split())

"""Who owns a name?  What the Public Suffix List says, with both of its sections."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaywarden.domains import is_public_suffix, organizational, same_organization


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        ("acme.com", "acme.com"),
        ("a.b.acme.com", "acme.com"),
        ("mail.acme.co.uk", "acme.co.uk"),
        ("acme.github.io", "acme.github.io"),  # the private section: every customer of GitHub is his own
        ("www.acme.github.io", "acme.github.io"),
        ("sub.city.kobe.jp", "city.kobe.jp"),  # an exception to a wildcard
        ("a.b.c.kobe.jp", "b.c.kobe.jp"),
        ("acme.internal", "acme.internal"),  # not on the list
        ("xn--85x722f.xn--55qx5d.cn", "xn--85x722f.xn--55qx5d.cn"),
        ("_dmarc.acme.com", "acme.com"),
    ],
)
def test_the_organizational_domain(domain: str, expected: str) -> None:
    assert organizational(domain) == expected
    assert not is_public_suffix(domain)


@pytest.mark.parametrize("domain", ["com", "co.uk", "uk", "github.io", "kobe.jp", "c.kobe.jp", "internal", "xn--55qx5d.cn"])
def test_a_public_suffix_has_none(domain: str) -> None:
    assert organizational(domain) is None
    assert is_public_suffix(domain)


@pytest.mark.parametrize(
    "domain", ["", ".", "..", "acme..com", ".com", "192.0.2.1", "[192.0.2.1]", "[ipv6:2001:db8::1]", "2001:db8::1", "x" * 254]
)
def test_what_is_no_domain_has_none_and_is_no_suffix(domain: str) -> None:
    assert organizational(domain) is None
    assert not is_public_suffix(domain) or len(domain) > 253


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("bounces.acme.com", "mail.acme.com", True),
        ("acme.com", "bounces.acme.com", True),
        ("acme.com", "acme.com", True),
        ("acme.com", "evil.com", False),
        ("acme.co.uk", "evil.co.uk", False),
        ("acme.github.io", "evil.github.io", False),
        ("github.io", "evil.github.io", False),
        ("com", "acme.com", False),
        ("192.0.2.1", "198.51.2.1", False),
        ("[192.0.2.1]", "[192.0.2.2]", False),
    ],
)
def test_same_organization(one: str, other: str, *, expected: bool) -> None:
    assert same_organization(one, other) is expected
    assert same_organization(other, one) is expected


@given(
    st.lists(st.sampled_from(["com", "co", "uk", "github", "io", "acme", "www", "jp", "kobe", "city"]), min_size=1, max_size=5)
)
def test_it_is_the_domain_or_a_parent_and_its_own_organizational_domain(labels: list[str]) -> None:
    domain = ".".join(labels)
    found = organizational(domain)
    assert (found is None) == is_public_suffix(domain)
    if found is not None:
        assert ("." + domain).endswith("." + found)
        assert organizational(found) == found
        assert is_public_suffix(found.partition(".")[2])


@given(st.text(max_size=300))
def test_nothing_raises(text: str) -> None:
    organizational(text)
    is_public_suffix(text)


def test_the_list_is_read_once_and_not_at_import() -> None:
    code = (
        "import relaywarden.domains as d, publicsuffixlist as p\n"
        "read = []\n"
        "parse = p.PublicSuffixList._parse\n"
        "p.PublicSuffixList._parse = lambda *a, **k: (read.append(1), parse(*a, **k))[1]\n"
        "d.load(); d.load(); d.organizational('a.b.com'); d.is_public_suffix('com')\n"
        "assert len(read) == 1, read\n"
        "assert d._suffixes.cache_info().misses == 1\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

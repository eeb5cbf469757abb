"""Mailbox providers by MX host and by domain."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaywarden.providers import NAMES, OTHER, by_domain, by_mx


@pytest.mark.parametrize(
    ("host", "provider"),
    [
        ("aspmx.l.google.com", "google"),
        ("ALT4.GMAIL-SMTP-IN.L.GOOGLE.COM.", "google"),
        ("aspmx2.googlemail.com", "google"),
        ("acme-example.mail.protection.outlook.com", "microsoft"),
        ("hotmail-com.olc.protection.outlook.com", "microsoft"),
        ("acme-example.i-v1.mx.microsoft", "microsoft"),
        ("mta5.am0.yahoodns.net", "yahoo"),
        ("mx02.mail.icloud.com", "apple"),
        ("mx-ha03.web.de", "gmx"),
        ("mxa-00123.gslb.pphosted.com", "proofpoint"),
        ("eu-smtp-inbound-1.mimecast.com", "mimecast"),
        ("mxs.mail.ru", "mailru"),
        ("mx.yandex.net", "yandex"),
        ("mx00.t-online.de", "t-online"),
        ("smtp-in.orange.fr", "orange"),
        ("mx1.free.fr", "free"),
    ],
)
def test_a_host_belongs_to_who_runs_it(host: str, provider: str) -> None:
    assert by_mx(host) == provider


@pytest.mark.parametrize("host", ["mx.acme.example", "notgoogle.com", "google.com.evil.example", "free.fr.example", "com", ""])
def test_other_hosts_belong_to_nobody_known(host: str) -> None:
    """Suffixes are whole labels, at the end of the name."""
    assert by_mx(host) is None


@pytest.mark.parametrize(
    ("domain", "provider"),
    [
        ("gmail.com", "google"),
        ("Hotmail.CO.UK", "microsoft"),
        ("hotmail.fr", "microsoft"),
        ("yahoo.com.br", "yahoo"),
        ("yahoo.de.", "yahoo"),
        ("yahoo.co.jp", "yahoo-japan"),
        ("icloud.com", "apple"),
        ("web.de", "gmx"),
        ("acme.example", None),
        ("mail.yahoo.de", None),
        ("yahoo.evil.example", None),
        ("hotmail", None),
        ("hotmail.", None),
    ],
)
def test_consumer_domains_need_no_dns(domain: str, provider: str | None) -> None:
    assert by_domain(domain) == provider


@given(st.text(max_size=300))
def test_any_text_has_an_answer_of_the_list(text: str) -> None:
    assert OTHER in NAMES
    for found in (by_mx(text), by_domain(text), by_mx(f"{text}.google.com"), by_domain(f"yahoo.{text}")):
        assert found is None or found in NAMES

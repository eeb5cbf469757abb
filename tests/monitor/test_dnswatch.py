"""One run over a whole configuration, and the command, against a real DNS server."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from relaywarden import steering
from relaywarden.config.load import load
from relaywarden.config.settings import DkimSettings
from relaywarden.dkimkeys import create_key, load_key
from relaywarden.ledger.connect import open_ledger
from relaywarden_monitor.dnswatch import command, examine, nameservers
from relaywarden_monitor.dnswatch.examine import Scope, run
from relaywarden_monitor.dnswatch.findings import Finding, Level
from testbed.dns import DnsServer, Records
from testbed.factories import WorkFolder
from testbed.ports import free_port

OK, ADVICE, FAULT, UNKNOWN = Level.OK, Level.ADVICE, Level.FAULT, Level.UNKNOWN
SIX = "2001:db8::11"
NIBBLES = "1.1.0.0." + "0.0.0.0." * 5 + "8.b.d.0.1.0.0.2"
TEST_SIX = "2.0.0.0.0.0.f.7.f.f.f.f" + ".0" * 20
RECORDS: Records = {
    # members
    "11.2.0.192.in-addr.arpa": {"PTR": "tx1.relay.example."},
    "tx1.relay.example": {"A": "192.0.2.11"},
    f"{NIBBLES}.ip6.arpa": {"PTR": "tx6.relay.example."},
    "tx6.relay.example": {"AAAA": SIX},
    "31.2.0.192.in-addr.arpa": {"PTR": ["q.relay.example.", "old.relay.example."]},
    "q.relay.example": {"A": "192.0.2.31"},
    "old.relay.example": {"A": "198.51.100.1"},
    # blocklists
    "2.0.0.127.good.bl": {"A": "127.0.0.2"},
    f"{TEST_SIX}.good.bl": {"A": "127.0.0.2"},
    "31.2.0.192.good.bl": {"A": ["127.0.0.4", "127.0.0.2"], "TXT": "see \x1b[31mhttps://good.bl/" + "x" * 400},
    "2.0.0.127.public.bl": {"A": "127.255.255.254"},
    "11.2.0.192.public.bl": {"A": "127.255.255.254"},
    "2.0.0.127.all.bl": {"A": "127.0.0.2"},
    "1.0.0.127.all.bl": {"A": "127.0.0.2"},
    "11.2.0.192.all.bl": {"A": "127.0.0.2"},
    "2.0.0.127.sold.bl": {"A": "203.0.113.80"},
    "11.2.0.192.sold.bl": {"A": "203.0.113.80"},
    "test.names.bl": {"A": "127.0.1.2"},
    "bad.example.names.bl": {"A": "127.0.1.2", "TXT": "sells pills"},
    # good: all is as it should be
    "good.example": {"MX": "10 mx.good.example.", "TXT": ["x=y", "v=spf1 include:spf.relay.example -all"]},
    "spf.relay.example": {"TXT": "v=spf1 ip4:192.0.2.0/27 ip6:2001:db8::/64 ip4:192.0.2.31 -all"},
    "_dmarc.good.example": {"TXT": "v=DMARC1; p=reject; rua=mailto:dmarc@good.example"},
    # bad: nothing is
    "bad.example": {"MX": "0 .", "TXT": "v=spf1 ip4:192.0.2.11 -all"},
    "_dmarc.bad.example": {"TXT": "v=DMARC1; p=reject; foo\x07bar"},
    # operator
    "relay.example": {"MX": "10 mx.relay.example."},
    "bounce.relay.example": {"A": "192.0.2.99", "TXT": "v=spf1 include:spf.relay.example -all"},
}  # fmt: skip


@pytest.fixture(scope="module")
def server(work_folder: WorkFolder) -> Iterator[DnsServer]:
    with DnsServer(work_folder("dns"), RECORDS) as started:
        yield started


def key(folder: Path, domain: str, selector: str = "rw1") -> dict[str, Any]:
    path = folder / f"{domain}.{selector}.pem"
    if not path.exists():
        create_key(path, "ed25519")
    return {"domain": domain, "selector": selector, "key": str(path)}


def public(entry: dict[str, Any]) -> Records:
    return {f"{entry['selector']}._domainkey.{entry['domain']}": {"TXT": load_key(DkimSettings(**entry)).dns_record()}}


@pytest.fixture
def config(tmp_path: Path, server: DnsServer) -> Path:
    good, operator = key(tmp_path, "good.example"), key(tmp_path, "relay.example")
    server.replace({**public(good), **public(operator)})
    (tmp_path / "secret").write_bytes(bytes(range(32)))
    document = {
        "store": f"sqlite:///{tmp_path}/ledger.db",
        "plans": {"p": {}},
        "tenants": {
            "good": {"plan": "p", "from_domains": ["good.example", "*.good.example"], "dkim": [good]},
            "bad": {"plan": "p", "from_domains": ["bad.example"], "dkim": [key(tmp_path, "bad.example")]},
            "gone": {"plan": "p", "from_domains": ["gone.example"]},
        },
        "operator": {
            "dkim": [operator],
            "feedback": {"sender_id": "relayexample", "address": "fbl@relay.example", "secret": str(tmp_path / "secret")},
        },
        "pools": {
            "tx": {
                "members": {
                    "tx1": {"ip": "192.0.2.11", "helo": "tx1.relay.example"},
                    "tx6": {"ip": SIX, "helo": "other.relay.example"},
                }
            },
            "quarantine": {"members": {"q1": {"ip": "192.0.2.31"}}},
            "unused": {"members": {"u1": {"ip": "198.51.100.77"}}},
        },
        "dns": {
            "blocklists": ["good.bl", "public.bl", "all.bl", "sold.bl", "closed.bl"],
            "domain_blocklists": ["names.bl"],
            "rate": 1000,
            "nameservers": [f"{server.host}:{server.port}"],
        },
    }
    path = tmp_path / "relaywarden.yaml"
    path.write_text(json.dumps(document))
    return path


def edited(config: Path, **sections: Any) -> Path:
    document = json.loads(config.read_text())
    for section, values in sections.items():
        document[section] |= values
    config.write_text(json.dumps(document))
    return config


def cli(config: Path, *arguments: str) -> Result:
    done = CliRunner().invoke(command.dns, list(arguments), obj=config)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def levels(findings: list[Finding], subject: str) -> dict[str, Level]:
    return {finding.check: finding.level for finding in findings if finding.subject == subject}


def test_everything_at_once(config: Path) -> None:
    findings = run(load(config))
    assert len({finding.key for finding in findings}) == len(findings)
    unusable = {f"blocklist {zone}": UNKNOWN for zone in ("public.bl", "all.bl", "sold.bl", "closed.bl")}
    assert levels(findings, "member tx1") == {"blocklist good.bl": OK, **unusable, "reverse name": OK, "helo": OK}
    assert levels(findings, "member tx6") == {"blocklist good.bl": OK, **unusable, "reverse name": OK, "helo": FAULT}
    assert levels(findings, "member q1") == {"blocklist good.bl": FAULT, **unusable, "reverse name": ADVICE}
    assert levels(findings, "member u1") == {"blocklist good.bl": OK, **unusable, "reverse name": FAULT}
    assert levels(findings, "operator") == {
        "dkim relay.example/rw1": OK, "mail relay.example": OK, "blocklist names.bl relay.example": OK,
    }  # fmt: skip
    assert levels(findings, "tenant good") == {
        "dkim good.example/rw1": OK, "mail good.example": OK, "spf good.example": OK, "dmarc good.example": OK,
        "blocklist names.bl good.example": OK,
    }  # fmt: skip
    assert levels(findings, "tenant bad") == {
        "dkim bad.example/rw1": FAULT, "mail bad.example": ADVICE, "spf bad.example": FAULT, "dmarc bad.example": ADVICE,
        "blocklist names.bl bad.example": FAULT,
    }  # fmt: skip
    assert levels(findings, "tenant gone") == {
        "mail gone.example": FAULT, "spf gone.example": FAULT, "dmarc gone.example": FAULT,
        "blocklist names.bl gone.example": OK,
    }  # fmt: skip
    assert levels(findings, "blocklist good.bl") == {
        "test entries for IPv4 addresses": OK,
        "test entries for IPv6 addresses": OK,
    }
    subjects = list(dict.fromkeys(finding.subject for finding in findings if not finding.subject.startswith("blocklist")))
    assert subjects[:5] == ["member tx1", "member tx6", "member q1", "member u1", "operator"]


def test_texts_tell_what_to_do_and_are_harmless(config: Path) -> None:
    found = {finding.key: finding for finding in run(load(config))}
    listed = found["member q1", "blocklist good.bl"]
    assert listed.text == "192.0.2.31 is listed: listed (127.0.0.2); listed (127.0.0.4)"
    assert listed.evidence.startswith("see \\x1b[31mhttps://good.bl/")
    assert len(listed.evidence) < 210
    spf = found["tenant bad", "spf bad.example"]
    assert spf.text.startswith(f"does not pass for tx6 ({SIX}), q1 (192.0.2.31): fail (-all of bad.example)")
    assert spf.evidence == "v=spf1 ip4:192.0.2.11 -all"
    assert "public resolver" in found["blocklist public.bl", "test entries for IPv4 addresses"].text
    assert "public resolver" in found["member tx1", "blocklist public.bl"].text
    assert "everything" in found["blocklist all.bl", "test entries for IPv4 addresses"].text
    assert "203.0.113.80" in found["blocklist sold.bl", "test entries for IPv4 addresses"].text
    assert "no test entry" in found["blocklist closed.bl", "test entries for IPv4 addresses"].text
    assert all((finding.text + finding.evidence).isprintable() for finding in found.values())


def test_an_unusable_list_is_not_asked_about_members(config: Path, server: DnsServer) -> None:
    server.log.write_text("")
    run(load(config), Scope(member="tx1"))
    asked = server.log.read_text()
    assert " 11.2.0.192.good.bl. A " in asked
    assert " 11.2.0.192.public.bl. A " not in asked


def test_a_return_path_of_ours_bears_spf(config: Path) -> None:
    edited(config, dns={"return_path": ["bounce.relay.example"]})
    findings = run(load(config))
    assert levels(findings, "return path") == {
        "mail bounce.relay.example": OK, "spf bounce.relay.example": FAULT, "blocklist names.bl bounce.relay.example": OK,
    }  # fmt: skip
    (spf,) = (finding for finding in findings if finding.key == ("return path", "spf bounce.relay.example"))
    assert "u1 (198.51.100.77)" in spf.text  # every pool bounces to it
    assert levels(findings, "tenant bad")["spf bad.example"] is ADVICE
    assert levels(findings, "tenant gone")["spf gone.example"] is ADVICE


def test_keys_that_follow_each_other(config: Path, server: DnsServer, tmp_path: Path) -> None:
    heir = key(tmp_path, "good.example", "rw2")
    document = json.loads(config.read_text())
    document["tenants"]["good"]["dkim"][0]["next"] = {"selector": "rw2", "key": heir["key"]}
    config.write_text(json.dumps(document))

    def dkim() -> dict[str, Level]:
        findings = run(load(config), Scope(tenant="good"))
        return {check: level for check, level in levels(findings, "tenant good").items() if check.startswith("dkim")}

    assert dkim() == {"dkim good.example/rw1": OK, "dkim good.example/rw2": ADVICE}
    ledger = open_ledger(load(config))
    ledger.apply([steering.say("selectors", {"good.example/rw1": {"to": "rw2", "since_ms": 1}})])
    ledger.close()
    assert dkim() == {"dkim good.example/rw1": OK, "dkim good.example/rw2": FAULT}  # it signs now, and DNS has it not
    server.replace({**public(heir), "rw1._domainkey.good.example": {"TXT": "v=DKIM1; p="}})
    assert dkim() == {"dkim good.example/rw1": ADVICE, "dkim good.example/rw2": OK}
    Path(heir["key"]).unlink()
    assert dkim()["dkim good.example/rw2"] is UNKNOWN
    server.replace({"rw2._domainkey.good.example": {"TXT": "-"}})


def test_without_a_ledger_the_configuration_counts(config: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = edited(config)
    document = json.loads(path.read_text())
    document["store"] = "sqlite:////proc/nowhere/ledger.db"
    path.write_text(json.dumps(document))
    assert levels(run(load(path), Scope(tenant="good")), "tenant good")["dkim good.example/rw1"] is OK
    assert "the ledger does not tell" in caplog.text


def test_dns_that_is_silent_makes_nothing_a_fault(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nameservers, "SECONDS", 0.1)
    edited(config, dns={"nameservers": [f"127.0.0.1:{free_port()}"]})
    findings = run(load(config))
    assert {finding.level for finding in findings} == {UNKNOWN}
    assert cli(config).exit_code == 2


def test_the_command_for_people(config: Path) -> None:
    done = cli(config)
    assert done.exit_code == 1
    lines = [line.rstrip() for line in done.output.splitlines()]
    first = next(number for number, line in enumerate(lines) if " fault " in line)
    assert first == 1  # under the heading
    assert max(n for n, line in enumerate(lines) if " fault " in line) < min(
        n for n, line in enumerate(lines) if line.startswith("tenant good")
    )
    (fine,) = (line for line in lines if line.startswith("tenant good"))
    assert "spf good.example, dmarc good.example" in fine
    assert lines[-1].startswith("faults: ")
    assert "\x1b" not in done.output
    assert "\x07" not in done.output


def test_the_command_for_programs(config: Path) -> None:
    done = cli(config, "--json", "--tenant", "good")
    assert done.exit_code == 0
    documents = json.loads(done.stdout)
    assert {frozenset(item) for item in documents} == {frozenset({"subject", "check", "level", "text", "evidence"})}
    assert {item["subject"] for item in documents} == {"tenant good", "blocklist names.bl"}
    assert cli(config, "--tenant", "bad").exit_code == 1
    member = cli(config, "--json", "--member", "tx1")
    assert member.exit_code == 2  # no fault, but four lists could not be asked
    assert "tenant good" not in member.stdout
    for option in ("--tenant", "--member"):
        wrong = cli(config, option, "nobody")
        assert wrong.exit_code == 2
        assert "nobody" in wrong.output


def test_nothing_to_ask(tmp_path: Path, server: DnsServer) -> None:
    document = {
        "store": f"sqlite:///{tmp_path}/l.db",
        "plans": {"p": {}},
        "dns": {"nameservers": [f"{server.host}:{server.port}"]},
    }
    (tmp_path / "relaywarden.yaml").write_text(json.dumps(document))
    done = cli(tmp_path / "relaywarden.yaml")
    assert done.exit_code == 0
    assert "nothing to ask" in done.output


def test_many_tenants_are_bounded_and_told_of(
    config: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = {f"t{number}": {"plan": "p", "from_domains": [f"t{number}.example"]} for number in range(60)}
    settings = load(edited(config, tenants=many, dns={"domain_blocklists": [], "blocklists": []}))
    monkeypatch.setattr(examine, "_TELL_EVERY", 0.05)
    caplog.set_level(logging.INFO)
    began = time.monotonic()
    findings = asyncio.run(
        examine.examine(settings, settings.dns, nameservers.resolvers(settings.dns.nameservers), scope=Scope())
    )
    assert time.monotonic() - began < 30
    assert [finding.subject for finding in findings if finding.check.startswith("spf t")] == [f"tenant {name}" for name in many]
    assert "DNS is being asked" in caplog.text

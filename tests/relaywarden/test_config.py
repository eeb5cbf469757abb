"""Loading the configuration: the contract of DESIGN.md is accepted, and every fault is named with its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relaywarden.config.describe import page
from relaywarden.config.load import load, located
from relaywarden.config.settings import Mode
from relaywarden.errors import ConfigError, Problem
from relaywarden.limits import Meter
from relaywarden.tenants import Directory

FULL = """
store: sqlite:////var/lib/relaywarden/ledger.db
policyd: {listen: [unix:/run/policy, "inet:127.0.0.1:10040"], workers: 2}
milter:  {listen: unix:/run/milter, workers: 2}
scan:    {url: http://127.0.0.1:11333, timeout: 5s, on_error: accept}
plans:
  standard:
    mode: enforce
    limits:
      - messages: 10/s burst 50
      - recipients: 500/hour
      - recipients: 5_000/day
      - bytes: 2GiB/day
      - unique_recipients: 3_000/day
      - {messages: 40/10s, per: login, mode: observe}
    recipients_per_message: 50
    on_exceed: defer
unknown_login: {plan: standard}
tenants:
  acme:
    logins: [acme, "*@acme.example"]
    plan: standard
    from_domains: [acme.example, "*.acme.example"]
    dkim: [{domain: acme.example, selector: rw1, key: /etc/relaywarden/keys/acme.example.rw1.pem}]
    pool: transactional
operator:
  dkim: [{domain: relay.example, selector: rw1, key: /etc/relaywarden/keys/relay.pem}]
pools:
  transactional: {members: {tx1: {ip: 192.0.2.11}, tx2: {ip: 192.0.2.12, warmup: {start: 2026-11-24, schedule: default}}}}
  bulk: {members: {bk1: {ip: 192.0.2.21}}}
route: {header: X-Virtual-MTA, target: member}
"""


def write(folder: Path, text: str, name: str = "relaywarden.yaml") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def faults(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path)
    return [str(problem).replace(str(path.parent) + "/", "") for problem in caught.value.problems]


def test_the_contract_of_the_design_is_accepted(tmp_path: Path) -> None:
    loaded = load(write(tmp_path, FULL))
    standard = loaded.plans["standard"]
    assert [str(limit) for limit in standard.limits] == [
        "messages: 10/1s burst 50", "recipients: 500/1h", "recipients: 5000/1d", "bytes: 2147483648/1d",
        "unique_recipients: 3000/1d", "messages: 40/10s per login",
    ]  # fmt: skip
    assert standard.limits[-1].observe
    assert loaded.scan is not None
    assert (loaded.scan.url, loaded.scan.timeout) == (["http://127.0.0.1:11333"], 5000)
    assert loaded.pools["transactional"].members["tx2"].warmup is not None


def test_the_effective_settings_load_again_to_the_same(tmp_path: Path) -> None:
    loaded = load(write(tmp_path, FULL))
    again = load(write(tmp_path, loaded.model_dump_json(), "effective.json"))  # JSON is YAML too
    assert again == loaded
    assert load(write(tmp_path, yaml.safe_dump(json.loads(loaded.model_dump_json())), "effective.yaml")) == loaded


def test_every_fault_at_once_each_with_its_place(tmp_path: Path) -> None:
    found = faults(
        write(
            tmp_path,
            """store: http://x
polcyd: {}
scan: {timeout: lots}
plans:
  standard:
    limits: [{messages: 10}, {foo: 10/s}]
    on_exceed: defer
    on_exceed: hold
unknown_login: {plan: nope}
tenants: {acme: {plan: x, pool: y}, c: {plan: standard, logins: acme}, "a b": {plan: standard}}
pools: {q: {members: {a: {ip: 300.1.1.1}}}}
""",
        )
    )
    expected = [
        "relaywarden.yaml:8: plans.standard.on_exceed: this key stands twice",
        "relaywarden.yaml:9: unknown_login.plan: no such plan 'nope'; plans are: standard",
        "relaywarden.yaml:10: tenants.acme.plan: no such plan 'x'; plans are: standard",
        "relaywarden.yaml:10: tenants.acme.pool: no such pool 'y'; pools are: q",
        "relaywarden.yaml:10: tenants.c.logins: login 'acme' belongs to tenant 'acme' already",
        "relaywarden.yaml:1: store: expected a store URL of",
        "relaywarden.yaml:3: scan.url: this key is required",
        "relaywarden.yaml:3: scan.timeout: expected a duration such as",
        "relaywarden.yaml:6: plans.standard.limits[0]: expected AMOUNT/WINDOW",
        "relaywarden.yaml:6: plans.standard.limits[1]: expected one meter of messages, recipients",
        "relaywarden.yaml:10: tenants.a b: expected a name of letters",
        "relaywarden.yaml:11: pools.q.members.a.ip: expected an IP address",
        "relaywarden.yaml:2: polcyd: unknown key; expected one of store, policyd",
    ]
    assert len(found) == len(expected)
    for text in expected:
        assert any(line.startswith(text) for line in found), (text, found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plans: [", "not valid YAML"),
        ("- a\n- b\n", "relaywarden.yaml:1: expected a mapping of settings"),
        ("\tstore: x", "not valid YAML"),
        ("plans: {p: {limits: [{recipients: 5/h}, {recipients: 9/60m}]}}", "a second limit of recipients over 1h"),
        ("policyd: {listen: tcp:25}", "policyd.listen: expected unix:/path or inet:host:port"),
        ("policyd: {listen: []}", "policyd.listen: expected at least one address"),
        ("unknown_login: maybe", "unknown_login: expected reject, ignore or {plan: NAME}"),
        ("plans: {p: {on_exceed: explode}}", "plans.p.on_exceed: expected one of defer, reject, hold, got 'explode'"),
        ("store: redis://:secret@h:x/0", "store: expected redis://host:port"),
        ("log: {level: loud}", "log.level: expected one of debug, info, warning, error, got 'loud'"),
        ("log: {level: {a: 1}}", "log.level: expected one of debug, info, warning, error, got a mapping"),
        ("policyd: {workers: 0}", "policyd.workers: expected at least 1, got 0"),
        ("policyd: {workers: 65}", "policyd.workers: expected at most 64, got 65"),
        ("policyd: {workers: 1.5}", "policyd.workers: expected a whole number, got 1.5"),
        ("policyd: {workers: many}", "policyd.workers: expected a whole number, got 'many'"),
        ("ramp: {max_bounced: 0}", "ramp.max_bounced: expected more than 0, got 0"),
        ("ramp: {max_bounced: lots}", "ramp.max_bounced: expected a number, got 'lots'"),
        ("route: {powermta: perhaps}", "route.powermta: expected true or false, got 'perhaps'"),
        ("tenants: [a]", "tenants: expected a mapping of names, got a list"),
        ("lint: true", "lint: expected a mapping of keys, got true"),
        ("plans:", "plans: expected a mapping of names, got nothing"),
        ("pools: {p: {members: {}}}", "pools.p.members: expected at least one entry, got an empty mapping"),
        ("plans: {p: {settings_id: [" + "x" * 99 + "]}}", "plans.p.settings_id: expected text, got a list"),
        ("log: {level: " + "x" * 99 + "}", "got '" + "x" * 59 + "..."),
        (
            "operator: {feedback: {sender_id: a-b, secret: /x}}",
            "operator.feedback.sender_id: expected 5 to 15 letters and digits",
        ),
        ("pools: {p: {members: {m: {ip: 5}}}}", "pools.p.members.m.ip: expected an IP address, got 5"),
        (
            "\npools:\n  p: {members: {m: {ip: 192.0.2.1,\n    warmup: {start: 2026-13-22}}}}",
            "relaywarden.yaml:4: pools.p.members.m.warmup.start: expected a date such as 2026-11-24, got '2026-13-22'",
        ),
        ("pools: {p: {members: {m: {ip: 192.0.2.1, warmup: {start: 2026-11-24 08:00:00}}}}}", "expected a date such as"),
        (
            "pools: {p: {members: {m: {ip: 192.0.2.1, warmup: {start: soon}}}}}",
            "expected a date such as 2026-11-24, got 'soon'",
        ),
        ("policyd: {workers: !!int ''}", "policyd.workers: expected a whole number, got ''"),
        ("route: {powermta: !!bool perhaps}", "route.powermta: expected true or false, got 'perhaps'"),
        ("ramp: {max_bounced: !!float x}", "ramp.max_bounced: expected a number, got 'x'"),
        ("plans: {p: !!timestamp x}", "plans.p: expected a mapping of keys, got 'x'"),
        ("plans: {p: !strange x}", "relaywarden.yaml:1: not valid YAML: could not determine a constructor"),
    ],
)
def test_single_faults(tmp_path: Path, text: str, expected: str) -> None:
    found = faults(write(tmp_path, text))
    assert any(expected in line for line in found), found
    assert not any("secret@" in line or "Input should" in line or "String should" in line for line in found), found


def test_a_wrong_plan_of_unknown_logins_is_one_problem(tmp_path: Path) -> None:
    assert faults(write(tmp_path, "unknown_login: {plan: 5}")) == [
        "relaywarden.yaml:1: unknown_login.plan: expected a name of letters, digits and . _ @ + - (64 at most), got 5"
    ]
    assert faults(write(tmp_path, "unknown_login: {}")) == ["relaywarden.yaml:1: unknown_login.plan: this key is required"]
    assert len(faults(write(tmp_path, "unknown_login: [5]"))) >= 1


def test_every_wrong_date_is_named_and_what_only_looks_like_one_is_text(tmp_path: Path) -> None:
    text = """plans: {2026-13-22: {settings_id: 2026-02-30}}
pools:
  p: {members: {a: {ip: 192.0.2.1, warmup: {start: 2026-13-22}}, b: {ip: 192.0.2.2, warmup: {start: 2026-02-30}}}}
  q: {members: {c: {ip: 192.0.2.3, warmup: {start: 2026-02-28}}}}
"""
    assert faults(write(tmp_path, text)) == [
        f"relaywarden.yaml:3: pools.p.members.{member}.warmup.start: expected a date such as 2026-11-24, got '{wrong}'"
        for member, wrong in (("a", "2026-13-22"), ("b", "2026-02-30"))
    ]
    loaded = load(
        write(
            tmp_path, text.replace("start: 2026-13-22", "start: 2026-12-22").replace("start: 2026-02-30", "start: 2026-02-01")
        )
    )
    assert loaded.plans["2026-13-22"].settings_id == "2026-02-30"


def test_addresses_have_one_spelling(tmp_path: Path) -> None:
    text = "pools: {p: {members: {a: {ip: '::ffff:127.0.0.11'}, b: {ip: '2001:DB8:0::1'}, c: {ip: 192.0.2.1}}}}"
    members = load(write(tmp_path, text)).pools["p"].members
    assert [member.ip for member in members.values()] == ["127.0.0.11", "2001:db8::1", "192.0.2.1"]


def test_problems_found_later_get_their_line(tmp_path: Path) -> None:
    path = write(tmp_path, "store: x\ntenants:\n  a.b:\n    dkim:\n      - {domain: x}\n      - domain: y\n        key: z\n")
    write(tmp_path, "\nb: {plan: p}\n", "tenants.d/b.yaml")
    write(tmp_path, "plans:\n  q: {}\n", "tenants.d/c.yaml")
    write(tmp_path, "broken: [", "tenants.d/d.yaml")
    expected = {
        "store": "relaywarden.yaml:1: ",
        "tenants.a.b.dkim[1].key": "relaywarden.yaml:7: ",
        "tenants.a.b.dkim[1].domain": "relaywarden.yaml:6: ",
        "tenants.a.b.pool": "relaywarden.yaml:3: ",
        "tenants.b": "tenants.d/b.yaml:2: ",
        "tenants.b.plan": "tenants.d/b.yaml:2: ",
        "plans.q.limits[0]": "tenants.d/c.yaml:2: ",
        "scan": "",
        "pmta.conf:12": "",
        "/etc/store.conf:1": "",
    }
    problems = located(path, [Problem(where, "x") for where in expected])
    assert [problem.where.replace(f"{tmp_path}/", "") for problem in problems] == [
        line + where for where, line in expected.items()
    ]


def test_defaults_are_printed_as_the_file_writes_them(tmp_path: Path) -> None:
    written = page()
    for key, default in (("patience", "40ms"), ("drain_timeout", "30s"), ("max_message_size", "64MiB"), ("ticket_ttl", "1h")):
        assert f"   * - ``{key}``\n     - ``{default}``\n" in written
    loaded = load(write(tmp_path, "policyd: {patience: 40ms}\nmilter: {drain_timeout: 30s, max_message_size: 64MiB}"))
    assert loaded == load(write(tmp_path, "{}"))


def test_what_cannot_be_read(tmp_path: Path) -> None:
    assert "cannot read the configuration" in faults(tmp_path / "absent.yaml")[0]
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"store: caf\xe9")
    assert "expected UTF-8" in faults(path)[0]


def test_tenants_d_is_merged_in(tmp_path: Path) -> None:
    path = write(tmp_path, "plans: {p: {}}\ntenants: {a: {plan: p}}\n")
    write(tmp_path, "b: {plan: p, mode: observe}\n", "tenants.d/b.yaml")
    write(tmp_path, "plans: {q: {}}\ntenants: {c: {plan: q}}\n", "tenants.d/c.yaml")
    loaded = load(path)
    assert list(loaded.tenants) == ["a", "b", "c"]
    assert loaded.tenants["b"].mode is Mode.OBSERVE
    write(tmp_path, "\na: {plan: p}\n", "tenants.d/d.yaml")
    write(tmp_path, "store: sqlite:////x\n", "tenants.d/e.yaml")
    write(tmp_path, "f: {plan: zz}\n", "tenants.d/f.yaml")
    assert faults(path) == [
        "tenants.d/d.yaml:2: tenants.a: already defined at relaywarden.yaml:2",
        "tenants.d/e.yaml:1: store: expected only tenants and plans in tenants.d",
        "tenants.d/f.yaml:1: tenants.f.plan: no such plan 'zz'; plans are: p, q",
    ]


_SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.floats(allow_nan=False)
_KEYS = st.sampled_from(["store", "plans", "tenants", "pools", "limits", "members", "policyd", "listen", "a", "messages"])
_DOCUMENTS = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS | st.text(max_size=3), inner, max_size=4),
    max_leaves=20,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(_KEYS, _DOCUMENTS, max_size=5))
def test_property_any_document_loads_or_is_explained(tmp_path: Path, document: dict[str, object]) -> None:
    path = write(tmp_path, json.dumps(document))
    try:
        load(path)
    except ConfigError as error:
        assert error.problems
        assert all(problem.where.startswith(str(path)) for problem in error.problems)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_property_any_bytes_load_or_are_explained(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "relaywarden.yaml"
    path.write_bytes(data)
    try:
        load(path)
    except ConfigError as error:
        assert error.problems


def test_logins_find_their_tenant(tmp_path: Path) -> None:
    text = """
plans: {p: {limits: [{messages: 5/h}]}, q: {}}
unknown_login: {plan: q}
tenants:
  acme: {plan: p, logins: [acme, "*@acme.example"]}
  special: {plan: p, logins: ["vip@acme.example", "*@sub.acme.example", "x?[1]*"]}
  bare: {plan: p}
"""
    directory = Directory(load(write(tmp_path, text)))

    def name(login: str) -> str | None:
        tenant = directory.by_login(login)
        return tenant.name if tenant else None

    assert [name(x) for x in ("acme", "ACME", "who@acme.example", "VIP@acme.example", "a@sub.acme.example", "bare")] == [
        "acme", "acme", "acme", "special", "special", "bare",
    ]  # fmt: skip
    assert (name("x?[1]y"), name("xz1y")) == ("special", "xz1y")
    assert name("stranger") == "stranger"
    assert name("special") == "~special"  # a login spelled like a tenant does not spend that tenant's limits
    stranger, acme = directory.by_login("Stranger"), directory.by_login("acme")
    assert stranger is not None
    assert acme is not None
    assert (stranger.plan, stranger.configured, acme.limits[0].meter) == ("q", False, Meter.MESSAGES)
    again = directory.by_name("~special")
    assert again is not None
    assert again.name == "~special"


def test_unknown_logins_may_be_nobody(tmp_path: Path) -> None:
    for answer in ("reject", "ignore"):
        assert Directory(load(write(tmp_path, f"unknown_login: {answer}"))).by_login("who") is None

"""Loading the configuration: the contract of DESIGN.md is accepted, and every fault is named with its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relaywarden.config.load import load
from relaywarden.config.settings import Mode
from relaywarden.errors import ConfigError
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
        ("plans: {p: {on_exceed: explode}}", "plans.p.on_exceed: Input should be 'defer', 'reject' or 'hold'"),
        ("store: redis://:secret@h:x/0", "store: expected redis://host:port"),
    ],
)
def test_single_faults(tmp_path: Path, text: str, expected: str) -> None:
    found = faults(write(tmp_path, text))
    assert any(expected in line for line in found), found
    assert not any("secret" in line for line in found)


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

"""The deeper look of `check`: each fault is found at its place, and a sound configuration has none."""

from __future__ import annotations

import copy
import datetime
import multiprocessing
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from relaywarden.config.examine import problems, remarks
from relaywarden.config.settings import Settings

Change = Callable[[dict[str, Any]], None]
TODAY = datetime.datetime.now(datetime.timezone.utc).date()


def in_days(days: int) -> str:
    return (TODAY + datetime.timedelta(days)).isoformat()


def pem(key: Ed25519PrivateKey | RSAPrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good keys and one good secret, of a user that is not root."""
    made = tmp_path_factory.mktemp("examine")
    for name, data in {
        "key.pem": pem(generate_private_key(65537, 2048)),
        "relay.pem": pem(generate_private_key(65537, 2048)),
        "root.pem": pem(generate_private_key(65537, 2048)),
        "small.pem": pem(Ed25519PrivateKey.generate()),
        "open.pem": pem(Ed25519PrivateKey.generate()),
        "secret": os.urandom(32),
        "short": os.urandom(31),
        "readable": os.urandom(32),
        "writable": os.urandom(32),
    }.items():
        path = made / name
        path.write_bytes(data)
        path.chmod({"readable": 0o644, "open.pem": 0o644, "writable": 0o666}.get(name, 0o600))
        if os.geteuid() == 0 and name != "root.pem":
            os.chown(path, 65534, 65534)
    if os.geteuid() == 0:
        os.chown(made, 65534, 65534)  # sockets and ledger are made in it
    return made


def document(folder: Path) -> dict[str, Any]:
    """A configuration with nothing to say about."""
    key = str(folder / "key.pem")
    return {
        "store": f"sqlite:///{folder}/ledger.db",
        "policyd": {"listen": [f"unix:{folder}/policy"]},
        "milter": {"listen": f"unix:{folder}/milter"},
        "metrics": {"listen": "inet:127.0.0.1:9400"},
        "scan": {"url": "http://127.0.0.1:11333", "on_error": "divert", "divert_score": 6},
        "plans": {"p": {"limits": [{"recipients": "5/hour"}], "bulk": "divert", "identity": {"foreign_from": "tag"}}},
        "tenants": {
            "acme": {
                "plan": "p",
                "from_domains": ["acme.com", "*.acme.com"],
                "dkim": [{"domain": "acme.com", "selector": "a", "key": key, "next": {"selector": "b", "key": key}}],
            },
            "beta": {"plan": "p", "from_domains": ["mail.beta.co.uk"]},
        },
        "operator": {
            "dkim": [{"domain": "relay.net", "selector": "a", "key": str(folder / "relay.pem")}],
            "feedback": {"sender_id": "relaynet", "address": "fbl@in.relay.net", "secret": str(folder / "secret")},
        },
        "pools": {
            "main": {"members": {"m1": {"ip": "192.0.2.1"}, "m2": {"ip": "192.0.2.2", "warmup": {"start": in_days(30)}}}},
            "bulk": {"members": {"b1": {"ip": "192.0.2.3"}}},
            "quarantine": {"members": {"q1": {"ip": "192.0.2.4"}}},
        },
        "schedules": {"mine": {"daily": [10, 20]}},
    }


def found(folder: Path, *changes: tuple[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """Problems and remarks by their places, after changes ("plans.p.bulk", value); None takes a key away."""
    changed = copy.deepcopy(document(folder))
    for path, value in changes:
        *above, last = path.split("/")
        part: Any = changed
        for name in above:
            part = part[int(name)] if isinstance(part, list) else part.setdefault(name, {})
        if value is None:
            del part[last]
        elif isinstance(part, list):
            part[int(last) : int(last) + 1] = [value]
        else:
            part[last] = value
    settings = Settings.model_validate(changed)
    wrong, noted = list(problems(settings)), list(remarks(settings))
    assert len({problem.where for problem in wrong}) == len(wrong), wrong
    return {problem.where: problem.what for problem in wrong}, {remark.where: remark.what for remark in noted}


def filled(folder: Path, changes: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """The changes with {folder} in their texts replaced, however deep these are."""

    def fill(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: fill(part) for name, part in value.items()}
        if isinstance(value, list):
            return [fill(part) for part in value]
        return value.format(folder=folder) if isinstance(value, str) else value

    return [(path, fill(value)) for path, value in changes]


def test_a_sound_configuration_has_nothing_to_say(folder: Path) -> None:
    assert found(folder) == ({}, {})


@pytest.mark.parametrize(
    ("changes", "where", "what"),
    [
        ([("tenants/beta/from_domains", ["beta.com", "com"])], "tenants.beta.from_domains[1]", "com is a public suffix"),
        ([("tenants/beta/from_domains", ["*.co.uk"])], "tenants.beta.from_domains[0]", "*.co.uk is a public suffix"),
        ([("tenants/beta/from_domains", ["*.github.io"])], "tenants.beta.from_domains[0]", "domains of strangers"),
        ([("tenants/acme/dkim/0/domain", "com")], "tenants.acme.dkim[0].domain", "com is a public suffix"),
        ([("operator/dkim/0/domain", "net")], "operator.dkim[0].domain", "net is a public suffix"),
        ([("tenants/acme/dkim/0/next/key", "/none/x.pem")], "tenants.acme.dkim[0].next.key", "cannot read the private key"),
        ([("operator/dkim/0/key", "/none/x.pem")], "operator.dkim[0].key", "cannot read the private key"),
        ([("operator", None)], "plans.p.identity.foreign_from", "tag needs a key in operator.dkim"),
        (
            [("operator", None), ("plans/p/identity/foreign_from", "resign")],
            "plans.p.identity.foreign_from",
            "resign needs a key in operator.dkim",
        ),
        ([("pools/bulk", None)], "plans.p.bulk", "divert needs a pool named bulk"),
        ([("pools/quarantine", None), ("scan/on_error", "accept")], "scan.divert_score", "needs a pool named quarantine"),
        ([("pools/quarantine", None), ("scan/divert_score", None)], "scan.on_error", "divert needs a pool named quarantine"),
        ([("scan/url", "http://")], "scan.url", "expected http://host:port, got 'http://'"),
        ([("scan/url", ["http://a:1", "http:///x"])], "scan.url[1]", "expected http://host:port"),
        ([("scan/url", "http://a:99999")], "scan.url", "expected http://host:port"),
        ([("scan/url", "http://[::1")], "scan.url", "expected http://host:port"),
        ([("scan/url", "ftp://a")], "scan.url", "expected http://host:port"),
        ([("milter/listen", "inet:127.0.0.1:9400")], "metrics.listen", "is the address of milter.listen already"),
        ([("policyd/listen", "inet:127.0.0.1:9400")], "metrics.listen", "is the address of policyd.listen already"),
        ([("metrics/listen", "unix:/run/metrics")], "metrics.listen", "expected inet:host:port"),
        ([("pools/main/members/m2/ip", "192.0.2.1")], "pools.main.members.m2.ip", "of pools.main.members.m1 already"),
        ([("pools/bulk/members/b1/ip", "192.0.2.1")], "pools.bulk.members.b1.ip", "of pools.main.members.m1 already"),
        ([("pools/main/members/m2/warmup/schedule", "no")], "pools.main.members.m2.warmup.schedule", "no such schedule 'no'"),
        (
            [("pools/main/members/m2/warmup/providers", {"google": "mine", "yahoo": "no"})],
            "pools.main.members.m2.warmup.providers.yahoo",
            "no such schedule 'no'",
        ),
        ([("operator/feedback/secret", "/none/secret")], "operator.feedback.secret", "cannot read the secret"),
        ([("operator/feedback/secret", "{folder}")], "operator.feedback.secret", "cannot read the secret"),
        ([("operator/feedback/secret", "{folder}/short")], "operator.feedback.secret", "expected at least 32 random bytes"),
        ([("operator/feedback/secret", "{folder}/readable")], "operator.feedback.secret", "anybody may read this secret"),
        ([("operator/feedback/secret", "{folder}/writable")], "operator.feedback.secret", "anybody may change this secret"),
        (
            [("operator/dkim", []), ("plans/p/identity/foreign_from", "reject")],
            "operator.feedback",
            "needs a key in operator.dkim",
        ),
        ([("operator/feedback/address", "fbl@net")], "operator.feedback.address", "operator.dkim (relay.net), got net"),
        ([("pools/bulk/members/b1/ip", "::ffff:192.0.2.1")], "pools.bulk.members.b1.ip", "192.0.2.1 is the address of"),
        ([("route", {"header": "From"})], "route.header", "From has a meaning of its own"),
        ([("route", {"header": "dkim-signature"})], "route.header", "dkim-signature has a meaning of its own"),
        ([("route", {"header": "X-Job"})], "route.header", "X-Job has a meaning of its own"),
        ([("route", {"header": "X-Pool"}), ("signing", {"headers": ["x-pool"]})], "route.header", "one of signing.headers"),
        ([("scan/spam_header", "Subject")], "scan.spam_header", "Subject has a meaning of its own"),
        ([("scan/spam_header", "x-virtual-mta")], "scan.spam_header", "x-virtual-mta is route.header already"),
        ([("policyd/listen", "unix:/none/policy")], "policyd.listen", "install -d -m 2750 -o relaywarden -g postfix /none"),
        ([("operator/feedback/address", "fbl@notrelay.net")], "operator.feedback.address", "got notrelay.net"),
    ],
)  # fmt: skip
def test_problems(folder: Path, changes: list[tuple[str, Any]], where: str, what: str) -> None:
    wrong, _ = found(folder, *filled(folder, changes))
    assert list(wrong) == [where], wrong
    assert what in wrong[where]


@pytest.mark.parametrize(
    "changes",
    [
        [("tenants/beta/from_domains", ["acme.github.io", "*.beta.co.uk"])],
        [("plans/q", {"identity": {"foreign_from": "resign"}}), ("plans/p/identity", {}), ("operator", None)],
        [("pools/bulk", None), ("plans/p/bulk", "reject")],
        [("pools/quarantine", None), ("scan/on_error", "accept"), ("scan/divert_score", None)],
        [("scan/url", ["127.0.0.1:11333", "https://scan.example/", "http://[::1]:11333"])],
        [("pools/main/members/m2/warmup/schedule", "mine"), ("pools/main/members/m2/warmup/providers", {"google": "sendgrid"})],
        [("route", {"header": "X-Pool"}), ("scan/spam_header", "Spam-Flag"), ("signing", {"headers": ["X-Shop"]})],
        [("operator/feedback/address", "fbl@relay.net")],
        [("operator/feedback/address", "")],
    ],
)
def test_no_problems(folder: Path, changes: list[tuple[str, Any]]) -> None:
    assert found(folder, *changes)[0] == {}


@pytest.mark.parametrize(
    ("changes", "where", "what"),
    [
        ([("tenants/acme/dkim/0/domain", "other.com")], "tenants.acme.dkim[0].domain", "this key never signs"),
        ([("tenants/beta/from_domains", ["beta.com", "acme.com"])], "tenants.beta.from_domains[1]", "of tenant acme too"),
        ([("plans/p/limits", [{"bytes": "1GiB/day"}, {"recipients": "0/hour"}])], "plans.p.limits[1]", "nothing can be sent"),
        (
            [("pools/quarantine/members/q1/warmup", {"start": in_days(0)})],
            "pools.quarantine.when_full",
            "every member warms up",
        ),
        ([("tenants/beta/from_domains", [])], "tenants.beta", "any From passes"),
        ([("unknown_login", {"plan": "p"})], "unknown_login", "every unknown login is a tenant of its own; any From passes"),
        (
            [("tenants/beta/dkim", [{"domain": "beta.co.uk", "selector": "a", "key": "{folder}/../{folder.name}/key.pem"}])],
            "tenants.beta.dkim[0].key",
            "key.pem is a key of tenants.acme too",
        ),
        ([("operator/dkim/0/key", "{folder}/small.pem")], "operator.dkim[0]", "relay.net is signed by Ed25519 only"),
        ([("tenants/acme/dkim/0/key", "{folder}/small.pem")], "tenants.acme.dkim[0]", "acme.com is signed by Ed25519 only"),
        (
            [("pools/main/members/m2/warmup/start", in_days(32))],
            "pools.main.members.m2.warmup.start",
            "days ahead: until then nothing is sent by this member",
        ),
        ([("tenants/acme/dkim/0/next/key", "{folder}/open.pem")], "tenants.acme.dkim[0].next.key", "anybody may read"),
        (
            [("monitor", {"listen": "inet:127.0.0.1:1025"}), ("operator/feedback/bounces", "bounce@in.relay.net")],
            "dns.return_path",
            "does not name in.relay.net",
        ),
    ],
)  # fmt: skip
def test_remarks(folder: Path, changes: list[tuple[str, Any]], where: str, what: str) -> None:
    wrong, noted = found(folder, *filled(folder, changes))
    assert (wrong, list(noted)) == ({}, [where])
    assert what in noted[where]


@pytest.mark.parametrize(
    ("domain", "patterns", "signs"),
    [
        ("acme.com", ["acme.com"], True),
        ("acme.com", ["mail.acme.com"], True),
        ("acme.com", ["*.acme.com"], True),
        ("m.acme.com", ["*.acme.com"], True),
        ("m.acme.com", ["acme.com"], False),
        ("cme.com", ["acme.com"], False),
        ("other.com", ["acme.com", "m.other.com"], True),
        ("other.com", [], True),
    ],
)
def test_a_key_that_never_signs_is_remarked(folder: Path, domain: str, patterns: list[str], *, signs: bool) -> None:
    _, noted = found(folder, ("tenants/acme/from_domains", patterns), ("tenants/acme/dkim/0/domain", domain))
    assert ("tenants.acme.dkim[0].domain" not in noted) is signs


@pytest.mark.parametrize(
    "changes",
    [
        [("plans/p/limits", [{"recipients": "0/hour", "mode": "observe"}])],
        [("pools/bulk", {"when_full": "send", "members": {"b1": {"ip": "192.0.2.3", "warmup": {"start": in_days(0)}}}})],
        [("tenants/acme/dkim/1", {"domain": "acme.com", "selector": "e", "key": "{folder}/small.pem"})],
        [("tenants/beta/from_domains", ["beta.com", "beta.com", "mail.acme.com"])],
    ],
)
def test_no_remarks(folder: Path, changes: list[tuple[str, Any]]) -> None:
    assert found(folder, *filled(folder, changes)) == ({}, {})


@pytest.mark.skipif(os.geteuid() != 0, reason="root may read what the service cannot")
def test_files_that_only_root_can_read_are_one_remark(folder: Path) -> None:
    secret = folder / "of-root"
    secret.write_bytes(os.urandom(32))
    secret.chmod(0o600)
    changes = [("tenants/acme/dkim/0/key", str(folder / "root.pem")), ("operator/feedback/secret", str(secret))]
    wrong, noted = found(folder, *changes)
    assert (wrong, list(noted)) == ({}, ["tenants.acme.dkim[0].key"])
    assert f"{folder}/root.pem and 1 more (2 files): only root can read it" in noted["tenants.acme.dkim[0].key"]
    secret.chmod(0o640)  # of group root
    assert "(2 files)" in found(folder, *changes)[1]["tenants.acme.dkim[0].key"]
    os.chown(secret, 0, 65534)
    assert f"{folder}/root.pem: only root can read it" in found(folder, *changes)[1]["tenants.acme.dkim[0].key"]


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_a_socket_folder_that_this_user_cannot_write_to_is_a_problem(folder: Path) -> None:
    context = multiprocessing.get_context("fork")
    with (
        tempfile.TemporaryDirectory(prefix="relaywarden-tests-") as open_folder,
        ProcessPoolExecutor(1, context, initializer=os.setuid, initargs=(65534,)) as nobody,
    ):
        change = ("policyd/listen", f"unix:{open_folder}/within/policy")
        wrong, _ = nobody.submit(found, folder, change).result(60)
        assert "this user may not enter it" in wrong["policyd.listen"]
        change = ("policyd/listen", f"unix:{open_folder}/policy")
        Path(open_folder).chmod(0o755)
        wrong, _ = nobody.submit(found, folder, change).result(60)
        assert f"the folder {open_folder} cannot be written by this user" in wrong["policyd.listen"]
        os.chown(open_folder, 65534, -1)
        wrong, _ = nobody.submit(found, folder, change).result(60)
        assert "policyd.listen" not in wrong


@pytest.mark.skipif(os.geteuid() != 0, reason="root may write where the service cannot")
def test_a_socket_folder_that_only_root_can_write_to_is_remarked(folder: Path, tmp_path: Path) -> None:
    change = ("milter/listen", f"unix:{tmp_path}/milter")
    tmp_path.chmod(0o770)
    wrong, noted = found(folder, change)
    assert (wrong, list(noted)) == ({}, ["milter.listen"])
    assert f"only root can write to the folder {tmp_path}" in noted["milter.listen"]
    os.chown(tmp_path, 0, 65534)
    assert found(folder, change) == ({}, {})
    os.chown(tmp_path, 65534, 0)
    tmp_path.chmod(0o2750)
    assert found(folder, change) == ({}, {})

"""The files of contrib name the same pool members, with the same addresses, everywhere they must."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

CONTRIB = Path(__file__).resolve().parents[1] / "contrib"
POSTFIX = CONTRIB / "postfix"


@pytest.fixture(scope="module")
def pools() -> dict[str, dict[str, str]]:
    """Pool to member to address, of the example configuration."""
    config: dict[str, Any] = yaml.safe_load((POSTFIX / "relaywarden.yaml").read_text())
    return {
        pool: {member: facts["ip"] for member, facts in facts_of["members"].items()}
        for pool, facts_of in config["pools"].items()
    }


@pytest.fixture(scope="module")
def members(pools: dict[str, dict[str, str]]) -> dict[str, str]:
    return {member: ip for listed in pools.values() for member, ip in listed.items()}


def test_each_member_has_an_address_a_helo_name_a_transport_and_a_filter(members: dict[str, str]) -> None:
    main = (POSTFIX / "main.cf.relaywarden").read_text()
    assert dict(re.findall(r"^relaywarden_ip_(\S+) = (\S+)$", main, re.M)) == members
    assert set(re.findall(r"^relaywarden_helo_(\S+) = ", main, re.M)) == set(members)
    master = (POSTFIX / "master.cf.relaywarden").read_text()
    assert set(re.findall(r"^(\S+) +unix ", master, re.M)) == set(members)
    checks = (POSTFIX / "milter_header_checks.regexp").read_text()
    tags = re.findall(r"^/\^X-Virtual-MTA:\[\[:space:\]\]\*(\S+?)\[\[:space:\]\]\*\$/ +FILTER (\S+):$", checks, re.M)
    assert dict(tags) == {member: member for member in members}


def test_each_transport_is_bound_to_its_own_address_and_nothing_else(members: dict[str, str]) -> None:
    master = (POSTFIX / "master.cf.relaywarden").read_text()
    services = dict(re.findall(r"^(\S+) +unix .*\n((?:  -o .*\n)+)", master, re.M))
    for member in members:
        assert f"-o smtp_bind_address=$relaywarden_ip_{member}\n" in services[member]
        assert "-o smtp_bind_address_enforce=yes\n" in services[member]
        assert "-o inet_protocols=ipv4\n" in services[member]
        assert "-o smtp_header_checks=$relaywarden_smtp_header_checks\n" in services[member]


def test_powermta_has_the_same_members_addresses_and_pools(pools: dict[str, dict[str, str]], members: dict[str, str]) -> None:
    text = (CONTRIB / "pmta" / "relaywarden.conf").read_text()
    assert dict(re.findall(r"<virtual-mta (\S+)>\n  smtp-source-host (\S+) ", text)) == members
    listed = dict(re.findall(r"<virtual-mta-pool (\S+)>\n((?:  virtual-mta \S+\n)+)</virtual-mta-pool>", text))
    assert {pool: re.findall(r"virtual-mta (\S+)", lines) for pool, lines in listed.items()} == {
        pool: list(named) for pool, named in pools.items()
    }

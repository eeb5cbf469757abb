"""The files of contrib name the same pool members, with the same addresses, everywhere they must."""

from __future__ import annotations

import grp
import multiprocessing
import os
import pwd
import re
import socket
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from relaywarden.addresses import Address, listen

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


RECIPE = re.compile(r"install -d -m (\d+) -o relaywarden -g postfix /var/spool/postfix/relaywarden$", re.M)
_open: list[socket.socket] = []  # in the process that serves


def become(uid: int, gid: int) -> None:
    os.setgroups([gid])
    os.setgid(gid)
    os.setuid(uid)


def serve(path: str) -> None:
    _open.append(listen(Address.parse(f"unix:{path}")))


def connects(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(path)
        except PermissionError:
            return False
    return True


def test_the_socket_folder_is_made_the_same_everywhere() -> None:
    files = [CONTRIB.parent / "README.rst", POSTFIX / "README.rst", POSTFIX / "main.cf.relaywarden"]
    assert [RECIPE.findall(file.read_text()) for file in files] == [["2750"]] * len(files)


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes other users")
def test_postfix_and_nobody_else_connects_to_a_socket_in_that_folder() -> None:
    postfix, group = pwd.getpwnam("postfix").pw_uid, grp.getgrnam("postfix").gr_gid
    mode = int(RECIPE.findall((CONTRIB.parent / "README.rst").read_text())[0], 8)
    fork = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory(prefix="relaywarden-tests-") as above:
        Path(above).chmod(0o755)
        folder = Path(above) / "relaywarden"
        folder.mkdir()
        os.chown(folder, 65533, group)
        folder.chmod(mode)
        with (
            ProcessPoolExecutor(1, fork, initializer=become, initargs=(65533, 65533)) as service,  # not of group postfix
            ProcessPoolExecutor(1, fork, initializer=become, initargs=(postfix, group)) as smtpd,
            ProcessPoolExecutor(1, fork, initializer=become, initargs=(65534, 65534)) as stranger,
        ):
            path = f"{folder}/policy"
            service.submit(serve, path).result(30)
            assert smtpd.submit(connects, path).result(30)
            assert not stranger.submit(connects, path).result(30)

"""The services of the testbed as fixtures.  They start once, on free loopback ports, and stop in the end.

Nothing here skips: a missing program is an error that names the Debian package.  Every service keeps its configuration
and log in one folder below /tmp (readable for user postfix, which pytest's tmp_path is not); it is removed in the end,
unless a test failed: then it stays and its path is printed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from testbed.dns import DnsServer
from testbed.factories import PostfixFactory, SidecarFactory, WorkFolder
from testbed.postfix import Postfix
from testbed.redis import RedisServer
from testbed.rspamd import Rspamd
from testbed.sidecar import Sidecar
from testbed.sink import Sink

_failed = pytest.StashKey[bool]()

# No deadlines: the machine may be busy with the services under test.  `long` is for `make fuzz`.
settings.register_profile("short", deadline=None, max_examples=60)
settings.register_profile("long", deadline=None, max_examples=5000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.session.stash[_failed] = True
    return report


@pytest.fixture(scope="session")
def work_folder(request: pytest.FixtureRequest) -> Iterator[WorkFolder]:
    """Makes a new folder for one service: `work_folder("redis")`."""
    root = Path(tempfile.mkdtemp(prefix="relaywarden-tests-", dir="/tmp"))
    root.chmod(0o755)
    count = 0

    def make(name: str) -> Path:
        nonlocal count
        count += 1
        folder = root / f"{count}-{name}"
        folder.mkdir(mode=0o755)
        return folder

    yield make
    if request.session.stash.get(_failed, False):
        reporter: Any = request.config.pluginmanager.get_plugin("terminalreporter")
        reporter.write_line(f"\nlogs of the services: {root}")
    else:
        shutil.rmtree(root)


@pytest.fixture(scope="session")
def dns(work_folder: WorkFolder) -> Iterator[DnsServer]:
    """The local DNS server; `dns.add({...})` for the names of a test."""
    with DnsServer(work_folder("dns")) as server:
        yield server


@pytest.fixture(scope="session")
def rspamd(work_folder: WorkFolder, dns: DnsServer) -> Iterator[Rspamd]:
    """rspamd; a message with `X-Testbed-Action: soft reject` gets that action."""
    with Rspamd(work_folder("rspamd"), dns=(dns.host, dns.port)) as server:
        yield server


@pytest.fixture(scope="session")
def redis_process(work_folder: WorkFolder) -> Iterator[RedisServer]:
    with RedisServer(work_folder("redis")) as server:
        yield server


@pytest.fixture
def redis_server(redis_process: RedisServer) -> RedisServer:
    """A Redis with nothing in it."""
    redis_process.flush()
    return redis_process


@pytest.fixture(scope="module")
def sink() -> Iterator[Sink]:
    """Where the mail of a module's Postfix ends up; `sink.clear()` between tests."""
    with Sink() as server:
        yield server


@pytest.fixture(scope="module")
def postfix_factory(work_folder: WorkFolder, sink: Sink) -> Iterator[PostfixFactory]:
    """Makes and starts a Postfix whose mail goes to the sink: `postfix_factory(users={"acme": "secret"})`."""
    with ExitStack() as running:

        def make(**options: Any) -> Postfix:
            options.setdefault("next_hop", f"[{sink.host}]:{sink.port}")
            return running.enter_context(Postfix(work_folder("postfix"), **options))

        yield make


@pytest.fixture(scope="module")
def sidecar_factory(work_folder: WorkFolder) -> Iterator[SidecarFactory]:
    """Writes a configuration and starts relaywarden with it: `sidecar_factory({...}, "run")`."""
    with ExitStack() as running:

        def make(config: dict[str, Any], program: str = "run", **options: Any) -> Sidecar:
            return running.enter_context(Sidecar(work_folder("relaywarden"), config, program, **options))

        yield make

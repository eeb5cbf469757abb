"""A real Postfix hands reports over by contrib/postfix/reports.master.cf, and keeps them while they cannot be taken."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from relaywarden.addresses import Address
from relaywarden.errors import StoreUnavailableError
from relaywarden_monitor.intake.lmtp import Limits, LmtpIntake
from relaywarden_monitor.intake.maildir import Maildir
from testbed.factories import PostfixFactory, WorkFolder
from testbed.postfix import Postfix
from testbed.process import wait_for
from testbed.smtpclient import Client

pytestmark = pytest.mark.postfix
ROOT = Path(__file__).resolve().parents[2]
CONTRIB = ROOT / "contrib" / "postfix"
TOKEN = "eu7pdt6t6n2sebmf6feqahifohwctlfrilthbminqxzsfsmcf6la5k3h"
REPORT = (
    "From: staff@isp.example\r\nTo: fbl@relay.example\r\nSubject: a report\r\nMessage-ID: <r@isp.example>\r\n"
    "Date: Tue, 24 Nov 2026 10:00:00 +0000\r\n\r\n.with a dot\r\n"
)


@dataclass
class Site:
    """Postfix, the listener and the maildir, and what came in."""

    postfix: Postfix
    spool: Path
    taken: list[tuple[bytes, str]] = field(default_factory=list)
    down: bool = False

    def deliver(self, data: bytes, recipient: str) -> None:
        if self.down:
            raise StoreUnavailableError("no connection")
        self.taken.append((data, recipient))

    def send(self, recipient: str) -> str:
        """A report from the empty sender; its queue id."""
        with Client(self.postfix.host, self.postfix.submission_port, login="acme", password="secret") as client:
            return client.send("", [recipient], REPORT.encode()).queue_id


def program(folder: Path, spool: Path) -> Path:
    """What /usr/local/bin/relaywarden report is, for a user who may read neither the checkout nor our settings."""
    for package in (ROOT / "relaywarden", ROOT / "monitor" / "relaywarden_monitor"):
        shutil.copytree(package, folder / "lib" / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    config = folder / "relaywarden.yaml"
    config.write_text(f"store: sqlite:///{folder}/l.db\nmonitor: {{spool: {spool}}}\n")
    path = folder / "program"
    path.write_text(
        f"#!{sys.executable} -I\nimport sys\nfrom pathlib import Path\nsys.path[:0] = [{str(folder / 'lib')!r}]\n"
        "from relaywarden_monitor.intake.report_command import report\n"
        f"report(sys.argv[4:], obj=Path({str(config)!r}))  # after --config FILE report\n"
    )
    path.chmod(0o755)
    return path


@pytest.fixture(scope="module")
def site(postfix_factory: PostfixFactory, work_folder: WorkFolder) -> Iterator[Site]:
    folder = work_folder("reports")
    spool = folder / "spool"
    spool.mkdir()
    shutil.chown(spool, "nobody")
    master = (CONTRIB / "reports.master.cf").read_text()
    master = master.replace("user=relaywarden", "user=nobody").replace(
        "/usr/local/bin/relaywarden", str(program(folder, spool))
    )
    table = folder / "reports.transport"
    text = (CONTRIB / "reports.transport").read_text()
    table.write_text(text + r"/^piped(\+[^@]*)?@relay\.example$/  relaywarden-report:" + "\n")
    server = postfix_factory(
        users={"acme": "secret"}, next_hop="127.0.0.1:9", extra_master=master,
        settings={
            "transport_maps": f"regexp:{table}", "relaywarden_milter": "",
            "relaywarden_recipient_restrictions": "permit_sasl_authenticated, reject",
            "relaywarden_data_restrictions": "", "relaywarden_end_of_data_restrictions": "",
            "relaywarden-report_destination_recipient_limit": "1",
        },
    )  # fmt: skip
    yield Site(server, spool)


@pytest.fixture
def lmtp(site: Site) -> Iterator[LmtpIntake]:
    intake = LmtpIntake([Address(str(site.postfix.socket_directory / "reports"))], Limits(timeout=60), site.deliver)
    intake.start()
    yield intake
    intake.stop()


def test_lmtp_delivers_and_a_store_that_is_down_makes_postfix_wait(site: Site, lmtp: LmtpIntake) -> None:
    site.taken.clear()
    site.down = True
    queue_id = site.send(f"fbl+{TOKEN}@relay.example")
    site.postfix.wait_event(queue_id, "451 4.3.0")
    site.down = False
    site.postfix.wait_removed(queue_id)
    [(data, recipient)] = site.taken
    assert recipient == f"fbl+{TOKEN}@relay.example"
    assert data.endswith(REPORT.encode())


def test_pipe_stores_into_the_spool_from_which_the_maildir_reader_delivers(site: Site) -> None:
    site.taken.clear()
    queue_id = site.send(f"piped+{TOKEN}@relay.example")
    events = site.postfix.wait_removed(queue_id)
    assert any("status=sent" in event.text for event in events)
    maildir = Maildir(site.spool / "reports", 1_000_000, site.deliver)
    wait_for("nothing in the spool", lambda: maildir.poll() == 1)
    [(data, recipient)] = site.taken
    assert recipient == f"piped+{TOKEN}@relay.example"
    assert data.replace(b"\n", b"\r\n").endswith(REPORT.encode())


def test_a_spool_that_cannot_be_written_makes_postfix_wait(site: Site) -> None:
    site.spool.rename(site.spool.with_name("away"))
    try:
        site.spool.write_text("in the way")
        queue_id = site.send("piped@relay.example")
        site.postfix.wait_event(queue_id, "status=deferred")
        site.spool.unlink()
    finally:
        site.spool.with_name("away").rename(site.spool)
    site.postfix.wait_removed(queue_id)

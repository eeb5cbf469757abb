"""A private Postfix with relaywarden in front of its queue, exactly as contrib/postfix says.

It has its own configuration, queue, data folder and log under a work folder and listens on loopback only:

* `submission_port`: SMTP AUTH (PLAIN, LOGIN) by Cyrus SASL against a sasldb2 with the given users;
* `xclient_port`: the same service, where 127.0.0.1 may say `XCLIENT LOGIN=name ADDR=...` instead of authenticating.

The files of contrib/postfix are used as they are: main.cf.relaywarden is appended to main.cf, master.cf.relaywarden to
master.cf, submission.relaywarden stands below both services.  Site values (addresses, next hops, a test's `settings`)
are set by `postconf -e` afterwards, as an operator does.  All mail goes to `next_hop`, the sink.  With `pmta=True` the
files of contrib/pmta take the place of the pool transports, and the sink that of PowerMTA.

policyd and milter make their sockets in `socket_directory`; Postfix can be started before or after them.

Needs root (as Postfix does) and a work folder that user postfix can enter: not below pytest's own 0700 folders.  Fails
with StartError and the end of the log.  Known limits: no TLS; no local delivery, so no mail for this host's own name.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from testbed import postfixconf
from testbed.ports import HOST, free_port
from testbed.postfixlog import Event, read_log
from testbed.process import StartError, program, tail, wait_for

POOL_IPS = {"tx1": "127.0.0.11", "tx2": "127.0.0.12", "bk1": "127.0.0.21", "q1": "127.0.0.31"}


class Postfix:
    """One instance; `settings` are main.cf values for a test, `pool_ips` the source address of each pool member."""

    def __init__(
        self,
        work: Path,
        *,
        users: Mapping[str, str],
        next_hop: str,
        pool_ips: Mapping[str, str] | None = None,
        settings: Mapping[str, str] | None = None,
        extra_master: str = "",
        pmta: bool = False,
        hostname: str = "relay.test",
    ) -> None:
        self.work, self.host, self.hostname = work, HOST, hostname
        self.users, self.next_hop = dict(users), next_hop
        self.pool_ips = dict(POOL_IPS if pool_ips is None else pool_ips)
        self.settings, self.extra_master = dict(settings or {}), extra_master
        self.pmta = pmta
        self.submission_port, self.xclient_port = free_port(), free_port()
        self.config, self.spool, self.log = work / "etc", work / "spool", work / "maillog"
        self.socket_directory = self.spool / "relaywarden"
        self._master: int | None = None

    @property
    def policy_socket(self) -> Path:
        return self.socket_directory / "policy"

    @property
    def milter_socket(self) -> Path:
        return self.socket_directory / "milter"

    @property
    def pid(self) -> int:
        """The master process."""
        if self._master is None:
            raise RuntimeError("Postfix is not running")
        return self._master

    def prepare(self) -> None:
        """Write the configuration and make the folders; `start` does it when it was not done before."""
        if os.geteuid() != 0:
            raise StartError("a private Postfix needs root: its master process changes users")
        program("postfix", "postfix")
        # Debian's smtpd reads $config_directory/sasl/smtpd.conf, whatever cyrus_sasl_config_path says.
        data, sasl, tables = self.work / "data", self.config / "sasl", self.config / "relaywarden"
        for folder in (self.config, self.spool, self.socket_directory, data, sasl, tables):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o755)
        shutil.chown(data, "postfix", "postfix")
        # As the package does it in production.
        shutil.chown(self.socket_directory, group="postfix")
        self.socket_directory.chmod(0o750)
        for table in postfixconf.CONTRIB.glob("*.regexp"):
            shutil.copy(table, tables)
        self._write_users(sasl)
        main = postfixconf.MAIN.format(
            spool=self.spool, data=data, log=self.log, work=self.work, hostname=self.hostname, host=self.host,
            sasl=sasl, next_hop=self.next_hop,
        )  # fmt: skip
        (self.config / "main.cf").write_text(main + "\n" + (postfixconf.CONTRIB / "main.cf.relaywarden").read_text())
        master = postfixconf.master(self.host, self.submission_port, self.xclient_port, pmta=self.pmta)
        (self.config / "master.cf").write_text(master + self.extra_master)
        site = {f"relaywarden_ip_{member}": ip for member, ip in self.pool_ips.items()}
        if self.pmta:
            site |= postfixconf.pmta_settings(self.next_hop)
        self.postconf({**site, **self.settings})

    def start(self) -> Postfix:
        if not (self.config / "main.cf").exists():
            self.prepare()
        done = self._run("postfix", "-c", str(self.config), "start", check=False)
        if done.returncode != 0:
            raise StartError(f"postfix start: {done.stdout}{done.stderr}\n--- {self.log}\n{tail(self.log)}")
        self._master = int((self.spool / "pid" / "master.pid").read_text().split()[0])
        try:
            wait_for("Postfix does not greet", self._greets, log=self.log)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """SIGTERM to the master (which ends its daemons); after 10 s the whole group is killed."""
        master, self._master = self._master, None
        if master is None:
            return
        try:
            os.kill(master, signal.SIGTERM)
            wait_for("Postfix does not stop", lambda: not _exists(master), timeout=10, log=self.log)
        except ProcessLookupError:
            pass  # it ended by itself
        except StartError:
            os.killpg(master, signal.SIGKILL)

    def postconf(self, settings: Mapping[str, str]) -> None:
        """Change main.cf; `reload` makes running daemons see it."""
        if settings:
            pairs = [f"{name}={value}" for name, value in settings.items()]
            self._run("postconf", "-c", str(self.config), "-e", *pairs)

    def reload(self) -> None:
        self._run("postfix", "-c", str(self.config), "reload")

    def flush(self) -> None:
        self._run("postqueue", "-c", str(self.config), "-f")

    def release(self, queue_id: str) -> None:
        """Let a held message go on (postsuper -H, which keeps its transport)."""
        self._run("postsuper", "-c", str(self.config), "-H", queue_id)

    def queue(self) -> list[dict[str, Any]]:
        """What waits, as `postqueue -j` has it (queue_name, queue_id, sender, recipients with delay_reason …)."""
        done = self._run("postqueue", "-c", str(self.config), "-j")
        return [json.loads(line) for line in done.stdout.splitlines()]

    def events(self, queue_id: str | None = None) -> list[Event]:
        return read_log(self.log, queue_id)

    def wait_event(self, queue_id: str, text: str, timeout: float = 20.0) -> Event:
        """The first log line of this message that contains the text."""

        def found() -> list[Event]:
            return [event for event in self.events(queue_id) if text in event.text]

        wait_for(f"no {text!r} logged for {queue_id}", lambda: bool(found()), timeout=timeout, log=self.log)
        return found()[0]

    def wait_removed(self, queue_id: str, timeout: float = 20.0) -> list[Event]:
        """Wait until a message has left the queue; its events (their `status` says how it left)."""
        self.wait_event(queue_id, "removed", timeout)
        return self.events(queue_id)

    def wait_empty(self, timeout: float = 20.0) -> None:
        """Wait until nothing is queued: everything was delivered or bounced."""
        wait_for("the queue is not empty", lambda: not self.queue(), timeout=timeout, log=self.log, every=0.1)

    def _write_users(self, sasl: Path) -> None:
        database = sasl / "sasldb2"
        (sasl / "smtpd.conf").write_text(
            f"pwcheck_method: auxprop\nauxprop_plugin: sasldb\nsasldb_path: {database}\nmech_list: PLAIN LOGIN\n"
        )
        for login, password in self.users.items():
            name, _, realm = login.partition("@")
            self._run("saslpasswd2", "-p", "-c", "-f", str(database), "-u", realm or self.hostname, name, text=password)
        if database.exists():
            shutil.chown(database, "root", "postfix")
            database.chmod(0o640)

    def _greets(self) -> bool:
        for port in (self.submission_port, self.xclient_port):
            try:
                with socket.create_connection((self.host, port), timeout=5) as client:
                    if not client.recv(512).startswith(b"220"):
                        return False
            except OSError:
                return False
        return True

    def _run(self, name: str, *arguments: str, text: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        package = "sasl2-bin" if name.startswith("sasl") else "postfix"
        argv: Sequence[str] = [program(name, package), *arguments]
        done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
        if check and done.returncode != 0:
            raise StartError(f"{' '.join(argv)}: {done.stdout}{done.stderr}\n--- {self.log}\n{tail(self.log)}")
        return done

    def __enter__(self) -> Postfix:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


def _exists(pid: int) -> bool:
    """Is this process alive?  A zombie is not: our machines may have an init that reaps late."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False

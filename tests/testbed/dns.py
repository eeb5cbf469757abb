"""A private DNS server (unbound) that knows the given names and answers NXDOMAIN to all others at once.

Records are a mapping of name to {type: value or values}, values as in a zone file, TXT as the plain text (it is quoted
and cut into strings of 255 octets here):

    {"rw1._domainkey.acme.example": {"TXT": "v=DKIM1; k=rsa; p=..."}, "acme.example": {"MX": "10 mx.acme.example."}}

Names can be added while it runs (`add`), and given other records (`replace`).  It never asks the outside world.  Known
limit: resolvers that cache keep an earlier NXDOMAIN (unbound itself gives none a SOA, so the
ones of the testbed do not).
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import dns.exception
import dns.resolver

from testbed.ports import HOST, free_port
from testbed.process import Process, StartError, program

Records = Mapping[str, Mapping[str, "str | Sequence[str]"]]

_CONF = """server:
  interface: {host}@{port}
  port: {port}
  do-daemonize: no
  num-threads: 1
  username: ""
  chroot: ""
  directory: "{work}"
  pidfile: "{work}/unbound.pid"
  use-syslog: no
  logfile: ""
  log-queries: yes
  verbosity: 1
  do-ip6: no
  access-control: 127.0.0.0/8 allow
  module-config: "iterator"
  local-zone: "." static
  include: "{work}/records.conf"
remote-control:
  control-enable: yes
  control-interface: "{work}/control"
  control-use-cert: no
"""


def record_lines(records: Records) -> list[str]:
    """The records in the presentation format that unbound reads."""
    lines = []
    for name, types in records.items():
        for kind, values in types.items():
            for value in [values] if isinstance(values, str) else values:
                data = _quoted(value) if kind.upper() == "TXT" else value
                lines.append(f"{name.rstrip('.')}. 60 IN {kind.upper()} {data}")
    return lines


def _quoted(text: str) -> str:
    escaped = [text[at : at + 255].replace("\\", "\\\\").replace('"', '\\"') for at in range(0, len(text) or 1, 255)]
    return " ".join(f'"{part}"' for part in escaped)


class DnsServer:
    """unbound on a free loopback port; `host` and `port` once started."""

    def __init__(self, work: Path, records: Records | None = None) -> None:
        self.work, self.host, self.port = work, HOST, free_port()
        self.records: dict[str, Mapping[str, str | Sequence[str]]] = dict(records or {})
        self.log = work / "unbound.log"
        self._conf = work / "unbound.conf"
        self._process: Process | None = None

    def start(self) -> DnsServer:
        self.work.mkdir(parents=True, exist_ok=True)
        lines = [f"local-data: '{line}'" for line in record_lines(self.records)]
        (self.work / "records.conf").write_text("server:\n" + "\n".join(lines) + "\n")
        self._conf.write_text(_CONF.format(host=self.host, port=self.port, work=self.work))
        argv = [program("unbound", "unbound"), "-d", "-d", "-p", "-c", str(self._conf)]
        self._process = Process("unbound", argv, self.log, ready=self._answers)
        self._process.start()
        return self

    def add(self, records: Records) -> None:
        """More names, from now on."""
        argv = [program("unbound-control", "unbound"), "-c", str(self._conf), "local_datas"]
        text = "\n".join(record_lines(records)) + "\n"
        done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
        if done.returncode != 0 or "error" in done.stdout + done.stderr:
            raise StartError(f"unbound-control local_datas: {done.stdout}{done.stderr}")
        self.records.update(records)

    def replace(self, records: Records) -> None:
        """Forget all records of these names, and serve others."""
        argv = [program("unbound-control", "unbound"), "-c", str(self._conf), "local_data_remove"]
        for name in records:
            done = subprocess.run([*argv, f"{name.rstrip('.')}."], capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise StartError(f"unbound-control local_data_remove: {done.stdout}{done.stderr}")
        self.add(records)

    def resolver(self) -> dns.resolver.Resolver:
        """A dnspython resolver that asks this server and nobody else."""
        resolver = dns.resolver.Resolver(configure=False)
        resolver.nameservers, resolver.port, resolver.lifetime = [self.host], self.port, 2.0
        return resolver

    def txt(self, name: bytes | str, timeout: float = 5) -> bytes | None:
        """A TXT record as dkimpy's `dnsfunc` wants it: joined strings, None when there is none."""
        text = name.decode("ascii") if isinstance(name, bytes) else name
        try:
            answer = self.resolver().resolve(text, "TXT", lifetime=timeout)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return None
        return b"".join(next(iter(answer)).strings)

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError("unbound is not running")
        return self._process.pid

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()
            self._process = None

    def _answers(self) -> bool:
        try:
            self.resolver().resolve("ready.invalid", "A", lifetime=0.5)
        except dns.resolver.NXDOMAIN:
            return True
        except (dns.exception.DNSException, OSError):
            pass  # not listening yet
        return False

    def __enter__(self) -> DnsServer:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

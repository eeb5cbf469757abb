"""A private rspamd: the stock rules, one normal worker on a free loopback port, no Redis, no outside network.

The configuration is the distribution's /etc/rspamd with our own top-level file, so the scores and GTUBE behave as in
production; everything that would talk to others (fuzzy storage, map updates, RBLs, neural, the controller) is off, and
names are asked at the testbed's DNS server.  `local_d` adds files to local.d, e.g. {"multimap.conf": "..."}.

By default `FORCE_ACTIONS` is on: a message with a header `X-Testbed-Action: soft reject` gets that action from rspamd
(any name of rspamd: "no action", "greylist", "add header", "rewrite subject", "soft reject", "reject", "quarantine",
"discard"), so that a test can have each of them from a real scanner.  Polled by GET /ping.

Known limits: to start in half a second instead of ten, hyperscan is off and only a handful of public suffixes is known
(benches pass `stock_urls=True` for the real thing); nothing is learned or greylisted, as there is no Redis behind it.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from testbed.ports import HOST, free_port
from testbed.process import Process, program

GTUBE = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"

_OFF = (
    "fuzzy_check rspamd_update asn neural phishing rbl surbl mx_check dcc clickhouse elastic history_redis "
    "metric_exporter metadata_exporter reputation replies url_redirector p0f bimi external_services antivirus "
    "greylist ratelimit dkim_signing arc dmarc aws_s3 whitelist"
)

_CONF = """.include "$CONFDIR/common.conf"
options {{
  pidfile = "{work}/rspamd.pid";
  .include "$CONFDIR/options.inc"
  .include(priority=1,duplicate=merge) "$LOCAL_CONFDIR/local.d/options.inc"
}}
logging {{ type = "file"; filename = "{work}/rspamd.log"; level = "info"; }}
worker "normal" {{
  bind_socket = "{host}:{port}";
  count = {workers};
  mime = true;
  task_timeout = 8s;
}}
"""

_OPTIONS = """control_socket = "{work}/rspamd.sock mode=0600";
dns {{ nameserver = ["{dns}"]; timeout = 1s; retransmits = 1; }}
tempdir = "{work}";
"""

# Compiling the stock list of 9,600 suffixes takes 8 s at each first start; rules about mail need only a few of them.
_FAST = """disable_hyperscan = true;
url_tld = "{work}/tld.dat";
"""
_SUFFIXES = ["com", "net", "org", "info", "biz", "io", "eu", "de", "fr", "uk", "co.uk", "example", "test", "invalid"]

_ACTIONS = """
quarantine = { flags = ["no_threshold"]; }
discard = { flags = ["no_threshold"]; }
"""

FORCE_ACTIONS = """
local settings = {
  ["no action"] = true, ["greylist"] = true, ["add header"] = true, ["rewrite subject"] = true,
  ["soft reject"] = true, ["reject"] = true, ["quarantine"] = true, ["discard"] = true,
}
rspamd_config:register_symbol({
  name = "TESTBED_ACTION", type = "prefilter", priority = 10,
  callback = function(task)
    local wanted = task:get_header("X-Testbed-Action")
    if not wanted then return end
    if settings[wanted] then
      task:set_pre_result(wanted, "testbed: " .. wanted, "testbed")
    end
  end,
})
"""


class Rspamd:
    """rspamd; `url` is what goes into `scan: {url: ...}`."""

    def __init__(
        self,
        work: Path,
        *,
        dns: tuple[str, int],
        local_d: Mapping[str, str] | None = None,
        lua: str = FORCE_ACTIONS,
        workers: int = 1,
        stock_urls: bool = False,
    ) -> None:
        self.work, self.host, self.port, self.dns = work, HOST, free_port(), dns
        self.local_d, self.lua = dict(local_d or {}), lua
        self.workers, self.stock_urls = workers, stock_urls
        self.log = work / "rspamd.log"
        self._process: Process | None = None

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def start(self) -> Rspamd:
        local = self.work / "etc"
        for folder in (local / "local.d", local / "override.d", self.work / "db"):
            folder.mkdir(parents=True, exist_ok=True)
        for name in _OFF.split():
            (local / "local.d" / f"{name}.conf").write_text("enabled = false;\n")
        (local / "local.d" / "classifier-bayes.conf").write_text("enabled = false;\n")
        (local / "local.d" / "actions.conf").write_text(_ACTIONS)
        for name, text in self.local_d.items():
            (local / "local.d" / name).write_text(text)
        (local / "rspamd.local.lua").write_text(self.lua)
        conf = self.work / "rspamd.conf"
        conf.write_text(_CONF.format(work=self.work, host=self.host, port=self.port, workers=self.workers))
        options = _OPTIONS if self.stock_urls else _OPTIONS + _FAST
        options = options.format(work=self.work, dns=f"{self.dns[0]}:{self.dns[1]}")
        (local / "local.d" / "options.inc").write_text(options)
        (self.work / "tld.dat").write_text("\n".join(_SUFFIXES) + "\n")
        variables = {"LOCAL_CONFDIR": local, "DBDIR": self.work / "db", "RUNDIR": self.work, "LOGDIR": self.work}
        argv = [program("rspamd", "rspamd"), "-f", "-i", "-c", str(conf)]
        argv += [f"--var={name}={value}" for name, value in variables.items()]
        self._process = Process("rspamd", argv, self.log, ready=self._pong, timeout=60)
        self._process.start()
        return self

    def check(self, raw: bytes, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        """What rspamd says of a message (POST /checkv2)."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=20)
        try:
            connection.request("POST", "/checkv2", raw, dict(headers or {}))
            reply: dict[str, Any] = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        return reply

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError("rspamd is not running")
        return self._process.pid

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()
            self._process = None

    def _pong(self) -> bool:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=2)
        try:
            connection.request("GET", "/ping")
            return connection.getresponse().read().startswith(b"pong")
        except (OSError, http.client.HTTPException):
            return False  # not listening yet
        finally:
            connection.close()

    def __enter__(self) -> Rspamd:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

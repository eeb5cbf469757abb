"""bench_peers - policyd beside postfwd2 and policyd-rate-limit, in one run: same client, same three recipient limits, same
500 tenants, same 32 connections over Unix sockets (as contrib/postfix has it); then what growth, idle connections and memory
cost policyd, and what Redis itself could do.

    python bench/bench_peers.py [--json FILE] [--seconds 5] [--million]

The peers are Debian's packages as they come, in their own folders.  `--million` also fills Redis with 1,000,000 tenants (about
1.5 GB) and measures again.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "bench")]

from bench_policyd import children, configuration, rss_mib  # noqa: E402
from policyclient import Load, run  # noqa: E402
from relaywarden.ledger.operations import Account, Charge  # noqa: E402
from relaywarden.ledger.scripts import command, scripts  # noqa: E402
from relaywarden.limits import Limit, Meter  # noqa: E402
from testbed.ports import accepts  # noqa: E402
from testbed.process import Process, program, wait_for  # noqa: E402
from testbed.redis import RedisServer  # noqa: E402

TENANTS, CONNECTIONS, WORKERS = 500, 32, 2
WINDOWS = (("minute", 60, 1_000_000), ("hour", 3600, 10_000_000), ("day", 86400, 100_000_000))
LIMITS = [Limit.parse(Meter.RECIPIENTS, f"{amount}/{name}") for name, _, amount in WINDOWS]


@contextmanager
def policyd(work: Path, store: str, tenants: int = TENANTS) -> Iterator[tuple[str, Process]]:
    """relaywarden's policyd with two workers."""
    address = f"unix:{work}/policy"
    config, log = work / "relaywarden.json", work / "policyd.log"
    config.write_text(json.dumps(configuration(store, address, WORKERS, tenants)))
    argv = [sys.executable, "-m", "relaywarden", "--config", str(config), "policyd"]
    with Process("policyd", argv, log, ready=lambda: log.read_text().count("worker ready") == WORKERS) as process:
        yield address, process


@contextmanager
def postfwd2(work: Path) -> Iterator[str]:
    """postfwd2 keeps its counters in memory."""
    rules, path = work / "postfwd.cf", work / "policy"
    rules.write_text(
        "".join(
            f"id=R{seconds}; protocol_state==RCPT; action=rate(sasl_username/{amount}/{seconds}/450 4.7.1 limit)\n"
            for _, seconds, amount in WINDOWS
        )
    )
    user = "nobody"
    shutil.chown(work, user)
    pidfile = work / "postfwd.pid"
    argv = [program("postfwd2", "postfwd"), "--daemon", "-f", str(rules), "--proto", "unix", "-p", str(path), "-u", user, "-g",
            "nogroup", "--pidfile", str(pidfile), "--cache_proto", "unix", "--cache_interface", "unix", "--cache_port",
            str(work / "cache.socket"), "--nodnslog", "--noidlestats", "--summary", "0"]  # fmt: skip
    with (work / "postfwd.log").open("wb") as log:  # it goes into the background by itself: rate() needs its cache daemon
        subprocess.run(argv, check=True, stdout=log, stderr=log)
    try:
        wait_for("postfwd2", lambda: accepts(str(path)), log=work / "postfwd.log")
        yield f"unix:{path}"
    finally:
        master = int(pidfile.read_text())
        os.kill(master, signal.SIGTERM)
        wait_for("postfwd2 to stop", lambda: not Path(f"/proc/{master}").exists())


@contextmanager
def policyd_rate_limit(work: Path) -> Iterator[str]:
    """policyd-rate-limit with its default backend, SQLite."""
    config, path = work / "policyd-rate-limit.yaml", work / "policy"
    config.write_text(
        f"debug: False\nuser: root\ngroup: root\npidfile: {work}/pid\nsqlite_config:\n  database: {work}/db.sqlite3\n"
        f"backend: 0\nSOCKET: {path}\nsocket_permission: 0666\nlimits:\n"
        + "".join(f"  - [{amount}, {seconds}]\n" for _, seconds, amount in WINDOWS)
        + "limits_by_id: {}\nlimit_by_sasl: True\nlimit_by_sender: False\nlimit_by_ip: False\nlimited_networks: []\n"
        "success_action: dunno\nfail_action: defer_if_permit limit\ndb_error_action: dunno\nreport: False\n"
        "report_limits: [86400]\ndelay_to_close: 300\n"
    )
    argv = [program("policyd-rate-limit", "policyd-rate-limit"), "--file", str(config)]
    with Process("policyd-rate-limit", argv, work / "log", ready=lambda: accepts(str(path))):
        yield f"unix:{path}"


def load(address: str, seconds: float) -> dict[str, Any]:
    """The same for everybody."""
    summary = run(Load(address, CONNECTIONS, seconds, tenants=TENANTS)).summary()
    return {name: summary[name] for name in ("per_second", "p50_ms", "p99_ms", "actions")}


def redis_ceiling(server: RedisServer) -> int:
    """What redis-benchmark reaches for the same script, pipelined: as many tenants, a new ticket each time.

    It puts a number below `-r` in the place of each __rand_int__: one for the tenant, three for the ticket.
    """
    with server.client() as client:
        client.script_load(scripts()["charge"].source)
    number = "__rand_int__"
    account = Account.of(number, LIMITS)
    words = command(Charge(account, 3 * number, "a@x.example", 0, "", f"127.0.0.1:{number}{number}"), 3_600_000)
    argv = [program("redis-benchmark", "redis-tools"), "-h", server.host, "-p", str(server.port), "-n", "200000", "-c", "16",
            "-P", "16", "-r", str(TENANTS), "-q"]  # fmt: skip
    texts = ["abcdefgh" if isinstance(word, bytes) and len(word) == 8 else _text(word) for word in words]
    done = subprocess.run([*argv, *texts], check=True, capture_output=True, text=True, timeout=120)
    found = re.findall(r"([\d.]+) requests per second", done.stdout.replace("\r", "\n"))
    return round(float(found[-1]))


def _text(word: Any) -> str:
    return word.decode() if isinstance(word, bytes) else str(word)


def fill(server: RedisServer, tenants: int) -> float:
    """So many tenants with three balances each, made by the script itself; bytes of Redis memory for each limit."""
    with server.client(timeout=60) as client:
        before = int(client.info("memory")["used_memory"])
        for start in range(0, tenants, 2000):
            pipe = client.pipeline(transaction=False)
            for number in range(start, min(tenants, start + 2000)):
                account = Account.of(f"full{number}", LIMITS)
                pipe.execute_command(*command(Charge(account, "t", f"u{number}@x.example"), 1000))
            pipe.execute()
        time.sleep(1.5)  # the tickets of the filling have expired; only then is the memory that of the balances
        client.dbsize()
        return (int(client.info("memory")["used_memory"]) - before) / tenants / len(LIMITS)


def memory_of_an_active_limit(server: RedisServer) -> int:
    """Bytes of Redis memory for one limit of a tenant that sent in every slot of its window."""
    with server.client() as client:
        client.hset("probe", mapping={"recipients/1h": bytes(24), "recipients/1h+": os.urandom(488)})
        full = int(client.memory_usage("probe", samples=0) or 0)
        client.hdel("probe", "recipients/1h", "recipients/1h+")
        client.hset("probe", mapping={"x": "y"})
        return full - int(client.memory_usage("probe", samples=0) or 0)


def idle_connections(address: str, count: int) -> list[socket.socket]:
    """Connections that ask nothing."""
    connections = []
    for _ in range(count):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(address.removeprefix("unix:"))
        connections.append(sock)
    return connections


def compare(seconds: float, million: bool) -> dict[str, Any]:
    """The whole run."""
    results: dict[str, Any] = {}
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="relaywarden-peers-")))
        root.chmod(0o755)

        def folder(name: str) -> Path:
            (root / name).mkdir()
            return root / name

        def show(name: str, result: dict[str, Any]) -> None:
            results[name] = result
            print(f"{name:44}" + "  ".join(f"{key} {value}" for key, value in result.items()), flush=True)

        redis = stack.enter_context(RedisServer(folder("redis")))
        with postfwd2(folder("postfwd2")) as address:
            show("postfwd2, in memory", load(address, seconds))
        with policyd_rate_limit(folder("policyd-rate-limit")) as address:
            show("policyd-rate-limit, SQLite", load(address, seconds))
        with policyd(folder("p1"), redis.url) as (address, process):
            show("relaywarden, Redis", load(address, seconds))
            idle = idle_connections(address, 10_000)
            show("relaywarden, Redis, 10,000 idle connections", load(address, seconds))
            for sock in idle:
                sock.close()
            show("worker memory", {"rss_mib": [round(rss_mib(pid), 1) for pid in children(process.pid)]})
        work = folder("p2")
        with policyd(work, f"sqlite:///{work}/ledger.db") as (address, _):
            show("relaywarden, SQLite", load(address, seconds))
        redis.flush()
        show("redis-benchmark, the same script pipelined", {"per_second": redis_ceiling(redis)})
        show("Redis memory of an active limit", {"bytes": memory_of_an_active_limit(redis)})
        for tenants in (1_000, 1_000_000) if million else ():
            redis.flush()
            per_limit = fill(redis, tenants)
            with policyd(folder(f"full{tenants}"), redis.url) as (address, _):
                show(f"relaywarden, {tenants:,} tenants in Redis", load(address, seconds) | {"bytes_a_limit": round(per_limit)})
    return results


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--million", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = compare(options.seconds, options.million)
    ours, peer = results["relaywarden, Redis"], results["postfwd2, in memory"]
    ceiling = results["redis-benchmark, the same script pipelined"]["per_second"]
    print(f"Redis: {ours['per_second'] / peer['per_second']:.2f} times postfwd2's decisions/s, "
          f"{100 * ours['per_second'] / ceiling:.0f} % of redis-benchmark")  # fmt: skip
    print(f"SQLite: {results['relaywarden, SQLite']['per_second'] / peer['per_second']:.2f} times postfwd2's decisions/s")
    if options.json:
        machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
        options.json.write_text(json.dumps({"machine": machine, "results": results}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""bench_policyd - how many RCPT decisions policyd makes in a second, on this machine, client included.

Starts a private store and policyd (workers forked as in production, three limits a tenant), drives it by policyclient and
prints a table; `--json FILE` writes the numbers with the machine's name.  The limits are far above what the run sends: all
requests are admitted, which is the dearer answer (a refusal writes less).

    python bench/bench_policyd.py --store redis --store sqlite
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "bench")]

from policyclient import Load, run  # noqa: E402
from testbed.ports import HOST, free_port  # noqa: E402
from testbed.process import Process  # noqa: E402
from testbed.redis import RedisServer  # noqa: E402


def configuration(store: str, address: str, workers: int, tenants: int) -> dict[str, Any]:
    """Three recipient limits a tenant, none of which is reached."""
    limits = [{"recipients": "1000000/minute"}, {"recipients": "10000000/hour"}, {"recipients": "100000000/day"}]
    return {
        "store": store,
        "policyd": {"listen": [address], "workers": workers},
        "plans": {"bench": {"limits": limits}},
        "tenants": {f"t{number}": {"plan": "bench"} for number in range(tenants)},
    }


def cpu_seconds(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mib(pid: int) -> float:
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def children(pid: int) -> list[int]:
    """The workers."""
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def measure(store: str, options: argparse.Namespace, work: Path, seconds: float) -> dict[str, Any]:
    """One run against one store."""
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer(work / "redis")) if store == "redis" else None
        url = redis.url if redis else f"sqlite:///{work}/ledger.db"
        unix = work / "policy"
        port = free_port()
        address = f"unix:{unix}" if options.unix else f"inet:{HOST}:{port}"
        config = work / f"{store}.json"
        scrape = f"{HOST}:{free_port()}"
        document = configuration(url, address, options.workers, options.tenants) | {"metrics": {"listen": f"inet:{scrape}"}}
        config.write_text(json.dumps(document))
        argv = [sys.executable, "-m", "relaywarden", "--config", str(config), "policyd"]
        log = work / f"policyd-{store}.log"
        policyd = Process("policyd", argv, log, ready=lambda: log.read_text().count("worker ready") == options.workers)
        stack.enter_context(policyd)
        workers = children(policyd.pid)
        busy = [*workers, _redis_pid(redis)] if redis else workers
        before = {pid: cpu_seconds(pid) for pid in busy}
        if options.profile:
            stack.callback(_profile(workers[0], options.profile, seconds).wait)
        load = Load(address, options.connections, seconds, tenants=options.tenants, processes=options.clients)
        result = {"store": store, "address": address.partition(":")[0], "workers": options.workers, **run(load).summary()}
        # The load ran through its warm-up too, which is not among the decisions counted.
        every = max(1, result["decisions"]) * (load.seconds + load.warmup) / load.seconds
        spent = [cpu_seconds(pid) - before[pid] for pid in busy]
        result["worker_us"] = round(1e6 * sum(spent[: len(workers)]) / every, 1)
        result["store_us"] = round(1e6 * sum(spent[len(workers) :]) / every, 1)
        result["client_us"] = round(1e6 * result.pop("client_cpu") / every, 1)
        result["batch"] = round(_mean(f"http://{scrape}/metrics", "relaywarden_policyd_batch_operations"), 1)
        result["worker_rss_mib"] = [round(rss_mib(pid), 1) for pid in workers]
        return result


def _redis_pid(server: RedisServer) -> int:
    with server.client() as client:
        return int(client.info("server")["process_id"])


def _mean(url: str, histogram: str) -> float:
    with urllib.request.urlopen(url, timeout=5) as reply:  # noqa: S310 - our own endpoint
        lines = dict(line.rsplit(" ", 1) for line in reply.read().decode().splitlines() if not line.startswith("#"))
    return float(lines[f"{histogram}_sum"]) / max(1.0, float(lines[f"{histogram}_count"]))


def _profile(pid: int, target: str, seconds: float) -> subprocess.Popen[bytes]:
    argv = [str(Path(sys.executable).with_name("py-spy")), "record", "--pid", str(pid), "--duration", str(int(seconds))]
    return subprocess.Popen([*argv, "--rate", "500", "--format", "raw", "--output", target])


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", action="append", choices=("redis", "sqlite"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--tenants", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--clients", type=int, default=1, help="processes of the client")
    parser.add_argument("--unix", action="store_true", help="a Unix socket instead of TCP")
    parser.add_argument("--profile", metavar="FILE", help="py-spy of the first worker, as collapsed stacks")
    parser.add_argument("--json", metavar="FILE", type=Path)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    results = []
    columns = ("per_second", "p50_ms", "p99_ms", "batch", "worker_us", "store_us", "client_us", "worker_rss_mib")
    print("  ".join(["store ", *columns]), " (us: CPU time of each part for one decision)")
    for store in options.store or ["redis", "sqlite"]:
        with tempfile.TemporaryDirectory(prefix="relaywarden-bench-") as folder:
            result = measure(store, options, Path(folder), options.seconds)
        results.append(result)
        cells = [str(result[name]).rjust(len(name)) for name in columns]
        print("  ".join([f"{store:6}", *cells]), result["actions"], flush=True)
    if options.json:
        machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version(),
                   "system": platform.platform()}  # fmt: skip
        options.json.write_text(json.dumps({"machine": machine, "policyd": results}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What the demo prints, each part with a look at whether it is right: a list of texts, empty when all is well."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import dkim
from rich.console import Console
from rich.table import Table
from rich.text import Text

from contrib.demo.world import OPERATOR, POOLS, TENANTS, World
from testbed.postfix import POOL_IPS
from testbed.sidecar import command
from testbed.sink import Received
from testbed.smtpclient import Transaction

Answers = dict[str, list[tuple[str, Transaction]]]


def _title(console: Console, text: str) -> None:
    console.print()
    console.print(text, style="bold", highlight=False)


def show_answers(console: Console, answers: Answers) -> None:
    """One row for each different answer of Postfix; queue ids, addresses and times make no difference."""
    _title(console, "What Postfix answered")
    table = Table("tenant", "messages", "at", "answer")
    for tenant, sent in answers.items():
        seen: dict[tuple[str, int], tuple[int, str, str]] = {}
        for _, one in sent:
            stage = "end of message" if one.end else "DATA" if one.data else "RCPT" if one.rcpt else "MAIL"
            key = (stage, one.last.code)
            count, _, text = seen.get(key, (0, stage, str(one.last)))
            seen[key] = (count + 1, stage, text)
        for count, stage, text in seen.values():
            table.add_row(tenant, str(count), stage, Text(text, style="green" if text.startswith("250") else "yellow"))
    console.print(table)


def show_tenants(console: Console, world: World, answers: Answers) -> list[str]:
    """`relaywarden tenants`, the real command; what `show --json` counts must agree with the answers."""
    _title(console, f"$ relaywarden --config {world.sidecar.file} tenants")
    shown = world.sidecar.cli("tenants", columns=console.width)
    console.print(shown.stdout + shown.stderr, highlight=False, markup=False, end="", soft_wrap=True)
    if shown.returncode != 0:
        return [f"relaywarden tenants ended with status {shown.returncode}"]
    wrong = []
    for tenant, sent in answers.items():
        told: dict[str, Any] = json.loads(world.sidecar.cli("show", tenant, "--json").stdout)
        wrong += check_counters(told, [one for _, one in sent])
    return wrong


def check_counters(told: dict[str, Any], sent: list[Transaction]) -> list[str]:
    """Does `relaywarden show --json` agree with what the client was answered?

    What rspamd refuses at the end of the message stays charged (`ledger.refund`), what policyd refuses never is.
    """
    today = told["counters"]["today"]
    charged = sum(one.end is not None for one in sent)  # the demo sends one recipient a message
    expected = {
        "messages": charged,
        "recipients": charged,
        "refused": sum(one.end is None for one in sent),
        "rejected": sum(one.end is not None and not one.end.ok for one in sent),
    }
    wrong = [
        f"{told['tenant']}: relaywarden counted {today[name]} {name}, the client saw {count}"
        for name, count in expected.items()
        if today[name] != count
    ]
    for row in told["used"]:
        # Limits by the second have forgotten some of it by now.
        if row["meter"] in expected and row["window"] != "1s" and row["used"] != expected[row["meter"]]:
            used = f"{row['used']} {row['meter']} used per {row['window']}"
            wrong.append(f"{told['tenant']}: {used}, but {expected[row['meter']]} were charged")
    return wrong


def show_signatures(console: Console, world: World, received: list[Received]) -> list[str]:
    """One message of acme as it arrived, and whether each of its signatures verifies."""
    mine = [one for one in received if one.sender.endswith("@acme.example")]
    if not mine:
        return ["no message of acme arrived"]
    message, results = mine[0], verify(mine[0].raw, world)
    _title(console, f"One delivered message (from {message.peer}, HELO {message.helo})")
    for line in message.raw.decode(errors="replace").splitlines():
        console.print("  " + line, highlight=False, markup=False, soft_wrap=True)
    wrong = []
    for domain, good in results:
        said, style = ("verified", "green") if good else ("FAILED", "bold red")
        console.print(f"DKIM d={domain}: {said}", style=style, highlight=False)
        if not good:
            wrong.append(f"the signature of {domain} does not verify")
    missing = {"acme.example", OPERATOR} - {domain for domain, _ in results}
    return wrong + [f"there is no signature of {domain}" for domain in sorted(missing)]


def verify(raw: bytes, world: World) -> list[tuple[str, bool]]:
    """Each DKIM signature from the top: its domain, and what dkimpy says with the keys in the demo's DNS."""
    results = []
    count = sum(name.lower() == b"dkim-signature" for name, _ in dkim.DKIM(raw).headers)
    for index in range(count):
        check = dkim.DKIM(raw)
        try:
            good = bool(check.verify(idx=index, dnsfunc=world.dns.txt))
        except dkim.DKIMException as error:
            print(f"signature {index}: {error}", file=sys.stderr)
            good = False
        results.append(((check.domain or b"?").decode(), good))
    return results


def show_sources(console: Console, received: list[Received]) -> list[str]:
    """From which addresses each tenant's mail left, and whether these are its pool's."""
    _title(console, "Where it left from")
    table = Table("tenant", "pool", "member", "source address", "messages")
    members = {ip: member for member, ip in POOL_IPS.items()}
    wrong = []
    for tenant, pool in TENANTS.items():
        peers = Counter(one.peer for one in received if one.sender.endswith(f"@{tenant}.example"))
        for peer, count in sorted(peers.items()):
            member = members.get(peer, "none")
            table.add_row(tenant, pool, member, peer, str(count))
            if member not in POOLS[pool]:
                wrong.append(f"mail of {tenant} left from {peer}, which is not in the pool {pool}")
        if not peers:
            wrong.append(f"no mail of {tenant} arrived")
    console.print(table)
    wrong += ["the pool tag got out" for one in received if one.message["X-Virtual-MTA"] is not None][:1]
    return wrong


def show_how_to_go_on(console: Console, world: World, script: Path) -> None:
    """After --keep: how to send, look and stop."""
    _title(console, "Everything is still running. Send a message:")
    server = f"--server {world.postfix.host}:{world.postfix.submission_port} --auth PLAIN"
    who = f"--auth-user acme --auth-password {world.passwords['acme']}"
    lines = [
        f"  swaks {server} {who} --from shop@acme.example --to you@example.net",
        "(logins: " + ", ".join(f"{login} {password}" for login, password in world.passwords.items()) + ")",
        f"Delivered mail: {world.work}/received/   Postfix log: {world.postfix.log}",
        f"Look: {' '.join(command())} --config {world.sidecar.file} tenants",
        f"Stop: {sys.executable} {script} --stop {world.work}",
    ]
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

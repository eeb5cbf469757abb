"""relaywarden at work, on a real Postfix and rspamd: three tenants send, and what an operator sees is printed.

    demo.py [--keep] [--work FOLDER]      run it (as root: Postfix needs that); --keep leaves everything running
    demo.py --stop FOLDER                 stop what --keep left

acme behaves, burst sends three times what its plan allows, spammy sends GTUBE (which rspamd refuses) among its mail.
Shown are Postfix's answers to each, `relaywarden tenants`, one delivered message with its DKIM signatures verified
against the DNS of the demo, and the source address that each pool's mail left from.

Exit status: 0 when all of it is as it should be, 1 with a list of what is not, 2 when something did not start (the error
ends with its log).  The work folder stays in both of the latter cases.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(_ROOT), str(_ROOT / "tests")]

from rich.console import Console  # noqa: E402
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: E402

from contrib.demo import report  # noqa: E402
from contrib.demo.world import BURST_LIMIT, TENANTS, World, stop_world  # noqa: E402
from testbed.process import MissingProgramError, StartError  # noqa: E402
from testbed.rspamd import GTUBE  # noqa: E402
from testbed.smtpclient import Client, Transaction, plain_message  # noqa: E402

_STARTS = 6
_CLEAN = "Your order has been shipped. Thank you for buying from us."


class Steps:
    """The progress: a bar on a terminal, one line for each step elsewhere."""

    def __init__(self, console: Console, total: int) -> None:
        columns = (BarColumn(24), TextColumn("{task.description}"), TimeElapsedColumn())
        self._console = console
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._progress.add_task("starting", total=total)

    def begin(self, text: str) -> None:
        if self._console.is_terminal:
            self._progress.update(self._task, description=text)
        else:
            print(f"... {text}", flush=True)

    def done(self, count: int = 1) -> None:
        self._progress.advance(self._task, count)

    def __enter__(self) -> Steps:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


def mails(tenant: str) -> list[tuple[str, str]]:
    """What a tenant sends: (subject, body)."""
    if tenant == "acme":
        return [(f"Order {number} confirmed", _CLEAN) for number in range(12)]
    if tenant == "burst":
        return [(f"Newsletter {number}", _CLEAN) for number in range(3 * BURST_LIMIT)]
    return [("Invoice", _CLEAN), ("Cheap", GTUBE), ("Reminder", _CLEAN), ("Cheaper", GTUBE)]


def send_all(world: World, steps: Steps) -> dict[str, list[tuple[str, Transaction]]]:
    """Everybody's mail, authenticated; per tenant what was answered to each subject."""
    answers: dict[str, list[tuple[str, Transaction]]] = {}
    for tenant in TENANTS:
        steps.begin(f"{tenant} sends {len(mails(tenant))} messages")
        postfix = world.postfix
        with Client(postfix.host, postfix.submission_port, login=tenant, password=world.passwords[tenant]) as client:
            for number, (subject, body) in enumerate(mails(tenant)):
                sender, recipient = f"service@{tenant}.example", f"customer{number}@example.net"
                message = plain_message(sender, [recipient], subject, body)
                answers.setdefault(tenant, []).append((subject, client.send(sender, [recipient], message)))
                steps.done()
    return answers


def check_answers(answers: dict[str, list[tuple[str, Transaction]]]) -> list[str]:
    """What Postfix answered and should not have."""
    wrong = []
    accepted = Counter({tenant: sum(sent.accepted for _, sent in all_sent) for tenant, all_sent in answers.items()})
    if accepted["acme"] != len(mails("acme")):
        wrong.append(f"acme: {accepted['acme']} of {len(mails('acme'))} messages accepted, not all")
    if accepted["burst"] != BURST_LIMIT:
        wrong.append(f"burst: {accepted['burst']} messages accepted, its plan allows {BURST_LIMIT}")
    refusals = {str(sent.last) for _, sent in answers["burst"] if not sent.accepted}
    wrong += [f"burst: {text}, not 450 4.7.1" for text in sorted(refusals) if not text.startswith("450 4.7.1 ")]
    for (subject, body), (_, sent) in zip(mails("spammy"), answers["spammy"], strict=True):
        if body == GTUBE and not (sent.end and 500 <= sent.end.code < 600):
            wrong.append(f"spammy, {subject}: GTUBE was not refused: {sent.last}")
        if body != GTUBE and not sent.accepted:
            wrong.append(f"spammy, {subject}: clean mail was refused: {sent.last}")
    return wrong


def run(world: World, console: Console, keep: bool) -> int:
    total = _STARTS + sum(len(mails(tenant)) for tenant in TENANTS) + 1
    with Steps(console, total) as steps:
        for text in world.start():
            steps.begin(text)
            steps.done()
        answers = send_all(world, steps)
        accepted = sum(sent.accepted for all_sent in answers.values() for _, sent in all_sent)
        steps.begin(f"waiting for the {accepted} accepted messages to arrive")
        received = world.sink.wait(accepted, timeout=30) if accepted else []
        steps.done()
    wrong = check_answers(answers)
    report.show_answers(console, answers)
    wrong += report.show_tenants(console, world, answers)
    wrong += report.show_signatures(console, world, received)
    wrong += report.show_sources(console, received)
    for text in wrong:
        console.print(f"NOT AS IT SHOULD BE: {text}", style="bold red", highlight=False, markup=False)
    if keep:
        world.leave_running()
        report.show_how_to_go_on(console, world, Path(__file__))
    return 1 if wrong else 0


def main() -> int:
    parser = argparse.ArgumentParser(description="relaywarden at work, on a real Postfix and rspamd")
    parser.add_argument("--keep", action="store_true", help="leave everything running in the end")
    parser.add_argument("--work", type=Path, help="the folder for everything (default: a new one in /tmp)")
    parser.add_argument("--stop", type=Path, metavar="FOLDER", help="stop what --keep left running there")
    options = parser.parse_args()
    if os.geteuid() != 0:
        print(f"Postfix needs root. Try: sudo {' '.join([sys.executable, *sys.argv])}", file=sys.stderr)
        return 2
    if options.stop is not None:
        return _stop(options.stop)
    work = Path(tempfile.mkdtemp(prefix="relaywarden-demo-", dir="/tmp") if options.work is None else options.work)
    work = work.resolve()
    work.mkdir(exist_ok=True)
    work.chmod(0o755)  # user postfix goes through it
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stop what was started then, too
    console = Console(width=None if sys.stdout.isatty() else 120)
    world, status = World(work), 2
    try:
        with world.running:
            status = run(world, console, options.keep)
    except (StartError, MissingProgramError) as error:
        print(error, file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted, everything is stopped", file=sys.stderr)
        status = 130
    if status == 0 and not options.keep and options.work is None:
        shutil.rmtree(work)
    elif not options.keep:
        print(f"configuration and logs: {work}")
    return status


def _stop(work: Path) -> int:
    try:
        stopped = stop_world(work)
    except FileNotFoundError:
        print(f"nothing was left running in {work}", file=sys.stderr)
        return 1
    print(f"stopped {', '.join(stopped) or 'nothing: all had ended'}. Remove {work} when you have seen its logs.")
    return 0


if __name__ == "__main__":
    sys.exit(main())

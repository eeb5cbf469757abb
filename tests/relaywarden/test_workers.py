"""The master and its workers as real processes: what hangs, grows or dies is replaced, and nothing else is."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from relaywarden.health import Page, Reason, resident
from testbed.factories import WorkFolder
from testbed.process import Process, wait_for

ROOT = Path(__file__).parents[2]
# A master whose workers do what files in the folder tell them: `hang-PID` (beat no more), `ask-PID`, `greedy` (all ask),
# `deaf` (SIGTERM is not heard), `stillborn` (a new worker fails before it serves), `slow` (it does not serve yet).
# Each counts in `turns-PID` while it lives.
PROGRAM = """
import logging, os, signal, sys, threading, time
from pathlib import Path
from relaywarden import logs, workers
from relaywarden.config.settings import LogSettings

folder, count, stop_timeout, hang_timeout, replace = Path(sys.argv[1]), int(sys.argv[2]), *map(float, sys.argv[3:6])
logs.configure(LogSettings(level="debug"), "master")
workers.LOOK_SECONDS, workers.STARVED_SECONDS, workers.REPLACE_SECONDS = 0.05, 0.5, replace

def work(index):
    stop, me = threading.Event(), os.getpid()
    if (folder / "stillborn").exists():
        raise RuntimeError("stillborn")
    while (folder / "slow").exists():
        time.sleep(0.02)
    if not (folder / "deaf").exists():
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
    else:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, lambda *_: (folder / f"reloaded-{me}").touch())
    turns = 0
    while not stop.wait(0.02):
        turns += 1
        temporary = folder / f".turns-{me}"
        temporary.write_text(str(turns))
        temporary.rename(folder / f"turns-{me}")
        if not (folder / f"hang-{me}").exists():
            workers.beat()
        if (folder / f"ask-{me}").exists() or (folder / "greedy").exists():
            workers.ask(workers.Reason.GROWN)

workers.supervise("master", count, work, stop_timeout=stop_timeout, hang_timeout=hang_timeout)
(folder / "cleaned-up").touch()
"""


class Master(Process):
    """The program above."""

    def __init__(self, folder: Path, count: int, stop_timeout: float, hang_timeout: float, replace: float) -> None:
        argv = [sys.executable, "-c", PROGRAM, str(folder), *map(str, (count, stop_timeout, hang_timeout, replace))]
        super().__init__("master", argv, folder / "log", ready=lambda: len(self.serving()) == count, cwd=ROOT)
        self.folder = folder

    def children(self) -> list[int]:
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    def serving(self) -> list[int]:
        return [pid for pid in self.children() if self.turns(pid)]

    def turns(self, pid: int) -> int:
        try:
            return int((self.folder / f"turns-{pid}").read_text())
        except FileNotFoundError:
            return 0

    def tell(self, name: str) -> None:
        (self.folder / name).touch()

    def said(self, text: str) -> int:
        return self.log.read_text().count(text)

    def until(self, what: str, probe: Callable[[], bool]) -> None:
        wait_for(what, probe, log=self.log)

    def goes_on(self, pid: int, turns: int = 10) -> None:
        """A worker lives, and still does after some turns."""
        wanted = self.turns(pid) + turns
        self.until(f"{pid} goes on", lambda: self.turns(pid) >= wanted)


MasterFactory = Callable[..., Master]


@pytest.fixture
def master(work_folder: WorkFolder) -> Iterator[MasterFactory]:
    with ExitStack() as running:

        def make(count: int = 2, *, stop_timeout: float = 10.0, hang_timeout: float = 1.5, replace: float = 3600.0) -> Master:
            made = Master(work_folder("workers"), count, stop_timeout, hang_timeout, replace)
            running.enter_context(made)
            return made

        yield make


def exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def descriptors_of(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_page_keeps_the_places_apart() -> None:
    page = Page(3)
    pid = os.fork()
    if pid == 0:
        from relaywarden import workers

        page.adopt(1)
        workers.beat()
        workers.ask(Reason.STUCK)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert abs(time.monotonic() - page.beaten(1)) < 60
    assert page.asked(1) is Reason.STUCK
    assert [page.beaten(place) for place in (0, 2)] == [0.0, 0.0]
    assert [page.asked(place) for place in (0, 2)] == [Reason.NONE, Reason.NONE]
    page.clear(1)
    assert (page.beaten(1), page.asked(1)) == (0.0, Reason.NONE)


def test_outside_of_a_worker_nobody_is_told() -> None:
    from relaywarden import workers

    workers.beat()
    workers.ask(Reason.GROWN)


def test_memory_is_counted_in_octets() -> None:
    before = resident()
    ballast = b"\x01" * 50_000_000
    assert resident() - before > 40_000_000
    assert len(ballast) == 50_000_000


def test_a_worker_without_a_sign_of_life_is_killed_and_replaced_and_others_go_on(master: MasterFactory) -> None:
    running = master(3)
    before = running.children()
    hung = before[1]
    running.tell(f"hang-{hung}")
    running.until("it is killed", lambda: not exists(hung))
    running.until("another serves", lambda: len(running.serving()) == 3)
    assert set(before) - set(running.children()) == {hung}
    assert running.said("gives no sign of life") == 1
    assert running.said("starting another") == 0  # at once, not when the old one is found dead
    assert f"worker=1 pid={hung} seconds=1." in running.log.read_text()
    for pid in running.children():
        running.goes_on(pid)


def test_a_stopped_worker_is_silent_too(master: MasterFactory) -> None:
    running = master(2)
    hung, other = running.children()
    os.kill(hung, signal.SIGSTOP)
    running.until("it is killed", lambda: not exists(hung))
    running.until("another serves", lambda: len(running.serving()) == 2)
    assert other in running.children()


def test_without_a_hang_timeout_nobody_is_killed_for_silence(master: MasterFactory) -> None:
    running = master(1, hang_timeout=0)
    (pid,) = running.children()
    running.tell(f"hang-{pid}")
    began = time.monotonic()
    running.until("time passes", lambda: time.monotonic() > began + 2.5)
    assert running.children() == [pid]
    assert running.said("no sign of life") == 0


def test_a_master_that_did_not_run_kills_nobody(master: MasterFactory) -> None:
    running = master(2)
    before = running.children()
    for pid in [*before, running.pid]:  # as a suspended machine does
        os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    running.until("longer than the timeout", lambda: time.monotonic() > began + 2.0)
    os.kill(running.pid, signal.SIGCONT)  # the master comes first, and finds everybody silent for too long
    running.until("it notices", lambda: running.said("the master did not run for a while") == 1)
    for pid in before:
        os.kill(pid, signal.SIGCONT)
    for pid in before:
        running.goes_on(pid, turns=100)
    assert running.children() == before
    assert running.said("no sign of life") == 0


def test_the_silence_of_a_starved_machine_is_forgiven_only_once(master: MasterFactory) -> None:
    running = master(1)
    (pid,) = running.children()
    os.kill(pid, signal.SIGSTOP)
    os.kill(running.pid, signal.SIGSTOP)
    began = time.monotonic()
    running.until("longer than the timeout", lambda: time.monotonic() > began + 2.0)
    os.kill(running.pid, signal.SIGCONT)
    running.until("it is killed after a fresh timeout", lambda: not exists(pid))
    assert time.monotonic() - began > 3.5


def test_a_worker_that_asks_is_replaced_without_a_gap(master: MasterFactory) -> None:
    running = master(2)
    old, other = running.children()
    seen: list[int] = []
    running.tell(f"ask-{old}")

    def replaced() -> bool:
        seen.append(len(running.serving()))
        return not exists(old)

    running.until("it ends", replaced)
    assert min(seen) >= 2
    assert len(running.serving()) == 2
    assert other in running.children()
    running.until("it is logged", lambda: running.said("worker ended") == 1)
    log = running.log.read_text()
    assert log.index("starting another beside it") < log.index("the new worker serves") < log.index("worker ended")
    assert "reason=grown" in log
    assert f"pid={old} status=0" in log  # it ended by itself


def test_the_old_worker_serves_until_the_new_one_does(master: MasterFactory) -> None:
    running = master(1)
    (old,) = running.children()
    running.tell("stillborn")
    running.tell(f"ask-{old}")
    running.until("some fail", lambda: running.said("RuntimeError: stillborn") >= 2)
    running.goes_on(old)
    assert running.said("the new worker serves") == 0
    (running.folder / "stillborn").unlink()
    running.until("the old one ends", lambda: not exists(old))
    running.until("the new one serves", lambda: len(running.serving()) == 1)


def test_a_new_worker_may_take_its_time(master: MasterFactory) -> None:
    running = master(1, hang_timeout=60.0)
    (old,) = running.children()
    running.tell("slow")
    running.tell(f"ask-{old}")
    running.until("it asked", lambda: running.said("starting another beside it") == 1)
    running.goes_on(old, turns=50)
    assert len(running.children()) == 2
    assert running.said("the new worker serves") == 0
    (running.folder / "slow").unlink()
    running.until("the old one ends", lambda: not exists(old))
    assert len(running.serving()) == 1


def test_the_old_worker_is_killed_for_silence_while_it_is_the_one_that_serves(master: MasterFactory) -> None:
    running = master(1)
    (old,) = running.children()
    running.tell("stillborn")
    running.tell(f"ask-{old}")
    running.until("it asked", lambda: running.said("starting another beside it") == 1)
    running.tell(f"hang-{old}")
    running.until("the old one is killed", lambda: not exists(old))
    assert running.said("no sign of life") == 1
    (running.folder / "stillborn").unlink()
    running.until("another serves", lambda: len(running.serving()) == 1)


def test_one_at_a_time_and_each_slot_once_in_a_while(master: MasterFactory) -> None:
    running = master(3, hang_timeout=60.0)
    before = running.children()
    most: list[int] = []
    running.tell("greedy")  # what a bound below any worker's size does

    def all_replaced() -> bool:
        most.append(len(running.children()))
        return not any(map(exists, before))

    running.until("each was replaced once", all_replaced)
    running.until("it is told of", lambda: running.said("too low a setting?") == 1)
    assert max(most) <= 4
    after = running.children()
    for pid in after:
        running.goes_on(pid, turns=50)
    assert running.children() == after
    assert running.said("starting another beside it") == 3
    assert running.said("too low a setting?") == 1
    assert "setting=master.worker_memory" in running.log.read_text()


def test_the_next_one_waits_until_the_last_one_has_left(master: MasterFactory) -> None:
    running = master(2, hang_timeout=60.0, stop_timeout=0.4)
    running.tell("deaf")
    first = running.children()
    for pid in first:
        os.kill(pid, signal.SIGKILL)
    running.until("deaf ones", lambda: len(set(running.serving()) - set(first)) == 2)
    for pid in running.children():
        running.tell(f"ask-{pid}")
    running.until("both were replaced", lambda: running.said("is killed program") == 2)
    lines = running.log.read_text().splitlines()
    steps = [text for line in lines for text in ("starting another beside it", "is killed program") if text in line]
    assert steps == ["starting another beside it", "is killed program"] * 2


def test_an_old_worker_that_does_not_stop_is_killed(master: MasterFactory) -> None:
    running = master(1, stop_timeout=0.5)
    (first,) = running.children()
    running.tell("deaf")
    os.kill(first, signal.SIGKILL)  # its successor does not hear SIGTERM
    running.until("a deaf one", lambda: [pid for pid in running.serving() if pid != first] != [])
    (deaf,) = running.children()
    (running.folder / "deaf").unlink()
    running.tell(f"ask-{deaf}")
    running.until("it is killed", lambda: not exists(deaf))
    running.until("another serves", lambda: len(running.serving()) == 1)
    assert running.said("did not stop in time and is killed") == 1


def test_stopping_in_the_middle_of_a_replacement_stops_everything(master: MasterFactory) -> None:
    running = master(2, stop_timeout=1.0)
    old, _ = running.children()
    running.tell("deaf")
    running.tell("stillborn")
    running.tell(f"ask-{old}")
    running.until("it asked", lambda: running.said("RuntimeError: stillborn") >= 1)
    (running.folder / "stillborn").unlink()
    running.until("three live", lambda: running.said("the new worker serves") == 1)
    (running.folder / "deaf").unlink()
    children = running.children()
    os.kill(running.pid, signal.SIGTERM)
    running.until("the master ends", lambda: not running.alive())
    assert not any(map(exists, children))
    assert running.stop() == 0


@pytest.mark.parametrize("before_it_serves", [True, False])
def test_stopping_while_two_processes_share_a_slot(master: MasterFactory, before_it_serves: bool) -> None:
    running = master(1, stop_timeout=20.0)
    (old,) = running.children()
    if before_it_serves:
        running.tell("stillborn")
    running.tell(f"ask-{old}")
    running.until("it asked", lambda: running.said("starting another beside it") == 1)
    children = running.children()
    os.kill(running.pid, signal.SIGTERM)
    running.until("the master ends", lambda: not running.alive())
    assert not any(map(exists, {*children, old}))
    assert running.stop() == 0


def test_a_second_sigterm_does_not_end_the_master_before_its_clean_up(master: MasterFactory) -> None:
    running = master(1, stop_timeout=1.0)
    running.tell("deaf")
    (first,) = running.children()
    os.kill(first, signal.SIGKILL)
    running.until("a deaf one", lambda: running.serving() not in ([], [first]))
    os.kill(running.pid, signal.SIGTERM)
    pid = running.pid
    running.until("the first was taken", lambda: not pending(pid, signal.SIGTERM))
    os.kill(pid, signal.SIGTERM)
    running.until("the master ends", lambda: not running.alive())
    assert (running.folder / "cleaned-up").exists()
    assert running.stop() == 0


def pending(pid: int, number: int) -> bool:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    masks = [int(line.split()[1], 16) for line in lines if line.startswith(("SigPnd", "ShdPnd"))]
    return any(mask >> (number - 1) & 1 for mask in masks)


def test_a_reload_reaches_every_worker(master: MasterFactory) -> None:
    running = master(2)
    os.kill(running.pid, signal.SIGHUP)
    running.until("all reload", lambda: len(list(running.folder.glob("reloaded-*"))) == 2)
    for pid in running.children():
        running.goes_on(pid)


def test_many_replacements_leave_no_zombie_and_no_descriptor(master: MasterFactory) -> None:
    running = master(2, hang_timeout=60.0, replace=0.01)
    descriptors = descriptors_of(running.pid)
    running.tell("greedy")
    running.until("many replacements", lambda: running.said("the new worker serves") >= 12)
    (running.folder / "greedy").unlink()
    running.until("it is over", lambda: len(running.children()) == len(running.serving()) == 2)
    assert all(running.said(f"starting another beside it program=master worker={index}") >= 5 for index in (0, 1))
    assert [state(pid) for pid in running.children()].count("Z") == 0
    assert descriptors_of(running.pid) == descriptors
    log = running.log.read_text()
    assert log.count("worker ended program=master") == log.count("the new worker serves")
    assert "Traceback" not in log

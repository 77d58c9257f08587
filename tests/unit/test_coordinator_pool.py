"""The pool: what it believes of a slot, and that a slot that cannot run does not run in circles."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from harness import reports
from harness.coordinator.pool import Pool
from harness.errors import HarnessError
from harness.events import EventStream, read
from harness.launcher import Life, LocalHandle, Seen
from harness.layout import Layout
from harness.monitor import Limits
from harness.procs import ProcessId
from harness.reports import AgentReport
from tests.support import FakeClock, make_root


@dataclass
class FakeLauncher:
    """Processes that die when the test says so."""

    spawned: int = 0
    broken: bool = False
    dead: set[int] = field(default_factory=set)
    sent: list[int] = field(default_factory=list)

    def spawn(self, role: str, name: str, *arguments: str) -> LocalHandle:
        if self.broken:
            raise HarnessError("cannot start worker agent-1: Resource temporarily unavailable")
        self.spawned += 1
        process = ProcessId(pid=4_000_000 + self.spawned, start_ticks=7, boot_id="b")
        return LocalHandle(role, name, process, None, None, foreign=False)

    def adopt(self, role: str, name: str, process: ProcessId, *, host: str = "") -> LocalHandle:
        return LocalHandle(role, name, process, None, None, foreign=False)

    def poll(self, handle: LocalHandle) -> Seen:
        assert handle.process
        gone = handle.process.pid in self.dead
        return Seen(life=Life.GONE, exit_code=1) if gone else Seen(life=Life.RUNNING)

    def stop(self, handle: LocalHandle, number: int = signal.SIGTERM) -> bool:
        self.sent.append(number)
        return True


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return make_root(tmp_path)


@pytest.fixture
def launcher() -> FakeLauncher:
    return FakeLauncher()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def pool(layout: Layout, launcher: FakeLauncher, clock: FakeClock) -> Pool:
    pool = Pool(layout, clock, launcher, EventStream(layout, clock, "coordinator"), Limits(hang_s=120), 1)  # type: ignore[arg-type]
    pool.resize(1)
    return pool


def say(layout: Layout, process: ProcessId | None, **fields: object) -> None:
    assert process
    who = {"pid": process.pid, "start_ticks": process.start_ticks, "boot_id": process.boot_id}
    report = AgentReport.from_record({"v": 1, "agent": "agent-1", **who, **fields})
    reports.write(reports.agent_path(layout, "agent-1"), report)


def test_a_crash_loop_backs_off_whatever_an_earlier_worker_of_the_slot_has_achieved(
    layout: Layout, pool: Pool, launcher: FakeLauncher, clock: FakeClock
) -> None:
    """The report on disk is the last one of the worker that worked; those that died at their start wrote none."""
    pool.tend(wanted=True)
    slot = pool.slots["agent-1"]
    assert slot.handle
    say(layout, slot.handle.process, attempts=9)
    for _ in range(200):
        handle: LocalHandle | None = slot.handle
        if handle is not None and handle.process:
            launcher.dead.add(handle.process.pid)
        clock.advance(0.1)
        pool.reap()
        pool.tend(wanted=True)
    assert launcher.spawned < 10
    assert slot.quick_deaths > 3


def test_what_an_earlier_worker_said_does_not_make_a_new_one_hung(
    layout: Layout, pool: Pool, launcher: FakeLauncher, clock: FakeClock
) -> None:
    pool.tend(wanted=True)
    slot = pool.slots["agent-1"]
    assert slot.handle
    say(layout, slot.handle.process, state="running", item="x-1", attempt=1)
    pool.read_reports(everything=True)
    assert slot.report
    assert slot.handle.process
    launcher.dead.add(slot.handle.process.pid)
    pool.reap()
    pool.tend(wanted=True)
    for _ in range(60):
        clock.advance(10)
        pool.read_reports(everything=True)
        pool.tend(wanted=True)
    assert launcher.sent == []


def test_a_worker_that_cannot_be_started_is_tried_again_later(
    layout: Layout, pool: Pool, launcher: FakeLauncher, clock: FakeClock
) -> None:
    launcher.broken = True
    for _ in range(100):
        pool.tend(wanted=True)
        clock.advance(0.1)
    failed = [e for _, e in read(layout) if e["event"] == "process_failed"]
    assert 1 < len(failed) < 8
    launcher.broken = False
    clock.advance(60)
    pool.tend(wanted=True)
    assert launcher.spawned == 1


def test_what_a_larger_pool_left_behind_is_no_slot(layout: Layout, pool: Pool) -> None:
    (layout.agent("agent-7")).mkdir(parents=True)
    os.close(os.open(layout.agent("agent-7") / "lock", os.O_CREAT | os.O_WRONLY, 0o600))
    assert pool.adopt() == 0
    assert list(pool.slots) == ["agent-1"]

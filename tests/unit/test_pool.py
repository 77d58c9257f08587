"""The pool: spawning, adopting, burying, retiring, and killing what hangs. Processes are the test's."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from harness import procs, reports
from harness.atomicfs import FileLock
from harness.coordinator.pool import Pool, Slot
from harness.events import EventStream, read
from harness.layout import Layout
from harness.lookout import Lookout
from harness.monitor import EXIT_CONFIG, HEALTHY_S
from harness.pace import limit_s
from harness.reports import AgentReport
from harness.signals import STOP_NOW
from tests.launchers import FakeLauncher
from tests.support import FakeClock

HANG_S = 100.0


@pytest.fixture
def launcher() -> FakeLauncher:
    return FakeLauncher()


@pytest.fixture
def pool(layout: Layout, clock: FakeClock, launcher: FakeLauncher) -> Pool:
    events = EventStream(layout, clock, "coordinator")
    made = Pool(layout, clock, launcher, events, Lookout(clock, HANG_S), 2)  # type: ignore[arg-type]
    made.resize(2)
    return made


def said(pool: Pool, kind: str) -> list[dict[str, object]]:
    return [e for _, e in read(pool.layout) if e["event"] == kind]


def says(pool: Pool, slot: Slot, **fields: object) -> None:
    """The slot's process writes its report."""
    assert slot.handle
    assert slot.handle.process
    who = slot.handle.process
    record = {
        "v": 1,
        "agent": slot.name,
        "pid": who.pid,
        "start_ticks": who.start_ticks,
        "boot_id": who.boot_id,
    }
    reports.write(reports.agent_path(pool.layout, slot.name), AgentReport.from_record(record | fields))


@contextmanager
def alive(pool: Pool, name: str, **fields: object) -> Iterator[AgentReport]:
    """A worker that somebody else started: its lock is held, its report names a process that lives (this one)."""
    me = procs.self_id()
    pool.layout.agent(name).mkdir(parents=True, exist_ok=True)
    report = AgentReport.from_record(
        {"v": 1, "agent": name, "pid": me.pid, "start_ticks": me.start_ticks, "boot_id": me.boot_id} | fields
    )
    with FileLock(pool.layout.agent(name) / "lock") as lock:
        assert lock.try_lock()
        reports.write(reports.agent_path(pool.layout, name), report)
        yield report


# ---- size ------------------------------------------------------------------------------------------------------------


def test_every_wanted_slot_gets_a_worker(pool: Pool, launcher: FakeLauncher) -> None:
    pool.tend(wanted=True)
    pool.tend(wanted=True)
    assert launcher.spawned == [("worker", "agent-1"), ("worker", "agent-2")]
    assert [e["agent"] for e in said(pool, "worker_spawned")] == ["agent-1", "agent-2"]


def test_nobody_is_started_while_draining_and_who_lives_is_asked_to_go_once(
    pool: Pool, launcher: FakeLauncher
) -> None:
    pool.tend(wanted=True)
    pool.tend(wanted=False)
    pool.tend(wanted=False)
    assert launcher.sent == [("agent-1", signal.SIGTERM), ("agent-2", signal.SIGTERM)]
    assert len(launcher.spawned) == 2


def test_a_smaller_pool_retires_the_last_slots_and_a_larger_one_fills_them_again(
    pool: Pool, launcher: FakeLauncher
) -> None:
    pool.tend(wanted=True)
    pool.resize(1)
    pool.tend(wanted=True)
    assert launcher.sent == [("agent-2", signal.SIGTERM)]
    launcher.end(pool.slots["agent-2"].handle, exit_code=0)
    assert [s.name for s in pool.reap()] == ["agent-2"]
    pool.tend(wanted=True)
    assert len(launcher.spawned) == 2
    pool.resize(2)
    pool.tend(wanted=True)
    assert launcher.spawned[2:] == [("worker", "agent-2")]
    assert not said(pool, "worker_died")


# ---- deaths ----------------------------------------------------------------------------------------------------------


def test_a_worker_that_died_after_working_is_replaced_in_the_same_tick(
    pool: Pool, launcher: FakeLauncher, clock: FakeClock
) -> None:
    pool.tend(wanted=True)
    slot = pool.slots["agent-1"]
    says(pool, slot, state="running", item="x-1", attempt=3)
    clock.advance(HEALTHY_S)
    launcher.end(slot.handle, by=signal.SIGKILL)
    (dead,) = pool.reap()
    assert dead.report
    assert (dead.report.item, dead.report.attempt) == ("x-1", 3)
    (event,) = said(pool, "worker_died")
    assert (event["agent"], event["uid"], event["signal"]) == ("agent-1", "x-1", signal.SIGKILL)
    pool.tend(wanted=True)
    assert launcher.spawned[2:] == [("worker", "agent-1")]
    assert slot.restarts == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, STOP_NOW])
def test_who_is_told_to_go_before_it_can_hear_did_not_die(
    pool: Pool, launcher: FakeLauncher, number: int
) -> None:
    """Its interpreter has just started: the signal ends it as it ends any program."""
    pool.tend(wanted=True)
    pool.signal_all(number)
    launcher.end(pool.slots["agent-1"].handle, by=number)
    assert len(pool.reap()) == 1
    assert not said(pool, "worker_died")


def test_the_dead_are_reported_once(pool: Pool, launcher: FakeLauncher) -> None:
    pool.tend(wanted=True)
    launcher.end(pool.slots["agent-1"].handle, exit_code=1)
    assert len(pool.reap()) == 1
    assert pool.reap() == []


def test_a_crash_loop_backs_off_whatever_an_earlier_worker_of_the_slot_has_achieved(
    pool: Pool, launcher: FakeLauncher, clock: FakeClock
) -> None:
    """The report on disk is the last one of the worker that worked; those that died at their start wrote none."""
    pool.resize(1)
    del pool.slots["agent-2"]
    pool.tend(wanted=True)
    slot = pool.slots["agent-1"]
    says(pool, slot, attempts=9)
    for _ in range(200):
        if slot.handle is not None:
            launcher.end(slot.handle, exit_code=1)
        clock.advance(0.1)
        pool.reap()
        pool.tend(wanted=True)
    assert len(launcher.spawned) < 10
    assert slot.quick_deaths > 3


def test_a_worker_that_cannot_be_started_is_tried_again_later(
    pool: Pool, launcher: FakeLauncher, clock: FakeClock
) -> None:
    pool.resize(1)
    del pool.slots["agent-2"]
    launcher.broken = True
    for _ in range(100):
        pool.tend(wanted=True)
        clock.advance(0.1)
    assert 1 < len(said(pool, "process_failed")) < 8
    launcher.broken = False
    clock.advance(60)
    pool.tend(wanted=True)
    assert launcher.spawned == [("worker", "agent-1")]


def test_a_worker_that_refuses_its_configuration_waits_for_a_new_one(
    pool: Pool, launcher: FakeLauncher, clock: FakeClock
) -> None:
    pool.tend(wanted=True)
    launcher.end(pool.slots["agent-1"].handle, exit_code=EXIT_CONFIG)
    pool.reap()
    for _ in range(10):
        clock.advance(1000)
        pool.tend(wanted=True)
    assert len(launcher.spawned) == 2
    assert said(pool, "worker_backed_off")[0]["reason"] == "it cannot use the configuration"
    pool.forgive()
    pool.tend(wanted=True)
    assert len(launcher.spawned) == 3


def test_the_next_start_is_the_earliest_end_of_a_backoff(
    pool: Pool, launcher: FakeLauncher, clock: FakeClock
) -> None:
    pool.tend(wanted=True)
    assert pool.next_start() is None
    slot = pool.slots["agent-1"]
    for _ in range(3):
        clock.advance(60)
        pool.tend(wanted=True)
        launcher.end(slot.handle, exit_code=1)
        slot.born = clock.monotonic()
        pool.reap()
        pool.tend(wanted=True)
    assert pool.next_start() == slot.next_start == clock.monotonic() + 1.0


# ---- adopting --------------------------------------------------------------------------------------------------------


def test_a_worker_that_lives_is_adopted_and_not_started_twice(pool: Pool, launcher: FakeLauncher) -> None:
    with alive(pool, "agent-1", item="x-1") as report:
        assert pool.adopt() == 1
        assert pool.adopt() == 0
        pool.tend(wanted=True)
        assert launcher.spawned == [("worker", "agent-2")]
        (event,) = said(pool, "worker_adopted")
        assert (event["pid"], event["uid"]) == (report.pid, "x-1")


def test_a_worker_beyond_the_target_is_adopted_and_retired(pool: Pool, launcher: FakeLauncher) -> None:
    with alive(pool, "agent-9"):
        pool.adopt()
        pool.tend(wanted=True)
        assert ("agent-9", signal.SIGTERM) in launcher.sent


def test_a_slot_whose_lock_is_held_is_never_started_beside_its_holder(
    pool: Pool, launcher: FakeLauncher
) -> None:
    """It has just started, or is just ending, and its report says nothing yet."""
    with alive(pool, "agent-1"):
        reports.agent_path(pool.layout, "agent-1").unlink()
        pool.tend(wanted=True)
        assert launcher.spawned == [("worker", "agent-2")]
    pool.tend(wanted=True)
    assert ("worker", "agent-1") in launcher.spawned


def test_a_report_without_a_lock_is_nobody(pool: Pool) -> None:
    with alive(pool, "agent-1"):
        pass
    assert pool.adopt() == 0


def test_what_a_larger_pool_left_behind_is_no_slot(pool: Pool) -> None:
    pool.layout.agent("agent-7").mkdir(parents=True)
    (pool.layout.agent("agent-7") / "lock").touch()
    assert pool.adopt() == 0
    assert list(pool.slots) == ["agent-1", "agent-2"]


def test_an_adopted_worker_that_said_goodbye_did_not_die(pool: Pool, launcher: FakeLauncher) -> None:
    """Only a parent is told an exit code; the coordinator that adopted it believes the last words of its report."""
    with alive(pool, "agent-1"):
        pool.adopt()
    pool.signal_all(signal.SIGTERM)
    slot = pool.slots["agent-1"]
    says(pool, slot, state="stopped")
    launcher.end(slot.handle)
    assert [s.name for s in pool.reap()] == ["agent-1"]
    assert slot.death is None
    assert not said(pool, "worker_died")


def test_an_adopted_worker_that_vanished_died(pool: Pool, launcher: FakeLauncher) -> None:
    with alive(pool, "agent-1", state="running", item="x-1", attempt=1):
        pool.adopt()
    launcher.end(pool.slots["agent-1"].handle)
    pool.reap()
    assert said(pool, "worker_died")[0]["uid"] == "x-1"


# ---- hangs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["running", "idle", "paused", ""])
def test_a_worker_that_neither_beats_nor_computes_is_killed_whatever_it_says(
    pool: Pool, launcher: FakeLauncher, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """Also when it has never said anything, and when it is idle: a pool of one would run nothing for ever."""
    monkeypatch.setattr(procs, "cpu_seconds", lambda _: 1.0)
    pool.resize(1)
    pool.tend(wanted=True)
    slot = pool.slots["agent-1"]
    if state:
        says(pool, slot, state=state)
    pool.read_reports(everything=True)
    began = clock.monotonic()
    for _ in range(30):
        clock.advance(10)
        pool.tend(wanted=True)
        if launcher.sent:
            break
    assert launcher.sent == [("agent-1", signal.SIGKILL)]
    assert clock.monotonic() - began > limit_s(HANG_S, busy=state == "running")
    (event,) = said(pool, "worker_hung")
    assert float(str(event["silent_s"])) > HANG_S
    launcher.end(slot.handle, by=signal.SIGKILL)
    pool.reap()
    pool.tend(wanted=True)
    assert launcher.spawned == [("worker", "agent-1")] * 2
    for _ in range(9):  # what its predecessor left on disk says nothing of the new one
        clock.advance(10)
        pool.tend(wanted=True)
    assert len(launcher.sent) == 1


@pytest.mark.parametrize("state", ["gates", "idle"])
@pytest.mark.parametrize("sign", ["beat", "cpu"])
def test_a_worker_that_beats_or_computes_is_never_killed(
    pool: Pool,
    launcher: FakeLauncher,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
    sign: str,
    state: str,
) -> None:
    used = [0.0]
    monkeypatch.setattr(procs, "cpu_seconds", lambda _: used[0])
    monkeypatch.setattr(procs.ProcessId, "alive", lambda _: True)
    pool.resize(1)
    pool.tend(wanted=True)
    slot = pool.slots["agent-1"]
    says(pool, slot, state=state)
    pool.read_reports(everything=True)
    heartbeat = pool.layout.agent("agent-1") / "heartbeat"
    for k in range(100):
        clock.advance(20)
        if sign == "cpu":
            used[0] += 1
        else:
            heartbeat.touch()
            os.utime(heartbeat, ns=(k, k))
        pool.tend(wanted=True)
    assert launcher.sent == []


def test_a_worker_is_looked_after_while_the_pool_knows_its_process(
    pool: Pool, launcher: FakeLauncher
) -> None:
    """Nobody else suspects it (LocalHands.watched)."""
    pool.tend(wanted=True)
    slot = pool.slots["agent-1"]
    assert slot.handle
    process = slot.handle.process
    assert process
    assert pool.holds(process)
    assert not pool.holds(procs.self_id())
    launcher.end(slot.handle, exit_code=0)
    pool.reap()
    assert not pool.holds(process)


# ---- small -----------------------------------------------------------------------------------------------------------


def test_only_reports_that_changed_are_told(pool: Pool) -> None:
    pool.tend(wanted=True)
    slot = pool.slots["agent-1"]
    says(pool, slot, state="running", item="x-1", attempt=1)
    assert [s.name for s in pool.read_reports(everything=False)] == ["agent-1"]
    assert pool.read_reports(everything=True) == []


def test_a_report_of_another_process_is_not_believed(pool: Pool) -> None:
    pool.tend(wanted=True)
    with alive(pool, "agent-1", state="running", item="x-1"):
        assert pool.read_reports(everything=True) == []


def test_a_pool_that_is_closed_lets_its_processes_go_on(pool: Pool, launcher: FakeLauncher) -> None:
    pool.tend(wanted=True)
    assert pool.fds() == []  # these have none
    pool.close()
    assert launcher.sent == []

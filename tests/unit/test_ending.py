"""How a coordinator ends: what it tells whom, in which order, and when it loses patience."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from harness import presence, procs, reports
from harness.atomicfs import FileLock
from harness.coordinator.ending import DRAIN, GRACE_S, NO, STOP, Ending
from harness.coordinator.mergers import Mergers
from harness.coordinator.pool import Pool
from harness.events import EventStream, read
from harness.layout import Layout
from harness.lookout import Lookout
from harness.reports import AgentReport
from harness.sdnotify import Notifier
from harness.signals import STOP_NOW
from tests.launchers import FakeLauncher
from tests.support import FakeClock

DRAIN_S = 600.0


class Told:
    stops = 0
    now = False


@pytest.fixture
def launcher() -> FakeLauncher:
    return FakeLauncher()


@pytest.fixture
def ending(layout: Layout, clock: FakeClock, launcher: FakeLauncher) -> Ending:
    """With one worker and one merger that live."""
    events = EventStream(layout, clock, "coordinator")
    lookout = Lookout(clock, 1e9)
    pool = Pool(layout, clock, launcher, events, lookout, 1)  # type: ignore[arg-type]
    pool.resize(1)
    pool.tend(wanted=True)
    mergers = Mergers(layout, clock, launcher, events, lookout)  # type: ignore[arg-type]
    mergers.owe("app", 0.0)
    mergers.tend({}, ("app",))
    notifier = Notifier.from_environment()
    return Ending(layout, clock, events, Told(), notifier, pool, mergers, DRAIN_S)  # type: ignore[arg-type]


def tick(ending: Ending) -> None:
    ending.look()
    ending.pool.tend(wanted=ending.asked == NO)
    ending.press()


def test_nobody_is_told_anything_before_somebody_asks(ending: Ending, launcher: FakeLauncher) -> None:
    tick(ending)
    assert (ending.asked, ending.state, ending.merging) == (NO, "running", True)
    assert launcher.sent == []


@pytest.mark.parametrize("by", ["signal", "file", "itself"])
def test_a_drain_retires_workers_once_and_lets_mergers_merge(
    ending: Ending, launcher: FakeLauncher, by: str
) -> None:
    match by:
        case "signal":
            ending.signals.stops = 1
        case "file":
            (ending.layout.control / "drain").touch()
        case _:
            ending.ask(DRAIN)
    for _ in range(3):
        tick(ending)
    assert (ending.state, ending.merging) == ("draining", True)
    assert launcher.sent == [("agent-1", signal.SIGTERM)]
    assert len([e for _, e in read(ending.layout) if e["event"] == "drain_started"]) == 1


@pytest.mark.parametrize("by", ["two signals", "usr2", "file", "time"])
def test_a_stop_is_told_to_all_and_later_carried_out(
    ending: Ending, launcher: FakeLauncher, clock: FakeClock, by: str
) -> None:
    match by:
        case "two signals":
            ending.signals.stops = 2
        case "usr2":
            ending.signals.stops, ending.signals.now = 1, True
        case "file":
            (ending.layout.control / "stop").touch()
        case _:
            ending.ask(DRAIN)
            clock.advance(DRAIN_S + 1)
    tick(ending)
    assert (ending.asked, ending.state, ending.merging) == (STOP, "stopping", False)
    assert ("merger.app", signal.SIGTERM) in launcher.sent
    assert ("agent-1", STOP_NOW) in launcher.sent
    clock.advance(GRACE_S + 1)
    tick(ending)
    assert launcher.sent[-1] == ("agent-1", signal.SIGKILL)


def test_it_is_over_when_workers_and_then_mergers_are_gone(
    ending: Ending, launcher: FakeLauncher, clock: FakeClock
) -> None:
    ending.ask(DRAIN)
    assert not ending.over()
    assert launcher.sent == []
    launcher.end(ending.pool.slots["agent-1"].handle, exit_code=0)
    ending.pool.reap()
    assert not ending.over()
    assert not ending.over()
    assert launcher.sent == [("merger.app", signal.SIGTERM)]
    assert not ending.merging
    clock.advance(GRACE_S + 1)
    assert not ending.over()
    assert launcher.sent[-1] == ("merger.app", signal.SIGKILL)
    launcher.end(ending.mergers.known["app"].handle, by=signal.SIGKILL)
    ending.mergers.reap()
    assert ending.over()


def gone(ending: Ending, launcher: FakeLauncher) -> None:
    """The worker and the merger that it knows."""
    for handle in (ending.pool.slots["agent-1"].handle, ending.mergers.known["app"].handle):
        if handle is not None:
            launcher.end(handle, exit_code=0)
    ending.pool.reap()
    ending.mergers.reap()
    launcher.sent.clear()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """As a process has it that is starting, and has not said yet who it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path) as lock:
        assert lock.try_lock()
        yield


def says_who_it_is(layout: Layout, agent: str) -> None:
    """We are this worker."""
    me = procs.self_id()
    report = AgentReport(
        agent=agent, pid=me.pid, start_ticks=me.start_ticks, boot_id=me.boot_id, state="idle"
    )
    reports.write(reports.agent_path(layout, agent), report)


def test_a_merger_that_comes_late_is_told_to_go_before_it_is_over(
    ending: Ending, launcher: FakeLauncher, layout: Layout
) -> None:
    """Also when the one before it has been told, and has gone."""
    ending.ask(DRAIN)
    launcher.end(ending.pool.slots["agent-1"].handle, exit_code=0)
    ending.pool.reap()
    assert not ending.over()
    gone(ending, launcher)
    with locked(layout.merger_lock("app")):
        assert not ending.over()
        with closing(presence.announce(layout, "merger.app")):
            assert not ending.over()
            assert not ending.over()
            assert launcher.sent == [("merger.app", signal.SIGTERM)]
        gone(ending, launcher)
    assert ending.over()


@pytest.mark.parametrize("where", ["merger", "merger of another project", "worker", "another worker"])
def test_who_never_says_who_it_is_is_waited_for_and_not_for_ever(
    ending: Ending, launcher: FakeLauncher, layout: Layout, clock: FakeClock, where: str
) -> None:
    path = {
        "merger": layout.merger_lock("app"),
        "merger of another project": layout.merger_lock("web"),
        "worker": layout.agent("agent-1") / "lock",
        "another worker": layout.agent("agent-7") / "lock",
    }[where]
    ending.ask(DRAIN)
    gone(ending, launcher)
    with locked(path):
        assert not ending.over()
        clock.advance(GRACE_S + 1)
        assert ending.over()


def test_a_stop_before_anything_was_looked_at_waits_for_a_merger_that_starts(
    ending: Ending, launcher: FakeLauncher, layout: Layout
) -> None:
    ending.ask(STOP)
    gone(ending, launcher)
    ending.mergers.known.clear()
    with locked(layout.merger_lock("app")):
        assert not ending.over()
    assert ending.over()


def test_a_worker_that_comes_late_is_told_to_go_before_it_is_over(
    ending: Ending, launcher: FakeLauncher, layout: Layout
) -> None:
    """Also when the one before it in the slot has been told, and has gone."""
    ending.ask(DRAIN)
    tick(ending)
    gone(ending, launcher)
    with locked(layout.agent("agent-1") / "lock"):
        says_who_it_is(layout, "agent-1")
        assert not ending.over()
        tick(ending)
        assert launcher.sent == [("agent-1", signal.SIGTERM)]
        gone(ending, launcher)
    assert ending.over()


def test_a_worker_that_comes_late_takes_no_time_from_mergers(
    ending: Ending, launcher: FakeLauncher, layout: Layout, clock: FakeClock
) -> None:
    ending.ask(DRAIN)
    gone(ending, launcher)
    with locked(layout.merger_lock("app")):
        assert not ending.over()
        with locked(layout.agent("agent-1") / "lock"):
            says_who_it_is(layout, "agent-1")
            assert not ending.over()
            clock.advance(5 * GRACE_S)
            assert not ending.over()
            gone(ending, launcher)
        with closing(presence.announce(layout, "merger.app")):
            assert not ending.over()
            assert launcher.sent == [("merger.app", signal.SIGTERM)]
            clock.advance(GRACE_S + 1)
            assert not ending.over()
            assert launcher.sent[-1] == ("merger.app", signal.SIGKILL)

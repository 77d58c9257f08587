"""Which mergers are started, rung, adopted and stopped, and which crash loops are slowed down."""

from __future__ import annotations

import os
import signal
from contextlib import closing

import pytest

from harness import presence, procs, reports, submitted
from harness.atomicfs import FileLock
from harness.bell import Bell
from harness.clock import rfc3339
from harness.coordinator.mergers import PATIENCE_S, Mergers
from harness.events import EventStream, read
from harness.layout import Layout
from harness.lookout import Lookout
from harness.pace import MAX_BACKOFF_S
from harness.reports import ProjectReport
from tests.launchers import FakeLauncher
from tests.support import FakeClock

APP = ("app",)
HANG_S = 100.0
ONE = {"app": frozenset({"x-1.1"})}
SPAWNED = ("merger", "merger.app")


@pytest.fixture
def launcher() -> FakeLauncher:
    return FakeLauncher()


@pytest.fixture
def mergers(layout: Layout, clock: FakeClock, launcher: FakeLauncher) -> Mergers:
    events = EventStream(layout, clock, "coordinator")
    return Mergers(layout, clock, launcher, events, Lookout(clock, HANG_S))  # type: ignore[arg-type]


def report(layout: Layout, **fields: object) -> None:
    record = ProjectReport.from_record({"v": 1, "project": "app", **fields})
    reports.write(layout.project_status("app"), record)


def died(layout: Layout) -> list[dict[str, object]]:
    return [e for _, e in read(layout) if e["event"] == "merger_died"]


def test_nothing_submitted_needs_no_merger(mergers: Mergers, launcher: FakeLauncher) -> None:
    mergers.tend({}, APP)
    assert launcher.spawned == []
    assert not mergers.busy("app")
    assert mergers.settled("app")


def test_a_submitted_result_starts_the_merger_of_its_project_once(
    mergers: Mergers, launcher: FakeLauncher
) -> None:
    mergers.tend(ONE, ("app", "web"))
    mergers.tend(ONE, ("app", "web"))
    assert launcher.spawned == [SPAWNED]
    assert mergers.busy("app")
    assert not mergers.settled("app")


def test_a_living_merger_is_rung_for_what_is_new_only(
    layout: Layout, mergers: Mergers, launcher: FakeLauncher
) -> None:
    mergers.tend(ONE, APP)
    with Bell(layout.bell("merger.app")) as bell:
        bell.open()
        mergers.tend(ONE, APP)
        assert bell.drain() == 0
        mergers.tend({"app": frozenset({"x-1.1", "y-2.1"})}, APP)
        assert bell.drain() == 1
    assert submitted.all_of(layout, "app") == ["y-2"]


def test_a_merger_of_another_coordinator_is_not_doubled(
    layout: Layout, mergers: Mergers, launcher: FakeLauncher
) -> None:
    layout.merger_lock("app").parent.mkdir(parents=True, exist_ok=True)
    with FileLock(layout.merger_lock("app")) as lock:
        assert lock.try_lock()
        mergers.tend(ONE, APP)
        assert launcher.spawned == []
        assert mergers.busy("app")


def test_a_merger_that_announced_itself_is_adopted_and_can_be_stopped(
    layout: Layout, mergers: Mergers, launcher: FakeLauncher
) -> None:
    here = presence.announce(layout, "merger.app")
    try:
        mergers.adopt()
        mergers.adopt()
        assert launcher.adopted == ["merger.app"]
        mergers.signal_all(signal.SIGTERM)
        assert launcher.sent == [("merger.app", signal.SIGTERM)]
    finally:
        here.close()


def test_a_merger_that_announces_itself_late_is_adopted_then(
    layout: Layout, mergers: Mergers, launcher: FakeLauncher
) -> None:
    """Started by a coordinator that died at once, and stopped for a while before it could say who it is: it was rung, and
    never told to go, nor missed when it hung."""
    layout.merger_lock("app").parent.mkdir(parents=True, exist_ok=True)
    mergers.adopt()
    with FileLock(layout.merger_lock("app")) as lock:
        assert lock.try_lock()
        mergers.tend({}, APP)
        assert (launcher.adopted, mergers.alive(), mergers.starting()) == ([], False, True)
        with closing(presence.announce(layout, "merger.app")):
            mergers.tend({}, APP)
            mergers.tend(ONE, APP)
            assert (launcher.adopted, launcher.spawned) == (["merger.app"], [])
            assert mergers.alive()
            assert not mergers.starting()


def test_a_merger_that_ends_well_is_started_again_for_the_next_result(
    mergers: Mergers, launcher: FakeLauncher
) -> None:
    mergers.tend(ONE, APP)
    launcher.end(mergers.known["app"].handle, exit_code=0)
    mergers.reap()
    mergers.tend({}, APP)
    assert launcher.spawned == [SPAWNED]
    mergers.tend(ONE, APP)
    assert launcher.spawned == [SPAWNED] * 2


def test_a_merger_that_dies_is_owed_a_successor_even_when_nothing_is_submitted_any_more(
    layout: Layout, mergers: Mergers, launcher: FakeLauncher
) -> None:
    """Between a merge and its publishing only the hub knows that there is work."""
    mergers.tend(ONE, APP)
    launcher.end(mergers.known["app"].handle, by=signal.SIGKILL)
    mergers.reap()
    assert len(died(layout)) == 1
    assert not mergers.settled("app")
    mergers.tend({}, APP)
    assert launcher.spawned == [SPAWNED] * 2


def test_a_crash_loop_backs_off_and_a_long_life_forgives_it(
    layout: Layout, mergers: Mergers, launcher: FakeLauncher, clock: FakeClock
) -> None:
    for _ in range(600):
        mergers.tend(ONE, APP)
        if mergers.known["app"].handle:
            launcher.end(mergers.known["app"].handle, exit_code=1)
        clock.advance(0.1)
        mergers.reap()
    assert 3 < len(launcher.spawned) < 12
    assert mergers.quick_deaths("app") == len(launcher.spawned)
    clock.advance(MAX_BACKOFF_S)
    mergers.tend(ONE, APP)
    clock.advance(MAX_BACKOFF_S)
    launcher.end(mergers.known["app"].handle, exit_code=1)
    mergers.reap()
    assert mergers.quick_deaths("app") == 0
    assert mergers.quick_deaths("nobody") == 0


def test_a_merger_that_dies_at_once_after_it_has_worked_is_no_crash_loop(
    layout: Layout, mergers: Mergers, launcher: FakeLauncher, clock: FakeClock
) -> None:
    for k in range(1, 6):
        mergers.tend(ONE, APP)
        assert launcher.spawned == [SPAWNED] * k
        handle = mergers.known["app"].handle
        assert handle
        assert handle.process
        report(layout, pid=handle.process.pid, state="merging", judged=1)
        launcher.end(handle, by=signal.SIGKILL)
        mergers.reap()
        assert mergers.quick_deaths("app") == 0
    report(layout, pid=-1, state="merging", judged=1)  # another one's work
    mergers.tend(ONE, APP)
    launcher.end(mergers.known["app"].handle, by=signal.SIGKILL)
    mergers.reap()
    assert mergers.quick_deaths("app") == 1


def test_a_merger_that_was_told_to_go_did_not_die(
    layout: Layout, mergers: Mergers, launcher: FakeLauncher
) -> None:
    mergers.tend(ONE, APP)
    mergers.signal_all(signal.SIGTERM)
    launcher.end(mergers.known["app"].handle, by=signal.SIGTERM)
    mergers.reap()
    assert died(layout) == []


@pytest.mark.parametrize("how", [{"exit_code": 0}, {"by": signal.SIGHUP}], ids=["obeyed", "not ready for it"])
def test_a_merger_that_is_to_read_the_configuration_again_gets_a_successor(
    layout: Layout, mergers: Mergers, launcher: FakeLauncher, how: dict[str, int]
) -> None:
    """It may have ended before it looked at what it was started for: a merge that was never published."""
    mergers.owe("app", 0.0)
    mergers.tend({}, APP)
    mergers.signal_all(signal.SIGHUP)
    launcher.end(mergers.known["app"].handle, **how)
    mergers.reap()
    mergers.tend({}, APP)
    assert launcher.spawned == [SPAWNED] * 2
    assert died(layout) == []


def test_a_merger_that_cannot_be_started_is_tried_again_later(
    layout: Layout, mergers: Mergers, launcher: FakeLauncher, clock: FakeClock
) -> None:
    launcher.broken = True
    for _ in range(100):
        mergers.tend(ONE, APP)
        clock.advance(0.1)
    failed = [e for _, e in read(layout) if e["event"] == "process_failed"]
    assert 1 < len(failed) < 8
    launcher.broken = False
    clock.advance(MAX_BACKOFF_S)
    mergers.tend(ONE, APP)
    assert launcher.spawned == [SPAWNED]


def test_a_merge_that_was_never_published_starts_a_merger_when_it_is_time(
    layout: Layout, mergers: Mergers, launcher: FakeLauncher, clock: FakeClock
) -> None:
    report(layout, unpublished=2, next_try=rfc3339(clock.wall() + 60))
    mergers.tend({}, APP)
    assert launcher.spawned == []
    clock.advance(60)
    mergers.tend({}, APP)
    assert launcher.spawned == [SPAWNED]


@pytest.mark.parametrize("moment", ["", "soon", "2026-13-45"])
def test_a_report_without_a_time_that_can_be_read_is_due(
    layout: Layout, mergers: Mergers, launcher: FakeLauncher, moment: str
) -> None:
    report(layout, unpublished=1, next_try=moment)
    mergers.tend({}, APP)
    assert launcher.spawned == [SPAWNED]


def test_what_a_hub_was_found_to_owe_is_paid_by_a_merger(mergers: Mergers, launcher: FakeLauncher) -> None:
    mergers.owe("app", 0.0)
    assert not mergers.settled("app")
    mergers.tend({}, APP)
    assert launcher.spawned == [SPAWNED]


def test_what_was_owed_before_a_merger_was_started_is_its_business(
    mergers: Mergers, launcher: FakeLauncher, clock: FakeClock
) -> None:
    """Said late, by a thread: another merger would find nothing, and keep everybody waiting."""
    before = clock.monotonic()
    clock.advance(1)
    mergers.tend(ONE, APP)
    mergers.owe("app", before)
    launcher.end(mergers.known["app"].handle, exit_code=0)
    mergers.reap()
    mergers.tend({}, APP)
    assert launcher.spawned == [SPAWNED]
    mergers.owe("app", clock.monotonic() + 1)
    mergers.tend({}, APP)
    assert launcher.spawned == [SPAWNED] * 2


def test_what_is_owed_and_cannot_be_published_keeps_nobody_waiting(
    layout: Layout, mergers: Mergers, launcher: FakeLauncher, clock: FakeClock
) -> None:
    """The merger that lives tries for ever: no other one is started."""
    mergers.tend(ONE, APP)
    mergers.owe("app", clock.monotonic() + 1)
    handle = mergers.known["app"].handle
    assert handle
    assert handle.process
    report(layout, pid=handle.process.pid, state="idle", unpublished=0)
    assert not mergers.settled("app")  # it has not seen them: perhaps it was told before to publish nothing
    report(layout, pid=handle.process.pid, state="idle", unpublished=1)
    assert mergers.settled("app")
    launcher.end(handle, exit_code=0)
    mergers.reap()
    assert not mergers.settled("app")
    mergers.tend({}, APP)
    assert launcher.spawned == [SPAWNED] * 2


def test_a_merger_is_settled_when_it_says_itself_that_it_is_idle(layout: Layout, mergers: Mergers) -> None:
    mergers.tend(ONE, APP)
    handle = mergers.known["app"].handle
    assert handle
    assert handle.process
    report(layout, pid=1, state="idle")
    assert not mergers.settled("app")  # its predecessor said so
    report(layout, pid=handle.process.pid, state="publishing")
    assert not mergers.settled("app")
    report(layout, pid=handle.process.pid, state="idle")
    assert mergers.settled("app")


@pytest.mark.parametrize(
    ("passing", "wait"), [(True, True), (False, False)], ids=["it may pass", "it does not"]
)
def test_a_publish_that_is_refused_is_waited_for_a_while_when_it_may_go_by_itself(
    layout: Layout, mergers: Mergers, clock: FakeClock, passing: bool, wait: bool
) -> None:
    report(layout, state="idle", unpublished=1, publish="unreachable", passing=passing)
    assert mergers.settled("app") is not wait
    assert mergers.refused("app")
    clock.advance(PATIENCE_S + 1)
    assert mergers.settled("app")
    report(layout, state="idle", unpublished=0, publish="ok")
    assert mergers.settled("app")
    assert not mergers.refused("app")


# ---- hangs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["gates", "idle", ""])
def test_a_merger_that_neither_beats_nor_computes_is_killed_and_the_next_one_started(
    layout: Layout,
    mergers: Mergers,
    launcher: FakeLauncher,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
    state: str,
) -> None:
    monkeypatch.setattr(procs, "cpu_seconds", lambda _: 1.0)
    mergers.tend(ONE, APP)
    handle = mergers.known["app"].handle
    assert handle
    assert handle.process
    if state:
        report(layout, pid=handle.process.pid, state=state)
    for _ in range(30):
        clock.advance(10)
        mergers.tend(ONE, APP)
        if launcher.sent:
            break
    assert launcher.sent == [("merger.app", signal.SIGKILL)]
    (event,) = [e for _, e in read(layout) if e["event"] == "merger_hung"]
    assert float(str(event["silent_s"])) > HANG_S
    launcher.end(handle, by=signal.SIGKILL)
    mergers.reap()
    mergers.tend({}, APP)  # between a merge and its publishing only the hub knows that there is work
    assert launcher.spawned == [SPAWNED] * 2


@pytest.mark.parametrize("sign", ["beat", "cpu"])
def test_a_merger_that_beats_or_computes_is_never_killed(
    layout: Layout,
    mergers: Mergers,
    launcher: FakeLauncher,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
    sign: str,
) -> None:
    used = [0.0]
    monkeypatch.setattr(procs, "cpu_seconds", lambda _: used[0])
    monkeypatch.setattr(procs.ProcessId, "alive", lambda _: True)
    mergers.tend(ONE, APP)
    beat = layout.merger_beat("app")
    beat.parent.mkdir(parents=True, exist_ok=True)
    for k in range(100):
        clock.advance(20)
        if sign == "cpu":
            used[0] += 1
        else:
            beat.touch()
            os.utime(beat, ns=(k, k))
        mergers.tend(ONE, APP)
    assert launcher.sent == []


def test_mergers_that_are_closed_go_on(mergers: Mergers, launcher: FakeLauncher) -> None:
    mergers.tend(ONE, APP)
    assert mergers.fds() == []
    mergers.close()
    assert launcher.sent == []

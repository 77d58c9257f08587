"""The coordinator's loop, verb by verb, in this process: no worker runs, nothing waits."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import presence
from harness.bell import Bell
from harness.config import load
from harness.coordinator import start
from harness.coordinator.pool import Slot
from harness.coordinator.process import Coordinator
from harness.launcher import LocalHandle
from harness.layout import Layout
from harness.model import Outcome
from harness.procs import ProcessId
from harness.reports import AgentReport
from harness.store.cells import Standing
from tests.stores import World
from tests.support import make_root

CONFIG = """\
v: 1
projects: {app: {path: ../app}}
agents: {claude: {adapter: command, argv: [claude]}}
"""


class NoSignals:
    stops = 0
    reload = dump = False
    wake_fd = -1

    def drain(self) -> None:
        pass


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return make_root(tmp_path / "root", CONFIG)


@pytest.fixture
def world(layout: Layout) -> Iterator[World]:
    world = World(layout)
    yield world
    world.close()


@pytest.fixture
def coordinator(layout: Layout, world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Coordinator]:
    monkeypatch.setattr(start, "Signals", NoSignals)
    with presence.announce(layout, "coordinator") as here, Bell(layout.bell("coordinator")) as bell:
        it = start.assemble(layout, load(layout.config), here.identity, world.clock, bell)
        it._recover()
        yield it
        it.disk.close()


def sweep(coordinator: Coordinator, world: World) -> None:
    world.clock.advance(coordinator.sweep_s + 1)
    coordinator._look()
    coordinator._hint()


def test_an_item_that_is_over_and_was_seen_to_be_is_finished_by_the_next_sweep(
    coordinator: Coordinator, world: World
) -> None:
    """Nothing changes it any more, so that nobody looks at it again: it would stay, and its dependants wait."""
    uid = world.add(id="a")
    sweep(coordinator, world)
    owned = world.claim(uid)
    world.end(owned, Outcome.CANCELLED)
    assert coordinator.index.look_at(uid)
    assert coordinator.index.open[uid].standing is Standing.OVER
    sweep(coordinator, world)
    assert world.where(uid) == ["archive"]
    assert uid not in coordinator.index.open


def test_idle_workers_are_rung_for_again_when_a_hint_stays(
    coordinator: Coordinator, world: World, layout: Layout
) -> None:
    world.add(id="a")
    process = ProcessId(pid=4_000_001, start_ticks=1, boot_id="b")
    handle = LocalHandle("worker", "agent-1", process, None, None, foreign=True)
    report = AgentReport(agent="agent-1", pid=process.pid, start_ticks=1, boot_id="b")
    coordinator.pool.slots["agent-1"] = Slot("agent-1", handle=handle, report=report)
    with Bell(layout.bell("workers")) as bell:
        bell.open()
        sweep(coordinator, world)
        assert bell.drain() >= 1
        sweep(coordinator, world)
        assert bell.drain() == 1


def test_files_of_a_process_that_starts_are_left_alone(
    coordinator: Coordinator, world: World, layout: Layout
) -> None:
    """It would fail its self-test, say that the file system cannot carry the queue, and not be started again."""
    tmp = layout.queue / "tmp"
    (tmp / "selftest.abc").touch()
    os.utime(tmp / "selftest.abc", (world.clock.wall(), world.clock.wall()))
    (tmp / "agent-1.t0.xyz.0.claim").touch()
    coordinator._sweep_tmp()
    assert os.listdir(tmp) == ["selftest.abc"]


def test_a_worker_that_was_retired_is_not_stopped_by_a_drain(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second TERM would make it give its attempt back at once."""
    sent: list[tuple[str, int]] = []
    monkeypatch.setattr(
        coordinator.pool.launcher, "stop", lambda handle, number: sent.append((handle.name, number))
    )
    for k in (1, 2):
        process = ProcessId(pid=4_000_000 + k, start_ticks=1, boot_id="b")
        handle = LocalHandle("worker", f"agent-{k}", process, None, None, foreign=True)
        coordinator.pool.slots[f"agent-{k}"] = Slot(f"agent-{k}", handle=handle, retiring=k == 2)
    coordinator.signals.stops = 1
    for _ in range(3):
        coordinator._drain_signals()
        coordinator._fill()
    assert sent == [("agent-1", signal.SIGTERM)]
    coordinator.signals.stops = 2
    coordinator._drain_signals()
    coordinator._fill()
    assert sorted(sent[1:]) == [("agent-1", signal.SIGTERM), ("agent-2", signal.SIGTERM)]

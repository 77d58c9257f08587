"""The coordinator's loop, verb by verb, in this process: no worker runs, nothing waits."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import presence, reports
from harness.bell import Bell
from harness.config import load
from harness.coordinator import start
from harness.coordinator.mergers import _Known
from harness.coordinator.pool import Slot
from harness.coordinator.process import Coordinator
from harness.events import read
from harness.launcher import LocalHandle
from harness.layout import Layout
from harness.model import Outcome
from harness.procs import ProcessId
from harness.reports import AgentReport, ProjectReport
from harness.signals import STOP_NOW
from harness.store import attempts
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
    now = False
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
    """The fake clock is far ahead of the file system's, which may not have moved since the last look."""
    for folder in (world.layout.queue / "open").iterdir():
        times = folder.stat()
        os.utime(folder, ns=(times.st_atime_ns, times.st_mtime_ns + 1))
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
    coordinator.tidying.sweep()
    assert os.listdir(tmp) == ["selftest.abc"]


def test_a_drain_is_told_once_and_a_stop_in_every_tick(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that was retired already need not hear of a drain. What it hears means the same however often."""
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
    for _ in range(2):
        coordinator._drain_signals()
        coordinator._fill()
    assert sorted(sent[1:]) == [("agent-1", STOP_NOW)] * 2 + [("agent-2", STOP_NOW)] * 2


# ---- news ------------------------------------------------------------------------------------------------------------


def events(coordinator: Coordinator, kind: str) -> list[dict[str, object]]:
    return [e for _, e in read(coordinator.layout) if e["event"] == kind]


def successor(coordinator: Coordinator, world: World) -> Coordinator:
    """Another coordinator of the same root, after this one has died."""
    me = coordinator.actor.identity
    return start.assemble(coordinator.layout, coordinator.config, me, world.clock, coordinator.bell)


def park(world: World, uid: str) -> None:
    for _ in range(3):
        world.end(world.claim(uid), Outcome.FAILED)


def test_that_an_item_is_parked_is_news_once_also_for_the_next_coordinator(
    coordinator: Coordinator, world: World
) -> None:
    uid = world.add(id="a")
    park(world, uid)
    sweep(coordinator, world)
    coordinator.news.save()
    sweep(coordinator, world)
    assert [e["uid"] for e in events(coordinator, "item_parked")] == [uid]
    second = successor(coordinator, world)
    second._recover()
    sweep(second, world)
    assert len(events(coordinator, "item_parked")) == 1


def test_what_was_parked_while_no_coordinator_ran_is_news_for_the_next_one(
    coordinator: Coordinator, world: World
) -> None:
    uid = world.add(id="a")
    coordinator.news.save()
    park(world, uid)
    second = successor(coordinator, world)
    second._recover()
    assert [e["uid"] for e in events(coordinator, "item_parked")] == [uid]


def test_an_item_that_is_parked_again_is_news_again(coordinator: Coordinator, world: World) -> None:
    uid = world.add(id="a")
    park(world, uid)
    sweep(coordinator, world)
    world.retry(uid)
    sweep(coordinator, world)
    assert coordinator.news.told == set()
    world.end(world.claim(uid), Outcome.FAILED)
    sweep(coordinator, world)
    assert [e["n"] for e in events(coordinator, "item_parked")] == [3, 4]


def test_of_all_who_finish_an_item_one_says_so(coordinator: Coordinator, world: World) -> None:
    """A worker or merger that finishes it, and the coordinator, which sees it being over, at the same time."""
    uid = world.add(id="a")
    sweep(coordinator, world)
    world.end(world.claim(uid), Outcome.CANCELLED)
    entry = coordinator.index.look_at(uid)
    assert entry
    assert entry.standing is Standing.OVER
    world.finish(uid)  # another was quicker, between our look and our move
    coordinator.following._noticed(entry)
    assert events(coordinator, "item_finished") == []
    other = world.add(id="b")
    sweep(coordinator, world)
    world.end(world.claim(other), Outcome.CANCELLED)
    sweep(coordinator, world)
    assert [e["uid"] for e in events(coordinator, "item_finished")] == [other]


def test_a_damaged_claim_stops_its_item_and_nobody_else(coordinator: Coordinator, world: World) -> None:
    """Also when it is damaged after the item was seen to run, and until it is gone."""
    uid, other = world.add(id="a", files=("src/**",)), world.add(id="b")
    for name in (uid, other):
        world.run(attempts.abandon(world.claim(name)))  # its owner died
        assert coordinator.index.look_at(name)
    cell = world.layout.queue / "open" / uid / "1.claim"
    cell.write_bytes(b"")
    coordinator.following.expire_dead()
    assert "1.claim" in coordinator.index.unreadable[uid]
    assert [e["uid"] for e in events(coordinator, "attempt_expired")] == [other]
    for known in (True, False):  # or seen for the first time, by a coordinator that starts
        if not known:
            del coordinator.index.open[uid]
        sweep(coordinator, world)
        assert "1.claim" in coordinator.index.unreadable[uid]
        assert [busy.files for busy in coordinator.index.busy()] == [("src/**",)]  # its worker may live
        assert coordinator.index.counts()["parked"] == 1
        assert any("1.claim" in line for line in coordinator.idle.left(coordinator.config))
    coordinator.telling.say("stopping", coordinator.config)
    (told,) = reports.read(reports.coordinator_path(world.layout), reports.CoordinatorReport).parked  # type: ignore[union-attr]
    assert (told["uid"], told["id"]) == (uid, "")
    (cell.parent / "item.json").write_bytes(b"")  # now nothing of it is known
    del coordinator.index.open[uid]
    sweep(coordinator, world)
    assert uid not in coordinator.index.open
    assert coordinator.index.counts()["parked"] == 1
    assert any("item.json" in line for line in coordinator.idle.left(coordinator.config))
    cell.parent.rename(world.layout.root / "away")
    sweep(coordinator, world)
    assert coordinator.index.unreadable == {}


# ---- idle ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def workers(coordinator: Coordinator) -> Coordinator:
    """With a pool that would work."""
    coordinator.pool.resize(2)
    coordinator.until_idle = True
    return coordinator


def left(coordinator: Coordinator) -> list[str]:
    return coordinator.idle.left(coordinator.config)


def idle(coordinator: Coordinator, world: World) -> bool:
    sweep(coordinator, world)
    return coordinator.idle.reached(coordinator.config)


def test_nothing_to_do_is_idle_and_all_done(workers: Coordinator, world: World) -> None:
    assert idle(workers, world)
    assert workers.outcome() == 0
    assert events(workers, "work_left") == []


def test_what_can_be_claimed_is_waited_for(workers: Coordinator, world: World) -> None:
    uid = world.add(id="a")
    assert not idle(workers, world)
    world.claim(uid)
    assert not idle(workers, world)


@pytest.mark.parametrize(
    ("files", "why"),
    [
        (["pause"], "paused, until: harnessctl resume"),
        (["pause.project.app"], "project app is paused"),
        (["pause.agent-1", "pause.agent-2"], "no worker can claim it"),
    ],
)
def test_what_is_paused_waits_for_a_person_and_keeps_nobody_waiting(
    workers: Coordinator, world: World, files: list[str], why: str
) -> None:
    world.add(id="a")
    for name in files:
        (workers.layout.control / name).touch()
    assert idle(workers, world)
    workers.was_idle = True
    assert workers.outcome() == 1
    (said,) = events(workers, "work_left")
    assert str(said["reason"]).startswith("a: ")
    assert why in str(said["reason"])
    for name in files:
        (workers.layout.control / name).unlink()
    assert not idle(workers, world)


def test_a_pause_of_one_worker_of_two_or_of_another_project_stops_nothing(
    workers: Coordinator, world: World
) -> None:
    world.add(id="a")
    for name in ("pause.agent-1", "pause.project.other"):
        (workers.layout.control / name).touch()
    assert not idle(workers, world)


def test_what_runs_is_waited_for_although_all_is_paused(workers: Coordinator, world: World) -> None:
    uid = world.add(id="a")
    world.claim(uid)
    (workers.layout.control / "pause").touch()
    assert not idle(workers, world)


@pytest.mark.parametrize("refused", [False, True])
def test_a_pool_that_runs_nothing_is_not_waited_for(
    workers: Coordinator, world: World, refused: bool
) -> None:
    world.add(id="a")
    for slot in workers.pool.slots.values():
        slot.refused = refused
    assert idle(workers, world) is refused
    workers.pool.resize(0)
    assert idle(workers, world)


def test_items_of_a_project_that_cannot_be_used_wait_for_a_person_but_not_for_its_first_fetch(
    workers: Coordinator, world: World
) -> None:
    world.add(id="a")
    sweep(workers, world)
    workers.projects.unusable["app"] = "there is no repository"
    workers.projects.tried["app"] = world.clock.monotonic() + 1e6
    assert idle(workers, world)
    assert left(workers) == ["a: project app cannot be used: there is no repository"]
    workers.projects.making.add("app")
    assert not idle(workers, world)


def test_merges_that_the_person_refuses_are_not_all_done(workers: Coordinator, world: World) -> None:
    """Every item is merged and archived; but nobody who pulls has it."""
    report = ProjectReport(
        project="app", state="idle", unpublished=2, publish="hook", reason="hook declined", remedy="ask them"
    )
    reports.write(workers.layout.project_status("app"), report)
    workers.mergers.known["app"] = _Known(next_start=float("inf"))
    assert idle(workers, world)
    workers.was_idle = True
    assert workers.outcome() == 1
    assert left(workers) == ["the merges of app are not published: hook declined. ask them"]


def test_parked_items_and_those_that_wait_for_them_are_named(workers: Coordinator, world: World) -> None:
    first = world.add(id="first")
    world.add(id="second", depends_on=["first"])
    park(world, first)
    assert idle(workers, world)
    workers.was_idle = True
    assert workers.outcome() == 1
    parked, waiting = left(workers)
    assert parked.startswith("first: parked: ")
    assert waiting.startswith("second: waiting for ")


def test_many_items_are_counted(workers: Coordinator, world: World) -> None:
    (workers.layout.control / "pause").touch()
    for k in range(8):
        world.add(id=f"item-{k}")
    assert idle(workers, world)
    assert left(workers) == [
        "item-0, item-1, item-2, item-3, item-4, and 3 more: paused, until: harnessctl resume"
    ]


def test_told_to_go_before_all_was_done_is_neither_success_nor_failure(
    workers: Coordinator, world: World
) -> None:
    world.add(id="a")
    sweep(workers, world)
    assert workers.outcome() == 75
    workers.until_idle = False
    assert workers.outcome() == 0
    workers.timed_out = True
    assert workers.outcome() == 75

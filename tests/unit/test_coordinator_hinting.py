"""Hints as the coordinator keeps them: where they exist, and that somebody is rung for each."""

from __future__ import annotations

import pytest

from harness.bell import Bell
from harness.coordinator.hinting import Hinting
from harness.coordinator.index import Index
from harness.store.disk import Disk
from harness.store.hints import Hints, Withheld
from tests.stores import World


@pytest.fixture
def hinting(world: World) -> Hinting:
    hints = Hints(world.layout)
    index = Index(world.layout, Disk(world.layout, world.clock, durable=False, hints=hints), world.clock)
    return Hinting(world.layout, world.clock, index, hints)


def listening(world: World) -> Bell:
    bell = Bell(world.layout.bell("workers"))
    bell.open()
    return bell


def test_a_new_item_is_rung_for_once(world: World, hinting: Hinting) -> None:
    with listening(world) as bell:
        uid = world.add(id="a")
        hinting.index.look_at(uid)
        hinting.update()
        hinting.update()
        assert bell.drain() == 1


def test_an_item_that_a_sweep_sees_first_is_rung_for_too(world: World, hinting: Hinting) -> None:
    """Admission makes the hint itself; a sweep in the same tick finds it before `update` does."""
    with listening(world) as bell:
        uid = world.add(id="a")
        hinting.hints.add(uid, 5)
        hinting.index.look_at(uid)
        hinting.rebuild()
        hinting.update()
        hinting.update()
        assert bell.drain() == 1
        assert list(hinting.hints.all()) == [uid]


def test_a_sweep_that_finds_nothing_new_rings_nobody(world: World, hinting: Hinting) -> None:
    with listening(world) as bell:
        uid = world.add(id="a")
        hinting.index.look_at(uid)
        hinting.update()
        bell.drain()
        hinting.rebuild()
        hinting.update()
        assert bell.drain() == 0


def test_what_the_coordinator_admits_gets_no_hint_before_it_was_decided(world: World) -> None:
    """An item of a paused project, or one whose files overlap what runs, must not be claimed in between."""
    disk = Disk(world.layout, world.clock, durable=False, hints=Withheld(world.layout))
    disk.do_hint("a-0000000000", 5)
    assert Hints(world.layout).all() == {}


def test_a_long_backlog_is_sorted_again_only_when_something_changed(world: World, hinting: Hinting) -> None:
    uid = world.add(id="a")
    hinting.index.look_at(uid)
    hinting.update()
    before = hinting.index.version
    assert hinting.index.look_at(uid) is None
    assert hinting.index.version == before
    world.add(id="b")
    hinting.index.sweep()
    assert hinting.index.version == before + 1
    assert hinting.update() == 1


def test_a_pause_takes_the_hints_of_a_project_back_and_its_end_rings_again(
    world: World, hinting: Hinting
) -> None:
    uid = world.add(id="a")
    hinting.index.look_at(uid)
    hinting.rebuild()
    hinting.update()
    hinting.paused = frozenset({"app"})
    hinting.update()
    assert hinting.hints.all() == {}
    hinting.paused = frozenset()
    assert hinting.update() == 1
    assert list(hinting.hints.all()) == [uid]


def test_a_hint_that_is_made_again_in_its_own_millisecond_stays(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time_ns", lambda: 1_800_000_000_000_000_000)
    uid = world.add(id="a")
    theirs, ours = Hints(world.layout), Hints(world.layout)
    for found in list(ours.all().values()):
        ours.drop(found[0][1])
    theirs.add(uid, 5)
    ((_, path),) = ours.all()[uid]
    ours.remember(uid, path)
    theirs.remove(uid)
    ours.add(uid, 5)
    assert list(ours.all()) == [uid]


def test_a_hint_that_a_worker_removed_by_mistake_is_made_again_by_the_sweep(
    world: World, hinting: Hinting
) -> None:
    uid = world.add(id="a")
    hinting.index.look_at(uid)
    hinting.rebuild()
    hinting.update()
    other = Hints(world.layout)
    assert list(other.find()) == [uid]
    other.remove(uid)
    hinting.rebuild()
    assert hinting.update() == 1
    assert list(hinting.hints.all()) == [uid]

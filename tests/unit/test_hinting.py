"""What people ask for in state/control/, carried into hints; and hints that are wrong, put right by the sweep."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.clock import rfc3339
from harness.coordinator.hinting import Hinting
from harness.coordinator.index import Index
from harness.model import Outcome
from harness.store import attempts
from harness.store.disk import Disk
from harness.store.hints import Hints
from tests.stores import World, end_record


@pytest.fixture
def hinting(world: World) -> Hinting:
    hints = Hints(world.layout)
    disk = Disk(world.layout, world.clock, durable=False, hints=hints)
    return Hinting(world.layout, world.clock, Index(world.layout, disk, world.clock), hints)


def boosts(world: World) -> Path:
    folder = world.layout.control / "priority"
    folder.mkdir(exist_ok=True)
    return folder


def refresh(hinting: Hinting) -> int:
    """What the coordinator does in a sweep. -> rings"""
    hinting.index.sweep()
    hinting.read_control()
    hinting.rebuild()
    return hinting.update()


def bands(hinting: Hinting) -> dict[str, list[int]]:
    return {uid: [band for band, _ in places] for uid, places in hinting.hints.all().items()}


# ---- boosts ----------------------------------------------------------------------------------------------------------


def test_a_boost_moves_the_hint_and_its_end_moves_it_back(world: World, hinting: Hinting) -> None:
    uid = world.add(id="a")
    refresh(hinting)
    (boosts(world) / uid).write_text("0\n")
    assert refresh(hinting) == 0  # nobody is rung for an order
    assert bands(hinting) == {uid: [0]}
    (boosts(world) / uid).unlink()
    refresh(hinting)
    assert bands(hinting) == {uid: [5]}


@pytest.mark.parametrize(("text", "band"), [("", 0), ("99", 9), ("-4", 0), (" 3 \n", 3)])
def test_a_boost_is_a_digit_whatever_was_written(
    world: World, hinting: Hinting, text: str, band: int
) -> None:
    uid = world.add(id="a")
    (boosts(world) / uid).write_text(text)
    refresh(hinting)
    assert bands(hinting) == {uid: [band]}


@pytest.mark.timeout(20)
def test_what_is_no_boost_is_left_alone_and_stops_nobody(world: World, hinting: Hinting) -> None:
    uid = world.add(id="a")
    folder = boosts(world)
    os.mkfifo(folder / uid)
    (folder / "folder").mkdir()
    (folder / "link").symlink_to("/dev/zero")
    (folder / "words").write_text("as soon as possible")
    (folder / "bytes").write_bytes(b"\xff\xfe")
    (folder / "long").write_text("9" * 10_000)
    refresh(hinting)
    assert set(hinting.boosts) <= {uid, "long"}
    assert uid in bands(hinting)
    assert (folder / "words").exists()


def test_a_boost_of_an_item_that_is_over_is_removed_and_one_of_a_waiting_item_kept(
    world: World, hinting: Hinting
) -> None:
    waiting = world.add(id="later", depends_on=["nobody"])
    for uid in (waiting, "gone-0000000000"):
        (boosts(world) / uid).write_text("1")
    refresh(hinting)
    assert os.listdir(boosts(world)) == [waiting]


# ---- pauses ----------------------------------------------------------------------------------------------------------


def test_a_paused_project_has_no_hints_and_backups_of_editors_pause_nobody(
    world: World, hinting: Hinting
) -> None:
    uid = world.add(id="a")
    pause = world.layout.control / "pause.project.app"
    (world.layout.control / "pause.project.app~").touch()
    refresh(hinting)
    assert bands(hinting) == {uid: [5]}
    pause.touch()
    refresh(hinting)
    assert bands(hinting) == {}
    pause.unlink()
    assert refresh(hinting) == 1


def test_a_project_that_cannot_be_used_counts_as_paused(world: World, hinting: Hinting) -> None:
    world.add(id="a")
    hinting.index.sweep()
    hinting.read_control(frozenset({"app"}))
    hinting.rebuild()
    hinting.update()
    assert bands(hinting) == {}


# ---- backoff, overlap ------------------------------------------------------------------------------------------------


def test_an_item_in_backoff_gets_its_hint_when_it_is_time_and_somebody_is_rung(
    world: World, hinting: Hinting
) -> None:
    uid = world.add(id="a")
    owned = world.claim(uid)
    record = end_record(1, Outcome.FAILED, not_before=rfc3339(world.clock.wall() + 30))
    world.run(attempts.end(world.me, owned, record))
    assert refresh(hinting) == 0
    assert bands(hinting) == {}
    assert hinting.next_change is not None
    assert abs(hinting.next_change - (world.clock.monotonic() + 30)) < 0.01
    world.clock.advance(31)
    assert hinting.update() == 1
    assert bands(hinting) == {uid: [5]}


def test_of_two_items_with_the_same_files_the_second_is_hinted_when_the_first_is_over(
    world: World, hinting: Hinting
) -> None:
    first, second = world.add(id="a", files=["src/**"]), world.add(id="b", files=["src/x.py"])
    refresh(hinting)
    hinted = next(iter(bands(hinting)))
    other = second if hinted == first else first
    n = world.submit(hinted)
    refresh(hinting)
    assert bands(hinting) == {}
    world.judge(hinted, n)
    world.finish(hinted)
    assert refresh(hinting) == 1
    assert list(bands(hinting)) == [other]


# ---- what is wrong on disk -------------------------------------------------------------------------------------------


def test_hints_that_are_double_stale_or_for_nobody_are_removed(world: World, hinting: Hinting) -> None:
    uid, running = world.add(id="a"), world.add(id="b")
    world.claim(running)
    stranger = Hints(world.layout)
    for band, name in ((5, uid), (2, uid), (5, running), (0, "gone-0000000000")):
        Hints(world.layout).add(name, band)
    assert len(stranger.all()) == 3
    refresh(hinting)
    assert bands(hinting) == {uid: [5]}


def test_a_hint_that_another_process_made_in_the_wrong_band_is_moved(world: World, hinting: Hinting) -> None:
    """A merger that returns a boosted item hints it by its own priority."""
    uid = world.add(id="a")
    (boosts(world) / uid).write_text("0")
    refresh(hinting)
    hinting.hints.drop(hinting.hints.all()[uid][0][1])
    Hints(world.layout).add(uid, 5)
    refresh(hinting)
    assert bands(hinting) == {uid: [0]}

"""What people ask for in state/control/, carried into hints; and hints that are wrong, put right by the sweep."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from harness.clock import rfc3339
from harness.coordinator.hinting import Hinting
from harness.coordinator.index import Index
from harness.model import Outcome
from harness.store import attempts
from harness.store.disk import Disk
from harness.store.hints import Hints
from tests.stores import World, end_record
from tests.support import make_root

UIDS = st.sampled_from([f"uid-{k}" for k in range(8)])


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


def test_the_draft_of_a_boost_is_neither_one_nor_removed(world: World, hinting: Hinting) -> None:
    """Who writes it is about to rename it."""
    world.add(id="a")
    draft = boosts(world) / ".a.0123.tmp"
    draft.write_text("0\n")
    refresh(hinting)
    assert hinting.boosts == {}
    assert draft.exists()


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


# ---- laws of hints ---------------------------------------------------------------------------------------------------


class Folders(RuleBasedStateMachine):
    """A coordinator that adds and tidies, and workers that find and remove; `there` is what must be found."""

    def __init__(self) -> None:
        super().__init__()
        self._base = TemporaryDirectory()
        self.layout = make_root(Path(self._base.name))
        self.adder = Hints(self.layout)
        self.finders = [Hints(self.layout, start=k) for k in range(3)]
        self.there: dict[str, int] = {}

    @rule(uid=UIDS, band=st.integers(0, 9), ahead=st.integers(0, 3))
    def add(self, uid: str, band: int, ahead: int) -> None:
        if uid not in self.there or uid in self.adder._where:  # another's is replaced by the sweep alone
            self.adder.add(uid, band, ahead)
            self.there[uid] = band

    @rule(uid=UIDS)
    def remove(self, uid: str) -> None:
        if uid in self.adder._where:
            self.adder.remove(uid)
            self.there.pop(uid, None)

    @rule(who=st.integers(0, 2))
    def claim_first(self, who: int) -> None:
        uid = next(iter(self.finders[who].find()), None)
        assert (uid is None) == (not self.there)
        if uid is not None:
            assert self.there[uid] == min(self.there.values())
            del self.there[uid]
            self.finders[who].remove(uid)

    @rule()
    def tidy(self) -> None:
        self.adder.tidy()

    @rule(who=st.integers(0, 2))
    def find_all(self, who: int) -> None:
        found = list(self.finders[who].find(limit=1000))
        assert sorted(found) == sorted(self.there)  # everything, once
        assert [self.there[uid] for uid in found] == sorted(self.there.values())  # better bands first

    @invariant()
    def listed_once(self) -> None:
        places = self.adder.all()
        assert {uid: [band for band, _ in p] for uid, p in places.items()} == {
            u: [b] for u, b in self.there.items()
        }

    def teardown(self) -> None:
        self._base.cleanup()


TestFolders = Folders.TestCase
TestFolders.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)


def test_a_backlog_longer_than_a_window_is_found_to_the_end(world: World) -> None:
    adder, finder = Hints(world.layout), Hints(world.layout, start=5)
    names = {f"i-{k:04d}" for k in range(1500)}
    for name in sorted(names):
        adder.add(name, 5)
    found: list[str] = []
    while window := list(finder.find()):
        found += window
        for name in window:
            finder.remove(name)
    assert sorted(found) == sorted(names)
    adder.tidy()
    assert len(os.listdir(world.layout.queue / "ready" / "5")) == 1


@pytest.mark.parametrize("times", [1, 2])
def test_a_folder_that_is_tidied_away_between_its_making_and_the_hint_is_made_again(
    world: World, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    adder, other = Hints(world.layout), Hints(world.layout)
    (world.layout.queue / "ready" / "5" / "00000009").mkdir(parents=True)  # not the newest: may be tidied
    adder._generation[5], adder._count[5] = 3, 0
    left = [times]
    makedirs = os.makedirs

    def tidied(folder: str, mode: int = 0o777, exist_ok: bool = False) -> None:
        makedirs(folder, mode, exist_ok=exist_ok)
        if left[0]:
            left[0] -= 1
            other.tidy()

    monkeypatch.setattr(os, "makedirs", tidied)
    adder.add("a", 5)
    if times == 1:
        assert list(other.find()) == ["a"]
    else:
        assert list(other.find()) == []  # given up politely: the sweep makes it again
        adder.add("a", 5)
        assert list(other.find()) == ["a"]


def test_a_full_disk_loses_a_hint_and_ends_nobody(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for call in ("open", "makedirs", "link"):
        with monkeypatch.context() as m:
            m.setattr(os, call, full)
            Hints(world.layout).add(f"no-room-for-{call}", 5)
    assert Hints(world.layout).all() == {}


def test_a_hint_is_a_name_of_its_item_and_makes_no_inode(world: World) -> None:
    uid = world.add(id="a")
    hints = Hints(world.layout)
    hints.add(uid, 3)
    item = world.layout.queue / "open" / uid / "item.json"
    ((_, path),) = [p for p in hints.all()[uid] if p[0] == 3]
    assert os.path.samefile(path, item)


def test_of_many_who_found_a_hint_one_takes_it(world: World) -> None:
    Hints(world.layout).add("a", 5)
    finders = [Hints(world.layout) for _ in range(3)]
    assert [list(f.find()) for f in finders] == [["a"]] * 3
    assert [f.take("a") for f in finders] == [True, False, False]
    assert not finders[0].take("never found")


def test_a_hint_that_is_moved_is_never_nowhere(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new one is made before the old one is removed: who looks in between finds it, perhaps twice."""
    adder, finder = Hints(world.layout), Hints(world.layout)
    adder.add("a", 5)
    unlink = os.unlink
    seen: list[list[str]] = []

    def look(path: str, **more: Any) -> None:
        seen.append(list(finder.find()))
        unlink(path, **more)

    monkeypatch.setattr(os, "unlink", look)
    adder.add("a", 2)
    assert seen == [["a", "a"]]
    assert list(finder.find()) == ["a"]

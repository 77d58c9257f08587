"""Hints: found in order, spread when there are many, and never in the way."""

from __future__ import annotations

import os

import pytest

from harness.layout import Layout
from harness.store.hints import GENERATION, WINDOW, Hints
from harness.store.setup import make_folders


@pytest.fixture
def hints(layout: Layout) -> Hints:
    make_folders(layout, durable=False)
    return Hints(layout)


def test_hints_are_found_by_band_then_by_age(hints: Hints) -> None:
    for uid, band in (("c", 5), ("a", 2), ("d", 5), ("b", 2), ("e", 9), ("f", 0)):
        hints.add(uid, band)
    assert list(hints.find()) == ["f", "a", "b", "c", "d", "e"]


def test_a_long_chain_of_waiting_items_comes_first_in_its_band(hints: Hints) -> None:
    hints.add("short", 5)
    hints.add("long", 5, ahead=7)
    assert list(hints.find()) == ["long", "short"]


def test_a_hint_is_added_once_and_moves_with_its_band(hints: Hints) -> None:
    hints.add("a", 5)
    hints.add("a", 1)
    assert [band for band, _ in hints.all()["a"]] == [1]


def test_a_hint_that_was_found_can_be_removed_by_its_finder(hints: Hints, layout: Layout) -> None:
    hints.add("a", 5)
    other = Hints(layout)
    assert list(other.find()) == ["a"]
    other.remove("a")
    assert list(hints.find()) == []
    hints.remove("a")  # gone already


def test_a_band_outside_of_the_range_is_brought_into_it(hints: Hints) -> None:
    hints.add("a", -3)
    hints.add("b", 77)
    assert [(u, p[0][0]) for u, p in sorted(hints.all().items())] == [("a", 0), ("b", 9)]


def test_a_small_backlog_is_in_one_shard_and_a_large_one_is_spread(hints: Hints) -> None:
    for k in range(WINDOW * 3):
        hints.add(f"u-{k}", 5)
    shards = {path.split("/")[-2] for places in hints.all().values() for _, path in places}
    assert len(shards) > 1
    assert len(set(hints.find(limit=1000))) == WINDOW * 3


def test_a_window_bounds_what_is_read_of_each_shard(hints: Hints) -> None:
    for k in range(WINDOW):
        hints.add(f"u-{k}", 5)
    assert len(list(hints.find(limit=10))) == 10


def test_a_new_generation_is_opened_by_count_and_the_empty_old_one_removed(
    hints: Hints, layout: Layout
) -> None:
    for k in range(GENERATION + 1):
        hints.add(f"u-{k}", 5)
    band = layout.queue / "ready" / "5"
    assert sorted(os.listdir(band)) == ["00000000", "00000001"]
    hints.tidy()
    assert len(os.listdir(band)) == 2  # not empty
    for k in range(GENERATION):
        hints.remove(f"u-{k}")
    hints.tidy()
    assert os.listdir(band) == ["00000001"]
    assert list(hints.find()) == [f"u-{GENERATION}"]
    later = Hints(layout)
    later.add("new", 5)
    assert os.listdir(band) == ["00000001"]


def test_generations_are_listed_again_only_when_there_may_be_another_one(
    hints: Hints, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    hints.add("a", 5)
    band = layout.queue / "ready/5"
    reader = Hints(layout)
    listed: list[str] = []
    real = os.listdir

    def listdir(path: str) -> list[str]:
        listed.append(path)
        return real(path)

    monkeypatch.setattr(os, "listdir", listdir)

    def look() -> tuple[set[str], int]:
        """-> (what is found, how often the generations were listed for it)"""
        listed.clear()
        return set(reader.find()), listed.count(str(band))

    assert [look(), look()] == [({"a"}, 1), ({"a"}, 1)]  # it may change again in the same moment
    os.utime(band, (1e9, 1e9))
    assert [look(), look()] == [({"a"}, 1), ({"a"}, 0)]
    hints.add("b", 5)
    assert look() == ({"a", "b"}, 0)
    for _ in range(GENERATION):
        hints.add("c", 5)
    assert (band / "00000001").is_dir()
    assert look() == ({"a", "b", "c"}, 1)
    hints.remove("a")
    hints.remove("b")
    hints.tidy()
    assert look() == ({"c"}, 1)


def test_each_process_looks_into_its_own_shard_first(hints: Hints, layout: Layout) -> None:
    for k in range(WINDOW * 4):
        hints.add(f"u-{k}", 5)
    firsts = {next(Hints(layout, start).find()) for start in range(8)}
    assert len(firsts) > 1


def test_a_strangers_files_among_the_hints_are_passed_over(hints: Hints, layout: Layout) -> None:
    (layout.queue / "ready" / "5").write_text("a file in the place of a band")
    (layout.queue / "ready" / "6" / "00000000" / "0").mkdir(parents=True)
    (layout.queue / "ready" / "6" / "00000000" / "0" / "notes").touch()
    (layout.queue / "ready" / "6" / "readme").touch()
    assert list(hints.find()) == []


def test_a_hint_is_dropped_by_its_path(hints: Hints) -> None:
    hints.add("a", 5)
    ((_, path),) = hints.all()["a"]
    hints.drop(path)
    assert hints.all() == {}
    hints.remember("a", path)
    hints.remove("a")

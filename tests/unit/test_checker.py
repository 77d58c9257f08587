"""The checker of the storms finds what is wrong: one that finds nothing proves nothing."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import checker
from benchmarks.tables import percentile

UID = "a-0123456789"
SHA, MERGE = "1" * 40, "2" * 40


@pytest.fixture
def queue(tmp_path: Path) -> Path:
    """One item: expired, then done and merged, archived with its stub."""
    queue = tmp_path / "queue"
    for name in ("incoming", "waiting", "open", "rejected", "tmp", "ready", "done/aa"):
        (queue / name).mkdir(parents=True)
    home = queue / "archive" / "2027-01-15" / UID
    home.mkdir(parents=True)
    put(home / "item.json", uid=UID, id="a")
    put(home / "1.claim", n=1)
    put(home / "1.end", n=1, outcome="expired")
    put(home / "2.claim", n=2)
    put(home / "2.end", n=2, outcome="done", sha=SHA)
    put(home / "2.verdict", n=2, merged=MERGE)
    put(queue / "done" / "aa" / UID, uid=UID)
    return queue


def put(path: Path, **record: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"v": 1, **record}))
    return path


def found(queue: Path, cancelled: tuple[str, ...] = ()) -> list[str]:
    wrong: list[str] = []
    items = list(checker._archived(queue, wrong))
    wrong += checker._queue(queue)
    wrong += checker._once(items, {"a": "work/a.txt"})
    return [*wrong, *checker._lives(queue, items, cancelled)]


def test_a_life_in_order_is_right(queue: Path) -> None:
    assert found(queue) == []
    assert checker.outcomes(queue, UID) == ["expired", "done"]


@pytest.mark.parametrize("when", ["while it waited", "while it ran", "while it was being merged"])
def test_an_item_that_was_cancelled_is_right_when_somebody_asked_for_it(queue: Path, when: str) -> None:
    (home(queue) / "2.verdict").unlink()
    if when == "while it was being merged":
        put(home(queue) / "2.verdict", n=2, cancelled="me")
    elif when == "while it ran":
        put(home(queue) / "2.end", n=2, outcome="cancelled")
    else:
        for path in home(queue).glob("[12].*"):
            path.unlink()
        put(home(queue) / "0.end", n=0, outcome="cancelled")
    assert found(queue, ("a",)) == []
    assert found(queue) == ["a: cancelled, and nobody asked for it"]


def test_an_empty_folder_of_a_killed_take_is_given_an_hour_and_a_drop_in_it_is_not(queue: Path) -> None:
    folder = queue / "incoming" / UID
    folder.mkdir()
    assert found(queue) == []
    os.utime(folder, (0, 0))
    assert found(queue) == [f"left in incoming/: {UID}"]
    os.utime(folder)
    (folder / "raw.x.json").write_text("{}")
    assert found(queue) == [f"left in incoming/: {UID}"]


def test_a_coordinator_that_was_killed_is_started_again_and_one_that_gave_up_is_not() -> None:
    assert list(checker._ends([-9, 0, 1, 4, 75])) == []
    assert len(list(checker._ends([-9, 78, 2]))) == 2


@pytest.mark.parametrize("name", ["selftest.0123456789ab", "selftest.0123456789ab.link", "format.01234567"])
def test_what_a_start_that_was_killed_left_is_given_an_hour(queue: Path, name: str) -> None:
    left = queue / "tmp" / name
    left.touch()
    assert found(queue) == []
    os.utime(left, (0, 0))
    assert found(queue) == [f"left in tmp/: {name}"]


def home(queue: Path) -> Path:
    return queue / "archive" / "2027-01-15" / UID


MUTANTS: dict[str, Callable[[Path], object]] = {
    "a number is missing": lambda q: shutil.move(home(q) / "1.claim", q.parent),
    "a claim has no end": lambda q: put(home(q) / "3.claim", n=3),
    "life goes on after it was merged": lambda q: (
        put(home(q) / "3.claim", n=3),
        put(home(q) / "3.end", n=3, outcome="failed"),
    ),
    "it is done twice": lambda q: put(home(q) / "1.end", n=1, outcome="done"),
    "it was returned and archived": lambda q: put(home(q) / "2.verdict", n=2, returned="conflict"),
    "there is no verdict": lambda q: (home(q) / "2.verdict").unlink(),
    "a cell is torn": lambda q: (home(q) / "2.end").write_text('{"v": 1, "n"'),
    "there is no stub": lambda q: (q / "done" / "aa" / UID).unlink(),
    "it is still open": lambda q: home(q).rename(q / "open" / UID),
    "it is there twice": lambda q: put(q / "archive/2027-01-16/a-2/item.json", uid="a-2", id="a"),
    "something is left in tmp": lambda q: (q / "tmp" / "x.1.end").touch(),
    "a drop was not taken": lambda q: (q / "late.json").touch(),
}


@pytest.mark.parametrize("what", MUTANTS)
def test_what_is_planted_is_found(queue: Path, what: str) -> None:
    MUTANTS[what](queue)
    assert found(queue)


def test_a_percentile_is_a_value_that_was_measured() -> None:
    assert percentile([3.0, 1.0, 2.0], 50) == 2.0
    assert percentile([1.0, 2.0], 50) == 1.0
    assert percentile([float(k) for k in range(1, 101)], 99) == 99.0
    assert percentile([5.0], 99) == 5.0

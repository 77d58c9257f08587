"""What was tried once is not tried again, until something that it depends on is different."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from harness import mechanisms, probing
from harness.mechanisms import Finding, Offer

FOUND = Offer(
    cgroup=Path("/sys/fs/cgroup/x"),
    namespaces=("pid", "mount"),
    landlock_abi=4,
    bwrap=True,
    findings=(Finding(name="Landlock", available=True, detail="ABI 4"),),
)


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each time that the machine was tried."""
    made: list[int] = []

    def offer() -> Offer:
        made.append(1)
        return FOUND

    monkeypatch.setattr(mechanisms, "offer", offer)
    return made


def test_the_second_process_reads_what_the_first_one_found(tmp_path: Path, tries: list[int]) -> None:
    assert probing.offer(tmp_path / "m.json") == FOUND
    assert probing.offer(tmp_path / "m.json") == FOUND
    assert len(tries) == 1
    assert os.listdir(tmp_path) == ["m.json"]


def test_without_a_cache_the_machine_is_tried_each_time(tries: list[int]) -> None:
    probing.offer()
    probing.offer()
    assert len(tries) == 2


@pytest.mark.parametrize("what", ["boot", "CapEff", "kernel", "user namespace", "bwrap"])
def test_it_is_tried_again_when_something_that_it_depends_on_has_changed(
    tmp_path: Path, tries: list[int], what: str
) -> None:
    cache = tmp_path / "m.json"
    probing.offer(cache)
    data = json.loads(cache.read_text())
    assert what in data["circumstances"]
    data["circumstances"][what] += "x"
    cache.write_text(json.dumps(data))
    probing.offer(cache)
    assert len(tries) == 2


def test_it_is_tried_again_after_a_day(tmp_path: Path, tries: list[int]) -> None:
    cache = tmp_path / "m.json"
    probing.offer(cache)
    old = time.time() - probing.MAX_AGE_S - 1
    os.utime(cache, (old, old))
    probing.offer(cache)
    assert len(tries) == 2


@pytest.mark.parametrize("text", ["", "{", "[]", '{"v": 2}', '{"v": 1, "circumstances": {}}'])
def test_a_cache_that_says_nothing_sensible_is_replaced(tmp_path: Path, tries: list[int], text: str) -> None:
    cache = tmp_path / "m.json"
    cache.write_text(text)
    assert probing.offer(cache) == FOUND
    assert json.loads(cache.read_text())["v"] == 1


def test_a_cache_that_cannot_be_written_is_no_failure(tmp_path: Path, tries: list[int]) -> None:
    assert probing.offer(tmp_path / "nowhere" / "m.json") == FOUND


def test_the_circumstances_of_one_process_are_the_same_each_time() -> None:
    assert probing.circumstances() == probing.circumstances()

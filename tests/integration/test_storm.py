"""The real daemon in a storm of kills and stops, then everything is counted: `./scripts/storm` does the same for hours."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.storm import Blows, storm


@pytest.mark.timeout(600)
def test_kills_and_stops_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    """What fails names its seed, and keeps its folder."""
    _, blown = storm(
        tmp_path,
        items=12,
        kills=35,
        stops=15,
        seed=random.randrange(1_000_000),
        gap_s=0.2,
        aim=(7, 2, 1),
        workers=3,
        durability="process",
        commands=False,
        on_the_way=6,
        files=20,
        timeout_s=240,
    )
    assert blown.killed.fallen == {"worker": 25, "coordinator": 7, "merger": 3}
    assert blown.stopped.fallen == {"worker": 11, "coordinator": 3, "merger": 1}
    assert list(tmp_path.iterdir()) == []


def test_blows_fall_as_they_are_aimed_and_evenly() -> None:
    blows = Blows.shared(100, (7, 2, 1))
    dice = random.Random(1)
    while blows.left:
        blows.fallen[blows.role(dice)] += 1
        share = blows.fallen.total() / 100
        assert all(blows.fallen[role] <= share * n + 2 for role, n in blows.wanted.items())
    assert blows.fallen == Counter({"worker": 70, "coordinator": 20, "merger": 10})

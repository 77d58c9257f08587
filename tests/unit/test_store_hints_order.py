"""In which order hints are found: a simulation. Nobody starves, and who is overtaken is so by a bounded number.

A folder gives its names in an order of its own, so what a worker sees of a large shard is any `WINDOW` of its names. The
worst order is the newest first (tmpfs). What bounds it is the generation: after so many hints a new one is opened, and
old ones are looked into first.
"""

from __future__ import annotations

import itertools
import os
import random
import time
import zlib
from collections.abc import Callable

import pytest

from harness.layout import Layout
from harness.store import hints
from harness.store.hints import GENERATION, WINDOW, Hints

ORDERS: dict[str, Callable[[list[str]], list[str]]] = {
    "oldest first": sorted,
    "newest first": lambda names: sorted(names, reverse=True),
    "any": lambda names: random.Random(len(names)).sample(sorted(names), len(names)),
}
BAND = 5


@pytest.fixture(params=ORDERS)
def world(request: pytest.FixtureRequest, layout: Layout, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """Folders that list their names in one of the orders; a clock that counts; the same shards in every run."""
    listed = ORDERS[request.param]
    ticks = itertools.count(1_000)
    monkeypatch.setattr(hints, "_window", lambda folder, limit: listed(os.listdir(folder))[:limit])
    monkeypatch.setattr(time, "time_ns", lambda: next(ticks) * 1_000_000)
    monkeypatch.setattr(hints, "hash", lambda uid: zlib.crc32(uid.encode()), raising=False)
    return layout


def worked_off(layout: Layout, backlog: int, stream: int, workers: int = 1) -> list[int]:
    """`backlog` items, then `stream` more, each of which comes when one is taken; then the rest. -> the order of taking"""
    adder = Hints(layout)
    takers = itertools.cycle([Hints(layout, start=3 * k) for k in range(workers)])
    coming, taken = iter(range(backlog + stream)), list[int]()
    for k in itertools.islice(coming, backlog):
        adder.add(f"i-{k}", BAND)
    while len(taken) < backlog + stream:
        worker = next(takers)
        uid = next(worker.find())
        assert worker.take(uid)
        taken.append(int(uid.partition("-")[2]))
        for k in itertools.islice(coming, 1):
            adder.add(f"i-{k}", BAND)
        adder.tidy()
    return taken


def overtaken(taken: list[int]) -> int:
    """By how many that came later was the unluckiest passed?"""
    when = {k: place for place, k in enumerate(taken)}
    return max(sum(when[later] < when[k] for later in range(k + 1, len(taken))) for k in range(len(taken)))


def test_a_backlog_that_fits_into_a_window_is_worked_off_in_its_order(world: Layout) -> None:
    taken = worked_off(world, backlog=WINDOW // 2, stream=0)
    assert taken == sorted(taken)


@pytest.mark.parametrize("workers", [1, 3])
def test_a_steady_stream_does_not_starve_those_who_came_before(world: Layout, workers: int) -> None:
    """Work comes exactly as fast as it is done, so a large backlog never ends; everybody's turn comes all the same."""
    taken = worked_off(world, backlog=GENERATION // 2, stream=GENERATION, workers=workers)
    assert sorted(taken) == list(range(len(taken)))
    assert overtaken(taken) < GENERATION


def test_a_worker_overtakes_nobody_within_the_window_that_it_sees(world: Layout) -> None:
    adder, worker = Hints(world), Hints(world)
    for k in range(WINDOW):
        adder.add(f"i-{k}", BAND)
    assert list(worker.find()) == [f"i-{k}" for k in range(WINDOW)]
    adder.add("urgent", BAND - 1)
    assert next(worker.find()) == "urgent"

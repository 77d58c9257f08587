"""Ten processes and one item, at the same moment: `./scripts/contention` does the same a million times."""

from __future__ import annotations

from collections import Counter

from benchmarks.contention import races
from harness.layout import Layout
from harness.store.setup import open_store


def test_of_ten_processes_that_link_at_once_exactly_one_owns_the_item(layout: Layout) -> None:
    open_store(layout, durable=False)
    (*_, total) = races(layout, 1_000, 10)
    assert total.races == 1_000
    assert total.winners == Counter({1: 1_000})
    assert total.wrong_cell == 0

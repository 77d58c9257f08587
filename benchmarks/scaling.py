"""Three workers against one: 24 items of two seconds of sleep."""

from __future__ import annotations

import math
from pathlib import Path

from benchmarks.fleet import Fleet
from benchmarks.tables import Row, note, percentile

WORKERS = 3


def speedup(where: Path, quick: bool) -> list[Row]:
    """The time from the drop of a plan to its last end, in turn; nobody else uses the processors meanwhile."""
    items, repeats = (9, 1) if quick else (24, 3)
    taken: dict[int, list[float]] = {1: [], WORKERS: []}
    for k in range(repeats):
        for workers in (1, WORKERS) if k % 2 else (WORKERS, 1):
            taken[workers].append(_run(where, workers, items))
            note(f"{items} items of 2 s, {workers} workers: {taken[workers][-1]:.2f} s")
    one, many = (percentile(taken[w], 50) for w in (1, WORKERS))
    possible = items / math.ceil(items / WORKERS)
    reached = 100 * (one / many) / possible
    return [
        Row(
            check=f"{WORKERS} workers against 1, {items} items of 2 s of sleep, median of {repeats}",
            wanted="≥ 98 % of the possible",
            measured=f"{one:.1f} s / {many:.1f} s = {one / many:.2f}, {reached:.1f} % of {possible:g}",
            reached=reached >= 98,
        )
    ]


def _run(where: Path, workers: int, items: int) -> float:
    with Fleet(where, workers=workers, gates=0) as fleet:
        fleet.start()
        fleet.events.watch()
        for k in range(workers):  # every worker has its worktree, so that only the work is compared
            fleet.drop(f"warm{k}", {"prompt": "sleep 1", "commit": "none"})
        fleet.until(lambda: fleet.finished() == workers, 60, "the pool is warm")
        fleet.until(lambda: all(r["state"] == "idle" for r in fleet.reports().values()), 30, "idle")
        start = len(fleet.events.seen)
        dropped = fleet.drop(
            "plan", [{"id": f"s{k}", "prompt": "sleep 2", "commit": "none"} for k in range(items)]
        )
        ended = 0
        at = dropped
        while ended < items:
            at, _ = fleet.events.wait(lambda e: e["event"] == "attempt_ended", 120, start)
            start = next(k for k in range(start, len(fleet.events.seen)) if fleet.events.seen[k][0] >= at) + 1
            ended = sum(
                e["event"] == "attempt_ended" and e["id"].startswith("s") for _, e in fleet.events.seen
            )
        return at - dropped

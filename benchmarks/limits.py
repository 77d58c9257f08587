"""A usage limit in the middle of the work: how late does it go on after the reset, and what has it cost?"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.checker import outcomes
from benchmarks.fleet import Fleet
from benchmarks.tables import Row, note, percentile
from tests.limited import agent, limited, starts

ITEMS, WORKERS, LASTS_S = 10, 3, 5.0


def limits(where: Path, quick: bool) -> list[Row]:
    """Ten items, three workers; the fifth start meets a limit that says when it ends."""
    rounds = 1 if quick else 10
    late: list[float] = []
    ends: Counter[str] = Counter()
    for _ in range(rounds):
        moment, found = _once(where)
        late.append(moment)
        ends += found
    note(f"from the reset to the first start, s: {', '.join(f'{x:.2f}' for x in sorted(late))}")
    merged, given_back = ends.pop("done"), ends.pop("released")
    return [
        Row(
            check=f"{ITEMS} items, {WORKERS} workers, a usage limit in the middle, {rounds} times",
            wanted="0 attempts spent on it, all merged, waiting ends within 2 s of the reset",
            measured=f"{ends.total()} attempts spent, {given_back} given back, {merged} merged; the next start p50"
            f" {percentile(late, 50):.2f} s, max {max(late):.2f} s after the reset",
            reached=not ends and merged == rounds * ITEMS and max(late) < 2,
        )
    ]


def _once(where: Path) -> tuple[float, Counter[str]]:
    """-> (seconds from the reset to the next start of an agent, how the attempts ended)"""
    with TemporaryDirectory(prefix="harness-bench.", dir=where) as base:
        place = Path(base) / "limited"
        limited(place, at=5, lasts_s=LASTS_S)
        return _run(where, place)


def _run(where: Path, place: Path) -> tuple[float, Counter[str]]:
    with Fleet(where, workers=WORKERS, gates=0, agents={"shell": agent(place)}, sandbox="none") as fleet:
        fleet.start(wait_for=WORKERS)
        fleet.drop("ten", [{"id": f"i{k}", "prompt": "do it"} for k in range(ITEMS)])
        fleet.until(lambda: fleet.finished() == ITEMS, 120, "all are archived")
        reset = float((place / "until").read_text())
        folders = fleet.queue.glob("archive/*/*")
        ended = Counter(end for folder in folders for end in outcomes(fleet.queue, folder.name))
    late = [float(at) - reset for at, *_ in starts(place) if float(at) > reset]
    return min(late), ended

"""Many processes, one item: exactly one of them may own it, every time.

    ./scripts/contention [--races N] [--processes P] [--dir DIR]

Each race is forced: every process runs the product's claim up to its link(2), all wait for each other (once for some
races), and then all link. Who won is counted from two sides: by what the processes were told, and by the cell that is on disk.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from harness.clock import SystemClock
from harness.layout import Layout
from harness.model import Claim, CommitPolicy, Identity, Item
from harness.store import attempts
from harness.store.attempts import Claimed
from harness.store.cells import Actor
from harness.store.disk import Disk
from harness.store.setup import open_store

CHUNK = 2_000
"""Items that are made, raced for and removed at a time."""
AT_ONCE = 16
"""Races for which all processes wait for each other once: a barrier costs as much as a claim."""


@dataclass(slots=True)
class Races:
    """What came out."""

    races: int = 0
    winners: Counter[int] | None = None
    """how many winners a race had -> how many races"""
    wrong_cell: int = 0
    """The cell names somebody else than the process that was told that it won."""
    seconds: float = 0.0

    @property
    def holds(self) -> bool:
        return self.winners == Counter({1: self.races}) and not self.wrong_cell


def _item(layout: Layout, uid: str) -> None:
    home = layout.queue / "open" / uid
    home.mkdir()
    record = Item(uid=uid, id=uid, prompt="p", project="app", commit=CommitPolicy.NONE)
    (home / "item.json").write_bytes(record.to_bytes())


def _racer(layout: Layout, k: int, uids: list[str], barrier: Barrier, out: Any) -> None:
    name = f"agent-{k}"
    me = Actor(Identity(incarnation=f"{name}.{os.getpid()}.x", name=name, pid=os.getpid()))
    disk = Disk(layout, SystemClock(), durable=False)
    won: list[str] = []
    for first in range(0, len(uids), AT_ONCE):
        ready = []
        for uid in uids[first : first + AT_ONCE]:
            step = attempts.claim(me, uid)
            op = next(step)
            while op[0] != "link":  # nobody links before all are here, so each comes to its link
                op = step.send(disk.apply(op))
            ready.append((uid, step, op))
        barrier.wait()
        for uid, step, link in ready:
            op = link
            try:
                while True:
                    op = step.send(disk.apply(op))
            except StopIteration as stop:
                if isinstance(stop.value, Claimed):
                    won.append(uid)
                    disk.do_unlock(stop.value.ticket)
    out.put((me.identity.incarnation, won))
    disk.close()


def races(layout: Layout, count: int, processes: int) -> Iterator[Races]:
    """Run them in chunks. -> what came out so far, after each chunk"""
    context = multiprocessing.get_context("fork")
    total = Races(winners=Counter())
    assert total.winners is not None
    disk = Disk(layout, SystemClock(), durable=False)
    while total.races < count:
        uids = [f"r-{total.races + k:010d}" for k in range(min(CHUNK, count - total.races))]
        for uid in uids:
            _item(layout, uid)
        barrier, out = context.Barrier(processes), context.Queue()
        began = time.monotonic()
        racers = [
            context.Process(target=_racer, args=(layout, k, uids, barrier, out)) for k in range(processes)
        ]
        for p in racers:
            p.start()
        told = [out.get() for _ in racers]
        for p in racers:
            p.join()
        total.seconds += time.monotonic() - began
        winners = Counter(uid for _, won in told for uid in won)
        owner = {uid: incarnation for incarnation, won in told for uid in won}
        for uid in uids:
            total.winners[winners[uid]] += 1
            cell = disk.do_read(f"queue/open/{uid}/1.claim", Claim)
            total.wrong_cell += not isinstance(cell, Claim) or cell.owner.incarnation != owner.get(uid)
            shutil.rmtree(layout.queue / "open" / uid)
        total.races += len(uids)
        yield total
    disk.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/contention", description=__doc__.splitlines()[0])
    parser.add_argument("--races", type=int, default=1_000)
    parser.add_argument("--processes", type=int, default=10)
    parser.add_argument(
        "--dir", type=Path, default=Path("/dev/shm" if os.access("/dev/shm", os.W_OK) else "/var/tmp")
    )
    args = parser.parse_args()
    base = Path(tempfile.mkdtemp(prefix="harness-contention.", dir=args.dir))
    try:
        layout = Layout(base.resolve())
        open_store(layout, durable=False)
        total = Races()
        for total in races(layout, args.races, args.processes):
            print(f"  {total.races:,} races, {dict(total.winners or {})} winners", file=sys.stderr)
        print(
            f"{total.races:,} races of {args.processes} processes for one item, all at its link(2), in {total.seconds:.0f} s: "
            + ("one winner each" if total.holds else f"WRONG: {total}")
        )
    finally:
        shutil.rmtree(base)
    return 0 if total.holds else 1


if __name__ == "__main__":
    sys.exit(main())

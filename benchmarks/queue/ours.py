"""Our own store as a queue of jobs that do nothing: enqueue, then claim and complete with W worker processes.

Exactly-once is counted, not assumed: every worker reports what it ran, and every item must be there once.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from benchmarks.tables import Row, note
from harness.clock import SystemClock
from harness.layout import Layout
from harness.model import End, Identity, Outcome
from harness.store import admission, attempts
from harness.store.attempts import Claimed
from harness.store.cells import Actor
from harness.store.disk import Disk
from harness.store.dropbox import DropBox
from harness.store.drops import Context
from harness.store.hints import Hints
from harness.store.setup import open_store

CONTEXT = Context(projects={"app": ("shell",)}, agents=("shell",), max_bytes=1 << 30)
DAY = "2027-01-15"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one run gave. Times in seconds."""

    enqueue_s: float
    work_s: float
    items: int
    claims_lost: int
    doubles: int
    missing: int


class Store:
    """A fresh store below a folder, and processes of it."""

    def __init__(self, folder: Path, *, durable: bool) -> None:
        self.layout = Layout(folder.resolve())
        self.durable = durable
        open_store(self.layout, durable=durable)

    def actor(self, name: str) -> Actor:
        return Actor(
            Identity(incarnation=f"{name}.{os.getpid()}.x", name=name, host="here", root="r", pid=os.getpid())
        )

    def disk(self, start: int = 0) -> Disk:
        clock = SystemClock()
        box = DropBox(self.layout, clock, lambda: CONTEXT)
        return Disk(self.layout, clock, durable=self.durable, dropbox=box, hints=Hints(self.layout, start))

    def enqueue(self, n: int, *, at_once: int = 10_000) -> float:
        """Drop and admit n items in `.jsonl` files. -> seconds of the admission"""
        job = json.dumps({"prompt": "nothing", "commit": "none"})
        disk, me, spent, left = self.disk(), self.actor("admitter"), 0.0, n
        while left:
            many = min(left, at_once)
            left -= many
            tmp = self.layout.queue / ".drop"
            tmp.write_text((job + "\n") * many)
            assert disk.dropbox is not None
            disk.dropbox.arrived_whole(f"d{left}.jsonl")
            tmp.rename(self.layout.queue / f"d{left}.jsonl")
            began = time.perf_counter()
            for home, _ in disk.run(admission.take()):
                got = disk.run(admission.admit(me, home, CONTEXT, DAY))
                assert len(got.items) == many, got
            spent += time.perf_counter() - began
        disk.close()
        return spent


def _work(store: Store, k: int, barrier: Barrier, out: Any) -> None:
    disk, me = store.disk(k), store.actor(f"agent-{k}")
    ran: list[str] = []
    lost = 0
    barrier.wait()
    began = time.perf_counter()
    while True:
        found = False
        for uid in disk.hints.find():
            if not disk.hints.take(uid):
                continue
            got = disk.run(attempts.claim(me, uid))
            if not isinstance(got, Claimed):
                lost += 1
                continue
            found = True
            ran.append(uid)
            end = End(n=got.n, outcome=Outcome.DONE, by=me.name, ended_at=f"{DAY}T12:00:00Z")
            disk.run(attempts.end(me, got, end))
            disk.run(attempts.archive(uid, end))
        if not found:
            break
    out.put((ran, lost, began, time.perf_counter()))
    disk.close()


def run(folder: Path, *, durable: bool, workers: int, items: int, keep: bool = False) -> Run:
    """One run on a fresh store below `folder`, which is removed, unless `keep`."""
    base = Path(tempfile.mkdtemp(dir=folder))
    try:
        store = Store(base, durable=durable)
        enqueue_s = store.enqueue(items)
        results = spread(workers, lambda k, barrier, out: _work(store, k, barrier, out))
        ran = Counter(uid for r in results for uid in r[0])
        archived = set(os.listdir(store.layout.queue / "archive" / DAY))
        return Run(
            enqueue_s=enqueue_s,
            work_s=max(r[3] for r in results) - min(r[2] for r in results),
            items=items,
            claims_lost=sum(r[1] for r in results),
            doubles=sum(c - 1 for c in ran.values()),
            missing=items - len(archived & ran.keys()),
        )
    finally:
        if not keep:
            shutil.rmtree(base)


def spread(workers: int, target: Callable[[int, Barrier, Any], None]) -> list[Any]:
    """Run `target(k, barrier, queue)` in so many processes; -> what each put into the queue."""
    context = multiprocessing.get_context("fork")
    barrier, out = context.Barrier(workers), context.Queue()
    processes = [context.Process(target=target, args=(k, barrier, out)) for k in range(workers)]
    for p in processes:
        p.start()
    results = [out.get() for _ in processes]
    for p in processes:
        p.join()
    return results


def rows(where: Path, quick: bool) -> list[Row]:
    """For the table: eight workers on one backlog, the median of three runs, and the admission of one `.jsonl`."""
    found: list[Row] = []
    for durable, wanted, items in ((True, 1_000, 1_500), (False, 10_000, 8_000)):
        mode = "power" if durable else "process"
        runs = []
        for k in range(1 if quick else 3):
            runs.append(run(where, durable=durable, workers=8, items=items // (4 if quick else 1)))
            note(f"queue, {mode}, round {k + 1}: {runs[-1].items / runs[-1].work_s:.0f}/s")
        middle = sorted(runs, key=lambda r: r.items / r.work_s)[len(runs) // 2]
        rate = middle.items / middle.work_s
        lost = sum(r.claims_lost for r in runs) / sum(r.items for r in runs)
        wrong = sum(r.doubles + r.missing for r in runs)
        found.append(
            Row(
                check=f"claim + complete, 8 workers, `durability: {mode}`, {middle.items} jobs that do nothing",
                wanted=f"≥ {wanted:,}/s, each once, < 5 % of the claims lost",
                measured=f"{rate:,.0f}/s, {wrong} double or missing, {lost:.1%} lost",
                reached=rate >= wanted and not wrong and lost < 0.05,
            )
        )
    base = Path(tempfile.mkdtemp(dir=where))
    try:
        took = Store(base, durable=True).enqueue(1_000)
    finally:
        shutil.rmtree(base)
    found.append(
        Row(
            check="durable admission of a `.jsonl` of 1,000 items",
            wanted="< 1 s",
            measured=f"{took:.2f} s",
            reached=took < 1,
        )
    )
    return found

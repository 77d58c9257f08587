"""What only our store is asked: does a claim cost more when more items wait, and what does an item take on the disk?"""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.queue import ours
from benchmarks.tables import Row, note
from harness.model import CommitPolicy, End, Item, Outcome
from harness.store import attempts
from harness.store.attempts import Claimed
from harness.store.hints import Hints

CLAIMS = 300
ROUNDS = 5
BYTES_PER_ITEM = 2 * 4096
"""Of an item that was made directly: a folder and a file."""


def rows(where: Path, quick: bool, full: bool) -> list[Row]:
    """For the table."""
    return [*_claims(where, quick, full), *_sizes(where, 200 if quick else 2_000)]


def _make(store: ours.Store, items: int) -> None:
    """Items in open/, each with its hint, as admission leaves them; made directly, nothing fsynced."""
    hints = Hints(store.layout)
    base = f"{store.layout.queue}/open"
    record = Item(uid="u", id="i", prompt="nothing", project="app", commit=CommitPolicy.NONE).to_bytes()
    for k in range(items):
        uid = f"i-{k:010d}"
        os.mkdir(f"{base}/{uid}", 0o700)
        with open(f"{base}/{uid}/item.json", "wb") as f:
            f.write(record.replace(b'"u"', f'"{uid}"'.encode(), 1))
        hints.add(uid, 5)


def _claim_s(store: ours.Store, claims: int) -> float:
    """Each claim is that of a worker that has just become idle: it reads the hints anew, a window of them. -> median, s"""
    disk, me = store.disk(), store.actor("agent-0")
    took: list[float] = []
    for _ in range(claims):
        began = time.perf_counter()
        uid = next(disk.hints.find())
        assert disk.hints.take(uid)
        got = disk.run(attempts.claim(me, uid))
        took.append(time.perf_counter() - began)
        assert isinstance(got, Claimed), got
    disk.close()
    return statistics.median(took)


def _claims(where: Path, quick: bool, full: bool) -> list[Row]:
    """All backlogs lie there from the beginning, and take turns: the ratios are of the same moment."""
    sizes = [1_000, 10_000] if quick else [1_000, 10_000, 100_000, *([1_000_000] if full else [])]
    base = Path(tempfile.mkdtemp(dir=where))
    stores: dict[int, ours.Store] = {}
    found: list[Row] = []
    try:
        for items in sizes:
            room = os.statvfs(where)
            if room.f_bavail * room.f_frsize < 3 * items * BYTES_PER_ITEM or 0 < room.f_favail < 3 * items:
                found.append(
                    Row(check=f"a claim, {items:,} pending", wanted="", measured="no room", reached=None)
                )
                continue
            began = time.monotonic()
            folder = base / str(items)
            folder.mkdir()
            stores[items] = ours.Store(folder, durable=False)
            _make(stores[items], items)
            os.sync()
            note(f"{items:,} items made in {time.monotonic() - began:.0f} s")
        took: dict[tuple[int, bool], list[float]] = {(n, d): [] for n in stores for d in (True, False)}
        for _ in range(ROUNDS):
            for (items, durable), medians in took.items():
                stores[items].durable = durable
                medians.append(_claim_s(stores[items], CLAIMS // ROUNDS))
        for items in stores:
            said = []
            for durable in (True, False):
                mine, first = took[items, durable], took[sizes[0], durable]
                ratio = statistics.median(x / y for x, y in zip(mine, first, strict=True))
                mode = "power" if durable else "process"
                said.append(f"`{mode}` {statistics.median(mine) * 1e3:.2f} ms ({ratio:.2f})")
            found.append(
                Row(
                    check=f"a claim (hints read anew, hint taken, claim), {items:,} items pending",
                    wanted="",
                    measured=f"{', '.join(said)} of 1,000 pending, median of {ROUNDS} turns of {CLAIMS // ROUNDS}",
                    reached=None,
                )
            )
    finally:
        shutil.rmtree(base)
    return found


def _usage(folder: Path) -> tuple[int, int, int]:
    """-> inodes, bytes allocated, bytes of contents; a file with several names counts once"""
    seen: set[int] = set()
    allocated = size = 0
    for at, folders, files in os.walk(folder):
        for name in (*folders, *files):
            info = os.lstat(os.path.join(at, name))
            if info.st_ino not in seen:
                seen.add(info.st_ino)
                allocated += info.st_blocks * 512
                size += info.st_size if name in files else 0
    return len(seen), allocated, size


def _sizes(where: Path, items: int) -> list[Row]:
    """Of items admitted from one `.jsonl`; what an empty store has is not counted, a share of grown folders is."""
    base = Path(tempfile.mkdtemp(dir=where))
    found: list[Row] = []
    try:
        store = ours.Store(base, durable=False)
        empty = _usage(store.layout.queue)
        store.enqueue(items)
        os.sync()  # blocks are allocated when they are written
        found.append(_per_item("open", items, empty, _usage(store.layout.queue)))
        disk, me = store.disk(), store.actor("agent-0")
        for uid in os.listdir(store.layout.queue / "open"):
            got = disk.run(attempts.claim(me, uid))
            assert isinstance(got, Claimed), got
            end = End(n=got.n, outcome=Outcome.DONE, by=me.name)
            disk.run(attempts.end(me, got, end))
            disk.run(attempts.archive(uid, end))
        disk.close()
        os.sync()
        found.append(_per_item("archived after one attempt", items, empty, _usage(store.layout.queue)))
    finally:
        shutil.rmtree(base)
    return found


def _per_item(what: str, items: int, empty: tuple[int, int, int], now: tuple[int, int, int]) -> Row:
    inodes, allocated, size = ((b - a) / items for a, b in zip(empty, now, strict=True))
    return Row(
        check=f"an item on the disk, {what} (of {items:,})",
        wanted="",
        measured=f"{inodes:.1f} inodes, {allocated / 1024:.1f} KiB allocated, {size:,.0f} bytes of contents",
        reached=None,
    )

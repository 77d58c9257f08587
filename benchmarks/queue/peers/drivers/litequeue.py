"""litequeue (SQLite, WAL): pop, then done. Durable: synchronous=FULL, else OFF (its own default, NORMAL, is between them)."""

from __future__ import annotations

from typing import Any

import litequeue  # type: ignore[import-not-found]

from benchmarks.queue.peers.records import Run, ran, timed


def _queue(run: Run) -> Any:
    queue = litequeue.LiteQueue(str(run.folder / "queue.db"), timeout=30)
    queue.conn.execute(f"PRAGMA synchronous = {'FULL' if run.durable else 'OFF'}")
    return queue


def setup(run: Run) -> None:
    _queue(run)


def enqueue(run: Run, jobs: int) -> float:
    queue = _queue(run)
    return timed(lambda k: queue.put(str(k)), jobs)


def work(run: Run) -> None:
    queue = _queue(run)
    run.wait()
    while (message := queue.pop()) is not None:
        ran(int(message.data))
        queue.done(message.message_id)


def left(run: Run) -> int:
    found = _queue(run).conn.execute("SELECT count(*) FROM Queue WHERE status <> 2").fetchone()
    return int(found[0])

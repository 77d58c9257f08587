"""persist-queue's SQLiteAckQueue (WAL): get, then ack. Durable: synchronous=FULL, else OFF.

It selects a job and marks it in two statements, with a lock of its process around them: several processes may get the same
job. That is counted here, not prevented; its authors promise threads.
"""

from __future__ import annotations

from typing import Any

import persistqueue  # type: ignore[import-not-found]

from benchmarks.queue.peers.records import Run, ran, timed


def _queue(run: Run) -> Any:
    queue = persistqueue.SQLiteAckQueue(str(run.folder / "queue"), auto_resume=False, timeout=30)
    for connection in {queue._getter, queue._putter}:  # noqa: SLF001 - there is no public setting
        connection.execute(f"PRAGMA synchronous = {'FULL' if run.durable else 'OFF'}")
    return queue


def setup(run: Run) -> None:
    _queue(run)


def enqueue(run: Run, jobs: int) -> float:
    return timed(_queue(run).put, jobs)


def work(run: Run) -> None:
    queue = _queue(run)
    run.wait()
    while True:
        try:
            job = queue.get(block=False)
        except persistqueue.Empty:
            break
        ran(job)
        queue.ack(job)


def left(run: Run) -> int:
    queue = _queue(run)
    return int(queue.size) + int(queue.unack_count())

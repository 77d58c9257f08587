"""huey on SQLite (WAL): its own consumer with one thread, which looks again after 1 to 10 ms when it found nothing.

huey takes a job out of the queue before it runs: a worker that dies loses it. Durable: synchronous=FULL, else OFF.
"""

from __future__ import annotations

import time
from typing import Any

import huey  # type: ignore[import-not-found]

from benchmarks.queue.peers.records import Run, ran, timed


def _huey(run: Run) -> Any:
    return huey.SqliteHuey(
        "jobs", filename=str(run.folder / "queue.db"), fsync=run.durable, timeout=30, results=False
    )


def setup(run: Run) -> None:
    _huey(run)


def enqueue(run: Run, jobs: int) -> float:
    return put(_huey(run), jobs)


def work(run: Run) -> None:
    consume(_huey(run), run)


def left(run: Run) -> int:
    return int(_huey(run).pending_count())


def put(queue: Any, jobs: int) -> float:
    return timed(queue.task(name="job")(ran), jobs)


def consume(queue: Any, run: Run) -> None:
    """Does not return."""
    queue.task(name="job")(ran)
    consumer = queue.create_consumer(
        workers=1,
        periodic=False,
        initial_delay=0.001,
        backoff=1.15,
        max_delay=0.01,
        check_worker_health=False,
    )
    run.wait()
    consumer.start()
    while True:
        time.sleep(60)

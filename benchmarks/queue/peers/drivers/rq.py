"""RQ on Redis: its SimpleWorker in burst mode, which runs the job in its own process (its default worker forks for each)."""

from __future__ import annotations

import redis  # type: ignore[import-not-found,import-untyped,unused-ignore]
import rq  # type: ignore[import-not-found]

from benchmarks.queue.peers.records import Run, ran, timed


def _queue(run: Run) -> rq.Queue:
    return rq.Queue("jobs", connection=redis.Redis.from_url(run.server))


def setup(run: Run) -> None:
    redis.Redis.from_url(run.server).flushall()


def enqueue(run: Run, jobs: int) -> float:
    queue = _queue(run)
    queue.connection.ping()
    return timed(lambda k: queue.enqueue(ran, k), jobs)


def work(run: Run) -> None:
    queue = _queue(run)
    worker = rq.SimpleWorker([queue], connection=queue.connection, name=f"worker-{run.k}")
    run.wait()
    worker.work(burst=True, logging_level="ERROR")


def left(run: Run) -> int:
    queue = _queue(run)
    return len(queue) + len(queue.started_job_registry) + len(queue.failed_job_registry)

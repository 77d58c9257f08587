"""dramatiq on Redis: its own worker with one thread for jobs, its default middleware; a job is acknowledged after it ran."""

from __future__ import annotations

import time

import dramatiq  # type: ignore[import-not-found]
import redis  # type: ignore[import-not-found,import-untyped,unused-ignore]
from dramatiq.brokers.redis import RedisBroker  # type: ignore[import-not-found]

from benchmarks.queue.peers.records import Run, ran, timed


def _broker(run: Run) -> tuple[RedisBroker, dramatiq.Actor]:
    broker = RedisBroker(url=run.server)
    dramatiq.set_broker(broker)
    return broker, dramatiq.actor(ran, actor_name="job", queue_name="jobs", broker=broker)


def setup(run: Run) -> None:
    redis.Redis.from_url(run.server).flushall()


def enqueue(run: Run, jobs: int) -> float:
    broker, actor = _broker(run)
    broker.client.ping()
    return timed(actor.send, jobs)


def work(run: Run) -> None:
    broker, _ = _broker(run)
    worker = dramatiq.Worker(broker, worker_threads=1)
    broker.client.ping()
    run.wait()
    worker.start()
    while True:
        time.sleep(60)


def left(run: Run) -> int:
    broker, _ = _broker(run)
    return int(broker.do_qsize("jobs"))

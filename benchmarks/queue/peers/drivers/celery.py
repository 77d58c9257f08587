"""Celery on Redis: its own worker, the solo pool (no processes below it), late acknowledgement, one job fetched at a time.

Without late acknowledgement a job would be gone when its worker dies. Results, events, gossip and heartbeats are off.
Its workers listen before there are jobs: the jobs are put into another list, which is renamed to let them go.
"""

from __future__ import annotations

import celery  # type: ignore[import-not-found,import-untyped,unused-ignore]
import redis  # type: ignore[import-not-found,import-untyped,unused-ignore]
from celery import signals

from benchmarks.queue.peers.records import Run, ran, timed

QUEUE = "jobs"
HELD = "held"


def _app(run: Run) -> celery.Celery:
    app = celery.Celery("peers", broker=run.server, set_as_current=False)
    app.conf.update(
        task_ignore_result=True,
        task_acks_late=True,
        worker_prefetch_multiplier=1,
        task_default_queue=QUEUE,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        worker_enable_remote_control=False,
    )
    app.task(name="job")(ran)
    return app


def setup(run: Run) -> None:
    redis.Redis.from_url(run.server).flushall()


def enqueue(run: Run, jobs: int) -> float:
    app = _app(run)
    app.set_current()
    with app.producer_pool.acquire(block=True) as producer:
        producer.connection.ensure_connection()
        return timed(lambda k: app.send_task("job", (k,), queue=HELD, producer=producer), jobs)


def work(run: Run) -> None:
    app = _app(run)
    app.set_current()
    signals.worker_ready.connect(lambda **_: run.ready(), weak=False)
    worker = app.Worker(
        pool="solo",
        concurrency=1,
        queues=[QUEUE],
        hostname=f"worker-{run.k}@peers",
        loglevel="ERROR",
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )
    worker.start()


def release(run: Run) -> None:
    redis.Redis.from_url(run.server).rename(HELD, QUEUE)


def left(run: Run) -> int:
    client = redis.Redis.from_url(run.server)
    return int(client.llen(QUEUE) + client.llen(HELD) + client.hlen("unacked"))

"""procrastinate on PostgreSQL: its own worker, one job at a time, no LISTEN, finished jobs are kept (as ours are).

Durable: synchronous_commit=on. Otherwise off: then a crash of PostgreSQL itself may lose the last commits.
"""

from __future__ import annotations

import asyncio

import procrastinate  # type: ignore[import-not-found]
import psycopg  # type: ignore[import-not-found]

from benchmarks.queue.peers.records import Run, ran, timed


async def job(job: int) -> None:
    ran(job)


def _conninfo(run: Run) -> str:
    return f"{run.server} options='-c synchronous_commit={'on' if run.durable else 'off'}'"


def _producer(run: Run) -> procrastinate.App:
    return procrastinate.App(connector=procrastinate.SyncPsycopgConnector(conninfo=_conninfo(run)))


def setup(run: Run) -> None:
    with psycopg.connect(_conninfo(run), autocommit=True) as db:
        made = db.execute("SELECT to_regclass('procrastinate_jobs')").fetchone()[0]
        if made:
            db.execute("TRUNCATE procrastinate_jobs CASCADE")
    if not made:
        app = _producer(run)
        with app.open():
            app.schema_manager.apply_schema()


def enqueue(run: Run, jobs: int) -> float:
    app = _producer(run)
    task = app.task(name="job", queue="jobs")(job)
    with app.open():
        return timed(lambda k: task.defer(job=k), jobs)


def work(run: Run) -> None:
    asyncio.run(_work(run))


async def _work(run: Run) -> None:
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=_conninfo(run), min_size=1))
    app.task(name="job", queue="jobs")(job)
    async with app.open_async():
        run.wait()
        await app.run_worker_async(
            queues=["jobs"],
            concurrency=1,
            wait=False,
            listen_notify=False,
            delete_jobs="never",
            install_signal_handlers=False,
        )


def left(run: Run) -> int:
    with psycopg.connect(_conninfo(run)) as db:
        found = db.execute("SELECT count(*) FROM procrastinate_jobs WHERE status <> 'succeeded'").fetchone()
    return int(found[0])

"""huey on files: its own consumer with one thread. It never fsyncs, so there is no durable mode; see `huey_sqlite`."""

from __future__ import annotations

from typing import Any

import huey  # type: ignore[import-not-found]

from benchmarks.queue.peers.drivers.huey_sqlite import consume, put
from benchmarks.queue.peers.records import Run


def _huey(run: Run) -> Any:
    return huey.FileHuey("jobs", path=str(run.folder / "files"), results=False)


def setup(run: Run) -> None:
    _huey(run)


def enqueue(run: Run, jobs: int) -> float:
    return put(_huey(run), jobs)


def work(run: Run) -> None:
    consume(_huey(run), run)


def left(run: Run) -> int:
    return int(_huey(run).pending_count())

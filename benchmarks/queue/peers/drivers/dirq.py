"""dirq's QueueSimple (one file for each job; a claim is a link): lock, get, remove. It never fsyncs: no durable mode.

A worker passes over the queue until a pass locks nothing: then the rest is locked by others.
"""

from __future__ import annotations

from dirq.QueueSimple import QueueSimple  # type: ignore[import-not-found]

from benchmarks.queue.peers.records import Run, ran, timed


def _queue(run: Run) -> QueueSimple:
    return QueueSimple(str(run.folder / "queue"))


def setup(run: Run) -> None:
    _queue(run)


def enqueue(run: Run, jobs: int) -> float:
    queue = _queue(run)
    return timed(lambda k: queue.add(str(k)), jobs)


def work(run: Run) -> None:
    queue = _queue(run)
    run.wait()
    found = True
    while found:
        found = False
        for name in queue:
            if not queue.lock(name):
                continue
            found = True
            ran(int(queue.get(name)))
            queue.remove(name)


def left(run: Run) -> int:
    return int(_queue(run).count())

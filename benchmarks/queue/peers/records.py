"""What a worker process of a peer writes down: each job that it ran, and when. Only the standard library.

One file for each process, lines of one length, one write(2) for each job (1 to 2 µs), O_APPEND.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

LINE = b"%08d %019d\n"
LENGTH = 29

_fd = -1


def open_record(path: Path) -> None:
    """From now on `ran` of this process (and of none of its children) appends here."""
    global _fd
    _fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def ran(job: int) -> None:
    """The job itself: it does nothing but say that it ran."""
    os.write(_fd, LINE % (job, time.monotonic_ns()))


def read(folder: Path) -> list[tuple[int, int]]:
    """-> (job, CLOCK_MONOTONIC in nanoseconds) of everything that ran."""
    lines = [line for path in folder.iterdir() for line in path.read_bytes().splitlines()]
    return [(int(line[:8]), int(line[9:])) for line in lines]


def written(folder: Path) -> int:
    """How many jobs ran so far, by the sizes of the files."""
    return sum(entry.stat().st_size for entry in os.scandir(folder)) // LENGTH


def timed(put: Callable[[int], object], jobs: int) -> float:
    """Put jobs 0..n-1 one by one; each is in the queue (and durable, in that mode) when its call returns. -> seconds"""
    began = time.perf_counter()
    for job in range(jobs):
        put(job)
    return time.perf_counter() - began


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a driver is told about the run it is part of."""

    folder: Path
    """Empty at the start, removed afterwards; on the file system that is measured."""
    server: str
    """The URL or connection string of the server, or the path of a program; "" when the peer needs neither."""
    durable: bool
    """A job that was put, claimed or completed must survive power loss; else only crashes of processes."""
    workers: int
    ready_fd: int
    go_fd: int
    k: int = -1
    """Which of the workers this process is."""

    def ready(self) -> None:
        """This worker can take jobs at once."""
        os.write(self.ready_fd, b".")

    def wait(self) -> None:
        """Say that this worker is ready, and wait until the jobs are released to all workers at once."""
        self.ready()
        os.read(self.go_fd, 1)

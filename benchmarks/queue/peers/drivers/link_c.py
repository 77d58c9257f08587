"""The naive queue with its calls made in C (`link.c`), so that what Python itself costs is seen."""

from __future__ import annotations

import os
import subprocess

from benchmarks.queue.peers.drivers import link
from benchmarks.queue.peers.records import Run

setup = link.setup
left = link.left


def enqueue(run: Run, jobs: int) -> float:
    """-> seconds, by the program's own clock"""
    command = [run.server, "enqueue", "1" if run.durable else "0", str(jobs)]
    return float(subprocess.run(command, cwd=run.folder, check=True, capture_output=True, text=True).stdout)


def work(run: Run) -> None:
    """Becomes the program: it says that it is ready and waits for the release as `Run.wait` does."""
    os.chdir(run.folder)
    for fd in (run.ready_fd, run.go_fd):
        os.set_inheritable(fd, True)
    durable = "1" if run.durable else "0"
    told = [str(x) for x in (run.k, run.workers, run.ready_fd, run.go_fd)]
    os.execv(run.server, [run.server, "work", durable, *told])

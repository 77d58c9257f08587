"""One run of one peer: put jobs in, let worker processes take them out, count. Only the standard library and the peer.

    python -P -m benchmarks.queue.peers.drive '{"driver": "rq", "folder": …}'   -> one JSON object on stdout

A module of `drivers` has

    setup(run)          make the queue, empty
    enqueue(run, jobs)  put jobs 0..n-1 one by one -> seconds
    work(run)           a worker: prepare, `run.wait()`, then take jobs until there are none, or for ever
    left(run)           -> jobs that are not completed
    release(run)        optional: let the jobs go, when workers must already be listening before there are any

The peer is imported once, then each worker is a fork with connections of its own. When all are ready the jobs are
released to all at once; the clock starts with the first job that ran, because some peers only then start their threads (RQ,
dramatiq, huey, procrastinate: 0.1 to 0.5 s), and stops with the last: the last acknowledgement of a worker is not in it.
Doubles are counted for SETTLE_S longer. Then workers that do not end by themselves are killed.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks.queue.peers import records
from benchmarks.queue.peers.records import Run

SETTLE_S = 0.25
_PR_SET_PDEATHSIG = 1


class Broken(Exception):
    """The peer did not do what it was asked; the text says what it said."""


def die_with_parent() -> None:
    """The kernel kills this process when the thread that forked it is gone."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))


def aside(do: Callable[[], Any]) -> Any:
    """Run it in a fork, so that no connection of it is inherited by the workers. -> what it returned (as JSON)"""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        die_with_parent()
        try:
            answer = {"value": do()}
        except BaseException as e:  # noqa: BLE001 - a fork never returns into its parent's code
            traceback.print_exc()
            answer = {"error": f"{type(e).__name__}: {e}"}
        with os.fdopen(writing, "w") as pipe:
            json.dump(answer, pipe)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    if not text:
        raise Broken("it died")
    told = json.loads(text)
    if "error" in told:
        raise Broken(told["error"])
    return told["value"]


def spawn(driver: ModuleType, run: Run, k: int, close: int) -> int:
    """Fork worker k. -> pid. What it says goes into a file."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        die_with_parent()
        os.close(close)
        said = os.open(run.folder / f"said.{k}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(said, 1)
        os.dup2(said, 2)
        records.open_record(run.folder / "records" / str(k))
        driver.work(replace(run, k=k))
        status = 0
    except BaseException:  # noqa: BLE001 - a fork never returns into its parent's code
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def said_last(folder: Path) -> str:
    """The last line that any worker said."""
    for path in sorted(folder.glob("said.*")):
        lines = [x for x in path.read_text(errors="replace").splitlines() if x.strip()]
        if lines:
            return lines[-1].strip()[:200]
    return ""


class Workers:
    """The forks of one run."""

    def __init__(self, driver: ModuleType, run: Run, go_writing: int) -> None:
        self.pids = {spawn(driver, run, k, go_writing) for k in range(run.workers)}
        self.failed = 0

    def reap(self) -> None:
        """Forget those that ended; count those that did not end well."""
        for pid in list(self.pids):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                self.pids.discard(pid)
                self.failed += status != 0

    def kill(self) -> None:
        for pid in self.pids:
            os.kill(pid, signal.SIGKILL)
        for pid in self.pids:
            os.waitpid(pid, 0)
        self.pids.clear()

    def await_ready(self, reading: int, limit_s: float) -> None:
        missing, deadline = len(self.pids), time.monotonic() + limit_s
        while missing:
            if select.select([reading], [], [], 0.05)[0]:
                missing -= len(os.read(reading, missing))
            self.reap()
            if self.failed or time.monotonic() > deadline:
                raise Broken("a worker did not get ready")


def measure(
    driver: ModuleType, run: Run, jobs: int, limit_s: float, pipes: tuple[int, int]
) -> dict[str, Any]:
    """-> seconds, and counts of jobs; see the module."""
    ready_reading, go_writing = pipes
    aside(lambda: driver.setup(run))
    enqueue_s = aside(lambda: driver.enqueue(run, jobs))
    os.sync()  # what enqueueing left unwritten is not written at the cost of the workers
    workers = Workers(driver, run, go_writing)
    try:
        workers.await_ready(ready_reading, 30)
        if hasattr(driver, "release"):
            driver.release(run)
        os.close(go_writing)
        deadline = time.monotonic() + limit_s
        folder = run.folder / "records"
        while records.written(folder) < jobs and workers.pids and time.monotonic() < deadline:
            time.sleep(0.01)
            workers.reap()
        settled = time.monotonic() + SETTLE_S
        while workers.pids and time.monotonic() < settled:
            time.sleep(0.01)
            workers.reap()
    finally:
        workers.kill()
    done = records.read(folder)
    ran = {job for job, _ in done}
    return {
        "enqueue_s": enqueue_s,
        "work_s": (max(times) - min(times)) / 1e9 if (times := [at for _, at in done]) else 0.0,
        "jobs": jobs,
        "missing": len(set(range(jobs)) - ran),
        "double": len(done) - len(ran),
        "left": aside(lambda: driver.left(run)),
        "failed": workers.failed,
        "said": said_last(run.folder) if workers.failed or len(ran) < jobs else "",
    }


def main() -> int:
    die_with_parent()
    told = json.loads(sys.argv[1])
    ready_reading, ready_writing = os.pipe()
    go_reading, go_writing = os.pipe()
    run = Run(
        folder=Path(told["folder"]),
        server=told["server"],
        durable=told["durable"],
        workers=told["workers"],
        ready_fd=ready_writing,
        go_fd=go_reading,
    )
    (run.folder / "records").mkdir()
    try:
        driver = importlib.import_module(f"benchmarks.queue.peers.drivers.{told['driver']}")
        answer = measure(driver, run, told["jobs"], told["limit_s"], (ready_reading, go_writing))
    except (Broken, ImportError) as e:
        answer = {"error": f"{e}; {said_last(run.folder)}".removesuffix("; ")}
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())

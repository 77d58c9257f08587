"""A naive queue of ours in Python: the files, links, renames and fsyncs of our store, and nothing else.

What `harness.store` has more (records that are parsed, hints, locks, ids, attempts, recovery) is what the difference costs.
For each job: item.json; claim and end are each a private file, fsynced, linked, unlinked, the folder fsynced; the end is linked
once more as the stub, that folder is fsynced, and the item's folder is moved to the archive. `link.c` makes the same calls.
Not durable: no fsync.

A worker lists open/ once, begins at its own share of it, tries every job that has no claim, and lists again until a pass
finds nothing.
"""

from __future__ import annotations

import os

from benchmarks.queue.peers.records import Run, ran, timed

FAN = 256
TEXT = b"%08d" + b" " * 192
"""The size of a record of ours, with the number of the job."""


def fsync(path: str, *, durable: bool) -> None:
    if durable:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def write(path: str, job: int, *, durable: bool) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, TEXT % job)
        if durable:
            os.fsync(fd)
    finally:
        os.close(fd)


def publish(private: str, cell: str, folder: str, job: int, *, durable: bool) -> bool:
    """Set a write-once cell; True for the one who did."""
    write(private, job, durable=durable)
    try:
        os.link(private, cell)
    except (FileExistsError, FileNotFoundError):
        return False
    finally:
        os.unlink(private)
    fsync(folder, durable=durable)
    return True


def put(job: int, *, durable: bool) -> None:
    made = f"tmp/{job:08d}"
    os.mkdir(made, 0o700)
    write(f"{made}/item.json", job, durable=durable)
    fsync(made, durable=durable)
    os.rename(made, f"open/{job:08d}")
    fsync("open", durable=durable)


def take(name: str, private: str, *, durable: bool) -> bool:
    """Claim the job, run it, complete it. False: it is another worker's."""
    home = f"open/{name}"
    if os.access(f"{home}/1.claim", os.F_OK):
        return False
    try:
        fd = os.open(f"{home}/item.json", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    job = int(os.read(fd, 4096)[:8])
    os.close(fd)
    if not publish(private, f"{home}/1.claim", home, job, durable=durable):
        return False
    ran(job)
    publish(private, f"{home}/1.end", home, job, durable=durable)
    fan = f"done/{job % FAN:02x}"
    os.link(f"{home}/1.end", f"{fan}/{name}")
    fsync(fan, durable=durable)
    os.rename(home, f"archive/{name}")
    return True


def setup(run: Run) -> None:
    os.chdir(run.folder)
    for name in ("tmp", "open", "archive", "done", *(f"done/{k:02x}" for k in range(FAN))):
        os.mkdir(name, 0o700)
    fsync(".", durable=run.durable)


def enqueue(run: Run, jobs: int) -> float:
    os.chdir(run.folder)
    return timed(lambda k: put(k, durable=run.durable), jobs)


def work(run: Run) -> None:
    os.chdir(run.folder)
    private = f"tmp/{run.k}"
    run.wait()
    found = 1
    while found:
        names = os.listdir("open")
        first = len(names) * run.k // run.workers
        found = sum(take(name, private, durable=run.durable) for name in names[first:] + names[:first])


def left(run: Run) -> int:
    return len(os.listdir(run.folder / "open"))

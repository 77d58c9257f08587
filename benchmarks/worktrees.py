"""How long the worktree of the next attempt takes, in a repository of 5,000 files: our own verb, in this process."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path

from benchmarks.fleet import Fleet, git
from benchmarks.tables import Row, note, percentile
from harness.clock import SystemClock
from harness.config import Project, load
from harness.containment import Containment
from harness.hub import Hub
from harness.layout import Layout
from harness.runner import Runner

FILES = 5_000
DIRTY = 250
AT_ONCE = 8


def rows(where: Path, quick: bool) -> list[Row]:
    """A slot's worktree prepared again: clean, with 250 changed files, and eight slots at the same time."""
    rounds = 3 if quick else 15
    with Fleet(where, files=FILES) as fleet:
        project = load(Layout(fleet.root).config).projects["app"]
        hub = _open(fleet.root, project)
        clean: list[float] = []
        dirty: list[float] = []
        hub.prepare("agent-0", "warm-1", 1, hub.target())
        for k in range(rounds):
            clean.append(_prepare(hub, "agent-0", f"c{k}-1"))
            tree = hub.find("agent-0")
            assert tree is not None
            for path in sorted(tree.path.glob("package*/*.py"))[k : k + DIRTY]:
                path.write_text(path.read_text() + "# changed\n")
            dirty.append(_prepare(hub, "agent-0", f"d{k}-1"))
            assert git(tree.path, "status", "--porcelain") == ""
        together = [_together(fleet.root, project, k) for k in range(3 if quick else 5)]
    note(f"worktrees: clean {[round(x, 3) for x in clean]}, dirty {[round(x, 3) for x in dirty]}")
    a, b, c = (percentile(x, 50) for x in (clean, dirty, together))
    what = f"worktree ready for the next attempt, {FILES:,} files"
    return [
        Row(
            check=f"{what}, clean, {rounds} times",
            wanted="≤ 0.12 s",
            measured=f"p50 {a:.3f} s",
            reached=a <= 0.12,
        ),
        Row(
            check=f"… with {DIRTY} changed files",
            wanted="≤ 0.25 s",
            measured=f"p50 {b:.3f} s",
            reached=b <= 0.25,
        ),
        Row(check=f"… {AT_ONCE} at once", wanted="≤ 1.2 s", measured=f"p50 {c:.2f} s", reached=c <= 1.2),
    ]


def _open(root: Path, project: Project) -> Hub:
    clock = SystemClock()
    return Hub.open(
        Layout(root),
        project,
        runner=Runner(clock=clock, containment=Containment()),
        clock=clock,
        durable=True,
    )


def _prepare(hub: Hub, slot: str, uid: str) -> float:
    began = time.monotonic()
    hub.prepare(slot, uid, 1, hub.target())
    return time.monotonic() - began


def _together(root: Path, project: Project, k: int) -> float:
    """-> seconds from the first begin to the last end; the slots have their worktrees already."""
    context = multiprocessing.get_context("fork")
    barrier, out = context.Barrier(AT_ONCE), context.Queue()

    def one(n: int) -> None:
        hub = _open(root, project)
        if k == 0:
            hub.prepare(f"agent-{n}", f"first{n}-1", 1, hub.target())
        barrier.wait()
        began = time.monotonic()
        hub.prepare(f"agent-{n}", f"t{k}x{n}-1", 1, hub.target())
        out.put((began, time.monotonic()))

    processes = [context.Process(target=one, args=(n,)) for n in range(AT_ONCE)]
    for p in processes:
        p.start()
    times: list[tuple[float, float]] = [out.get(timeout=120) for _ in processes]
    for p in processes:
        p.join()
    return max(t[1] for t in times) - min(t[0] for t in times)

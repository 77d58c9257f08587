"""What the daemon costs: CPU and memory while idle, and under load."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.fleet import TICK_S, Fleet, Process
from benchmarks.tables import Row, note


def idle(where: Path, quick: bool) -> list[Row]:
    """The coordinator and three workers, each of which has done something before."""
    seconds = 15 if quick else 60
    with Fleet(where, workers=3) as fleet:
        fleet.start()
        _work(fleet, 6)
        # Mergers linger for half a minute; the figure is about what is left then.
        fleet.until(lambda: not fleet.roles("merger"), 90, "the merger has gone")
        time.sleep(2)
        everything = fleet.roles("coordinator") + fleet.roles("agent-")
        before = {p: p.cpu_s() for p in everything}
        began = time.monotonic()
        time.sleep(seconds)
        took = time.monotonic() - began
        used = {p.role: p.cpu_s() - was for p, was in before.items()}
        memory = {p.role: p.memory_mb() for p in everything}
    share = 100 * sum(used.values()) / took
    note("idle, CPU seconds: " + ", ".join(f"{r} {s:.2f}" for r, s in sorted(used.items())))
    mine = memory["coordinator"]
    workers = [m for r, m in memory.items() if r != "coordinator"]
    largest = max(w[0] for w in workers)
    return [
        Row(
            check=f"an idle coordinator and 3 idle workers, {seconds} s",
            wanted="< 0.5 % of a core altogether",
            measured=f"{share:.2f} %",
            reached=share < 0.5,
        ),
        Row(
            check="… coordinator, resident (proportional share)",
            wanted="< 80 MB",
            measured=f"{mine[0]:.1f} MB ({mine[1]:.1f} MB)",
            reached=mine[0] < 80,
        ),
        Row(
            check="… a worker, resident (proportional share), the largest",
            wanted="< 45 MB",
            measured=f"{largest:.1f} MB ({max(w[1] for w in workers):.1f} MB)",
            reached=largest < 45,
        ),
    ]


def load(where: Path, quick: bool) -> list[Row]:
    """Ten workers, one item a second; every agent takes six seconds and commits, every commit is merged."""
    seconds = 20 if quick else 90
    with Fleet(where, workers=10) as fleet:
        fleet.start()
        _work(fleet, 10)
        process = fleet.coordinators()[0]
        before, began, peak = _own_cpu_s(process), time.monotonic(), 0.0
        for k in range(seconds):
            prompt = f"sleep 6; echo {k} > load{k}; git add -A; git commit -q -m load{k}"
            fleet.drop(f"load{k}", {"prompt": prompt})
            peak = max(peak, process.memory_mb()[0])
            time.sleep(max(0.0, began + k + 1 - time.monotonic()))
        used, took = _own_cpu_s(process) - before, time.monotonic() - began
        running = sum(r["state"] not in ("idle", "paused") for r in fleet.reports().values())
        done = fleet.finished() - 10
    share = 100 * used / took
    return [
        Row(
            check=f"the coordinator under load: 10 workers, 1 item/s for {seconds} s ({done} merged, {running} running"
            " at the end)",
            wanted="< 5 % of a core",
            measured=f"{share:.1f} %",
            reached=share < 5,
        ),
        Row(
            check="… its resident memory, at most",
            wanted="< 100 MB",
            measured=f"{peak:.1f} MB",
            reached=peak < 100,
        ),
    ]


def _own_cpu_s(process: Process) -> float:
    """Without its children, the workers: what they cost is the work's, not the coordinator's."""
    rest = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(rest[11]) + int(rest[12])) * TICK_S


def _work(fleet: Fleet, items: int) -> None:
    """Every worker has made its worktree before the measurement."""
    done = fleet.finished() + items
    for k in range(items):
        fleet.drop(f"warm{k}", {"prompt": f"sleep 1; echo > warm{k}; git add -A; git commit -q -m warm{k}"})
    fleet.until(lambda: fleet.finished() >= done, 180, "the pool is warm", 0.1)

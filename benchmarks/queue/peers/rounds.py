"""Runs all systems in turn, several rounds of both modes, and keeps every figure.

The number of jobs of a run follows from the rate that a first, unreported run with one worker had, so that each run works for
about as long. What fails is not run again with so many workers in that mode; the reason is kept.

What a run leaves is not removed before all are over: ext4 passes over inodes that were deleted in the last minutes, one by one,
whenever it makes a new one, so that the runs on files would pay for the cleaning up of the runs before them.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.queue import ours
from benchmarks.queue.peers.install import last_line
from benchmarks.queue.peers.records import timed
from benchmarks.queue.peers.systems import OURS, Given, System
from benchmarks.tables import note
from harness.store import admission

ROOT = Path(__file__).resolve().parents[3]
LIMIT_S = 30.0
"""A run that works longer is broken off, and its jobs are missing."""
FIRST_JOBS = 100


class Failed(Exception):
    """A run gave no figures; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is run. `work_s`: how long a run should work, about."""

    rounds: int = 3
    workers: tuple[int, ...] = (1, 2, 4, 8)
    work_s: float = 0.7
    most: int = 2_500
    least: int = 100
    limit_s: float = 600.0
    """No round is begun that would probably end later than this after the first."""

    def jobs(self, rate: float, workers: int) -> int:
        wanted = rate * self.work_s * (1 if workers == 1 else 1.5)
        return int(min(max(wanted, self.least), self.most))


QUICK = Plan(rounds=1, workers=(1, 8), work_s=0.3, most=1_500, least=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class One:
    """One run. Rates are jobs per second."""

    enqueue: float
    work: float
    jobs: int
    missing: int
    double: int
    left: int


@dataclass(slots=True)
class Series:
    """All runs of one system in one mode."""

    runs: dict[tuple[int, int], One] = field(default_factory=dict)
    """(round, workers) -> the run"""
    enqueue: list[float] = field(default_factory=list)
    failed: dict[int, str] = field(default_factory=dict)
    """workers -> why there is no (further) run; 0: not even the first"""

    def rate(self, workers: int) -> float | None:
        found = [one.work for (_, w), one in self.runs.items() if w == workers]
        return statistics.median(found) if found else None

    def ratio(self, other: Series, workers: int) -> float | None:
        """The median of the ratios of the same rounds."""
        both = [at for at in self.runs if at[1] == workers and at in other.runs]
        return statistics.median(self.runs[at].work / other.runs[at].work for at in both) if both else None

    def counts(self) -> tuple[int, int, int, int]:
        """-> jobs, missing, double, not completed; over all runs"""
        runs = self.runs.values()
        return (
            sum(r.jobs for r in runs),
            sum(r.missing for r in runs),
            sum(r.double for r in runs),
            sum(r.left for r in runs),
        )


@dataclass(slots=True)
class Measured:
    """(system's name, durable) -> its runs"""

    plan: Plan
    rounds: int = 0
    """Rounds that were run to their end."""
    series: dict[tuple[str, bool], Series] = field(default_factory=dict)
    bulk: dict[bool, list[float]] = field(default_factory=lambda: {True: [], False: []})
    """durable -> items per second that our store admits from one `.jsonl`"""


def measure(chosen: Iterable[System], given: Given, folder: Path, plan: Plan) -> Measured:
    """Every system of `chosen` beside ours, in both modes."""
    got = Measured(plan=plan)
    began = time.monotonic()
    systems = [OURS, *(s for s in chosen if s.name not in given.missing)]
    rates: dict[tuple[str, bool], float] = {}
    for durable in (True, False):
        for system in _in(systems, durable):
            series = got.series[system.name, durable] = Series()
            try:
                rates[system.name, durable] = _run(system, given, folder, durable, 1, FIRST_JOBS).work
            except Failed as e:
                series.failed[0] = str(e)
                note(f"{system.name}, {mode(durable)}: {e}")
    for k in range(plan.rounds):
        started = time.monotonic()
        for durable in (True, False):
            for workers in plan.workers:
                here = _in(systems, durable)
                shift = k % len(here)
                for system in here[shift:] + here[:shift]:
                    series = got.series[system.name, durable]
                    if 0 in series.failed or workers in series.failed:
                        continue
                    jobs = plan.jobs(rates[system.name, durable], workers)
                    try:
                        one = _run(system, given, folder, durable, workers, jobs)
                    except Failed as e:
                        series.failed[workers] = str(e)
                        note(f"{system.name}, {mode(durable)}, {workers} workers: {e}")
                        continue
                    series.runs[k, workers] = one
                    if system is OURS:
                        got.bulk[durable].append(one.enqueue)
                    else:
                        series.enqueue.append(one.enqueue)
            got.series[OURS.name, durable].enqueue.append(_one_by_one(folder, durable))
        got.rounds, now = k + 1, time.monotonic()
        note(f"round {k + 1} took {now - started:.0f} s")
        if now + (now - started) > began + plan.limit_s:
            break
    return got


def _in(systems: list[System], durable: bool) -> list[System]:
    return [s for s in systems if not (durable and s.undurable)]


def mode(durable: bool) -> str:
    return "durable" if durable else "not durable"


def _run(system: System, given: Given, folder: Path, durable: bool, workers: int, jobs: int) -> One:
    base = Path(tempfile.mkdtemp(dir=folder))
    os.sync()  # what the last run left unwritten is not written at the cost of this one
    if system is OURS:
        return _ours(base, durable, workers, jobs)
    told = _drive(system, given, base, durable, workers, jobs)
    if told["failed"] or told["missing"] == jobs or not told["work_s"]:
        raise Failed(
            f"{told['failed']} workers failed, {told['missing']} of {jobs} did not run: {told['said']}"
        )
    ran = jobs - told["missing"] - 1  # the clock starts with the first
    return One(
        enqueue=jobs / told["enqueue_s"],
        work=ran / told["work_s"],
        jobs=jobs,
        missing=told["missing"],
        double=told["double"],
        left=told["left"],
    )


def _ours(base: Path, durable: bool, workers: int, jobs: int) -> One:
    got = ours.run(base, durable=durable, workers=workers, items=jobs, keep=True)
    return One(
        enqueue=jobs / got.enqueue_s,
        work=jobs / got.work_s,
        jobs=jobs,
        missing=got.missing,
        double=got.doubles,
        left=0,
    )


def _one_by_one(folder: Path, durable: bool, items: int = 100) -> float:
    """Drops of one item each, taken and admitted one after the other, as a lone `harnessctl` would. -> items per second"""
    store = ours.Store(Path(tempfile.mkdtemp(dir=folder)), durable=durable)
    disk, me = store.disk(), store.actor("admitter")
    job = json.dumps({"prompt": "nothing", "commit": "none"})

    def put(k: int) -> None:
        name = f"d{k}.json"
        tmp = store.layout.queue / ".drop"
        tmp.write_text(job)
        assert disk.dropbox is not None
        disk.dropbox.arrived_whole(name)
        tmp.rename(store.layout.queue / name)
        for home, _ in disk.run(admission.take()):
            got = disk.run(admission.admit(me, home, ours.CONTEXT, ours.DAY))
            assert len(got.items) == 1, got

    took = timed(put, items)
    disk.close()
    return items / took


def _drive(
    system: System, given: Given, base: Path, durable: bool, workers: int, jobs: int
) -> dict[str, Any]:
    """One run in a process of its own, and of its own session: what is left of it after its time is killed."""
    python = given.environment.python if given.environment and system.packages else sys.executable
    told = {
        "driver": system.driver,
        "folder": str(base),
        "server": given.server(system, durable),
        "durable": durable,
        "workers": workers,
        "jobs": jobs,
        "limit_s": LIMIT_S,
    }
    child = subprocess.Popen(
        [python, "-P", "-m", "benchmarks.queue.peers.drive", json.dumps(told)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=base,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = child.communicate(timeout=3 * LIMIT_S)
    except subprocess.TimeoutExpired:
        raise Failed(f"no end after {3 * LIMIT_S:.0f} s") from None
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
    try:
        answer: dict[str, Any] = json.loads(_answer_in(out))
    except ValueError:
        raise Failed(last_line(err)) from None
    if "error" in answer:
        raise Failed(answer["error"])
    return answer


def _answer_in(text: str) -> str:
    return next((x for x in reversed(text.splitlines()) if x.startswith("{")), "")

"""What an item costs around its agent, how often idle processes wake up, and how soon a started worker has work."""

from __future__ import annotations

import contextlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.fleet import Fleet, Process, environment
from benchmarks.tables import Row, ms, note, percentile

PROMPT = "date +%s.%N; echo > {name}; git add -A; git commit -q -m 'add {name}'; date +%s.%N"
"""The agent says itself when it began and when it was done."""


WAITS = (
    "epoll_wait",
    "epoll_pwait",
    "poll",
    "ppoll",
    "select",
    "pselect6",
    "futex",
    "clock_nanosleep",
    "restart_syscall",
)


def overhead(where: Path, quick: bool) -> list[Row]:
    """One item at a time, no gate. Around the agent: claimed -> its first command runs, its last has run -> merged."""
    count = 10 if quick else 50
    before_s: list[float] = []
    after_s: list[float] = []
    with Fleet(where, gates=0) as fleet:
        fleet.start()
        fleet.events.watch()
        used = 0.0
        for k in range(-3, count):
            if k == 0:
                used = _cpu_s(fleet)
            name = f"o{k + 3}"
            start = len(fleet.events.seen)
            fleet.drop(name, {"prompt": PROMPT.format(name=name)})
            merged, _ = fleet.events.wait(_is("item_merged", name), 60, start)
            claimed, event = fleet.events.wait(_is("item_claimed", name), 60, start)
            fleet.until(
                lambda: all(r["state"] == "idle" for r in fleet.reports().values()), 30, "the pool is idle"
            )
            if k < 0:
                continue
            (output,) = fleet.state.glob(f"sessions/*/{event['uid']}.1/stdout.1.log")
            said = output.read_text().split()
            before_s.append(float(said[0]) - claimed)
            after_s.append(merged - float(said[-1]))
        cpu = (_cpu_s(fleet) - used) / count
    both = [a + b for a, b in zip(before_s, after_s, strict=True)]
    note(f"overhead: before p50 {ms(percentile(before_s, 50))}, after p50 {ms(percentile(after_s, 50))}")
    half = percentile(both, 50)
    return [
        Row(
            check=f"one item around its agent (claimed → agent runs, agent done → merged), no gate, {count} items",
            wanted="p50 < 0.3 s; p95 and CPU seconds reported",
            measured=f"p50 {half:.2f} s ({percentile(before_s, 50):.2f} before, {percentile(after_s, 50):.2f} after),"
            f" p95 {percentile(both, 95):.2f} s, {cpu:.2f} s of CPU in all processes",
            reached=half < 0.3,
        )
    ]


def _is(kind: str, name: str) -> Callable[[dict[str, Any]], bool]:
    return lambda e: e["event"] == kind and e.get("id") == name


def _cpu_s(fleet: Fleet) -> float:
    """Of everything that lives, and of all children that were waited for."""
    return sum(p.cpu_s() for p in fleet.processes())


def wakeups(where: Path, quick: bool) -> list[Row]:
    """How often a process of an idle fleet returns from a wait (with strace; without it voluntary switches, which count
    what waits for the disk in between as well), and how many workers a drop wakes (voluntary switches)."""
    seconds, drops = (20, 5) if quick else (60, 30)
    with Fleet(where, workers=8, gates=0) as fleet:
        fleet.start()
        fleet.drop("warm", [{"prompt": "sleep 1", "commit": "none"} for _ in range(16)])
        fleet.until(lambda: fleet.finished() == 16, 120, "the pool is warm", 0.1)
        fleet.until(lambda: not fleet.roles("merger"), 90, "the merger has gone")
        time.sleep(3)
        everyone = fleet.roles("coordinator") + fleet.roles("agent-")
        woke = _waits(everyone, seconds) if shutil.which("strace") else _switched(everyone, seconds)
        rates = {p.role: n / seconds for p, n in woke.items()}
        workers = [p for p in everyone if p.role != "coordinator"]
        woken: list[int] = []
        for k in range(drops):
            # The worker that gets it sleeps for longer than we look; the others have only their own rare beats.
            was = {p: _switches(p) for p in workers}
            fleet.drop(f"w{k}", {"prompt": "sleep 0.5", "commit": "none"})
            time.sleep(0.25)
            woken.append(sum(_switches(p) != n for p, n in was.items()))
            fleet.until(_finished(fleet, 17 + k), 30, "the item is done")
            time.sleep(random.uniform(0.3, 0.8))
    note("wake-ups per second: " + ", ".join(f"{r} {n:.2f}" for r, n in sorted(rates.items())))
    most, own = max(rates.values()), max(n for r, n in rates.items() if r != "coordinator")
    return [
        Row(
            check=f"idle: 8 workers and the coordinator, {seconds} s, wake-ups of one process",
            wanted="≤ 0.5 in a second",
            measured=f"coordinator {rates['coordinator']:.2f}/s, the busiest worker {own:.2f}/s",
            reached=most <= 0.5,
        ),
        Row(
            check=f"… a drop wakes one worker, not eight ({drops} drops; own beats of the others included)",
            wanted="1",
            measured=f"median {percentile(woken, 50):g}, mean {sum(woken) / len(woken):.1f}",
            reached=percentile(woken, 50) == 1,
        ),
    ]


def _finished(fleet: Fleet, items: int) -> Callable[[], bool]:
    return lambda: fleet.finished() == items


def _waits(processes: list[Process], seconds: float) -> dict[Process, int]:
    """Returns from epoll_wait(2) and the like, of all threads."""
    found: dict[Process, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        tracers = []
        for p in processes:
            argv = [
                "strace",
                "-f",
                "-o",
                f"{folder}/{p.pid}",
                "-e",
                f"trace={','.join(WAITS)}",
                "-p",
                str(p.pid),
            ]
            tracers.append(subprocess.Popen(argv, stderr=subprocess.DEVNULL))
        time.sleep(seconds)
        for tracer in tracers:
            tracer.terminate()
            tracer.wait()
        for p in processes:
            lines = Path(f"{folder}/{p.pid}").read_text().splitlines()
            found[p] = sum(" = " in line and "FUTEX_WAKE" not in line for line in lines)
    return found


def _switched(processes: list[Process], seconds: float) -> dict[Process, int]:
    before = {p: _switches(p) for p in processes}
    time.sleep(seconds)
    return {p: _switches(p) - was for p, was in before.items()}


def _switches(process: Process) -> int:
    total = 0
    for status in Path(f"/proc/{process.pid}/task").glob("*/status"):
        with contextlib.suppress(OSError):
            for line in status.read_text().splitlines():
                if line.startswith("voluntary_ctxt_switches"):
                    total += int(line.split()[1])
    return total


def start(where: Path, quick: bool) -> list[Row]:
    """A worker is started by hand, with an item waiting and no coordinator, which does not change what it does first."""
    rounds = 5 if quick else 30
    taken: list[float] = []
    with Fleet(where, workers=1, gates=0) as fleet:
        fleet.start("--workers", "0", wait_for=0)
        fleet.until((fleet.queue / "open").is_dir, 60, "the store is there")
        fleet.drop("all", [{"prompt": "sleep 60", "commit": "none"} for _ in range(rounds)])
        fleet.until(
            lambda: len(list((fleet.queue / "open").iterdir())) == rounds, 60, "everything is admitted"
        )
        fleet.stop()
        fleet.events.watch()
        for _ in range(rounds):
            seen = len(fleet.events.seen)
            argv = [
                sys.executable,
                "-P",
                "-m",
                "harness",
                "worker",
                "--root",
                str(fleet.root),
                "--agent",
                "agent-1",
            ]
            began = time.time()
            worker = subprocess.Popen(
                argv,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            at, _ = fleet.events.wait(lambda e: e["event"] == "item_claimed", 30, seen)
            taken.append(at - began)
            worker.kill()
            worker.wait()
            fleet.kill_all()
    return [
        Row(
            check=f"a worker is started → its first claim, {rounds} times",
            wanted="< 150 ms",
            measured=f"p50 {ms(percentile(taken, 50))}, p95 {ms(percentile(taken, 95))}",
            reached=percentile(taken, 50) < 0.150,
        )
    ]

"""kill -9 a worker in mid-attempt; kill -9 the coordinator while attempts run."""

from __future__ import annotations

import os
import time
from pathlib import Path

from benchmarks.checker import outcomes
from benchmarks.fleet import Fleet
from benchmarks.tables import Row, ms, note, percentile

FIRST_HANGS = """\
case $HARNESS_ATTEMPT in *.1)
  (setsid sh -c 'exec sleep 86399' &)
  (setsid env -i sh -c 'exec sleep 86398' &)
  sleep 86400 ;;
esac
"""
"""The first attempt leaves a child of its own session, and one without our mark; the second one is done at once."""


def worker(where: Path, quick: bool) -> list[Row]:
    """A pool of one: whoever runs the second attempt is the replacement."""
    kills = 10 if quick else 50
    ended: list[float] = []
    again: list[float] = []
    survivors, wrong = 0, []
    with Fleet(where, workers=1, gates=0) as fleet:
        fleet.start()
        fleet.events.watch()
        for k in range(kills):
            name, start = f"k{k}", len(fleet.events.seen)
            fleet.drop(name, {"prompt": FIRST_HANGS, "commit": "none"})
            _, claim = fleet.events.wait(lambda e: e["event"] == "item_claimed", 60, start)
            fleet.until(lambda: len(_sleepers(fleet)) == 3, 30, "the agent's three processes run")
            victim = fleet.worker("agent-1")
            assert victim is not None
            killed = time.time()
            victim.kill()
            at, _ = fleet.events.wait(lambda e: e["event"] == "attempt_expired", 30, start)
            left = _sleepers(fleet)
            survivors += len(left)
            ended.append(at - killed)
            at, _ = fleet.events.wait(lambda e: e["event"] == "agent_started" and e["n"] == 2, 60, start)
            again.append(at - killed)
            fleet.events.wait(lambda e: e["event"] == "item_finished", 60, start)
            fleet.until(
                lambda: all(r["state"] == "idle" for r in fleet.reports().values()), 30, "the worker is idle"
            )
            # A worker that lived for five seconds or ended an attempt did not die of its own start: no backoff.
            if (seen := outcomes(fleet.queue, claim["uid"])) != ["expired", "done"]:
                wrong.append(f"{name}: {seen}")
        note(f"killed {kills} workers; ended p50 {ms(percentile(ended, 50))}; wrong: {wrong or 'none'}")
    return [
        Row(
            check=f"`kill -9` a worker in mid-attempt, {kills} times: the attempt is ended",
            wanted="p99 < 100 ms",
            measured=f"p50 {ms(percentile(ended, 50))}, p99 {ms(percentile(ended, 99))}, max {ms(max(ended))}",
            reached=percentile(ended, 99) < 0.100,
        ),
        Row(
            check="… processes of the attempt (`setsid`, `env -i`) that are left then",
            wanted="0",
            measured=f"{survivors} of {3 * kills}",
            reached=survivors == 0,
        ),
        Row(
            check="… its replacement runs the agent again (a pool of one)",
            wanted="< 1 s",
            measured=f"p50 {percentile(again, 50):.2f} s, p99 {percentile(again, 99):.2f} s, max {max(again):.2f} s",
            reached=max(again) < 1.0,
        ),
        Row(
            check="… the item is expired once and done once",
            wanted="all",
            measured=f"{kills - len(wrong)} of {kills}",
            reached=not wrong,
        ),
    ]


def _sleepers(fleet: Fleet) -> list[int]:
    """The agent's processes, by what they run and where they work."""
    found = []
    state = os.fsencode(fleet.state)
    for name in os.listdir("/proc"):
        if not name.isdecimal():
            continue
        try:
            line = Path(f"/proc/{name}/cmdline").read_bytes()
            cwd = os.fsencode(os.readlink(f"/proc/{name}/cwd"))
        except OSError:
            continue
        if line.startswith(b"sleep\x0086") and cwd.startswith(state):
            found.append(int(name))
    return found


def coordinator(where: Path, quick: bool) -> list[Row]:
    """Three attempts run all the time while the coordinator is killed and started again and again."""
    kills = 3 if quick else 20
    adopted: list[float] = []
    with Fleet(where, workers=3, gates=0, sandbox="none") as fleet:
        flag = fleet.base / "go"
        process = fleet.start()
        fleet.events.watch()
        wait = f"while [ ! -e {flag} ]; do sleep 0.1; done"
        for k in range(3):
            fleet.drop(f"c{k}", {"prompt": wait, "commit": "none"})
        fleet.until(
            lambda: [r["state"] for r in fleet.reports().values()] == ["running"] * 3, 60, "three agents run"
        )
        before = {p.role: p.pid for p in fleet.roles("agent-")}
        for _ in range(kills):
            process.kill()
            fleet.until(lambda: not fleet.coordinators(), 10, "the coordinator is gone")
            start = len(fleet.events.seen)
            began, took = time.time(), 0.0
            process = fleet.start(wait_for=0)
            for _ in before:
                at, _ = fleet.events.wait(lambda e: e["event"] == "worker_adopted", 60, start)
                start = (
                    next(
                        j
                        for j, (when, e) in enumerate(fleet.events.seen)
                        if j >= start and e["event"] == "worker_adopted"
                    )
                    + 1
                )
                took = at - began
            adopted.append(took)
        same = {p.role: p.pid for p in fleet.roles("agent-")} == before
        flag.touch()
        fleet.until(lambda: fleet.finished() == 3, 60, "the three items are done")
        fleet.events.read()
        tries = {e["id"]: e["n"] for _, e in fleet.events.seen if e["event"] == "item_claimed"}
        spawned = sum(e["event"] == "worker_spawned" for _, e in fleet.events.seen)
    good = same and set(tries.values()) == {1} and spawned == 3
    return [
        Row(
            check=f"`kill -9` the coordinator and start it again, {kills} times: three running attempts",
            wanted="unharmed and adopted, none restarted",
            measured=f"{'the same processes' if same else 'OTHER PROCESSES'}, attempts {sorted(tries.values())};"
            f" adopted {percentile(adopted, 50):.2f} s (max {max(adopted):.2f} s) after the start",
            reached=good,
        )
    ]

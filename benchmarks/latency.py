"""How long a drop waits: until it is claimed, and until its commit is merged, on an idle pool."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.fleet import Fleet
from benchmarks.tables import Row, ms, note, percentile


def claimed(where: Path, quick: bool) -> list[Row]:
    """One drop at a time; the next one when the pool is idle again. The two modes take turns."""
    rounds, each = (2, 20) if quick else (4, 50)
    found: dict[str, list[float]] = {"power": [], "process": []}
    with (
        Fleet(where, durability="power", gates=0) as power,
        Fleet(where, durability="process", gates=0) as process,
    ):
        fleets = {"power": power, "process": process}
        for fleet in fleets.values():
            fleet.start()
            fleet.events.watch()
            _one(fleet, "warm")
        for k in range(rounds):
            for mode, fleet in list(fleets.items())[:: 1 if k % 2 else -1]:
                found[mode] += [_one(fleet, f"x{k}-{j}") for j in range(each)]
                note(f"claimed, {mode}, round {k + 1}: p50 {ms(percentile(found[mode], 50))}")
    power_s, process_s = found["power"], found["process"]
    half, most = percentile(power_s, 50), percentile(power_s, 99)
    return [
        Row(
            check=f"drop (`.json`) → claimed, idle pool, {len(power_s)} drops, `durability: power`",
            wanted="p50 < 20 ms, p99 < 100 ms",
            measured=f"p50 {ms(half)}, p90 {ms(percentile(power_s, 90))}, p99 {ms(most)}, max {ms(max(power_s))}",
            reached=half < 0.020 and most < 0.100,
        ),
        Row(
            check=f"the same, {len(process_s)} drops, `durability: process`",
            wanted="p50 < 5 ms",
            measured=f"p50 {ms(percentile(process_s, 50))}, p90 {ms(percentile(process_s, 90))},"
            f" p99 {ms(percentile(process_s, 99))}",
            reached=percentile(process_s, 50) < 0.005,
        ),
    ]


def _one(fleet: Fleet, name: str) -> float:
    start = len(fleet.events.seen)
    dropped = fleet.drop(name, {"prompt": "true", "commit": "none"})
    at, event = fleet.events.wait(lambda e: e["event"] == "item_claimed" and e["id"] == name, 30, start)
    fleet.events.wait(lambda e: e["event"] == "item_finished" and e["uid"] == event["uid"], 60, start)
    fleet.until(lambda: all(r["state"] == "idle" for r in fleet.reports().values()), 30, "the pool is idle")
    return at - dropped


def merged(where: Path, quick: bool) -> list[Row]:
    """An agent that commits at once; a repository of 500 files, one gate; one drop at a time."""
    count = 10 if quick else 50
    steps: dict[str, list[float]] = {}
    with Fleet(where) as fleet:
        fleet.start()
        fleet.events.watch()
        for k in range(-3, count):  # the first ones make the worktrees and start the merger
            name = f"m{k + 3}"
            start = len(fleet.events.seen)
            prompt = f"echo {name} > {name}.txt; git add -A; git commit -q -m 'add {name}'"
            dropped = fleet.drop(name, {"prompt": prompt})
            fleet.events.wait(_is("item_merged", name), 60, start)
            fleet.events.wait(lambda e: e["event"] == "target_published", 60, start)
            fleet.until(
                lambda: all(r["state"] == "idle" for r in fleet.reports().values()), 30, "the pool is idle"
            )
            if k < 0:
                continue
            for at, event in fleet.events.seen[start:]:
                steps.setdefault(event["event"], []).append(at - dropped)
    values = steps["item_merged"]
    names = ("item_claimed", "agent_started", "agent_finished", "gate_passed", "item_submitted")
    way = ", ".join(f"{n.split('_')[-1]} {percentile(steps[n], 50):.2f}" for n in names if n in steps)
    note(f"on the way to merged (median seconds): {way}, merged {percentile(values, 50):.2f}")
    return [
        Row(
            check=f"drop → merged, `command` agent that commits at once, idle pool, {len(values)} drops",
            wanted="p50 < 1 s",
            measured=f"p50 {percentile(values, 50):.2f} s, p90 {percentile(values, 90):.2f} s,"
            f" max {max(values):.2f} s (published p50 {percentile(steps['target_published'], 50):.2f} s)",
            reached=percentile(values, 50) < 1.0,
        )
    ]


def _is(kind: str, name: str) -> Any:
    return lambda e: e["event"] == kind and e.get("id") == name

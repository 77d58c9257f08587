"""`harnessctl status` with a long backlog."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.fleet import Fleet, environment
from benchmarks.tables import Row, note, percentile


def status(where: Path, quick: bool) -> list[Row]:
    """From the start of the process to its end, with a coordinator that counts, and without one."""
    items, repeats = (1000, 5) if quick else (10_000, 20)
    rows = []
    with Fleet(where, workers=0, durability="process") as fleet:
        process = fleet.start()
        fleet.until((fleet.queue / "open").is_dir, 60, "the store is there")
        lines = [json.dumps({"id": f"i{k}", "prompt": "true"}) for k in range(items)]
        hidden = fleet.queue / ".backlog.tmp"
        hidden.write_text("\n".join(lines) + "\n")
        began = time.monotonic()
        hidden.rename(fleet.queue / "backlog.jsonl")
        fleet.until(
            lambda: len(os.listdir(fleet.queue / "open")) >= items, 900, "everything is admitted", 0.2
        )
        note(f"admitted {items} items in {time.monotonic() - began:.1f} s")
        fleet.until(lambda: _counted(fleet) >= items, 120, "the coordinator has counted", 0.2)
        for living in (True, False):
            if not living:
                process.kill()
                fleet.until(lambda: not fleet.coordinators(), 10, "the coordinator is gone")
            for extra in ([], ["--json"]):
                taken = [_time(fleet, *extra) for _ in range(repeats)]
                half = percentile(taken, 50)
                rows.append(
                    Row(
                        check=f"`harnessctl status{''.join(f' {x}' for x in extra)}` with {items:,} open items,"
                        f" coordinator {'running' if living else 'down'}",
                        wanted="< 150 ms" if living else "",
                        measured=f"p50 {half * 1000:.0f} ms, max {max(taken) * 1000:.0f} ms",
                        reached=half < 0.150 if living else None,
                    )
                )
    return rows


def _counted(fleet: Fleet) -> int:
    try:
        return int(json.loads((fleet.state / "run" / "coordinator.json").read_bytes())["counts"]["ready"])
    except (OSError, ValueError, KeyError):
        return 0


def _time(fleet: Fleet, *extra: str) -> float:
    began = time.monotonic()
    subprocess.run(
        [sys.executable, "-P", "-m", "harness", "status", "--root", str(fleet.root), *extra],
        env=environment(),
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return time.monotonic() - began

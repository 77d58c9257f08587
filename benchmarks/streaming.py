"""A worker while its agent streams: what reading ten megabytes of events in a minute costs it."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from benchmarks.fleet import CHECKOUT, Fleet
from benchmarks.tables import Row, note

REPLAY = CHECKOUT / "tests" / "replay.py"
RECORDING = CHECKOUT / "tests" / "data" / "agents" / "claude-commit.jsonl"


def streaming(where: Path, quick: bool) -> list[Row]:
    """Claude's events by the fake agent of the tests, evenly; CPU time and memory of the worker's own process."""
    megabytes, seconds = (2, 12.0) if quick else (10, 60.0)
    binary = where / "streaming-agent"
    binary.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P "{REPLAY}" "$@"\n')
    binary.chmod(0o755)
    orders = f'{{"recording": "{RECORDING}", "flood": [{megabytes << 20}, {seconds}]}}'
    tool = {"adapter": "claude", "binary": str(binary), "env": {"REPLAY": orders}}
    with Fleet(where, workers=1, gates=0, agents={"shell": tool}) as fleet:
        fleet.start(wait_for=1)
        fleet.drop("a", {"prompt": "stream", "commit": "none"})
        fleet.until(
            lambda: any(r["state"] == "running" for r in fleet.reports().values()), 60, "the agent runs"
        )
        worker = fleet.worker("agent-1")
        assert worker is not None
        began, used = time.monotonic(), worker.cpu_s()
        largest = 0.0
        while time.monotonic() - began < seconds - 2:
            largest = max(largest, worker.memory_mb()[0])
            time.sleep(0.5)
        share = (worker.cpu_s() - used) / (time.monotonic() - began)
        fleet.until(lambda: fleet.finished() == 1, 60, "it is done")
        log = next(fleet.state.glob("sessions/*/*/stdout.1.log"))
        note(f"{log.stat().st_size / 2**20:.1f} MiB of events")
    return [
        Row(
            check=f"a worker while its agent streams {megabytes} MB of events in {seconds:.0f} s",
            wanted="< 5 % of a core, < 60 MB",
            measured=f"{100 * share:.1f} % of a core, {largest:.1f} MB resident",
            reached=share < 0.05 and largest < 60,
        )
    ]

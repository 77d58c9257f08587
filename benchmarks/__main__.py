"""./scripts/bench [NAME...] [--quick] [--dir DIR] [--list]: measures, and prints tables in Markdown."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import (
    cost,
    deaths,
    drops,
    latency,
    limits,
    looking,
    overhead,
    power,
    scaling,
    streaming,
    worktrees,
)
from benchmarks.queue import ours
from benchmarks.storm import Wrong, storm
from benchmarks.tables import Row, machine, note, table


def storms(where: Path, quick: bool) -> list[Row]:
    """The storm as a row of the table; more of it with scripts/storm."""
    items = 40 if quick else 500
    try:
        row, _ = storm(where, items=items, seed=1, gap_s=2.0, workers=4, durability="power")
    except (Wrong, TimeoutError) as e:
        note(str(e))
        return [Row(check=f"storm, {items} items", wanted="", measured=str(e).splitlines()[0], reached=False)]
    return [row]


BENCHMARKS: dict[str, Callable[[Path, bool], list[Row]]] = {
    "merged": latency.merged,
    "claimed": latency.claimed,
    "worker": deaths.worker,
    "coordinator": deaths.coordinator,
    "storm": storms,
    "power": power.rows,
    "idle": cost.idle,
    "load": cost.load,
    "speedup": scaling.speedup,
    "status": looking.status,
    "streaming": streaming.streaming,
    "limits": limits.limits,
    "store": ours.rows,
    "drops": drops.rows,
    "overhead": overhead.overhead,
    "wakeups": overhead.wakeups,
    "start": overhead.start,
    "worktrees": worktrees.rows,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("name", nargs="*", metavar="NAME", help=f"of: {', '.join(BENCHMARKS)}; default all")
    parser.add_argument("--quick", action="store_true", help="fewer of everything: to see that it works")
    parser.add_argument("--dir", type=Path, default=Path("/var/tmp"), help="where; a disk, not a tmpfs")
    options = parser.parse_args()
    unknown = [n for n in options.name if n not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark {unknown[0]!r}; there are: {', '.join(BENCHMARKS)}")
    options.dir.mkdir(parents=True, exist_ok=True)
    print(f"Machine: {machine(options.dir)}\n", flush=True)
    rows: list[Row] = []
    for name in options.name or BENCHMARKS:
        note(f"{name} …")
        began = time.monotonic()
        try:
            rows += BENCHMARKS[name](options.dir, options.quick)
        except (TimeoutError, RuntimeError) as e:
            rows.append(
                Row(check=name, wanted="", measured=f"broke off: {str(e).splitlines()[0]}", reached=False)
            )
            note(str(e))
        note(f"{name}: {time.monotonic() - began:.0f} s")
    print(table(rows))
    return 0 if all(r.reached is not False for r in rows) else 1


if __name__ == "__main__":
    sys.exit(main())

"""Runs a storm with each mistake of `harness.failpoints` in the daemon: every one has to be found.

    ./scripts/failpoints [NAME...]                      exit 0: all of them were

Without this, a storm that finds nothing might be a storm that cannot find anything. And one that finds something might
be a machine that is too slow: first comes a storm without a mistake, which must find nothing in the same time.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.storm import Wrong, storm
from benchmarks.tables import note
from harness.failpoints import NAMES


@dataclass(frozen=True)
class Weather:
    """What a storm is like."""

    aim: tuple[int, int, int] = (6, 2, 2)
    gap_s: float = 1.0
    items: int = 60
    timeout_s: float = 90.0


USUAL = Weather()
SPECIAL = {"merges-again": Weather(aim=(1, 1, 12), gap_s=0.5, items=40, timeout_s=180.0)}
UNSYNCED = ("no-sync-of-the-hub", "leaves-torn-objects")
"""What a git that fsyncs makes good."""
TRIES = 4
"""Seeds: some mistakes need a kill in the right moment."""
NONE = "(none)"


def by_storm(name: str, where: Path, weather: Weather, tries: int = TRIES) -> str:
    """-> the first thing that the checker said, "" when it found nothing. `name`: "" for none."""
    for seed in range(1, tries + 1):
        try:
            storm(
                where,
                items=weather.items,
                seed=seed,
                gap_s=weather.gap_s,
                workers=3,
                durability="process",
                failpoint=name,
                aim=weather.aim,
                timeout_s=weather.timeout_s,
            )
        except Wrong as e:
            return e.wrong[0]
        except (TimeoutError, RuntimeError) as e:
            return str(e).partition("\n")[0]
        note(f"{name or NONE}: seed {seed} found nothing")
    return ""


def by_power(name: str, where: Path) -> str:
    done = subprocess.run(
        [
            sys.executable,
            "-P",
            "-m",
            "benchmarks.power",
            "--losses",
            "12",
            "--failpoint",
            name,
            *(["--unsynced"] if name in UNSYNCED else []),
            "--dir",
            str(where),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if not done.returncode:
        return ""
    said = [x.strip() for x in (done.stdout or done.stderr).splitlines() if x.strip()]
    return said[0] if said else f"exit {done.returncode}"


def _shown(said: str, where: Path) -> str:
    return said.replace("|", "/").replace(str(where), "")[:140]


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/failpoints", description=__doc__.splitlines()[0])
    parser.add_argument("name", nargs="*", help=f"of: {', '.join(NAMES)}")
    parser.add_argument("--dir", type=Path, default=Path("/var/tmp"))
    args = parser.parse_args()
    if unknown := set(args.name) - NAMES.keys():
        parser.error(f"no failpoint {min(unknown)!r}; there are: {', '.join(NAMES)}")
    missed = []
    print("| failpoint | what is left out | found by | what was said | seconds |\n|---|---|---|---|---|")
    wanted = [name for name in NAMES if not args.name or name in args.name]
    for weather in dict.fromkeys(SPECIAL.get(name, USUAL) for name in wanted if NAMES[name][1] == "storm"):
        began = time.monotonic()
        said = by_storm("", args.dir, weather, tries=1)
        shown = _shown(said, args.dir) or "nothing"
        print(f"| {NONE} | nothing | storm | {shown} | {time.monotonic() - began:.0f} |", flush=True)
        if said:
            print("what would be found now proves nothing: a storm without a mistake found something, too")
            return 1
    for name in wanted:
        _, finder, what = NAMES[name]
        began = time.monotonic()
        if finder == "power":
            said = by_power(name, args.dir)
        else:
            said = by_storm(name, args.dir, SPECIAL.get(name, USUAL))
        shown = _shown(said, args.dir) or "**nothing**"
        print(f"| {name} | {what} | {finder} | {shown} | {time.monotonic() - began:.0f} |", flush=True)
        if not said:
            missed.append(name)
    print(
        f"{len(wanted) - len(missed)} of {len(wanted)} failpoints found; missed: {', '.join(missed) or 'none'}"
    )
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())

"""Runs a storm with each mistake of `harness.failpoints` in the daemon: every one has to be found.

    ./scripts/failpoints [NAME...]                      exit 0: all of them were, but for those that it says are skipped

Without this, a storm that finds nothing might be a storm that cannot find anything. And one that finds something might
be a machine that is too slow: first come storms and power losses without a mistake, which must find nothing in the same
time. A mistake is found by the checker, or by work that is never done: which of both is said for each.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.power import NEVER
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
"""Seeds: some mistakes need a kill, or a power loss, in the right moment."""
NONE = "(none)"
CHECKER, TIME, SKIPPED = "checker", NEVER, "skipped"


def by_storm(name: str, where: Path, weather: Weather, tries: int = TRIES) -> tuple[str, str]:
    """-> (by what it was found, what was said first); empty when it was not. `name`: "" for none.

    What is not done in time is killed, and checked all the same.
    """
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
            return CHECKER, e.wrong[0]
        except TimeoutError as e:
            return TIME, str(e).partition("\n")[0]
        note(f"{name or NONE}: seed {seed} found nothing")
    return "", ""


def by_power(name: str, where: Path, unsynced: bool, tries: int = TRIES) -> tuple[str, str]:
    """The same. Raises RuntimeError when nothing was counted in the end: that is trouble of another kind."""
    for seed in range(1, tries + 1):
        by, said = _losses(name, where, unsynced, seed)
        if by:
            return by, said
        note(f"{name or NONE}: seed {seed} found nothing")
    return "", ""


def _losses(name: str, where: Path, unsynced: bool, seed: int) -> tuple[str, str]:
    options = ["--losses", "12", "--seed", str(seed), "--dir", str(where)]
    options += ["--failpoint", name] if name else []
    options += ["--unsynced"] if unsynced else []
    done = subprocess.run(
        [sys.executable, "-P", "-m", "benchmarks.power", *options],
        capture_output=True,
        text=True,
        check=False,
    )
    said = [x.strip() for x in done.stdout.splitlines() if x.strip()]
    if said and said[-1].startswith("skipped"):
        return SKIPPED, said[-1]
    counted = re.fullmatch(r"\d+ power losses .*: (\d+) violations", said[-1]) if said else None
    if counted is None or bool(done.returncode) != bool(int(counted[1])):
        raise RuntimeError(
            f"{name or NONE}: exit {done.returncode}: {done.stdout[-500:]}{done.stderr[-2000:]}"
        )
    if not done.returncode:
        return "", ""
    return (TIME if said[0].startswith(TIME) else CHECKER), said[0]


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/failpoints", description=__doc__.splitlines()[0])
    parser.add_argument("name", nargs="*", help=f"of: {', '.join(NAMES)}")
    parser.add_argument("--dir", type=Path, default=Path("/var/tmp"))
    args = parser.parse_args()
    if unknown := set(args.name) - NAMES.keys():
        parser.error(f"no failpoint {min(unknown)!r}; there are: {', '.join(NAMES)}")
    print(
        "| failpoint | what is left out | storm or power | found by | what was said | seconds |\n|---|---|---|---|---|---|"
    )
    wanted = [name for name in NAMES if not args.name or name in args.name]

    def found(name: str, kind: str, what: str, look: Callable[[], tuple[str, str]]) -> str:
        began = time.monotonic()
        by, said = look()
        said = said.replace("|", "/").replace(str(args.dir), "")[:140] or "nothing"
        seconds = time.monotonic() - began
        print(f"| {name or NONE} | {what} | {kind} | {by or '-'} | {said} | {seconds:.0f} |", flush=True)
        return by

    calm = True
    for weather in dict.fromkeys(SPECIAL.get(name, USUAL) for name in wanted if NAMES[name][1] == "storm"):
        calm &= found("", "storm", "nothing", partial(by_storm, "", args.dir, weather, tries=1)) == ""
    for unsynced in dict.fromkeys(name in UNSYNCED for name in wanted if NAMES[name][1] == "power"):
        calm &= found("", "power", "nothing", partial(by_power, "", args.dir, unsynced, tries=1)) in (
            "",
            SKIPPED,
        )
    if not calm:
        print("what would be found now proves nothing: without a mistake something was found, too")
        return 1
    by: dict[str, list[str]] = {}
    for name in wanted:
        _, kind, what = NAMES[name]
        look = (
            partial(by_power, name, args.dir, name in UNSYNCED)
            if kind == "power"
            else partial(by_storm, name, args.dir, SPECIAL.get(name, USUAL))
        )
        by.setdefault(found(name, kind, what, look), []).append(name)
    missed, skipped = by.pop("", []), by.pop(SKIPPED, [])
    print(
        f"{len(wanted) - len(missed) - len(skipped)} of {len(wanted)} failpoints found ({len(by.get(CHECKER, []))} by the checker,"
        f" {len(by.get(TIME, []))} by work that was never done); missed: {', '.join(missed) or 'none'}"
        + (f"; skipped: {', '.join(skipped)}" if skipped else "")
    )
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())

"""Explore all scenarios: `python -m tests.model [--seconds S] [--processes N] [--only LETTERS] [--walks N] [--json FILE]`.

Exit 1 when an invariant does not hold; the trace that leads there is printed. A scenario that was cut short is named so:
that is no proof of it. The last one is too large, and is walked at random; its seed is printed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain
from multiprocessing import Pool
from pathlib import Path

from tests.model.explorer import Explorer, Result
from tests.model.scenarios import scenarios, too_large

WIDTH = 78


def explore(task: tuple[int, float]) -> Result:
    number, seconds = task
    return Explorer(scenarios()[number]).run(seconds=seconds)


def line(result: Result) -> str:
    return (
        f"{result.name[:WIDTH]:{WIDTH}} {result.states:>11,} {result.transitions:>12,} {result.ends:>8,} "
        f"{result.drains:>7,} {result.seconds:7.1f} s  {result.verdict}"
    )


def results(tasks: list[tuple[int, float]], processes: int) -> Iterator[Result]:
    if processes == 1:
        yield from map(explore, tasks)
        return
    with Pool(
        processes, maxtasksperchild=1
    ) as pool:  # a scenario may fill the memory; the next one begins anew
        yield from pool.imap(explore, tasks, chunksize=1)


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.model", description=__doc__)
    parser.add_argument("--seconds", type=float, default=1e9, help="CPU time for one scenario")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", default="", help="the first characters of the scenarios")
    parser.add_argument("--json", type=Path, help="write the results there")
    parser.add_argument("--walks", type=int, default=2_000, help="random walks of what is too large")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of these walks")
    args = parser.parse_args()
    tasks = [(k, args.seconds) for k, s in enumerate(scenarios()) if not args.only or s.name[0] in args.only]
    say = sys.stdout.write
    say(
        f"{'scenario':{WIDTH}} {'states':>11} {'transitions':>12} {'ends':>8} {'drains':>7} {'CPU':>9}  result\n"
    )
    began, done = time.monotonic(), []
    walked = (Explorer(too_large()).walk(args.walks, seed=args.seed) for _ in range(bool(args.walks)))
    for result in chain(results(tasks, args.processes), walked):
        say(line(result) + "\n")
        for step in result.trace:
            say(f"      {str(step)[:400]}\n")
        sys.stdout.flush()
        done.append(result)
    complete = sum(r.complete for r in done)
    say(
        f"{sum(not r.walks for r in done)} scenarios, {complete} of them whole, {sum(r.states for r in done):,} states, "
        f"{sum(r.transitions for r in done):,} transitions, "
        f"{''.join(r.walks for r in done) or 'no walks'}, {time.monotonic() - began:.0f} s\n"
    )
    if args.json:
        args.json.write_text(
            json.dumps([{**asdict(r), "trace": len(r.trace)} for r in done], indent=1) + "\n"
        )
    return int(any(r.violation for r in done))


if __name__ == "__main__":
    sys.exit(main())

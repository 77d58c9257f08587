"""A storm: while items run, a worker, the coordinator or a merger is killed again and again; then everything is counted.

    ./scripts/storm [--items N] [--kills N] [--seed S] [--gap SECONDS] [--workers N] [--durability power|process] [--stops]

Exit 0: every item was archived once, with one merge each, and nothing is left of anything.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.checker import check
from benchmarks.fleet import Fleet, Process, git
from benchmarks.tables import Row, note

WORK = """\
sleep {sleep}
printf %s {id} > work/{id}.txt
{commit}
"""


@dataclass(slots=True)
class Storm:
    """What is done to a fleet, decided by a seed."""

    fleet: Fleet
    random: random.Random
    items: int
    kills: int
    gap_s: float = 2.0
    stops: bool = False
    durable_drops: bool = False
    """A person's drop is theirs to make durable; ours must not be lost to a power loss before it was taken."""
    expected: dict[str, str | None] = field(default_factory=dict)
    killed: dict[str, int] = field(default_factory=dict)
    _dropped: int = 0
    _stopped: list[tuple[float, Process]] = field(default_factory=list)

    def run(self, timeout_s: float) -> float:
        """Until everything is archived. -> seconds it took."""
        self.fleet.start(wait_for=0)
        self.fleet.until((self.fleet.queue / "open").is_dir, 60, "the store is there")
        began = time.monotonic()
        strike = began + self.gap_s
        told = began
        while self.fleet.finished() < self.items or self._dropped < self.items:
            now = time.monotonic()
            if now - began > timeout_s:
                left = sorted(p.name for p in (self.fleet.queue / "open").iterdir())[:10]
                raise TimeoutError(
                    f"{self.fleet.finished()} of {self.items} after {timeout_s:g} s; open: {left}"
                )
            self.feed()
            self._wake(now)
            if not self.fleet.started():
                self.fleet.start(wait_for=0)
            if now >= strike and sum(self.killed.values()) < self.kills:
                self._strike()
                strike = now + self.gap_s * self.random.uniform(0.5, 1.5)
            if now - told > 15:
                told = now
                note(f"{self.fleet.finished()} of {self.items} archived, killed {self.killed}")
            time.sleep(0.1)
        self._wake(float("inf"))
        return time.monotonic() - began

    # ---- work --------------------------------------------------------------------------------------------------------

    def feed(self) -> None:
        """Keeps a few dozen items on the way: single ones, batches, with dependencies and priorities."""
        while self._dropped < self.items and self._dropped - self.fleet.finished() < 40:
            size = min(self.random.choice((1, 1, 1, 5)), self.items - self._dropped)
            plan = [self._item(f"s{self._dropped + k}") for k in range(size)]
            for k in range(1, size):
                if self.random.random() < 0.5:
                    plan[k]["depends_on"] = [plan[self.random.randrange(k)]["id"]]
            self.fleet.drop(f"drop{self._dropped}", plan if size > 1 else plan[0], durable=self.durable_drops)
            self._dropped += size

    def _item(self, name: str) -> dict[str, object]:
        # An attempt that is killed costs one of max_attempts; the storm is not about running out of them.
        item: dict[str, object] = {"id": name, "priority": self.random.randrange(10), "max_attempts": 900}
        if self.random.random() < 0.1:
            self.expected[name] = None
            return item | {"prompt": f"sleep {self.random.uniform(0, 1):.2f}", "commit": "none"}
        self.expected[name] = f"work/{name}.txt"
        commit = self.random.choice((f"git add -A; git commit -q -m 'work of {name}'", ":"))
        prompt = "mkdir -p work; " + WORK.format(
            id=name, sleep=f"{self.random.uniform(0, 1):.2f}", commit=commit
        )
        return item | {"prompt": prompt}

    # ---- harm --------------------------------------------------------------------------------------------------------

    def _strike(self) -> None:
        """kill -9 one process of ours: mostly a worker, now and then the coordinator or a merger."""
        kind = self.random.choices(("agent-", "coordinator", "merger."), (6, 2, 2))[0]
        found = self.fleet.roles(kind)
        if not found:
            return
        victim = self.random.choice(found)
        if self.stops and self.random.random() < 0.3 and kind == "agent-":
            if victim.kill(signal.SIGSTOP):
                self._stopped.append((time.monotonic() + self.random.uniform(0.5, 4), victim))
                self.killed["stopped"] = self.killed.get("stopped", 0) + 1
            return
        if victim.kill():
            name = kind.rstrip("-.")
            self.killed[name] = self.killed.get(name, 0) + 1

    def _wake(self, now: float) -> None:
        for moment, process in [x for x in self._stopped if x[0] <= now]:
            process.kill(signal.SIGCONT)
            self._stopped.remove((moment, process))


def storm(
    where: Path,
    *,
    items: int,
    kills: int,
    seed: int,
    gap_s: float,
    workers: int,
    durability: str,
    stops: bool,
) -> tuple[Row, list[str]]:
    """One storm and its verdict."""
    settings: dict[str, Any] = {"health": {"beat_s": 0.5, "hang_s": 2.0}} if stops else {}
    with Fleet(
        where,
        workers=workers,
        durability=durability,
        retry={"first_delay_s": 0.0, "max_delay_s": 1.0, "max_attempts": 900},
        **settings,
    ) as fleet:
        it = Storm(fleet, random.Random(seed), items, kills, gap_s, stops)
        took = it.run(timeout_s=600 + 6 * items)
        if not fleet.started():
            fleet.start(wait_for=0)
        fleet.until(lambda: _published(fleet), 120, "everything is published")
        fleet.stop()
        wrong = check(fleet, it.expected)
        fleet.events.read()
        expired = sum(e["event"] == "attempt_expired" for _, e in fleet.events.seen)
        if wrong:
            raise Wrong(wrong, seed)
    struck = ", ".join(f"{n} × {k}" for k, n in sorted(it.killed.items()))
    return Row(
        check=f"storm: {items} items, {workers} workers, every {gap_s:g} s a kill (seed {seed}, `durability: {durability}`)",
        wanted="every item archived once, one merge each, `fsck` and `git fsck` clean, nothing left",
        measured=f"all of it, in {took:.0f} s; {sum(it.killed.values())} kills ({struck}), {expired} attempts expired",
        reached=True,
    ), wrong


class Wrong(Exception):
    """The storm left something that may not be."""

    def __init__(self, wrong: list[str], seed: int) -> None:
        self.wrong = wrong
        super().__init__(f"seed {seed}: {len(wrong)} violations:\n  " + "\n  ".join(wrong[:40]))


def _published(fleet: Fleet) -> bool:
    return git(fleet.hub, "rev-parse", "main") == git(fleet.app, "rev-parse", "main")


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/storm", description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=100)
    parser.add_argument("--kills", type=int, default=10_000, help="at most so many")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--gap", type=float, default=2.0, help="mean seconds between kills")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--durability", choices=("power", "process"), default="power")
    parser.add_argument(
        "--stops", action="store_true", help="also SIGSTOP workers, so that the living are suspected"
    )
    parser.add_argument("--dir", type=Path, default=Path("/var/tmp"), help="where; a disk, not a tmpfs")
    options = parser.parse_args()
    try:
        row, _ = storm(
            options.dir,
            items=options.items,
            kills=options.kills,
            seed=options.seed,
            gap_s=options.gap,
            workers=options.workers,
            durability=options.durability,
            stops=options.stops,
        )
    except Wrong as e:
        print(e, file=sys.stderr)
        return 1
    print(f"{row.check}: {row.measured}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""A storm: while items run, a worker, the coordinator or a merger is killed again and again; then everything is counted.

    ./scripts/storm [--items N] [--kills N] [--seed S] [--gap SECONDS] [--workers N] [--durability power|process] [--stops]

Exit 0: every item was archived once, with one merge each, and nothing is left of anything.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.checker import check
from benchmarks.fleet import Fleet, Process, environment, git
from benchmarks.tables import Row, note

WORK = """\
sleep {sleep}
mkdir -p work
printf %s {id} > work/{id}.txt
{more}
{commit}
"""
FAILS_FIRST = "case $HARNESS_ATTEMPT in *.1) echo 'not yet'; exit 1;; esac"
CONFLICTS = "mkdir -p shared; printf '%s\\n' {id} > shared/{k}.txt"
"""Written by many items at once: the second merge is refused, and its item runs again on what is there then."""
RETRY_S = 3.0


@dataclass(slots=True)
class Storm:
    """What is done to a fleet, decided by a seed."""

    fleet: Fleet
    random: random.Random
    items: int
    kills: int
    gap_s: float = 2.0
    stops: bool = False
    aim: tuple[int, int, int] = (6, 2, 2)
    people_too: bool = True
    """Also cancels, retries, conflicts, failures, and drops that are written slowly."""
    durable_drops: bool = False
    """A person's drop is theirs to make durable; ours must not be lost to a power loss before it was taken."""
    expected: dict[str, str | None] = field(default_factory=dict)
    cancelled: set[str] = field(default_factory=set)
    """Items that somebody wanted to cancel: they are over either way."""
    killed: dict[str, int] = field(default_factory=dict)
    people: dict[str, int] = field(default_factory=dict)
    """What was done besides: cancels, retries, drops written slowly."""
    _dropped: int = 0
    _stopped: list[tuple[float, Process]] = field(default_factory=list)
    _slow: list[tuple[float, Path, bytes]] = field(default_factory=list)
    """(when, file, the rest of it) of drops that are being written."""
    _to_cancel: list[tuple[float, str]] = field(default_factory=list)
    _commands: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _retry_at: float = 0.0

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
            self._be_people(now)
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
        for command in self._commands:
            command.wait(60)
        return time.monotonic() - began

    def some(self, items: int) -> None:
        """Feeds until so many more items are finished, for a minute at most."""
        goal = min(self.fleet.finished() + items, self.items)
        deadline = time.monotonic() + 60
        while self.fleet.finished() < goal and time.monotonic() < deadline:
            self.feed()
            time.sleep(0.02)

    # ---- work --------------------------------------------------------------------------------------------------------

    def feed(self) -> None:
        """Keeps a few dozen items on the way: single ones, batches, with dependencies and priorities."""
        while self._dropped < self.items and self._dropped - self.fleet.finished() < 40:
            size = min(self.random.choice((1, 1, 1, 5)), self.items - self._dropped)
            plan = [self._item(f"s{self._dropped + k}") for k in range(size)]
            for k in range(1, size):
                if self.random.random() < 0.5:
                    plan[k]["depends_on"] = [plan[self.random.randrange(k)]["id"]]
            name = f"drop{self._dropped}"
            self._dropped += size
            if self.people_too and self.random.random() < 0.15:
                self._write_slowly(name, plan)
                continue
            self.fleet.drop(name, plan if size > 1 else plan[0], durable=self.durable_drops)
            if self.people_too and size == 1 and self.random.random() < 0.08:
                delay_s = self.random.expovariate(1)
                self._to_cancel.append((time.monotonic() + delay_s, str(plan[0]["id"])))

    def _write_slowly(self, name: str, plan: list[dict[str, object]]) -> None:
        """In place, half of it now, the rest later: what is in between is not to be taken."""
        path = self.fleet.queue / f"{name}.json"
        raw = json.dumps(plan if len(plan) > 1 else plan[0]).encode()
        half = self.random.randrange(len(raw))
        path.write_bytes(raw[:half])
        self._slow.append((time.monotonic() + self.random.uniform(0, 0.9), path, raw[half:]))
        self._count("slow drops")

    def _item(self, name: str) -> dict[str, object]:
        # An attempt that is killed costs one of max_attempts; the storm is not about running out of them.
        item: dict[str, object] = {"id": name, "priority": self.random.randrange(10), "max_attempts": 900}
        if self.random.random() < 0.1:
            self.expected[name] = None
            return item | {"prompt": f"sleep {self.random.uniform(0, 1):.2f}", "commit": "none"}
        self.expected[name] = f"work/{name}.txt"
        commit = self.random.choice((f"git add -A; git commit -q -m 'work of {name}'", ":"))
        more = ":"
        luck = self.random.random() if self.people_too else 1.0
        if luck < 0.08:
            more, item["max_attempts"] = FAILS_FIRST, 1  # parked: somebody retries it
        elif luck < 0.16:
            more = FAILS_FIRST
        elif luck < 0.3:
            more = CONFLICTS.format(id=name, k=self.random.randrange(3))
        prompt = WORK.format(id=name, sleep=f"{self.random.uniform(0, 1):.2f}", more=more, commit=commit)
        return item | {"prompt": prompt}

    # ---- people ------------------------------------------------------------------------------------------------------

    def _be_people(self, now: float) -> None:
        for due in [x for x in self._slow if x[0] <= now]:
            self._slow.remove(due)
            with due[1].open("ab") as file:
                file.write(due[2])
        for when, name in [x for x in self._to_cancel if x[0] <= now]:
            self._to_cancel.remove((when, name))
            self.cancelled.add(name)
            self._harnessctl("cancel", name)
        if self.people_too and now >= self._retry_at:
            self._retry_at = now + RETRY_S
            self._harnessctl("retry", "--state", "parked", "--yes")
        self._commands = [c for c in self._commands if c.poll() is None]

    def _harnessctl(self, verb: str, *args: str) -> None:
        self._count(verb)
        self._commands.append(
            subprocess.Popen(
                [sys.executable, "-P", "-m", "harness", verb, *args, "--root", str(self.fleet.root)],
                cwd=self.fleet.base,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )

    def _count(self, what: str) -> None:
        self.people[what] = self.people.get(what, 0) + 1

    # ---- harm --------------------------------------------------------------------------------------------------------

    def _strike(self) -> None:
        """kill -9 one process of ours: mostly a worker, now and then the coordinator or a merger."""
        kind = self.random.choices(("agent-", "coordinator", "merger."), self.aim)[0]
        found = self.fleet.roles(kind)
        if not found:
            return
        victim = self.random.choice(found)
        if self.stops and self.random.random() < 0.3:
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
    failpoint: str = "",
    aim: tuple[int, int, int] = (6, 2, 2),
    timeout_s: float = 0.0,
) -> tuple[Row, list[str]]:
    """One storm and its verdict. `aim`: how often a worker, the coordinator, a merger is struck."""
    settings: dict[str, Any] = {"health": {"beat_s": 0.5, "hang_s": 2.0}} if stops else {}
    with Fleet(
        where,
        workers=workers,
        durability=durability,
        failpoint=failpoint,
        retry={"first_delay_s": 0.0, "max_delay_s": 1.0, "max_attempts": 900},
        **settings,
    ) as fleet:
        it = Storm(fleet, random.Random(seed), items, kills, gap_s, stops, aim)
        took = it.run(timeout_s or 600 + 6 * items)
        if not fleet.started():
            fleet.start(wait_for=0)
        fleet.until(lambda: published(fleet), 120, "everything is published")
        fleet.finish()
        wrong = check(fleet, it.expected, it.cancelled)
        fleet.events.read()
        expired = sum(e["event"] == "attempt_expired" for _, e in fleet.events.seen)
        if wrong:
            raise Wrong(wrong, seed)
    struck = ", ".join(f"{n} × {k}" for k, n in sorted((it.killed | it.people).items()))
    return Row(
        check=f"storm: {items} items, {workers} workers, every {gap_s:g} s a kill (seed {seed}, `durability: {durability}`)",
        wanted="every item archived once, one merge each, `fsck` and `git fsck` clean, nothing left",
        measured=f"all of it, in {took:.0f} s; {sum(it.killed.values())} kills and stops ({struck}), {expired} attempts expired",
        reached=True,
    ), wrong


class Wrong(Exception):
    """The storm left something that may not be."""

    def __init__(self, wrong: list[str], seed: int) -> None:
        self.wrong = wrong
        super().__init__(f"seed {seed}: {len(wrong)} violations:\n  " + "\n  ".join(wrong[:40]))


def published(fleet: Fleet) -> bool:
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

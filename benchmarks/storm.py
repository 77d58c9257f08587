"""A storm: while items run, a worker, the coordinator or a merger is killed again and again; then everything is counted.

    ./scripts/storm [--items N] [--kills N] [--stops N] [--seed S] [--gap SECONDS] [--workers N] [--durability power|process]

Items are dropped until there were so many of them *and* so many kills and stops: neither goes on alone.
Exit 0: every item was archived once, with one merge each, nobody was killed but by us, and nothing is left of anything.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.checker import check, check_unfinished
from benchmarks.fleet import Fleet, Process, git
from benchmarks.tables import Row, note

WORK = """\
sleep {sleep}
mkdir -p {folder}
printf %s {id} > {folder}/{id}.txt
{more}
{commit}
"""
COMMITS = (
    "git add -A; git commit -q -m 'work of {id}'",
    ":",
)
UNSYNCED = "git -c core.fsync=none add -A; git -c core.fsync=none commit -q -m 'work of {id}'"
"""As an agent whose own configuration says so, or whose git is another program: nothing of it is on the disk."""
FAILS_FIRST = "case $HARNESS_ATTEMPT in *.1) echo 'not yet'; exit 1;; esac"
CONFLICTS = "mkdir -p shared; printf '%s\\n' {id} > shared/{k}.txt"
"""Written by many items at once: the second merge is refused, and its item runs again on what is there then."""
RETRY_S = 6.0
STUCK_S = 300.0
"""Nothing was archived for so long: no backoff of ours lasts longer than a minute."""
TOLD_S = 60.0
FLOOR_MB = 4096
"""Left to everybody else by a storm from the command line: 5,000 items write some GB."""


ROLES = {"worker": "agent-", "coordinator": "coordinator", "merger": "merger."}
"""Whom a blow may hit -> how the names of such processes begin."""


@dataclass(slots=True)
class Blows:
    """Kills, or stops: how many are wanted, and how many fell."""

    wanted: Counter[str]
    endless: bool = False
    """`wanted` are only shares."""
    fallen: Counter[str] = field(default_factory=Counter)

    @classmethod
    def shared(cls, number: int | None, aim: tuple[int, int, int]) -> Blows:
        """So many, parted as `aim` says; what is left over is for workers. None: endless."""
        if number is None:
            return cls(Counter(dict(zip(ROLES, aim, strict=True))), endless=True)
        wanted = Counter({role: number * part // sum(aim) for role, part in zip(ROLES, aim, strict=True)})
        wanted["worker"] += number - wanted.total()
        return cls(wanted)

    @property
    def left(self) -> int:
        return 0 if self.endless else self.wanted.total() - self.fallen.total()

    def role(self, dice: random.Random) -> str:
        """For whom the next one is. Nobody gets many more than his share at any time: whoever is killed soon after every
        start is started later and later, until the next coordinator has forgotten it."""
        if self.endless:
            due = self.wanted
        else:
            share = self.fallen.total() / self.wanted.total()
            fallen = self.fallen
            due = Counter({k: n - fallen[k] for k, n in self.wanted.items() if fallen[k] <= share * n + 1})
        return dice.choices(list(due), list(due.values()))[0]

    def __str__(self) -> str:
        number = self.fallen.total()
        return f"{number} ({_list(self.fallen)})" if number else "0"


@dataclass(slots=True)
class Storm:
    """What is done to a fleet, decided by a seed."""

    fleet: Fleet
    random: random.Random
    items: int
    """At least so many."""
    kills: int | None = None
    """So many; None: as many as there is time for until the items are done."""
    gap_s: float = 2.0
    stops: int = 0
    """So many are stopped for a while (SIGSTOP), besides, so that the living are suspected."""
    aim: tuple[int, int, int] = (6, 2, 2)
    """How many of ten blows are for workers, for the coordinator, for mergers."""
    people_too: bool = True
    """Also conflicts, failures, drops that are written slowly, and what `commands` says."""
    commands: bool = True
    """People cancel and retry."""
    on_the_way: int = 40
    """So many items are kept waiting or running."""
    floor_mb: int = 0
    """It ends when less is free on its disk."""
    durable_drops: bool = False
    """A person's drop is theirs to make durable; ours must not be lost to a power loss before it was taken."""
    unsynced: bool = False
    """Some agents' git does not fsync."""
    expected: dict[str, str | None] = field(default_factory=dict)
    alone: set[str] = field(default_factory=set)
    """Items that no other one depends on: they may be cancelled."""
    cancelled: set[str] = field(default_factory=set)
    """Items that somebody wanted to cancel: they are over either way."""
    told: set[str] = field(default_factory=set)
    """Of those, of whom `harnessctl cancel` said that they are cancelled."""
    killed: Blows = field(init=False)
    stopped: Blows = field(init=False)
    expired: int = 0
    unlocked: list[str] = field(default_factory=list)
    """Lock files of killed gits that the daemon removed from the hub."""
    healthy: list[str] = field(default_factory=list)
    """Workers that died of SIGKILL, although nobody here had sent it and the coordinator did not say that they hung."""
    people: dict[str, int] = field(default_factory=dict)
    """What was done besides: cancels, retries, drops written slowly."""
    dropped: int = 0
    _dead: set[Process] = field(default_factory=set)
    """Who was killed: one that takes a moment to die is not killed twice."""
    _born: dict[str, int] = field(default_factory=dict)
    """Worker -> its pid, as far as the event stream has told it."""
    _hung: set[str] = field(default_factory=set)
    _asleep: list[tuple[float, Process]] = field(default_factory=list)
    _slow: list[tuple[float, Path, bytes]] = field(default_factory=list)
    """(when, file, the rest of it) of drops that are being written."""
    _to_cancel: list[tuple[float, str]] = field(default_factory=list)
    _commands: list[tuple[subprocess.Popen[bytes], str]] = field(default_factory=list)
    """And what each cancels, if it does."""
    _retry_at: float = 0.0
    _strike_at: float = 0.0
    _told_at: float = 0.0
    _before: int = -1
    _moved_at: float = 0.0
    """When the number of finished items was another one than `_before`."""

    def __post_init__(self) -> None:
        self.killed = Blows.shared(self.kills, self.aim)
        self.stopped = Blows.shared(self.stops, self.aim)

    def run(self, timeout_s: float) -> float:
        """Until there were enough of everything, and everything is archived. The first blow falls when the first item is.
        -> seconds it took."""
        self.fleet.start(wait_for=0)
        self.fleet.until((self.fleet.queue / "open").is_dir, 60, "the store is there")
        now = began = self._moved_at = self._told_at = time.monotonic()
        self._strike_at = began + self.gap_s
        while (finished := self.fleet.finished()) < self.dropped or self._more():
            now = time.monotonic()
            self._watch(finished, now, began, timeout_s)
            self.feed(finished)
            self._wake(now)
            self._be_people(now)
            if not self.fleet.started():
                self.fleet.start(wait_for=0)
            if finished and now >= self._strike_at and (self.killed.endless or self._blows_left()):
                self._strike()
                self._strike_at = now + self._gap_s(finished) * self.random.uniform(0.5, 1.5)
            time.sleep(min(0.1, self.gap_s / 4))
        self._wake(float("inf"))
        for command, _ in self._commands:
            command.wait(60)
        self._hear()
        self.note_events()
        return now - began

    def some(self, items: int) -> None:
        """Feeds until so many more items are finished, for a minute at most."""
        goal = min(self.fleet.finished() + items, self.items)
        deadline = time.monotonic() + 60
        while (finished := self.fleet.finished()) < goal and time.monotonic() < deadline:
            self.feed(finished)
            time.sleep(0.02)

    def _more(self) -> bool:
        """Must more be dropped?"""
        return self.dropped < self.items or self._blows_left()

    def _blows_left(self) -> bool:
        return bool(self.killed.left or self.stopped.left)

    @property
    def struck(self) -> int:
        return self.killed.fallen.total() + self.stopped.fallen.total()

    def __str__(self) -> str:
        return (
            f"{self.fleet.finished()} of {self.dropped} archived; killed {self.killed}; stopped {self.stopped};"
            f" {self.expired} attempts expired"
        )

    def _watch(self, finished: int, now: float, began: float, timeout_s: float) -> None:
        """Says every minute how it goes. Raises TimeoutError as soon as it does not go on, or would fill the disk: a daemon
        that has no room says nothing about itself."""
        if finished != self._before:
            self._before, self._moved_at = finished, now
        if now - began > timeout_s or now - self._moved_at > STUCK_S:
            left = sorted(os.listdir(self.fleet.queue / "open"))[:10]
            raise TimeoutError(f"{now - self._moved_at:.0f} s without progress; {self}; open: {left}")
        if now - self._told_at < TOLD_S:
            return
        self._told_at = now
        self.note_events()
        free_mb = shutil.disk_usage(self.fleet.base).free >> 20
        note(f"{(now - began) / 60:.0f} min, {free_mb} MB free: {self}")
        if free_mb < self.floor_mb:
            raise TimeoutError(f"the disk is nearly full; {self}")

    def note_events(self) -> None:
        """From the event stream, of which nothing is kept: that of a long storm is long."""
        for _, e in self.fleet.events.read():
            match e["event"]:
                case "attempt_expired":
                    self.expired += 1
                case "stale_lock_removed":
                    self.unlocked.append(e["file"])
                case "worker_spawned":
                    self._born[e["agent"]] = e["pid"]
                    self._hung.discard(e["agent"])
                case "worker_hung":
                    self._hung.add(e["agent"])
                case "worker_died" if e.get("signal") == signal.SIGKILL and e["agent"] not in self._hung:
                    pid = self._born.get(e["agent"])
                    if pid not in {process.pid for process in self._dead}:
                        self.healthy.append(
                            f"{e['agent']} (pid {pid}) was killed at {e['ts']}, and it was healthy"
                        )
        self.fleet.events.seen.clear()

    # ---- work --------------------------------------------------------------------------------------------------------

    def feed(self, finished: int | None = None) -> None:
        """Keeps a few dozen items on the way: single ones, batches, with dependencies and priorities. `finished`: how
        many are, if the caller knows."""
        finished = self.fleet.finished() if finished is None else finished
        while self._more() and self.dropped - finished < self.on_the_way:
            size = self.random.choice((1, 1, 1, 5))
            if self.dropped < self.items:
                size = min(size, self.items - self.dropped)
            name, plan = self._plan(size)
            if self.people_too and self.random.random() < 0.15:
                self._write_slowly(name, plan)
                continue
            self.fleet.drop(name, plan if size > 1 else plan[0], durable=self.durable_drops)
            if self.people_too and self.commands and size == 1 and self.random.random() < 0.08:
                delay_s = self.random.expovariate(1)
                self._to_cancel.append((time.monotonic() + delay_s, str(plan[0]["id"])))

    def batch(self, size: int) -> str:
        """Drops so many items in one file now, beyond what is to be on the way. -> its name"""
        name, plan = self._plan(size)
        self.fleet.drop(name, plan, durable=self.durable_drops)
        return name

    def _plan(self, size: int) -> tuple[str, list[dict[str, object]]]:
        """The next items, some of which depend on others. -> (name of a file for them, them)"""
        name = f"drop{self.dropped}"
        plan = [self._item(f"s{self.dropped + k}") for k in range(size)]
        for k in range(1, size):
            if self.random.random() < 0.5:
                plan[k]["depends_on"] = [plan[self.random.randrange(k)]["id"]]
        self.dropped += size
        if size == 1:
            self.alone.add(str(plan[0]["id"]))
        return name, plan

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
        folder = (
            f"work/{len(self.expected) // 50}"  # git writes the tree of a folder anew with every file in it
        )
        self.expected[name] = f"{folder}/{name}.txt"
        commits = (UNSYNCED, *COMMITS) if self.unsynced else COMMITS
        commit = self.random.choice(commits).format(id=name)
        more = ":"
        luck = self.random.random() if self.people_too else 1.0
        if luck < 0.08 and self.commands:
            more, item["max_attempts"] = FAILS_FIRST, 1  # parked: somebody retries it
        elif luck < 0.16:
            more = FAILS_FIRST
        elif luck < 0.3:
            more = CONFLICTS.format(id=name, k=self.random.randrange(3))
        prompt = WORK.format(
            id=name, folder=folder, sleep=f"{self.random.uniform(0, 1):.2f}", more=more, commit=commit
        )
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
            self._harnessctl("cancel", name, cancels=name)
        if self.people_too and self.commands and now >= self._retry_at:
            self._retry_at = now + RETRY_S
            self._harnessctl("retry", "--state", "parked", "--yes")
        self._hear()

    def _hear(self) -> None:
        """What the commands that have ended said."""
        self.told |= {name for command, name in self._commands if name and command.poll() == 0}
        self._commands = [(command, name) for command, name in self._commands if command.returncode is None]

    def cancel(self, name: str, timeout_s: float) -> bool:
        """And wait for the answer. -> was it said to be cancelled?"""
        self.cancelled.add(name)
        command = self._harnessctl("cancel", name, cancels=name)
        with contextlib.suppress(subprocess.TimeoutExpired):
            command.wait(timeout_s)
        self._hear()
        return name in self.told

    def _harnessctl(self, verb: str, *args: str, cancels: str = "") -> subprocess.Popen[bytes]:
        self._count(verb)
        command = subprocess.Popen(
            [sys.executable, "-P", "-m", "harness", verb, *args, "--root", str(self.fleet.root)],
            cwd=self.fleet.base,
            env=self.fleet.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._commands.append((command, cancels))
        return command

    def _count(self, what: str) -> None:
        self.people[what] = self.people.get(what, 0) + 1

    # ---- harm --------------------------------------------------------------------------------------------------------

    def _gap_s(self, finished: int) -> float:
        """Longer while the blows are ahead of the items, shorter while they are behind: both come to their ends together,
        and a slow machine is not killed into standing still."""
        if self.kills is None:
            return self.gap_s
        struck = self.struck / (self.kills + self.stops)
        return self.gap_s * min(max(struck * (self.items + 5) / (finished + 5), 0.5), 4.0)

    def _strike(self) -> None:
        """kill -9 one process of ours, or stop it for a while: mostly a worker, now and then the coordinator or a merger."""
        kills, stops = self.killed.left, self.stopped.left
        share = 0.3 * bool(stops) if self.killed.endless else stops / max(1, kills + stops)
        stop = self.random.random() < share
        blows = self.stopped if stop else self.killed
        role = blows.role(self.random)
        spared = self._dead | ({process for _, process in self._asleep} if stop else set())
        found = [process for process in self.fleet.roles(ROLES[role]) if process not in spared]
        if not found:
            return
        victim = self.random.choice(found)
        if not victim.kill(signal.SIGSTOP if stop else signal.SIGKILL):
            return
        blows.fallen[role] += 1
        if stop:
            self._asleep.append((time.monotonic() + self.random.uniform(0.5, 4), victim))
        else:
            self._dead.add(victim)

    def _wake(self, now: float) -> None:
        for moment, process in [x for x in self._asleep if x[0] <= now]:
            process.kill(signal.SIGCONT)
            self._asleep.remove((moment, process))


def storm(
    where: Path,
    *,
    items: int,
    seed: int,
    gap_s: float,
    workers: int,
    durability: str,
    kills: int | None = None,
    stops: int = 0,
    commands: bool = True,
    on_the_way: int = 40,
    files: int = 500,
    floor_mb: int = 0,
    failpoint: str = "",
    aim: tuple[int, int, int] = (6, 2, 2),
    timeout_s: float = 0.0,
) -> tuple[Row, Storm]:
    """One storm and its verdict. `aim`: how often a worker, the coordinator, a merger is struck. Raises Wrong."""
    settings: dict[str, Any] = {"health": {"beat_s": 0.5, "hang_s": 2.0}} if stops else {}
    with Fleet(
        where,
        workers=workers,
        files=files,
        durability=durability,
        failpoint=failpoint,
        retry={"first_delay_s": 0.0, "max_delay_s": 1.0, "max_attempts": 900},
        **settings,
    ) as fleet:
        it = Storm(
            fleet,
            random.Random(seed),
            items,
            kills,
            gap_s,
            stops,
            aim,
            commands=commands,
            on_the_way=on_the_way,
            floor_mb=floor_mb,
        )
        try:
            try:
                took = it.run(timeout_s or 600 + 6 * items + 2 * gap_s * ((kills or 0) + stops))
                if not fleet.started():
                    fleet.start(wait_for=0)
                fleet.until(lambda: published(fleet), 120, "everything is published")
                fleet.finish()
            except TimeoutError as e:
                fleet.kill_all()
                wrong = it.healthy + check_unfinished(fleet, it.expected, it.cancelled, it.told)
                if wrong:
                    raise Wrong([*wrong, str(e)]) from e
                raise
            if wrong := it.healthy + check(fleet, it.expected, it.cancelled, it.told):
                raise Wrong(wrong)
            note("counted: nothing is wrong; the folder is removed, which may take as long as the disk likes")
        except Exception as e:
            e.add_note(f"seed {seed}; {it}")
            raise
    return Row(
        check=f"storm: {it.dropped} items, {workers} workers (seed {seed}, `durability: {durability}`)",
        wanted="every item archived once, one merge each, `fsck` and `git fsck` clean, nothing left",
        measured=f"all of it, in {took:.0f} s, every {took / max(1, it.struck):.2f} s a blow; kills: {it.killed};"
        f" stops: {it.stopped}; {it.expired} attempts expired; besides: {_list(it.people)}",
        reached=True,
    ), it


def _list(counted: Mapping[str, int]) -> str:
    return ", ".join(f"{n} × {what}" for what, n in sorted(counted.items())) or "none"


class Wrong(Exception):
    """The storm left something that may not be."""

    def __init__(self, wrong: list[str]) -> None:
        self.wrong = wrong
        super().__init__(f"{len(wrong)} violations:\n  " + "\n  ".join(wrong[:40]))


def published(fleet: Fleet) -> bool:
    return git(fleet.hub, "rev-parse", "main") == git(fleet.app, "rev-parse", "main")


def _aim(text: str) -> tuple[int, int, int]:
    workers, coordinators, mergers = (int(part) for part in text.split(","))
    return workers, coordinators, mergers


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/storm", description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=100, help="at least so many")
    parser.add_argument("--kills", type=int, help="so many; default: as many as there is time for")
    parser.add_argument("--stops", type=int, default=0, help="also SIGSTOP: the living are suspected")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--gap", type=float, default=2.0, help="mean seconds between kills")
    parser.add_argument(
        "--aim", type=_aim, default=(6, 2, 2), metavar="6,2,2", help="workers, coordinators, mergers"
    )
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--durability", choices=("power", "process"), default="power")
    parser.add_argument("--dir", type=Path, default=Path("/var/tmp"), help="where; a disk, not a tmpfs")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # nothing of it is left running
    try:
        row, _ = storm(
            options.dir,
            items=options.items,
            kills=options.kills,
            stops=options.stops,
            seed=options.seed,
            gap_s=options.gap,
            aim=options.aim,
            floor_mb=FLOOR_MB,
            workers=options.workers,
            durability=options.durability,
        )
    except (Wrong, TimeoutError, RuntimeError) as e:
        print(f"seed {options.seed}: {e}", file=sys.stderr)
        return 1
    print(f"{row.check}: {row.measured}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

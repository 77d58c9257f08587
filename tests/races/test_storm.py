"""Random interleavings of everybody at once, operation by operation, with kills, wrong suspicions, lost replies and torn
listings; every invariant is checked on the way, and everything must be over, or parked, at the end.

The forced tests next to this file come from the table of races; what a storm finds gets a forced test of its own.
A failure names its seed; ``HARNESS_STORM_SEEDS=1000`` (a number of seeds) makes a longer storm.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from typing import Any

import pytest

from harness.errors import StoreError
from harness.layout import Layout
from harness.model import Item, Outcome, Verdict
from harness.store import admission, attempts, lane, operators, ops, promotion
from harness.store.attempts import Claimed
from harness.store.cells import Actor, Standing, look
from harness.store.fsck import check
from harness.store.ops import Linked, Step
from harness.store.violations import Hubs
from tests.stores import DAY, Proc, World, end_record

SEEDS = range(int(os.environ.get("HARNESS_STORM_SEEDS", "12")))
STEPS = 1500
DROPS: list[tuple[str, object]] = [
    ("a.json", {"id": "a", "prompt": "1", "max_attempts": 2}),
    ("b.json", {"id": "b", "prompt": "2", "commit": "none"}),
    ("c.json", {"id": "c", "prompt": "3", "depends_on": ["a", {"id": "b", "optional": True}]}),
    ("again.json", {"id": "a", "prompt": "1", "max_attempts": 2}),
    (
        "plan.json",
        [{"id": "p", "prompt": "4"}, {"prompt": "5", "depends_on": ["p"]}, {"id": "q", "prompt": "6"}],
    ),
    ("other.json", [{"id": "q", "prompt": "7"}, {"prompt": "8"}]),
]


class Storm:
    """A world, a dice, and what a test must remember that the tree does not show."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.dice = random.Random(seed)
        self.executed: dict[tuple[str, int], str] = {}
        """(uid, n) -> the incarnation that ran it."""
        self.told: dict[str, int] = {}
        """uid -> the attempt with which a person was told that it is held or cancelled."""
        self.crashes = 0

    # ---- who takes part: each an endless loop of what it does -------------------------------------------------------

    def admitter(self, me: Actor) -> Step[None]:
        while True:
            yield from admission.take()
            for home in (yield from ops.ls("queue/incoming")) or ():
                yield from admission.admit(me, home, self.world.context, DAY)
            for uid in (yield from ops.ls("queue/waiting")) or ():
                item = yield from ops.read(f"queue/waiting/{uid}/item.json", Item)
                if item:
                    yield from promotion.promote(item)

    def monitor(self, me: Actor) -> Step[None]:
        while True:
            for uid in (yield from ops.ls("queue/open")) or ():
                seen = yield from look(uid)
                if seen.standing is Standing.RUNNING:
                    yield from attempts.expire(me, uid, seen.n)
                elif seen.standing is Standing.OVER:
                    yield from attempts.finish(uid)
            yield from ops.ls("queue/open")

    def worker(self, me: Actor) -> Step[None]:
        while True:
            for uid in (yield from ops.ls("queue/open")) or ():
                owned = yield from attempts.claim(me, uid)
                if not isinstance(owned, Claimed):
                    continue
                ran_by = self.executed.setdefault((uid, owned.n), me.identity.incarnation)
                assert ran_by == me.identity.incarnation, f"I9: {uid}.{owned.n} ran twice"
                outcome = self.dice.choice([Outcome.DONE, Outcome.DONE, Outcome.FAILED, Outcome.RELEASED])
                sha = f"sha-{uid}-{owned.n}" if outcome is Outcome.DONE else None
                yield from ops.ls(f"queue/open/{uid}")  # it works
                yield from attempts.end(me, owned, end_record(owned.n, outcome, sha))

    def merger(self, me: Actor) -> Step[None]:
        while True:
            for uid in (yield from ops.ls("queue/open")) or ():
                seen = yield from look(uid)
                if seen.standing is Standing.SUBMITTED:
                    yield from lane.judge(me, "app", uid, seen.n)
            yield from ops.ls("queue/open")

    def person(self, me: Actor) -> Step[None]:
        def judge(uid: str, n: int, *, cancel_by: str, why: str) -> Step[bool]:
            return lane.judge(me, "app", uid, n, cancel_by=cancel_by, why=why)

        while True:
            uids = [*((yield from ops.ls("queue/open")) or ()), *((yield from ops.ls("queue/waiting")) or ())]
            if not uids:
                continue
            uid = self.dice.choice(uids)
            match self.dice.randrange(6):
                case 0:
                    answer = yield from operators.cancel(me, uid, "me", "", judge)
                    if answer.said is operators.Said.DONE:
                        self.told[uid] = answer.n
                case 1 | 2:
                    answer = yield from operators.hold(me, uid, "me", "")
                    if answer.said is operators.Said.DONE:
                        self.told[uid] = answer.n
                case 3 | 4:
                    yield from operators.retry(me, uid, "me", "")
                case _:
                    seen = yield from look(uid)
                    if seen.standing is Standing.RUNNING:
                        yield from operators.stop(me, uid, seen.n, "coordinator", "drain")

    # ---- the weather ---------------------------------------------------------------------------------------------------

    def blow(self, proc: Proc[None]) -> None:
        """One operation of one process, sometimes with a false reply."""
        assert proc.op is not None
        name = proc.op[0]
        self.world.hand.hung = self.dice.random() < 0.1
        if name == "link" and self.dice.random() < 0.05:
            made = self.dice.random() < 0.5
            proc.lie(Linked.EXISTS if made and self.dice.random() < 0.5 else Linked.UNKNOWN, done=made)
        elif name == "ls" and self.dice.random() < 0.1:
            names = proc.disk.apply(proc.op)
            hidden = self.dice.choice(names) if names else None
            proc.lie(tuple(x for x in names if x != hidden) if names else names, done=False)
        else:
            proc.once()

    def gate(self, uid: str, n: int) -> None:
        if self.dice.random() < 0.3:
            self.world.hub.red.add((uid, n))

    def violations(self) -> list[str]:
        hub = self.world.hub
        hubs = Hubs(
            missing=lambda project, shas: frozenset(),
            merged=lambda project, uid, n, sha: hub.merged_as(hub.target(), uid, n, sha),
        )
        found = [str(v) for v in check(self.world.disk, hubs=hubs) if not v.harmless]
        merged = [uid for uid, _, _ in hub.history]
        return found + [f"I12: merged twice: {uid}" for uid in set(merged) if merged.count(uid) > 1]


def respawn(storm: Storm, make: Callable[[Actor], Step[None]], name: str) -> Proc[None]:
    return storm.world.proc(make(storm.world.actor(name)))


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_breaks_whatever_the_order(layout: Layout, seed: int) -> None:
    world = World(layout)
    storm = Storm(world, seed)
    for name, content in DROPS:
        world.drop(name, content)
    real_build = world.hub.build_merge

    def build(tip: str, uid: str, n: int, sha: str) -> Verdict:
        storm.gate(uid, n)
        return real_build(tip, uid, n, sha)

    world.hub.build_merge = build  # type: ignore[method-assign] # the gate of the moment
    makers = [storm.admitter, storm.worker, storm.monitor, storm.merger, storm.person]
    makers += [storm.admitter, storm.worker, storm.monitor, storm.merger][: storm.dice.randrange(5)]
    procs: list[Proc[Any]] = [respawn(storm, make, make.__name__) for make in makers]
    for step in range(STEPS):
        k = storm.dice.randrange(len(procs))
        try:
            storm.blow(procs[k])
            died = storm.dice.random() < 0.01
        except StoreError:  # a link of which nobody knows: the process ends, as it must
            died = True
        if died:
            storm.crashes += 1
            procs[k].kill()
            procs[k] = respawn(storm, makers[k], makers[k].__name__)
        if step % 100 == 0:
            world.clock.advance(5)
            assert storm.violations() == [], f"seed {seed}, step {step}"
    for proc in procs:
        proc.kill()
    world.hand.hung = False
    assert storm.violations() == [], f"seed {seed}, at the end"
    drain(storm)
    for uid, n in storm.told.items():
        cells = world.cells(uid)
        grants = {int(x.partition(".")[0]) for x in cells if x.endswith(".grant")}
        later = [m for u, m in storm.executed if u == uid and m > n and not any(n <= g < m for g in grants)]
        assert later == [], f"seed {seed}: {uid} ran although a person was told that it does not"
    world.close()


def drain(storm: Storm) -> None:
    """A new coordinator, workers that succeed, and a person who retries what is parked: then everything is over."""
    world = storm.world
    world.hub.red.clear()
    world.hub.build_merge = type(world.hub).build_merge.__get__(world.hub)  # type: ignore[method-assign]
    for _ in range(12):
        world.recover()
        for uid in world.disk.do_ls("queue/open") or ():
            if world.standing(uid) is Standing.PARKED:
                world.retry(uid)
            if world.standing(uid) is Standing.READY:
                world.attempt(uid, Outcome.DONE, f"last-{uid}")
        for uid in world.disk.do_ls("queue/waiting") or ():
            waiting = world.promote(uid)
            if waiting and waiting.blocked:
                world.retry(uid)
    assert storm.violations() == []
    left = {p: world.disk.do_ls(f"queue/{p}") for p in ("open", "waiting", "incoming")}
    full = [x for x in left["incoming"] or () if world.disk.do_ls(f"queue/incoming/{x}")]
    assert (left["open"], left["waiting"], full) == ((), (), [])
    assert sorted(p.name for p in world.layout.queue.iterdir() if p.is_file()) == ["FORMAT"]
    archived = list(world.layout.queue.glob("archive/*/*/item.json"))
    rejected = list(world.layout.queue.glob("rejected/*/why.json"))
    batches = list(world.layout.queue.glob("batches/*/*/batch"))
    ids = [Item.from_record(json.loads(p.read_text())).id for p in archived]
    assert len(rejected) + len(batches) + sum(1 for p in archived if list(p.parent.glob("raw.*"))) == len(
        DROPS
    )
    assert {"b", "c"} <= set(ids)

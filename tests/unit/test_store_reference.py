"""The store against a queue that a person understands at once: a dict of what is where, and nothing else.

Whatever people and processes do, and wherever they are killed, both hold the same items in the same states, and `fsck`
finds only what every crash leaves behind. `HARNESS_REFERENCE=50` makes fifty times as many runs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from harness.model import MAX_RELEASES, Item, Outcome
from harness.store import admission, attempts, operators, promotion
from harness.store.attempts import Claimed, Ended
from harness.store.cells import Standing
from harness.store.disk import Disk
from harness.store.fsck import check
from harness.store.ops import Step
from harness.store.violations import Hubs
from tests.conftest import MEMORY
from tests.stores import DAY, World, end_record
from tests.support import make_root

MORE = int(os.environ.get("HARNESS_REFERENCE", "1"))
ATTEMPTS = 2
IDS = st.sampled_from(["x", "y", None])
"""Few, so that they meet."""
PROMPTS = st.sampled_from(["one", "two"])
KILLED = st.none() | st.integers(0, 14)
"""Before which of its operations a process is killed, if at all; then another does the same again."""
ANY = st.integers(0, 99)


# ---- the reference ---------------------------------------------------------------------------------------------------


@dataclass
class Entry:
    """One item: `state` is waiting, ready, running, submitted, parked, over or archived."""

    id: str
    content: tuple[str, tuple[str, ...]]
    deps: list[tuple[str, str | None]]
    state: str = "ready"
    outcome: str = ""
    allowed: int = ATTEMPTS
    spent: int = 0
    released: int = 0
    granted: bool = False
    n: int = 0


@dataclass
class Reference:
    """The queue as a dict. A key is the uid that the store gave; the order is that of admission."""

    items: dict[str, Entry] = field(default_factory=dict)
    rejected: int = 0

    def holder(self, name: str) -> str | None:
        """Who has an id: its newest item, over or not."""
        return next((uid for uid, e in reversed(self.items.items()) if e.id == name), None)

    def unfinished(self, name: str) -> str | None:
        uid = self.holder(name)
        return uid if uid and self.items[uid].state != "archived" else None

    def may_run(self, entry: Entry) -> bool:
        """Are all that it waits for done or merged? (an id that was unknown means its first item)"""
        for name, fixed in entry.deps:
            uid = fixed or next((u for u, e in self.items.items() if e.id == name), None)
            if uid is None or self.items[uid].state != "archived" or self.items[uid].outcome == "cancelled":
                return entry.granted
        return True

    def promote(self, entry: Entry) -> None:
        if self.may_run(entry):
            entry.state = "ready"

    def end(self, entry: Entry, how: str) -> None:
        """An attempt is decided."""
        match how:
            case "done" | "cancelled" | "merged":
                entry.state, entry.outcome = "over", how
            case "submitted" | "held":
                entry.state = {"held": "parked"}.get(how, how)
            case _:
                entry.spent += how != "released"
                entry.released += how == "released"
                parked = entry.spent >= entry.allowed or entry.released > MAX_RELEASES
                entry.state = "parked" if parked else "ready"

    def retry(self, entry: Entry) -> None:
        if entry.state == "waiting":
            entry.granted = True
        elif entry.state == "parked":
            entry.state, entry.allowed, entry.released = "ready", entry.allowed + 1, 0

    def hold(self, entry: Entry) -> None:
        if entry.state in ("ready", "running", "parked"):
            entry.state = "parked"

    def cancel(self, entry: Entry) -> None:
        if entry.state not in ("over", "archived"):
            self.end(entry, "cancelled")


# ---- the store beside it ---------------------------------------------------------------------------------------------


@dataclass
class Owner:
    """A process that holds a claim, alive until its descriptors are closed."""

    disk: Disk
    owned: Claimed


def place_for_stores() -> Path | None:
    return MEMORY if os.access(MEMORY, os.W_OK) else None


class Queue(RuleBasedStateMachine):
    """Every rule does the same to both; what a killed process got done is then read from the store, where either is right."""

    def __init__(self) -> None:
        super().__init__()
        self._base = TemporaryDirectory(
            prefix="harness-test-", dir=place_for_stores(), ignore_cleanup_errors=True
        )
        self.world = World(make_root(Path(self._base.name) / "root"))
        self.reference = Reference()
        self.pending: dict[str, list[dict[str, Any]]] = {}
        """Drops that are not admitted yet: file name -> items."""
        self.owners: list[Owner] = []
        self.dropped = 0
        self.steps = 0

    def teardown(self) -> None:
        try:
            self.fsck()
        finally:
            self.world.close()
            self._base.cleanup()

    # ---- helpers

    def pick(self, which: int, *states: str) -> tuple[str, Entry] | None:
        found = [(uid, e) for uid, e in self.reference.items.items() if e.state in states]
        return found[which % len(found)] if found else None

    def twice(self, make: Callable[[], Step[Any]], killed: int | None) -> None:
        """Kill a process before an operation of it; another does all of it again."""
        if killed is not None:
            process = self.world.proc(make())
            for _ in range(killed):
                if process.ended:
                    break
                process.once()
            process.kill()
        self.world.run(make())

    def standing(self, uid: str) -> str:
        seen = self.world.standing(uid)
        return "over" if seen is Standing.OVER else seen.value

    def kill_owners(self, uid: str = "") -> None:
        """The descriptors of a process are closed when it is killed: its lock is free."""
        for owner in [o for o in self.owners if uid in ("", o.owned.uid)]:
            owner.disk.close()
            self.owners.remove(owner)

    # ---- drops

    @initialize()
    def begin(self) -> None:
        """Runs that start with an empty queue come to little."""
        self.drop(name="x", prompt="one")
        self.drop(name="y", prompt="two")
        self.drop(name=None, prompt="one")
        self.admit(killed=None)

    def _drop(self, items: list[dict[str, Any]], many: bool) -> None:
        name = f"d{self.dropped:04d}.json"
        self.dropped += 1
        self.pending[name] = items
        self.world.drop(name, items if many else items[0])

    @rule(name=IDS, prompt=PROMPTS)
    def drop(self, name: str | None, prompt: str) -> None:
        self._drop(
            [{"prompt": prompt, "max_attempts": ATTEMPTS} | ({"id": name} if name else {})], many=False
        )

    @rule(name=IDS, on=st.sampled_from(["x", "y", "later"]))
    def drop_dependent(self, name: str | None, on: str) -> None:
        item = {"prompt": "three", "max_attempts": ATTEMPTS, "depends_on": [on]} | (
            {"id": name} if name else {}
        )
        self._drop([item], many=False)

    @rule(name=IDS, prompt=PROMPTS)
    def drop_batch(self, name: str | None, prompt: str) -> None:
        first = {"prompt": prompt, "max_attempts": ATTEMPTS} | ({"id": name} if name else {})
        second = {
            "prompt": "then",
            "max_attempts": ATTEMPTS,
            "depends_on": [name or f"d{self.dropped:04d}-1"],
        }
        self._drop([first, second, {"prompt": "too", "max_attempts": ATTEMPTS}], many=True)

    @rule()
    def drop_nonsense(self) -> None:
        self._drop([{"prompt": ""}], many=False)

    @rule(killed=KILLED)
    @precondition(lambda self: self.pending)
    def admit(self, killed: int | None) -> None:
        self.twice(admission.take, killed)
        self.world.clock.advance(10)
        self.world.take()
        for home in self.world.incoming():
            self.twice(partial(admission.admit, self.world.me, home, self.world.context, DAY), killed)
        self.admitted()

    def admitted(self) -> None:
        """Decide the pending drops in the order in which they were admitted, and find what the store made of them."""
        made: dict[str, dict[str, str]] = {name: {} for name in self.pending}
        for phase in ("open", "waiting", "archive/*"):
            for path in self.world.layout.queue.glob(f"{phase}/*/item.json"):
                item = json.loads(path.read_text())
                if item["drop"] in made:
                    made[item["drop"]][item["id"]] = item["uid"]
        for name, items in sorted(self.pending.items()):
            wanted = self.decide(name, items)
            assert {e.id for e in wanted} == made[name].keys(), name
            uids = made[name]
            for entry in wanted:  # a sibling is meant by its uid
                entry.deps = [(d, uids.get(d, fixed)) for d, fixed in entry.deps]
                entry.state = "waiting" if entry.deps else "ready"
            self.reference.items |= {uids[e.id]: e for e in wanted}
        self.pending.clear()

    def decide(self, name: str, items: list[dict[str, Any]]) -> list[Entry]:
        """What is admitted of a drop: all of it, what is new of it, or nothing."""
        stem, many = name.removesuffix(".json"), len(items) > 1
        new: list[Entry] = []
        for k, item in enumerate(items):
            called = item.get("id") or (f"{stem}-{k + 1}" if many else stem)
            on = tuple(item.get("depends_on", ()))
            other = self.reference.unfinished(item["id"]) if "id" in item else None
            same = other and self.reference.items[other].content == (item["prompt"], on)
            if not item["prompt"] or called in on or (other and not (same and many)):
                self.reference.rejected += 1
                return []
            if not other:
                new.append(Entry(called, (item["prompt"], on), [(d, self.reference.holder(d)) for d in on]))
        return new

    # ---- processes

    @rule(which=ANY, killed=KILLED)
    @precondition(lambda self: self.pick(0, "waiting"))
    def promote(self, which: int, killed: int | None) -> None:
        if found := self.pick(which, "waiting"):
            self.twice(lambda: self.promotion(found[0]), killed)
            self.reference.promote(found[1])

    def promotion(self, uid: str) -> Step[Any]:
        item = self.world.disk.do_read(f"queue/waiting/{uid}/item.json", Item) or self.world.disk.do_read(
            f"queue/open/{uid}/item.json", Item
        )
        assert isinstance(item, Item)
        return promotion.promote(item)

    @rule(which=ANY, killed=KILLED)
    @precondition(lambda self: self.pick(0, "ready"))
    def claim(self, which: int, killed: int | None) -> None:
        if not (found := self.pick(which, "ready")):
            return
        uid, entry = found
        process = self.world.proc(attempts.claim(self.world.actor("agent-1"), uid))
        for _ in range(1000 if killed is None else killed):
            if process.ended:
                break
            process.once()
        if not process.ended:
            process.kill()
            if self.standing(uid) == "ready":
                return
        else:
            assert isinstance(process.result, Claimed)
            self.owners.append(Owner(process.disk, process.result))
        entry.state = "running"
        entry.n += 1

    @rule(which=ANY)
    def claim_what_cannot_be(self, which: int) -> None:
        if found := self.pick(which, "waiting", "running", "submitted", "parked", "over", "archived"):
            said = self.world.run(attempts.claim(self.world.actor("agent-2"), found[0]))
            assert not isinstance(said, Claimed)

    @rule(
        which=ANY,
        how=st.sampled_from(["done", "failed", "released", "submitted", "submitted"]),
        killed=KILLED,
    )
    @precondition(lambda self: self.owners)
    def end(self, which: int, how: str, killed: int | None) -> None:
        owner = self.owners[which % len(self.owners)]
        self.owners.remove(owner)
        uid, n = owner.owned.uid, owner.owned.n
        entry = self.reference.items[uid]
        mine = entry.state == "running" and self.last(uid) == n
        outcome = Outcome.DONE if how == "submitted" else Outcome(how)
        record = end_record(n, outcome, f"sha-{uid}-{n}" if how == "submitted" else None)
        step = attempts.end(self.world.me, owner.owned, record)
        if killed is None:
            assert owner.disk.run(step) is (Ended.WON if mine else Ended.SUPERSEDED)
        else:
            op = next(step)
            for _ in range(killed):
                try:
                    op = step.send(owner.disk.apply(op))
                except StopIteration:
                    break
            step.close()
            if mine and self.standing(uid) == "running":
                mine = False  # killed before it was decided: it is expired later
        owner.disk.close()
        if mine:
            self.reference.end(entry, how)

    def last(self, uid: str) -> int:
        return self.world.look(uid).n

    @rule(which=ANY, killed=KILLED)
    @precondition(lambda self: self.pick(0, "running"))
    def expire_a_killed_owner(self, which: int, killed: int | None) -> None:
        if found := self.pick(which, "running"):
            uid, entry = found
            self.kill_owners(uid)
            n = self.last(uid)
            self.twice(lambda: attempts.expire(self.world.me, uid, n), killed)
            self.reference.end(entry, "expired")

    @rule(which=ANY, how=st.sampled_from(["done", "failed", "failed", "released", "submitted", "submitted"]))
    @precondition(lambda self: self.pick(0, "ready"))
    def work(self, which: int, how: str) -> None:
        """A whole attempt at once, so that items get old."""
        self.claim(which=which, killed=None)
        self.end(which=len(self.owners) - 1, how=how, killed=None)

    @rule(which=ANY)
    @precondition(lambda self: self.pick(0, "running"))
    def expire_the_living(self, which: int) -> None:
        living = [o.owned for o in self.owners if self.reference.items[o.owned.uid].state == "running"]
        if living:
            owned = living[which % len(living)]
            if self.last(owned.uid) == owned.n:
                assert self.world.run(attempts.expire(self.world.me, owned.uid, owned.n)) is None

    @rule(which=ANY, red=st.booleans(), killed=KILLED)
    @precondition(lambda self: self.pick(0, "submitted"))
    def judge(self, which: int, red: bool, killed: int | None) -> None:
        if found := self.pick(which, "submitted"):
            uid, entry = found
            n = self.last(uid)
            if red:
                self.world.hub.red.add((uid, n))
            self.twice(lambda: self.world.judging()(uid, n, cancel_by="", why=""), killed)
            self.reference.end(entry, "returned" if red else "merged")

    @rule(which=ANY, killed=KILLED)
    @precondition(lambda self: self.pick(0, "over"))
    def finish(self, which: int, killed: int | None) -> None:
        if found := self.pick(which, "over"):
            self.twice(lambda: attempts.finish(found[0]), killed)
            found[1].state = "archived"

    # ---- people

    @rule(which=ANY, killed=KILLED)
    def hold(self, which: int, killed: int | None) -> None:
        if found := self.pick(
            which, "waiting", "ready", "running", "submitted", "parked", "over", "archived"
        ):
            self.twice(lambda: operators.hold(self.world.me, found[0], "me", ""), killed)
            self.reference.hold(found[1])

    @rule(which=ANY, killed=KILLED)
    def cancel(self, which: int, killed: int | None) -> None:
        if found := self.pick(
            which, "waiting", "ready", "running", "submitted", "parked", "over", "archived"
        ):
            self.twice(
                lambda: operators.cancel(self.world.me, found[0], "me", "", self.world.judging()), killed
            )
            self.reference.cancel(found[1])

    @rule(which=ANY)
    def give_up(self, which: int) -> None:
        """Cancelled and archived at once, with somebody who waits for it."""
        if found := self.pick(which, "waiting", "ready", "parked"):
            self.cancel(which=which, killed=None)
            if found := self.pick(0, "over"):
                self.drop_dependent(name=None, on=found[1].id)
                self.finish(which=0, killed=None)

    @rule(which=ANY, killed=KILLED)
    @precondition(lambda self: self.pick(0, "waiting", "parked"))
    def retry(self, which: int, killed: int | None) -> None:
        if found := self.pick(which, "waiting", "ready", "running", "submitted", "parked", "parked", "over"):
            self.twice(lambda: operators.retry(self.world.me, found[0], "me", ""), killed)
            self.reference.retry(found[1])

    @rule(which=ANY)
    @precondition(lambda self: self.pick(0, "running"))
    def stop(self, which: int) -> None:
        if found := self.pick(which, "running"):
            assert self.world.run(operators.stop(self.world.me, found[0], self.last(found[0]), "me", ""))
            self.reference.end(found[1], "released")

    # ---- everybody dies

    @rule()
    def crash_and_recover(self) -> None:
        """Every process is killed; a new coordinator with a new Disk does one pass over everything."""
        self.kill_owners()
        self.world.disk.close()
        self.world.disk = self.world.new_disk()
        self.world.recover()
        self.admitted()
        for entry in self.reference.items.values():
            if entry.state == "waiting":
                self.reference.promote(entry)
        for entry in self.reference.items.values():
            if entry.state == "running":
                self.reference.end(entry, "expired")
            if entry.state == "submitted":
                self.reference.end(entry, "merged")
            if entry.state == "over":
                entry.state = "archived"

    # ---- what must be true

    @invariant()
    def both_are_the_same(self) -> None:
        queue = self.world.layout.queue
        actual: dict[str, str] = {uid: self.standing(uid) for uid in os.listdir(queue / "open")}
        for uid in os.listdir(queue / "waiting"):
            assert uid not in actual
            actual[uid] = "waiting"
        for day in os.listdir(queue / "archive"):
            for uid in os.listdir(queue / "archive" / day):
                assert uid not in actual
                stub = self.world.stub(uid)
                assert stub is not None
                actual[uid] = f"archived {stub.outcome}"
        entries = self.reference.items.items()
        assert actual == {
            u: f"archived {e.outcome}" if e.state == "archived" else e.state for u, e in entries
        }
        assert len(os.listdir(queue / "rejected")) == self.reference.rejected
        drops = [p.name for p in queue.glob("*.json")] + [p.name for p in queue.glob("incoming/*/raw.*")]
        assert sorted(x.removeprefix("raw.") for x in drops) == sorted(self.pending)

    @invariant()
    def sometimes_fsck(self) -> None:
        self.steps += 1
        if self.steps % 10 == 0:
            self.fsck()

    def fsck(self) -> None:
        hub = self.world.hub
        hubs = Hubs(
            missing=lambda project, shas: frozenset(),
            merged=lambda project, uid, n, sha: hub.merged_as(hub.target(), uid, n, sha),
        )
        assert [str(v) for v in check(self.world.disk, hubs=hubs) if not v.harmless] == []


TestQueue = Queue.TestCase
TestQueue.settings = settings(
    max_examples=30 * MORE,
    stateful_step_count=40,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)

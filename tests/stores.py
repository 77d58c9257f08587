"""A store to play with: its processes as generators that a test stops at any operation, and the hub as a dict.

Each `Proc` has a `Disk` of its own, hence tickets and locks of its own (an OFD lock belongs to an open file
description, not to a process), so that one test process can be all the processes of the protocol. Killing one closes
its descriptors, which is what the kernel does.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from harness.layout import Layout
from harness.model import Claim, End, Identity, Item, Outcome, Stub, Verdict
from harness.store import admission, attempts, lane, operators, promotion
from harness.store.admission import Admission
from harness.store.attempts import Claimed
from harness.store.cells import Actor, Look, Standing, look, stub_of
from harness.store.disk import Disk, Hub
from harness.store.dropbox import DropBox
from harness.store.drops import Context
from harness.store.hints import Hints
from harness.store.ops import Op, Step
from harness.store.setup import open_store
from tests.support import FakeClock

T = TypeVar("T")
DAY = "2027-01-15"
MOMENT = f"{DAY}T08:00:00.000Z"
CONTEXT = Context(projects={"app": ("claude",)}, agents=("claude", "shell"))
_SERIAL = itertools.count()


@dataclass
class Hand:
    """What the test wants to be done to processes; the default believes in locks only and kills nobody."""

    hung: bool = False
    lives_on: bool = False
    cleared: list[tuple[str, int]] = field(default_factory=list)
    interrupted: list[tuple[str, int]] = field(default_factory=list)
    absent: set[str] = field(default_factory=set)

    def suspects(self, claim: Claim, path: str, token: tuple[int, int]) -> bool:
        return self.hung

    def clear(self, uid: str, claim: Claim) -> bool:
        self.cleared.append((uid, claim.n))
        return not self.lives_on

    def interrupt(self, uid: str, n: int) -> None:
        self.interrupted.append((uid, n))

    def present(self, incarnation: str) -> bool:
        return incarnation not in self.absent


@dataclass(frozen=True)
class Lane:
    epoch: str
    pending: dict[str, Any] | None = None


@dataclass
class MemoryHub:
    """The hub of one project: a lane, a target with its history, and a gate that the test sets."""

    held: Lane = Lane("0")
    history: tuple[tuple[str, int, str], ...] = ()
    """First-parent line of the target, oldest first: (uid, n, merge commit)."""
    red: set[tuple[str, int]] = field(default_factory=set)
    log: list[str] = field(default_factory=list)
    _built: dict[str, tuple[str, int]] = field(default_factory=dict)
    _epochs: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def lane(self) -> Lane:
        return self.held

    def swap_lane(self, old: Lane, pending: dict[str, Any] | None, keep_epoch: bool) -> Lane | None:
        if self.held != old:
            return None
        self.held = Lane(old.epoch if keep_epoch else str(next(self._epochs)), pending)
        self.log.append("lane")
        return self.held

    def target(self) -> str:
        return self.history[-1][2] if self.history else "base"

    def merged_as(self, tip: str, uid: str, n: int, sha: str) -> str | None:
        return next((m for u, k, m in self.history if (u, k) == (uid, n)), None)

    def build_merge(self, tip: str, uid: str, n: int, sha: str) -> Verdict:
        if (uid, n) in self.red:
            return Verdict(n=n, returned="gate", gate="tests", onto=tip, why="tests are red")
        self.log.append("build")
        new = f"m-{uid}-{n}-on-{tip.split('-on-', maxsplit=1)[0]}"
        self._built[new] = (uid, n)
        return Verdict(n=n, merged=new)

    def swap_target(self, held: Lane, new: str, old: str) -> str:
        if self.held != held:
            return "lane"
        if self.target() != old:
            return "target"
        self.history += ((*self._built[new], new),)
        self.log.append("target")
        return "ok"

    def push(self, sha: str) -> None:
        """Somebody else moves the target."""
        self.history += (("", 0, sha),)

    def sync_hub(self) -> None:
        self.log.append("sync")


class Proc(Generic[T]):
    """One process that runs one generator, operation by operation. `op` is what it will do next, or None."""

    def __init__(self, disk: Disk, step: Step[T]) -> None:
        self.disk = disk
        self.log: list[Op] = []
        self.result: T | None = None
        self._step = step
        self.op: Op | None = None
        self._send(None)

    @property
    def ended(self) -> bool:
        return self.op is None

    def _send(self, reply: Any) -> None:
        try:
            self.op = self._step.send(reply)
        except StopIteration as stop:
            self.op, self.result = None, stop.value

    def once(self) -> Any:
        """Do the next operation. -> what it said."""
        assert self.op is not None, "it has ended"
        op = self.op
        reply = self.disk.apply(op)
        self.log.append(op)
        self._send(reply)
        return reply

    def lie(self, reply: Any, *, done: bool) -> None:
        """The next operation says `reply`, whether it was `done` or not: a lost reply, an error of the disk."""
        assert self.op is not None
        if done:
            self.disk.apply(self.op)
        self.log.append(self.op)
        self._send(reply)

    def before(self, name: str, part: str = "", *, times: int = 1) -> Proc[T]:
        """Run until the next operation is `name` on something that ends in `part`; it is not done yet."""
        while times:
            while self.op is not None and not _matches(self.op, name, part):
                self.once()
            assert self.op is not None, f"never came to {name} {part}: {self.log}"
            times -= 1
            if times:
                self.once()
        return self

    def after(self, name: str, part: str = "", *, times: int = 1) -> Proc[T]:
        """Run until `name` on something that ends in `part` was done."""
        self.before(name, part, times=times).once()
        return self

    def go(self) -> T:
        """Run to the end."""
        while self.op is not None:
            self.once()
        return self.result  # type: ignore[return-value] # it has ended: this is what it returned

    def kill(self) -> None:
        """kill -9: nothing runs on, every lock is free."""
        self._step.close()
        self.op = None
        self.disk.close()


def _matches(op: Op, name: str, part: str) -> bool:
    return op[0] == name and (not part or any(isinstance(x, str) and x.endswith(part) for x in op[1:]))


class World:
    """One root with a store, and everybody who works on it."""

    def __init__(self, layout: Layout, *, durable: bool = False) -> None:
        self.layout = layout
        self.clock = FakeClock()
        self.durable = durable
        self.hub = MemoryHub()
        self.real: Hub | None = None
        """A real hub, bound to the lane, in the place of `hub`."""
        self.hand = Hand()
        self.context = CONTEXT
        self._disks: list[Disk] = []
        open_store(layout, durable=durable)
        self.box = self.new_box()
        self.me = self.actor("coordinator")
        self.disk = self.new_disk()

    def close(self) -> None:
        for disk in self._disks:
            disk.close()
        self._disks.clear()

    # ---- processes ---------------------------------------------------------------------------------------------------

    def new_box(self) -> DropBox:
        return DropBox(self.layout, self.clock, lambda: self.context)

    def new_disk(self) -> Disk:
        disk = Disk(
            self.layout,
            self.clock,
            durable=self.durable,
            dropbox=self.box,
            hints=Hints(self.layout),
            hands=self.hand,
            hubs=lambda project: self.real or self.hub,
        )
        self._disks.append(disk)
        return disk

    def actor(self, name: str) -> Actor:
        k = next(_SERIAL)
        identity = Identity(incarnation=f"{name}.{k}.x", name=name, host="here", root="r", pid=1000 + k)
        return Actor(identity, lambda: MOMENT)

    def proc(self, step: Step[T]) -> Proc[T]:
        return Proc(self.new_disk(), step)

    def run(self, step: Step[T]) -> T:
        return self.disk.run(step)

    # ---- drops -------------------------------------------------------------------------------------------------------

    def drop(self, name: str, content: object = None) -> Path:
        path = self.layout.queue / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif isinstance(content, str):
            path.write_text(content)
        else:
            path.write_text(json.dumps({"prompt": "do it"} if content is None else content))
        return path

    def take(self) -> list[str]:
        return [home for home, _ in self.run(admission.take())]

    def admit(self, home: str) -> Admission:
        return self.run(admission.admit(self.me, home, self.context, DAY))

    def admit_all(self) -> list[Admission]:
        """Take and admit everything; quiet windows pass."""
        for _ in range(2):
            self.take()
            self.clock.advance(10)
        self.take()
        return [self.admit(home) for home in self.incoming()]

    def incoming(self) -> list[str]:
        return list(self.disk.do_ls("queue/incoming") or ())

    def add(self, **fields: Any) -> str:
        """One admitted item. -> its uid"""
        name = f"{fields.get('id') or 'item'}.json"
        self.drop(name, {"prompt": "do it", **fields})
        (admitted,) = self.admit_all()
        assert not admitted.rejected, admitted.rejected
        return admitted.items[0][0]

    # ---- lives -------------------------------------------------------------------------------------------------------

    def look(self, uid: str) -> Look:
        return self.run(look(uid))

    def standing(self, uid: str) -> Standing:
        return self.look(uid).standing

    def stub(self, uid: str) -> Stub | None:
        return self.run(stub_of(uid))

    def claim(self, uid: str, name: str = "agent-1", disk: Disk | None = None) -> Claimed:
        got = (disk or self.disk).run(attempts.claim(self.actor(name), uid))
        assert isinstance(got, Claimed), got
        return got

    def end(self, owned: Claimed, outcome: Outcome, sha: str | None = None, disk: Disk | None = None) -> None:
        record = end_record(owned.n, outcome, sha)
        said = (disk or self.disk).run(attempts.end(self.me, owned, record))
        assert said is attempts.Ended.WON

    def attempt(self, uid: str, outcome: Outcome, sha: str | None = None) -> int:
        """One whole attempt. -> its number"""
        owned = self.claim(uid)
        self.end(owned, outcome, sha)
        return owned.n

    def submit(self, uid: str) -> int:
        return self.attempt(uid, Outcome.DONE, f"sha-{uid}")

    def judge(self, uid: str, n: int) -> bool:
        return self.run(lane.judge(self.me, "app", uid, n))

    def judging(self, *, by: str = "me") -> operators.Judge:
        def judge(uid: str, n: int, *, cancel_by: str, why: str) -> Step[bool]:
            return lane.judge(self.me, "app", uid, n, cancel_by=cancel_by, why=why)

        return judge

    def cancel(self, uid: str) -> operators.Answer:
        return self.run(operators.cancel(self.me, uid, "me", "", self.judging()))

    def hold(self, uid: str) -> operators.Answer:
        return self.run(operators.hold(self.me, uid, "me", "wait"))

    def retry(self, uid: str, extra: int = 1) -> operators.Answer:
        return self.run(operators.retry(self.me, uid, "me", "", extra=extra))

    def finish(self, uid: str) -> Stub | None:
        return self.run(attempts.finish(uid))

    def promote(self, uid: str) -> promotion.Waiting | None:
        item = self.disk.do_read(f"queue/waiting/{uid}/item.json", Item)
        assert isinstance(item, Item)
        return self.run(promotion.promote(item))

    def where(self, uid: str) -> list[str]:
        """Every phase folder that holds the uid."""
        out = [
            p for p in ("incoming", "waiting", "open", "rejected") if (self.layout.queue / p / uid).exists()
        ]
        out += [str(p.parent.parent.name) for p in self.layout.queue.glob(f"archive/*/{uid}")]
        out += ["tree" for _ in self.layout.queue.glob(f"incoming/*/b.*/{uid}")]
        return out

    def cells(self, uid: str) -> dict[str, dict[str, Any]]:
        """name -> content of every file of an item in open/ or archive/, but the raw drop."""
        for home in (self.layout.queue / "open" / uid, *self.layout.queue.glob(f"archive/*/{uid}")):
            if home.exists():
                return {
                    p.name: json.loads(p.read_text()) for p in home.iterdir() if not p.name.startswith("raw")
                }
        return {}

    # ---- everything a fresh coordinator does -------------------------------------------------------------------------

    def recover(self) -> None:
        """One pass of a new coordinator over everything: admit, promote, expire, judge, finish."""
        self.box = self.new_box()
        me = self.actor("recovery")
        disk = self.new_disk()
        for _ in range(3):
            self.clock.advance(10)
            disk.run(admission.take())
        for home in disk.do_ls("queue/incoming") or ():
            disk.run(admission.admit(me, home, self.context, DAY))
        for uid in disk.do_ls("queue/waiting") or ():
            item = disk.do_read(f"queue/waiting/{uid}/item.json", Item)
            if isinstance(item, Item):
                disk.run(promotion.promote(item))
        for uid in disk.do_ls("queue/open") or ():
            seen = disk.run(look(uid))
            if seen.standing is Standing.RUNNING:
                disk.run(attempts.expire(me, uid, seen.n))
            while (seen := disk.run(look(uid))).standing is Standing.SUBMITTED:
                disk.run(lane.judge(me, "app", uid, seen.n))
            if seen.standing is Standing.OVER:
                disk.run(attempts.finish(uid))
        disk.close()


def end_record(n: int, outcome: Outcome, sha: str | None = None, **more: Any) -> End:
    return End(n=n, outcome=outcome, by="agent-1", sha=sha, ended_at=MOMENT, **more)


def killed_everywhere(
    make: Callable[[], World],
    protocol: Callable[[World], Step[Any]],
    then: Callable[[World], None],
) -> int:
    """Run the protocol on a fresh world and kill it before its k-th operation, for every k. -> how many there are."""
    for k in itertools.count():
        world = make()
        try:
            process = world.proc(protocol(world))
            for _ in range(k):
                if process.ended:
                    break
                process.once()
            ended = process.ended
            process.kill()
            then(world)
        finally:
            world.close()
        if ended:
            return k
    raise AssertionError

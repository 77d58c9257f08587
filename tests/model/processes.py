"""The processes of the model: what the product's processes do with the store, around the very generators that it ships.

Each function here is one process: a generator of operations, made of `harness.store`'s. `p` is the set of store modules
to use (the product's, or a mutant's). `me` names the incarnation. Whatever is not the store's is one operation of its own:

    ("exec", uid, n, me)        the attempt has side effects from here on
    ("choose", uid, n)          what the agent makes of it: done, failed, released, or it looks whether it was decided
    ("commit", sha), ("sync_hub",)     its result, in git
    ("acked", uid, n, what)     a person was told what became of the item as n: cancelled or held, or anything else that is final
    ("promised", uid, n)        a person was told that the item may run after n; 0: without waiting
    ("superseded", uid, n)      an owner gave up because somebody else decided its attempt
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

from harness.errors import UnreadableRecordError
from harness.model import LONG_AGO, CommitPolicy, End, Identity, Item, Outcome, date_of
from tests.model.automaton import TORN, Body

DAY = date_of(LONG_AGO)
"""Nobody in the model has a clock."""
PROJECT = "app"


def product() -> SimpleNamespace:
    """The store as it ships, and what of the hub asks nothing of git."""
    from harness.hub import publishing, trailers
    from harness.store import admission, attempts, cells, lane, operators, ops, promotion, sweeping

    return SimpleNamespace(
        admission=admission,
        attempts=attempts,
        cells=cells,
        lane=lane,
        operators=operators,
        ops=ops,
        promotion=promotion,
        sweeping=sweeping,
        publishing=publishing,
        trailers=trailers,
    )


def adapted(me: str, body: Body) -> Body:
    """The operations of a generator as the explorer knows them: what the interpreter does in two calls becomes two
    operations, names that must be new are made from the incarnation's, a damaged record is thrown into the reader."""
    reply: Any = None
    fresh = swaps = 0
    while True:
        try:
            op = (
                body.throw(UnreadableRecordError("it is torn", where="model", remedy=""))
                if reply is TORN
                else body.send(reply)
            )
        except StopIteration:
            return
        match op[0]:
            case "fresh":
                fresh += 1
                reply = f"{me}{fresh}".ljust(10, "0")
            case "ensure_dir":
                yield ("mkdir", op[1])
                yield ("fsync_dir", op[1].rsplit("/", 1)[0])
                reply = None
            case "swap_lane":
                swaps += 1
                reply = yield (*op, f"{me}.{swaps}")
            case _:
                reply = yield op


def actor(p: SimpleNamespace, me: str) -> Any:
    return p.cells.Actor(Identity(incarnation=me, name=me, host="here", root="r"))


def worker(p: SimpleNamespace, me: str, rounds: int = 1, hints: bool = False) -> Body:
    """Claims what it finds, runs it, ends it, finishes what is over."""
    self = actor(p, me)
    for _ in range(rounds):
        todo = (yield ("hints",)) if hints else ((yield ("ls", "queue/open")) or ())
        for uid in todo:
            if not hints or (yield ("take_hint", uid)):
                yield from attempt(p, self, me, uid, hints)


def attempt(p: SimpleNamespace, self: Any, me: str, uid: str, hints: bool) -> Body:
    got = yield from p.attempts.claim(self, uid)
    if not isinstance(got, p.attempts.Claimed):
        return
    yield ("exec", uid, got.n, me)
    what = yield ("choose", uid, got.n)
    if what == "look":  # its beat: has somebody decided it?
        if (yield from p.attempts.decided(got)) is not None:
            yield from p.attempts.abandon(got)
            yield ("superseded", uid, got.n)
            return
        what = "done"
    sha = None
    if what == "done" and got.item.commit is not CommitPolicy.NONE:
        sha = f"c-{uid}-{got.n}"
        yield ("commit", sha)
        yield ("sync_hub", PROJECT)
    record = End(n=got.n, outcome=Outcome(what), by=me, sha=sha)
    if (yield from p.attempts.end(self, got, record)) is not p.attempts.Ended.WON:
        yield ("superseded", uid, got.n)
    elif what == "done" and sha is None:
        yield from p.attempts.archive(uid, mine=record)
    elif hints and what != "done":
        yield ("hint", uid, 5)


def monitor(p: SimpleNamespace, me: str, rounds: int = 1, hints: bool = False) -> Body:
    """The coordinator's care for open/: expire, finish, hint."""
    self = actor(p, me)
    for _ in range(rounds):
        todo = (yield ("ls", "queue/open")) or ()  # a local: part of the state of the process
        for uid in todo:
            seen = yield from p.cells.look(uid)
            if seen.standing is p.cells.Standing.RUNNING:
                if (yield from p.attempts.expire(self, uid, seen.n)) is Outcome.CANCELLED:
                    yield from p.attempts.finish(uid)
            elif seen.standing is p.cells.Standing.OVER:
                yield from p.attempts.finish(uid)
            elif seen.standing is p.cells.Standing.READY and hints:
                yield ("hint", uid, 5)


def admitter(p: SimpleNamespace, me: str, rounds: int = 1, context: Any = None, takes: bool = True) -> Body:
    """The coordinator's admission: take drops, decide what is in incoming/, complete what a dead one began, sweep."""
    self = actor(p, me)
    for _ in range(rounds):
        if takes:
            yield from p.admission.take()
        todo = (yield ("ls", "queue/incoming")) or ()  # a local: part of the state of the process
        for home in todo:
            if (yield from p.admission.admit(self, home, context, DAY)).empty:
                yield from p.sweeping.sweep_home(home)


def sweeper(p: SimpleNamespace, me: str, rounds: int = 1) -> Body:
    """The coordinator's care for queue/tmp/."""
    for _ in range(rounds):
        yield from p.sweeping.sweep_private(me)


def decider(p: SimpleNamespace, me: str, home: str, context: Any = None) -> Body:
    """An admitter that comes to one drop first."""
    yield from p.admission.admit(actor(p, me), home, context, DAY)


def promoter(p: SimpleNamespace, me: str, rounds: int = 1) -> Body:
    """The coordinator's care for waiting/."""
    for _ in range(rounds):
        todo = (yield ("ls", "queue/waiting")) or ()  # a local: part of the state of the process
        for uid in todo:
            item = yield ("read", f"queue/waiting/{uid}/item.json", Item)
            if item is not None:
                yield from p.promotion.promote(item)


def merger(p: SimpleNamespace, me: str, rounds: int = 1, publishes: bool = False) -> Body:
    self = actor(p, me)
    for _ in range(rounds):
        todo = (yield ("ls", "queue/open")) or ()  # a local: part of the state of the process
        for uid in todo:
            seen = yield from p.cells.look(uid)
            if seen.standing is p.cells.Standing.SUBMITTED:
                yield from p.lane.judge(self, PROJECT, uid, seen.n)
                seen = yield from p.cells.look(uid)
            if seen.standing is p.cells.Standing.OVER:
                yield from p.attempts.finish(uid)
        if publishes and (yield ("target", PROJECT)) != (yield ("seen", PROJECT)):
            yield from catch_up(p, self)
            yield from hub(p.publishing.publish())


def hub(body: Body) -> Body:
    """Operations of the hub on the one project there is."""
    reply: Any = None
    while True:
        try:
            op = body.send(reply)
        except StopIteration as stop:
            return stop.value
        reply = yield (op[0], PROJECT, *op[1:])


def catch_up(p: SimpleNamespace, self: Any) -> Body:
    """Follow the person's branch; take in what they did beside ours, under the lane."""
    if (yield from hub(p.publishing.follow())).diverged:
        held = yield from p.lane.take_lane(self, PROJECT)
        if held is not None:
            yield from hub(p.publishing.merge_upstream(held))


def publisher(p: SimpleNamespace, me: str) -> Body:
    """A merger that found nothing to judge."""
    yield from hub(p.publishing.publish())


def looker(p: SimpleNamespace, me: str) -> Body:
    """A coordinator that starts, or a worker that prepares."""
    yield from hub(p.publishing.follow())


def follower(p: SimpleNamespace, me: str) -> Body:
    """A merger before it judges."""
    yield from catch_up(p, actor(p, me))


# ---- people ------------------------------------------------------------------------------------------------------------


def cancel(p: SimpleNamespace, me: str, uid: str) -> Body:
    self = actor(p, me)

    def judge(uid: str, n: int, *, cancel_by: str, why: str) -> Any:
        return p.lane.judge(self, PROJECT, uid, n, cancel_by=cancel_by, why=why)

    said = yield from p.operators.cancel(self, uid, me, "", judge)
    yield from told(p, uid, said, "cancelled")
    yield from p.attempts.finish(uid)


def hold(p: SimpleNamespace, me: str, uid: str) -> Body:
    said = yield from p.operators.hold(actor(p, me), uid, me, "")
    yield from told(p, uid, said, "held")


def stop(p: SimpleNamespace, me: str, uid: str) -> Body:
    seen = yield from p.cells.look(uid)
    if seen.standing is p.cells.Standing.RUNNING:
        yield from p.operators.stop(actor(p, me), uid, seen.n, me, "")


def retry(p: SimpleNamespace, me: str, uid: str) -> Body:
    said = yield from p.operators.retry(actor(p, me), uid, me, "")
    if said.said is p.operators.Said.DONE:
        yield ("promised", uid, said.n)
    else:
        yield from told(p, uid, said, "")


def told(p: SimpleNamespace, uid: str, said: Any, done: str) -> Body:
    """What the answer claims, in the words of the invariants."""
    if said.said is p.operators.Said.DONE:
        yield ("acked", uid, said.n, done)
    elif said.said is p.operators.Said.TOO_LATE:
        for what in ("merged", "done", "cancelled"):
            if what in said.detail:
                yield ("acked", uid, said.n, what)


# ---- the rest of the world ---------------------------------------------------------------------------------------------


def writer(p: SimpleNamespace, me: str, name: str) -> Body:
    """A person's program that writes a drop in place, slowly."""
    yield ("open_drop", name)
    yield ("write_drop", name)


def mover(p: SimpleNamespace, me: str, uid: str) -> Body:
    """A repair, a restore, a person: takes an item's folder away and brings it back."""
    yield ("rename", f"queue/open/{uid}", f"queue/aside/{uid}")
    yield ("rename", f"queue/aside/{uid}", f"queue/open/{uid}")


def pusher(p: SimpleNamespace, me: str) -> Body:
    """Somebody else moves the target: a fetch from upstream, a person's push into the hub."""
    old = yield ("target", PROJECT)
    yield ("intrude", old)


def committer(p: SimpleNamespace, me: str, kinds: tuple[str, ...] = ("commit",)) -> Body:
    """A person works on their branch; `Explorer._commit_theirs` knows how."""
    for kind in kinds:
        yield ("commit_theirs", kind)


Maker = Callable[..., Body]


def started(maker: Maker, p: SimpleNamespace, me: str, args: dict[str, Any]) -> Callable[[], Body]:
    return lambda: adapted(me, maker(p, me, **args))


def everything(context: Any, publishes: bool, started: bool) -> Iterator[tuple[str, Maker, dict[str, Any]]]:
    """What a coordinator, one worker and one merger do; the recovery of every scenario. `started`: after a power loss."""
    yield "Ra", admitter, {"context": context, "rounds": 2}
    yield "Rp", promoter, {}
    yield "Rm", monitor, {"hints": True}
    yield "Rw", worker, {}
    if publishes and started:
        yield "Rl", looker, {}
    yield "Rj", merger, {"publishes": publishes}
    yield "Rn", monitor, {"hints": True}

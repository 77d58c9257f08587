"""The scenarios of docs/protocol.md: who runs, on what, with which faults."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness.model import Act, Claim, CommitPolicy, End, Grant, Identity, Item, Outcome, Record, Verdict
from harness.store.cells import stub_path
from harness.store.decisions import Decision
from harness.store.drops import Context, parse
from harness.store.names import Name, name_path
from tests.model.automaton import Interned
from tests.model.explorer import Budget, Process, Scenario
from tests.model.files import Files, split
from tests.model.invariants import BEFORE, Contents
from tests.model.processes import (
    DAY,
    admitter,
    cancel,
    committer,
    decider,
    follower,
    hold,
    merger,
    monitor,
    mover,
    promoter,
    publisher,
    pusher,
    retry,
    stop,
    sweeper,
    worker,
    writer,
)

CONTEXT = Context(projects={"app": ("claude",)}, agents=("claude",))
Setup = Callable[[Files, Interned], Contents]


def uid_of(name: str) -> str:
    return f"{name}-0000000000"


def home_of(drop: str) -> str:
    return uid_of(drop.partition(".")[0])


# ---- setups --------------------------------------------------------------------------------------------------------------


class World:
    """Builds a setup: `World().item("x").drop("a.json", ...)`; called with files, it puts everything there."""

    def __init__(self) -> None:
        self._steps: list[Callable[[Files, Interned, Contents], None]] = []

    def __call__(self, files: Files, records: Interned) -> Contents:
        contents = Contents(CONTEXT)
        for step in self._steps:
            step(files, records, contents)
        return contents

    def item(
        self,
        name: str,
        *,
        merge: bool = False,
        attempts: int = 3,
        phase: str = "open",
        uid: str = "",
        commit: CommitPolicy | None = None,
        **more: Any,
    ) -> World:
        """One item that is there already."""
        policy = commit or (CommitPolicy.REQUIRED if merge else CommitPolicy.NONE)
        uid = uid or uid_of(name)
        item = Item(uid=uid, id=name, prompt="p", project="app", commit=policy, max_attempts=attempts, **more)

        def step(files: Files, records: Interned, contents: Contents) -> None:
            at = _folder(files, f"queue/{phase}")
            files.add(at, uid, ("d", f"D:{uid}"))
            files.add(f"D:{uid}", "item.json", ("f", (f"I:{uid}", records.number(item))))
            contents.items[uid] = item

        self._steps.append(step)
        return self

    def waiting(self, name: str, **more: Any) -> World:
        return self.item(name, phase="waiting", **more)

    def cell(self, name: str, cell: str, record: Any, *, uid: str = "") -> World:
        uid = uid or uid_of(name)

        def step(files: Files, records: Interned, contents: Contents) -> None:
            files.add(f"D:{uid}", cell, ("f", (f"{cell}:{uid}", records.number(record))))
            if isinstance(record, End) and record.sha:
                files.git = files.git._replace(objects=files.git.objects | {record.sha})

        self._steps.append(step)
        return self

    def history(self, name: str, *outcomes: str) -> World:
        """Attempts that are decided already; "done" has a result to merge, "returned" was refused, "waited" was given back
        for a limit."""
        old = Identity(incarnation=BEFORE, name=BEFORE)
        for n, what in enumerate(outcomes, 1):
            act = {"held": Act.HOLD}.get(what, Act.RUN)
            self.cell(name, f"{n}.claim", Claim(n=n, act=act, owner=old))
            sha = f"c-{uid_of(name)}-{n}" if what in ("done", "returned") else None
            outcome = Outcome({"returned": "done", "waited": "released"}.get(what, what))
            waits = "limit" if what == "waited" else ""
            self.cell(name, f"{n}.end", End(n=n, outcome=outcome, by=BEFORE, sha=sha, waits=waits))
            if what == "returned":
                self.cell(name, f"{n}.verdict", Verdict(n=n, returned="gate", gate="tests"))
        return self

    def grant(self, name: str, n: int, extra: int = 1) -> World:
        return self.cell(name, f"{n}.grant", Grant(n=n, extra=extra, by="me"))

    def over(self, name: str, outcome: str, *, uid: str = "") -> World:
        """An item without a merge that is archived already."""
        uid = uid or uid_of(name)
        self.item(name, phase=f"archive/{DAY}", uid=uid)
        claim = Claim(n=1, act=Act.RUN, owner=Identity(incarnation=BEFORE, name=BEFORE))
        self.cell(name, "1.claim", claim, uid=uid)
        self.cell(name, "1.end", End(n=1, outcome=Outcome(outcome), by=BEFORE), uid=uid)
        return self.stub(uid, outcome)

    def stub(self, uid: str, outcome: str) -> World:
        def step(files: Files, records: Interned, contents: Contents) -> None:
            folder, _, name = stub_path(uid).rpartition("/")
            cell: Record
            if outcome == "rejected":
                cell = Decision(rejected=("no",))
                contents.rejected |= {uid}
            else:
                cell = End(n=1, outcome=Outcome(outcome), by=BEFORE)
            files.add(_folder(files, folder), name, ("f", (f"S:{uid}", records.number(cell))))

        self._steps.append(step)
        return self

    def named(self, name: str, *holders: str, drop: str = "") -> World:
        """The items (by uid) that have, or had, an id, oldest first; of `drop`, when they came in a batch."""

        def step(files: Files, records: Interned, contents: Contents) -> None:
            for k, uid in enumerate(holders or (uid_of(name),), 1):
                folder, _, cell = name_path(name, k).rpartition("/")
                held = Name(uid=uid, digest="another", id=name, drop=drop)
                files.add(_folder(files, folder), cell, ("f", (f"N:{uid}", records.number(held))))
                if contents.rejected & {uid, drop}:
                    contents.rejected |= {uid}

        self._steps.append(step)
        return self

    def drop(self, name: str, text: str, *, later: bool = False) -> World:
        """A file in the drop box, or one that a process of the scenario writes."""

        def step(files: Files, records: Interned, contents: Contents) -> None:
            contents.drops[name] = parse(name, text.encode(), CONTEXT)
            if later:
                contents.written_later |= {name}
            else:
                files.add("queue", name, ("f", (f"U:{name}", name)))

        self._steps.append(step)
        return self

    def taken(self, name: str, text: str) -> World:
        """A drop that is in incoming/ already, and not decided."""

        def step(files: Files, records: Interned, contents: Contents) -> None:
            contents.drops[name] = parse(name, text.encode(), CONTEXT)
            at = _folder(files, f"queue/incoming/{home_of(name)}")
            files.add(at, f"raw.{name}", ("f", (f"U:{name}", name)))

        self._steps.append(step)
        return self

    def hint(self, name: str) -> World:
        self._steps.append(lambda files, records, contents: files.add("ready", uid_of(name), ("f", "hint")))
        return self

    def folder(self, path: str) -> World:
        """A folder of the store that is there from earlier days."""

        def step(files: Files, records: Interned, contents: Contents) -> None:
            _folder(files, f"queue/{path}")

        self._steps.append(step)
        return self


def _folder(files: Files, path: str) -> str:
    """Make sure that a folder is there. -> its inode"""
    parts, name = split(path)
    at = files.folder(parts)
    assert at is not None, path
    if (at, name) not in files.names:
        files.add(at, name, ("d", f"D:{path}"))
    return str(files.names[(at, name)][1])


def one(merge: bool = False, **more: Any) -> World:
    return World().item("g" if merge else "x", merge=merge, **more)


def submitted(*names: str, attempts: int = 3) -> World:
    world = World()
    for name in names or ("g",):
        world.item(name, merge=True, attempts=attempts).history(name, "done")
    return world


X = '{"prompt": "p", "commit": "none"}'
BATCH = '[{"id": "b1", "prompt": "p", "commit": "none"}, {"id": "b2", "prompt": "p", "commit": "none"}]'
CHAIN = '[{"id": "b1", "prompt": "p", "commit": "none"}, {"id": "b2", "prompt": "p", "commit": "none", "depends_on": ["b1"]}]'
NAMED = '{"id": "n", "prompt": "p", "commit": "none"}'
OTHER = '{"id": "n", "prompt": "something else", "commit": "none"}'
SINGLE = '{"id": "b2", "prompt": "q", "commit": "none"}'
BAD = '{"prompt": 7}'
X0, X1, BATCH_9 = "x-9999999999", "x-1111111111", "b-9999999999"
NEEDS_X = '{"prompt": "p", "commit": "none", "depends_on": ["x"]}'


# ---- processes -------------------------------------------------------------------------------------------------------------


def w(name: str = "w", rounds: int = 1, **more: Any) -> Process:
    return Process(name, worker, {"rounds": rounds, **more})


def m(name: str = "m", rounds: int = 1, **more: Any) -> Process:
    return Process(name, monitor, {"rounds": rounds, **more})


def a(name: str = "a", rounds: int = 1, **more: Any) -> Process:
    return Process(name, admitter, {"rounds": rounds, "context": CONTEXT, **more})


def d(drop: str, name: str = "a") -> Process:
    return Process(name, decider, {"home": home_of(drop), "context": CONTEXT})


def t(name: str = "p", rounds: int = 1) -> Process:
    return Process(name, promoter, {"rounds": rounds})


def j(name: str = "j", rounds: int = 1, **more: Any) -> Process:
    return Process(name, merger, {"rounds": rounds, **more})


def person(maker: Any, item: str, name: str = "o") -> Process:
    return Process(name, maker, {"uid": uid_of(item)})


def program(file: str) -> Process:
    return Process("u", writer, {"name": file}, mortal=False)


def s(name: str = "s.0", rounds: int = 1) -> Process:
    """A sweep; who may be swept has a name with a dot, as all incarnations have."""
    return Process(name, sweeper, {"rounds": rounds})


def f(name: str = "f") -> Process:
    return Process(name, follower)


def their(*kinds: str) -> Process:
    """A person, and what they do to their branch."""
    return Process("y", committer, {"kinds": kinds}, mortal=False)


def publishing(name: str, processes: tuple[Process, ...], budget: Budget, **more: Any) -> Scenario:
    return Scenario(name, processes, submitted(), budget, publishes=True, **more)


def jp(name: str = "j", rounds: int = 1) -> Process:
    return j(name, rounds, publishes=True)


PUSH = Process("u", pusher)
PUBLISH = Process("k", publisher, mortal=False)
MOVE = Process("z", mover, {"uid": uid_of("x")})
AFTER_X: dict[str, Any] = {"deps": {"x": uid_of("x")}}
AFTER_G: dict[str, Any] = {"deps": {"g": uid_of("g")}}


def too_large() -> Scenario:
    """Walked at random only."""
    mergers = (j(rounds=2), j("k", rounds=2), j("l"), person(cancel, "h"), PUSH)
    return Scenario(
        "3 mergers, 3 items, cancel, a push; 2 kills, 2 red gates",
        mergers,
        submitted("g", "h", "i"),
        Budget(kills=2, fails=2),
    )


def scenarios() -> list[Scenario]:
    """In the order of docs/reliability.md."""
    return [
        # ---- attempts
        Scenario("A 2 workers and a monitor, 1 item; 1 kill, 1 suspicion", (w(), w("v"), m()), one(), Budget(kills=1, suspicions=1)),
        Scenario("B the same; 2 kills, 2 suspicions", (w(), w("v"), m()), one(), Budget(kills=2, suspicions=2)),
        Scenario("C 2 workers, 2 monitors; 1 kill, 1 suspicion", (w(), w("v"), m(), m("k")), one(), Budget(kills=1, suspicions=1)),
        Scenario("D 1 worker 2 rounds, monitor 2 rounds; 1 failure, 1 kill, 1 suspicion", (w(rounds=2), m(rounds=2)), one(), Budget(kills=1, suspicions=1, fails=1)),
        Scenario("E 2 workers and a monitor, 2 items; 1 suspicion", (w(), w("v"), m()), World().item("x").item("y"), Budget(suspicions=1)),
        Scenario("F at most 2 attempts; 2 failures, 2 suspicions", (w(rounds=2), w("v"), m(rounds=2)), one(attempts=2), Budget(suspicions=2, fails=2)),
        Scenario("G no second attempt; 2 workers, 2 monitors; 1 kill, 2 suspicions", (w(), w("v"), m(), m("k")), one(attempts=1), Budget(kills=1, suspicions=2)),
        Scenario("H the monitor kills the hung, or fails to; 1 kill, 2 suspicions", (w(rounds=2), m(), m("k")), one(), Budget(kills=1, suspicions=2), kills_hung=True),
        Scenario("I power, weak: 2 workers and a monitor; 1 suspicion", (w(), w("v"), m()), one(), Budget(powers=1, suspicions=1)),
        Scenario("J power, journal: 2 workers and a monitor; 1 kill, 1 suspicion", (w(), w("v"), m()), one(), Budget(powers=1, kills=1, suspicions=1), weak=False),
        Scenario("K power twice, weak: worker and monitor", (w(), m()), one(), Budget(powers=2)),
        Scenario("L lost replies: 2 workers and a monitor; 2 lost, 1 kill", (w(), w("v"), m()), one(), Budget(kills=1, replies=2)),
        Scenario("M torn listings: 2 workers, monitor; 2 torn, 1 suspicion, 1 failure", (w(rounds=2), w("v"), m()), one(), Budget(suspicions=1, fails=1, replies=2), torn=True),
        Scenario("N torn listings, power: 2 workers; 1 failure", (w(), w("v")), one(), Budget(powers=1, fails=1, replies=1), torn=True),
        Scenario("O released and failed: 2 workers and a monitor, at most 2", (w(rounds=3), w("v"), m()), one(attempts=2), Budget(suspicions=1, fails=2)),
        Scenario("\u00a3 at most 1 release: 2 workers, monitor, stop; 3 failures", (w(rounds=3), w("v"), m(), person(stop, "x")), one().history("x", "waited"), Budget(fails=3), releases=1),
        Scenario("\u00a4 at most 1 release: worker 3 rounds, hold, retry; 1 kill, 3 failures", (w(rounds=3), person(hold, "x", "h"), person(retry, "x", "r"), m()), one().history("x", "released", "waited"), Budget(kills=1, fails=3), releases=1),
        # ---- finishing
        Scenario("P 3 finishers", (m(), m("k"), m("l")), World().item("x").history("x", "cancelled"), Budget(kills=1)),
        Scenario("Q 2 finishers, power, weak", (m(), m("k")), World().item("x").history("x", "cancelled"), Budget(powers=1)),
        # ---- merging
        Scenario("R worker 2 rounds, 2 mergers; 1 red gate", (w(rounds=2), j(), j("k")), one(merge=True), Budget(fails=1)),
        Scenario("S 2 mergers, 2 submitted items; 1 red gate", (j(), j("k")), submitted("g", "h"), Budget(fails=1)),
        Scenario("T power, weak: 2 mergers; 1 red gate", (j(), j("k")), submitted(), Budget(powers=1, fails=1)),
        Scenario("U power, weak: worker and merger; 1 red gate", (w(), j()), one(merge=True), Budget(powers=1, fails=1)),
        Scenario("V power, journal: 2 mergers; 1 kill, 1 red gate", (j(), j("k")), submitted(), Budget(powers=1, kills=1, fails=1), weak=False),
        Scenario("W 2 mergers, one of 2 rounds, a worker; 1 kill, 1 red gate", (j(rounds=2), j("k"), w()), submitted(), Budget(kills=1, fails=1)),
        Scenario("X worker, monitor, merger; 1 suspicion, 1 red gate, 1 kill", (w(), m(), j()), one(merge=True), Budget(kills=1, suspicions=1, fails=1)),
        Scenario("Y lost replies: 2 mergers and a worker; 1 red gate", (j(), j("k"), w()), submitted(), Budget(fails=1, replies=2)),
        Scenario("Z torn listings: worker and merger, 2 rounds; 1 red gate", (w(rounds=2), j(rounds=2)), one(merge=True), Budget(fails=1, replies=2), torn=True),
        Scenario("a returned at the last attempt: 2 mergers, worker, retry", (j(), j("k"), w(), person(retry, "g", "r")), submitted(attempts=1), Budget(fails=1)),
        Scenario("b 2 mergers, somebody else pushes; 1 kill, 1 red gate", (j(rounds=2), j("k"), PUSH), submitted(), Budget(kills=1, fails=1)),
        # ---- people
        Scenario("c cancel: worker, monitor; 1 kill, 1 suspicion", (w(), m(), person(cancel, "x")), one(), Budget(kills=1, suspicions=1)),
        Scenario("d cancel against hold: 2 workers", (w(), w("v"), person(cancel, "x"), person(hold, "x", "h")), one()),
        Scenario("e cancel of a submitted item: 2 mergers; 1 red gate", (person(cancel, "g"), j(), j("k")), submitted(), Budget(fails=1)),
        Scenario("f cancel of a submitted item: merger; 1 red gate, 1 kill", (person(cancel, "g"), j()), submitted(), Budget(kills=1, fails=1)),
        Scenario("g hold, retry: worker 2 rounds, monitor; 1 kill, 1 suspicion", (w(rounds=2), person(hold, "x"), person(retry, "x", "r"), m()), one(), Budget(kills=1, suspicions=1)),
        Scenario("h cancel and retry of a held item: worker, monitor; 1 kill", (person(cancel, "x"), person(retry, "x", "r"), w(), m()), one().history("x", "held"), Budget(kills=1)),
        Scenario("i parked: 2 retries, worker, cancel; 1 kill", (person(retry, "x", "r"), person(retry, "x", "s"), w(), person(cancel, "x")), one(attempts=2).history("x", "failed", "expired"), Budget(kills=1)),
        Scenario("j power, weak: cancel, retry, worker", (person(cancel, "x"), person(retry, "x", "r"), w()), one().history("x", "held"), Budget(powers=1)),
        Scenario("k torn listings: parked, worker, retry, hold", (w(rounds=2), person(retry, "x", "r"), person(hold, "x", "h")), one(attempts=2).history("x", "failed", "failed"), Budget(replies=2), torn=True),
        Scenario("l stop: worker 2 rounds, monitor, no second attempt; 1 kill, 1 suspicion", (w(rounds=2), m(), person(stop, "x")), one(attempts=1), Budget(kills=1, suspicions=1)),
        Scenario("m several grants: 2 rounds of hold and retry, worker", (person(hold, "x", "h"), person(retry, "x", "r"), person(hold, "x", "i"), person(retry, "x", "s"), w()), one()),
        Scenario("n store moved away and back: 2 workers, monitor; 1 suspicion", (MOVE, w(rounds=2), w("v"), m()), one(), Budget(suspicions=1), moves=True),
        # ---- waiting
        Scenario("o 2 promoters, worker 2 rounds; 1 kill", (t(rounds=2), t("q"), w(rounds=2)), one().waiting("d", **AFTER_X), Budget(kills=1)),
        Scenario("p power, weak: promoter, worker 2 rounds", (t(rounds=2), w(rounds=2)), one().waiting("d", **AFTER_X), Budget(powers=1)),
        Scenario("q waiting for a merge: merger, promoter, worker; 1 red gate", (j(), t(rounds=2), w(rounds=2)), one(merge=True).waiting("d", **AFTER_G), Budget(fails=1)),
        Scenario("r waiting for what is cancelled: cancel, promoter, worker; 1 kill", (person(cancel, "x"), t(rounds=2), w()), one().waiting("d", **AFTER_X), Budget(kills=1)),
        Scenario("s cancel of a waiting item: promoter, worker 2 rounds; 1 kill", (person(cancel, "d"), t(), w(rounds=2)), one().waiting("d", **AFTER_X), Budget(kills=1)),
        Scenario("t power, weak: cancel of a waiting item, promoter", (person(cancel, "d"), t(rounds=2)), one().waiting("d", **AFTER_X), Budget(powers=1)),
        Scenario("u power, weak: retry of a waiting item, promoter, worker", (person(retry, "d"), t(), w()), one().waiting("d", **AFTER_X), Budget(powers=1)),
        Scenario("z power, weak: cancel of a waiting item, promoter, worker", (person(cancel, "d"), t(), w()), World().waiting("d", not_before="2027-01-15T08:00:00Z"), Budget(powers=1)),
        Scenario("v retry against cancel of a waiting item, promoter, worker", (person(retry, "d", "r"), person(cancel, "d"), t(), w()), one().waiting("d", **AFTER_X), Budget(kills=1)),
        Scenario("w not before a time: promoter, 2 workers", (t(rounds=2), t("q"), w()), World().waiting("d", not_before="2027-01-15T08:00:00Z"), Budget(kills=1)),
        Scenario("x optional dependency cancelled: cancel, promoter, worker", (person(cancel, "x"), t(rounds=2), w()), one().waiting("d", optional_deps=("x",), **AFTER_X), Budget(kills=1)),
        Scenario("y unknown id: its item is admitted while somebody waits for it", (a(rounds=2), t(rounds=2), w(rounds=2)), World().waiting("d", deps={"x": None}).drop("x.json", X), Budget(kills=1)),
        Scenario("@ power, weak: a drop that waits for what is done: admitter, promoter, worker", (a(), t(), w()), World().over("x", "done").named("x").drop("d.json", NEEDS_X), Budget(powers=1)),
        Scenario("? ids of the past: a rejected, a cancelled and a done holder: admitter, promoter, worker", (a(), t(rounds=2), w()), World().stub(X0, "rejected").over("x", "cancelled").over("x", "done", uid=X1).named("x", X0, uid_of("x"), X1).waiting("d", **AFTER_X).waiting("e", deps={"x": None}).drop("f.json", NEEDS_X), Budget(kills=1)),
        # ---- admission
        Scenario("0 a program writes, 2 admitters, worker; 1 kill", (program("x.json"), a(), a("b"), w()), World().drop("x.json", X, later=True), Budget(kills=1)),
        Scenario("1 2 admitters, one of 2 rounds, worker; 1 kill", (a(rounds=2), a("b"), w()), World().drop("x.json", X), Budget(kills=1)),
        Scenario("2 power, weak: admitter and worker; 1 kill", (a(), w()), World().drop("x.json", X), Budget(powers=1, kills=1)),
        Scenario("3 power twice, weak: admitter", (a(rounds=2),), World().drop("x.json", X), Budget(powers=2)),
        Scenario("4 lost replies: 2 admitters; 1 kill", (a(), a("b")), World().drop("x.json", X), Budget(kills=1, replies=1)),
        Scenario("5 a drop that waits: 2 admitters, promoter, worker", (a(), a("b"), t(), w()), World().item("x").drop("d.json", NEEDS_X), Budget(kills=1)),
        Scenario("6 same id, same content: 2 admitters; 1 kill", (a(rounds=2), a("b", rounds=2)), World().drop("n1.json", NAMED).drop("n2.json", NAMED), Budget(kills=1)),
        Scenario("7 same id, other content: 2 admitters; 1 kill", (a(), a("b")), World().drop("n1.json", NAMED).drop("n2.json", OTHER), Budget(kills=1)),
        Scenario("8 power, weak: same id, other content", (a(),), World().drop("n1.json", NAMED).drop("n2.json", OTHER), Budget(powers=1)),
        Scenario("9 rejected: 2 admitters; 1 kill", (a(), a("b")), World().drop("bad.json", BAD), Budget(kills=1)),
        Scenario("! power, weak: rejected", (a(rounds=2),), World().drop("bad.json", BAD), Budget(powers=1)),
        Scenario("# batch of 2: 2 admitters, worker; 1 kill", (a(), a("b"), w()), World().drop("b.json", BATCH), Budget(kills=1)),
        Scenario("$ power, weak: batch of 2, admitter", (a(rounds=2),), World().drop("b.json", BATCH), Budget(powers=1)),
        Scenario("% power, journal: batch with a dependency, 2 admitters", (a(), a("b")), World().drop("b.json", CHAIN), Budget(powers=1), weak=False),
        Scenario("& lost replies: batch of 2, 2 admitters; 1 kill", (a(), a("b")), World().drop("b.json", BATCH), Budget(kills=1, replies=1)),
        Scenario("* a batch that loses an id: 2 admitters", (a(), a("b")), World().drop("b.json", BATCH).drop("c.json", SINGLE), Budget(kills=1)),
        Scenario("~ one id, two admitters, each with another drop; 1 kill", (d("n1.json"), d("n2.json", "b")), World().taken("n1.json", NAMED).taken("n2.json", OTHER), Budget(kills=1)),
        Scenario("^ one id, two admitters with the same drop, power, weak; another drop", (d("n1.json"), d("n1.json", "b")), World().taken("n1.json", NAMED).taken("n2.json", OTHER), Budget(powers=1)),
        Scenario(", one id, a batch and a drop, each with another admitter; 1 kill", (d("b.json"), d("c.json", "b")), World().taken("b.json", BATCH).taken("c.json", SINGLE), Budget(kills=1)),
        Scenario("; an id becomes free while two admitters decide: monitor; 1 kill", (d("n2.json"), d("n2.json", "b"), m()), World().item("n").history("n", "cancelled").named("n").taken("n2.json", OTHER), Budget(kills=1)),
        Scenario(": an id of a batch that was rejected: admitter, power, weak", (a(),), World().stub(BATCH_9, "rejected").named("n", "n-99999999990", drop=BATCH_9).drop("n1.json", NAMED), Budget(powers=1)),
        # ---- hints
        Scenario("+ hints lost: 2 workers by hints, monitor; 1 kill, 1 suspicion", (w(rounds=2, hints=True), w("v", hints=True), m(rounds=2, hints=True)), one(), Budget(kills=1, suspicions=1), hints=True),
        Scenario("- hints stale, and for nothing: 2 workers, monitor; 1 failure, 1 kill", (w(rounds=2, hints=True), w("v", hints=True), m(hints=True)), one().hint("x").hint("y"), Budget(kills=1, fails=1), hints=True),
        # ---- the person's branch
        publishing("_ publish: merger 2 rounds, a person commits twice; 2 kills, 1 refusal", (jp(rounds=2), their("commit", "commit")), Budget(kills=2, fails=1)),
        publishing("| publish: merger 2 rounds, follower, a person commits and pulls; 1 kill", (jp(rounds=2), f(), their("commit", "pull")), Budget(kills=1)),
        publishing("/ publish: 2 mergers, a person commits; 1 red gate or refusal", (jp(), jp("k"), their("commit")), Budget(fails=1)),
        publishing("` publish, replies lost: merger 2 rounds, a person commits; 1 kill", (jp(rounds=2), their("commit")), Budget(kills=1, replies=1)),
        publishing(". publish, power, weak: merger, publisher, cancel, none of whom comes again but the last", (Process("j", merger, {"publishes": True}, mortal=False), PUBLISH, person(cancel, "g")), Budget(powers=1)),
        publishing("' publish, power, journal: merger, follower, a person commits; 1 kill", (jp(), f(), their("commit")), Budget(powers=1, kills=1), weak=False),
        publishing('" publish, power, weak: merger, follower, a person pulls; 1 refusal', (jp(), f(), their("pull")), Budget(powers=1, fails=1)),
        publishing("\\ forged merges: merger, follower; 1 kill, 1 red gate", (j(), f(), their("forged", "forged merge", "by hand", "quoted")), Budget(kills=1, fails=1)),
        publishing("\u00a7 forged merges, power, weak: merger, follower", (j(), f(), their("forged merge", "quoted")), Budget(powers=1)),
        # ---- sweeping
        Scenario("( private files swept: worker, monitor; 1 kill, 1 doubt", (w("w.0", rounds=2), m("m.0"), s()), one(), Budget(kills=1, suspicions=1), sweeps=True),
        Scenario(") private files swept: cancel and merger; 1 kill, 1 doubt", (person(cancel, "g", "o.0"), j("j.0"), s()), submitted(), Budget(kills=1, suspicions=1), sweeps=True),
        Scenario("[ private files swept: 2 mergers; 1 red gate, 1 doubt", (j("j.0"), j("k.0"), s()), submitted(), Budget(suspicions=1, fails=1), sweeps=True),
        Scenario("] private files swept, power, weak: worker and monitor; 1 doubt", (w("w.0"), m("m.0"), s()), one(), Budget(powers=1, suspicions=1), sweeps=True),
        Scenario("{ private files swept, power, journal: merger; 1 red gate, 1 doubt", (w("w.0"), j("j.0"), s()), one(merge=True), Budget(powers=1, suspicions=1, fails=1), weak=False, sweeps=True),
        Scenario("} private files swept: batch of 2, another drop; 1 doubt", (d("b.json", "a.0"), d("c.json", "b.0"), s()), World().taken("b.json", BATCH).taken("c.json", SINGLE), Budget(suspicions=1), sweeps=True),
        Scenario("< empty homes swept: an admitter takes, another does not; 2 kills", (a(rounds=2), a("b", takes=False)), World().drop("x.json", X), Budget(kills=2), sweeps=True),
        Scenario("> empty homes swept, power, weak: an admitter takes, another does not", (a(), a("b", takes=False)), World().drop("x.json", X), Budget(powers=1), sweeps=True),
        Scenario("= hints, power: by hints, by sweep, monitor", (w(rounds=2, hints=True), w("v"), m(hints=True)), one().hint("x"), Budget(powers=1), hints=True),
    ]  # fmt: skip

"""The store's rules, each broken on purpose: the explorer must see it, or its silence proves nothing.

    python -m tests.model.mutants [-v] [M12 ...]         -v prints the way to each violation

A mutant replaces text in modules of `harness/store`, or in those of `harness/hub` that ask nothing of git. Each text must be there exactly once, so that a change of the
product which makes a mutant meaningless is an error that names the mutant. Its scenario is the smallest that shows the
damage. A few variants are harmless: they must hold, and say why.

M1 ... M55 have the numbers of the prototype of the protocol; the others were added for what the prototype did not have,
and for every bug that was found in the store. The end of this file says which rules are not the store's.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from typing import Any

from harness.model import Act, Claim, CommitPolicy, End, Grant, Identity, Outcome
from tests.model.copies import MODULES, load, source
from tests.model.explorer import Budget, Explorer, Process, Result, Scenario
from tests.model.invariants import BEFORE
from tests.model.processes import cancel, hold, merger, retry, stop
from tests.model.scenarios import (
    AFTER_X,
    BAD,
    BATCH,
    CHAIN,
    MOVE,
    NAMED,
    NEEDS_X,
    OTHER,
    PUBLISH,
    PUSH,
    SINGLE,
    World,
    X,
    a,
    d,
    f,
    j,
    jp,
    m,
    one,
    person,
    s,
    submitted,
    t,
    their,
    uid_of,
    w,
)

LIMIT_S = 20.0
"""CPU time for one of them; most need a hundredth of a second."""

Change = tuple[str, str, str]
"""(module, text that is there exactly once, text instead of it)"""


class Inapplicable(Exception):
    """A mutant whose text is not in the product any more."""


@dataclass(frozen=True, slots=True)
class Mutant:
    name: str
    """A number, and the rule as the mutant has it."""
    changes: tuple[Change, ...]
    scenario: Scenario
    harmless: str = ""
    """Why nothing breaks: it must hold then. Empty: it must be caught."""

    @property
    def number(self) -> str:
        return self.name.split()[0]


# ---- loading ---------------------------------------------------------------------------------------------------------------


def mutated(mutant: Mutant) -> dict[str, str]:
    """The sources of all modules, changed. Raises Inapplicable, which names the mutant."""
    sources = {module: source(module) for module in MODULES}
    for module, old, new in mutant.changes:
        count = sources[module].count(old)
        if count != 1:
            raise Inapplicable(f"{mutant.name}: {module}.py holds this {count} times, not once:\n{old}")
        sources[module] = sources[module].replace(old, new)
    return sources


def run(mutant: Mutant) -> Result:
    return Explorer(mutant.scenario, load(mutated(mutant), mutant.scenario.releases)).run(seconds=LIMIT_S)


def as_expected(mutant: Mutant, result: Result) -> bool:
    return result.complete if mutant.harmless else bool(result.violation)


# ---- worlds and processes --------------------------------------------------------------------------------------------------


def lines(*text: str) -> str:
    return "".join(f"{line}\n" for line in text)


def scene(processes: tuple[Process, ...], world: World, **more: Any) -> Scenario:
    """Faults by their names in Budget; everything else as in Scenario. Its name says all that."""
    faults = {k: more.pop(k) for k in Budget._fields if k in more}
    said = [", ".join(p.maker.__name__ for p in processes), *(f"{v} {k}" for k, v in faults.items()), *more]
    return Scenario("; ".join(said), processes, world, Budget(**faults), **more)


def once(process: Process) -> Process:
    """It does not come again after a power loss."""
    return replace(process, mortal=False)


def two() -> tuple[Process, ...]:
    return w(), w("v"), m()


def mergers() -> tuple[Process, ...]:
    return j(), j("k")


def admitters() -> tuple[Process, ...]:
    return a(), a("b")


OLD = Identity(incarnation=BEFORE, name=BEFORE)
DEAD_CLAIM = Claim(n=1, act=Act.RUN, owner=OLD)
ZERO_END = End(n=0, outcome=Outcome.CANCELLED, by=BEFORE)
ZERO_GRANT = Grant(n=0, extra=0, by="me")
LATER: dict[str, Any] = {"not_before": "2027-01-15T08:00:00Z"}
X1, X2 = "x-1111111111", "x-2222222222"


def waiting() -> World:
    return one().waiting("d", **AFTER_X)


def rivals() -> World:
    return World().taken("n1.json", NAMED).taken("n2.json", OTHER)


# ---- texts that several mutants change -------------------------------------------------------------------------------------

HELP = (
    "        if helping:\n            yield from ops.fsync_dir(folder)  # what I build on must outlive me\n"
)
SAME = (
    "        if reply is not Linked.OK and (yield from ops.same(tmp, cell)):\n"
    "            reply = Linked.OK  # the link was made, its reply was lost (NFS)\n"
)
SWEPT = "        if reply is not Linked.GONE or (yield from ops.same(tmp, tmp)):\n"
UNKNOWN = (
    '        yield from ops.die("link", cell)  # neither won nor lost: recovery is the only error path\n'
)
READY = "    if seen.standing is not Standing.READY or seen.item is None:\n"
PARKED = "    if last.grant is None and parking_reason(item, attempts):\n"
RUNNING = "            standing = Standing.RUNNING if k == n else Standing.GONE\n"
VERDICT_THERE = (
    '    if (yield from ops.read(f"{home}/{n}.verdict", Verdict)) is not None:\n        return True\n'
)
SUBMITTED_END = (
    "    if item is None or submitted is None or not needs_merge(item, submitted) or submitted.sha is None:\n"
    "        return True\n"
)
SWAP = "        reply = yield from ops.swap_target(project, held, verdict.merged, old)\n"
FOUND = "    yield from ops.sync_hub(project)  # mine, or found there: durable before the verdict\n"
SET_VERDICT = '    yield from publish(actor, "verdict", verdict, f"{home}/{n}.verdict")\n    return True\n'
TAKE_LANE = (
    "    if held.pending:\n"
    "        yield from complete(actor, held.pending)\n"
    "    return (yield from ops.swap_lane(project, held, None, False))\n"
)
BUILD_SIGNATURE = "def _build(actor: Actor, home: str, drop: Drop, context: Context)"
BUILD_CALL = "        built = yield from _build(actor, home, drop, context)\n"
BATCH_READ = '    return (yield from ops.read(f"{folder}/batch", Decision))\n'
LATE_LIST: tuple[Change, ...] = (
    ("batches", BUILD_SIGNATURE, BUILD_SIGNATURE[:-1] + ", late: list)"),
    ("batches", BUILD_CALL, BUILD_CALL.replace("context)", "context, late)")),
    ("batches", "    if drop.reasons:\n", "    late = []\n    if drop.reasons:\n"),
)
"""`_build` puts into `late` what `decide` shall do after the cell."""
CONSUME_HOLD = (
    "                if (yield from _consume(actor, seen, Act.HOLD, Outcome.HELD, by, why)):\n"
    "                    return Answer(said=Said.DONE, n=seen.n + 1)\n"
)
OVERRULE = (
    "    if (yield from _decide(actor, uid, n, outcome, by, why)) is not Won.YES:\n        return False\n"
)
JUDGE = "                yield from judge(uid, seen.n, cancel_by=by, why=why)\n"
TOO_LATE_TO_HOLD = "                return (yield from _too_late(seen))\n            case Standing.SUBMITTED:\n                return Answer(\n"
STOP = '    won, _ = yield from publish(actor, "end", record, f"queue/open/{uid}/{n}.end")\n    if won is Won.YES:\n'
ZERO_CANCEL = (
    '        won, _ = yield from publish(actor, "end", zero, f"queue/waiting/{uid}/0.end")\n'
    "        if won is not Won.GONE:\n"
    "            yield from make_durable(uid)\n"
    "            yield from move_to_open(uid, 9)\n"
    "            return Answer(said=Said.DONE)\n"
)
TAKE_NUMBER = (
    '    return (yield from publish(actor, "claim", record, cell, lock=True, helping=record.n > 1))\n'
)
TAKEN = (
    "            yield from ops.fsync_dir(folder)\n            taken.append((home, name))\n",
    '    if taken:\n        yield from ops.fsync_dir("queue/incoming")\n        yield from ops.fsync_dir("queue")\n',
)


def publishing() -> list[Mutant]:
    return [
        Mutant("M2 a claim is not durable before the attempt begins", (
            ("cells", "        yield from ops.fsync_dir(folder)\n        return Won.YES, tmp\n", "        return Won.YES, tmp\n"),
        ), scene((w(),), one(), powers=1)),
        Mutant("M3 a cell's data is not durable before its link", (
            ("cells", "        yield from ops.fsync(tmp)  # whole before it is visible\n", ""),
        ), scene((w(),), one(), powers=1)),
        Mutant("M4 what a cell is built on is not made durable first", (
            ("cells", HELP, ""),
        ), scene((m(), w()), one().cell("x", "1.claim", DEAD_CLAIM), powers=1)),
        Mutant("M140 a later claim does not make durable what it is built on", (
            ("cells", "helping=record.n > 1", "helping=False"),
        ), scene((m(), w()), one().cell("x", "1.claim", DEAD_CLAIM), powers=1)),
        Mutant("M8 a claim is locked after its link", (
            ("cells", TAKE_NUMBER, lines(
                '    won, ticket = yield from publish(actor, "claim", record, cell)',
                "    if won is Won.YES:",
                '        yield ("lock", cell)',
                "    return won, ticket",
            )),
        ), scene((w(), m()), one())),
        Mutant("M12 the name of a claim holds its owner", (
            ("cells", '{record.n}.claim"', '{record.n}.{record.owner.incarnation}.claim"'),
        ), scene((w(), w("v")), one())),
        Mutant("M15 EEXIST is taken for a win", (
            ("cells", SAME, "        if reply is Linked.EXISTS:\n            reply = Linked.OK\n"),
        ), scene((w(), w("v")), one())),
        Mutant("M18 whether a link was made is not asked after a lost reply", (
            ("cells", SAME, ""),
        ), scene((w(), m()), one(), replies=1),
            harmless="who won and believes that it lost starts over; its claim is unlocked, and expires. It costs an attempt"),
        Mutant("M56 a cell is set by rename", (
            ("cells", "        reply = yield from ops.link(tmp, cell)  # <-- linearization point\n",
             "        reply = Linked.OK if (yield from ops.rename(tmp, cell)) is ops.Moved.OK else Linked.GONE\n"),
        ), scene((w(), w("v")), one())),
        Mutant("M57 a link that failed for an unknown reason is taken for a win", (
            ("cells", UNKNOWN, "        reply = Linked.OK\n"),
        ), scene((w(), w("v")), one(), replies=1)),
        Mutant("M58 a link that failed for an unknown reason is taken for a loss", (
            ("cells", UNKNOWN, "        pass\n"),
        ), scene((w(),), one(), replies=1)),
        Mutant("M59 a loser keeps its ticket", (
            ("cells", "        yield from ops.unlock(tmp)  # a loser", "        pass  # a loser"),
        ), scene((*two(),), one(), kills=1),
            harmless="the lock is on the loser's own file, which nobody else ever sees. It costs a descriptor"),
    ]  # fmt: skip


def attempts() -> list[Mutant]:
    return [
        Mutant("M1 an item is finished on an end that can vanish", (
            ("attempts", "        yield from ops.fsync_dir(home)  # never act on a fact that can vanish\n", ""),
        ), scene((w(), m()), one(), powers=1)),
        Mutant("M5 a dead owner's claim is taken away, not ended", (
            ("attempts", '    won, _ = yield from publish(actor, "expire", record, f"queue/open/{uid}/{n}.end")\n',
             '    won = yield from ops.rename(f"queue/open/{uid}/{n}.claim", actor.tmp("old"))\n'),
        ), scene((w(), m()), one(), kills=1)),
        Mutant("M6 the end of the owner and that of the monitor are two cells", (
            ("attempts", 'publish(actor, "expire", record, f"queue/open/{uid}/{n}.end")',
             'publish(actor, "expire", record, f"queue/open/{uid}/{n}.expired")'),
            ("cells", '        end = yield from ops.read(f"{home}/{k}.end", End)\n',
             '        end = (yield from ops.read(f"{home}/{k}.end", End)) or (yield from ops.read(f"{home}/{k}.expired", End))\n'),
        ), scene(two(), one(), suspicions=1)),
        Mutant("M13 the next number is claimed while an attempt runs", (
            ("cells", RUNNING, RUNNING.replace("RUNNING", "READY", 1)),
        ), scene((w(), w("v")), one())),
        Mutant("M14 a worker claims what is over", (
            ("attempts", READY, "    if seen.standing not in (Standing.READY, Standing.OVER) or seen.item is None:\n"),
        ), scene((w(),), one().history("x", "cancelled"))),
        Mutant("M37 the stub is set after the move to archive/", (
            ("attempts", "    yield from set_stub(uid, cell)\n", lines(
                '    gone = f"queue/archive/{stub.day}/{uid}"',
                '    yield from ops.ensure_dir(f"queue/archive/{stub.day}")',
                "    yield from ops.rename(home, gone)",
                "    yield from set_stub(uid, cell.replace(home, gone))",
            )),
        ), scene((m(),), one().history("x", "cancelled"))),
        Mutant("M41 a hint is believed", (
            ("attempts", READY, "    if seen.item is None:\n"),
        ), scene((w(hints=True), w("v")), one().hint("x"), hints=True)),
        Mutant("M43 an owner whose folder is gone takes itself for superseded", (
            ("attempts", "    if won is Won.GONE and (yield from stub_of(owned.uid)) is None:\n", "    if False:\n"),
        ), scene((MOVE, w()), one(), moves=True)),
        Mutant("M44 an owner whose folder is gone always raises the alarm", (
            ("attempts", "    if won is Won.GONE and (yield from stub_of(owned.uid)) is None:\n", "    if won is Won.GONE:\n"),
        ), scene((w(), person(cancel, "x")), one())),
        Mutant("M60 a worker that lost a claim runs", (
            ("attempts", "    if won is not Won.YES:\n        return Look(\n", "    if won is Won.GONE:\n        return Look(\n"),
        ), scene((w(), w("v")), one())),
        Mutant("M61 an attempt expires although its lock is held", (
            ("attempts", '    claimed = yield from ops.suspect(f"queue/open/{uid}/{n}.claim")\n', "    claimed = yield from claim_of(uid, n)\n"),
        ), scene((w(), m()), one())),
        Mutant("M62 what hangs is expired, and not killed before", (
            ("attempts", "    if claimed.act is Act.RUN and not (yield from ops.clear(uid, claimed)):\n", "    if False:\n"),
        ), scene((w(), m()), one(), suspicions=1, kills_hung=True),
            harmless="who is not dead finds n.end, and is superseded; killing saves its work from going on for nothing"),
        Mutant("M168 a free lock alone is the death of its owner", (
            ("attempts", "    if claimed is None or (yield from _closed(uid, n)):\n", "    if claimed is None:\n"),
        ), scene((w(), m()), one())),
        Mutant("M169 an attempt that went into the archive since is taken for open", (
            ("attempts", "        return (yield from claim_of(uid, n)) is None  # moved", "        return False  # moved"),
        ), scene((w(), m(), m("k")), one())),
        Mutant("M63 a finisher that comes late raises the alarm", (
            ("cells", "    if reply is Linked.GONE and (yield from stub_of(uid)) is None:  # else", "    if reply is Linked.GONE:  # else"),
        ), scene((m(), m("k")), one().history("x", "cancelled"))),
        Mutant("M64 a new day's folder is not durable before an item moves in", (
            ("attempts", '    yield from ops.ensure_dir(f"queue/archive/{stub.day}")\n', '    yield from ops.mkdir(f"queue/archive/{stub.day}")\n'),
        ), scene((m(),), one().history("x", "cancelled"), powers=1)),
        Mutant("M65 a new folder of stubs is not durable before the item moves", (
            ("cells", "    yield from ops.ensure_dir(folder)\n", "    yield from ops.mkdir(folder)\n"),
        ), scene((m(),), one().history("x", "cancelled"), powers=1)),
        Mutant("M66 another's stub is not made durable before the item moves", (
            ("cells", "    yield from ops.fsync_dir(folder)\n\n\ndef stub_of", "    if reply is Linked.OK:\n        yield from ops.fsync_dir(folder)\n\n\ndef stub_of"),
        ), scene((m(), m("k")), one().history("x", "cancelled"), powers=1)),
        Mutant("M67 an owner looks for its end in open/ only", (
            ("attempts", "    if end is not None or (stub := (yield from stub_of(owned.uid))) is None:\n        return end\n", "    return end\n"),
        ), scene((w(), person(cancel, "x")), one(), fails=1),
            harmless="it works on for nothing, and learns it when it ends its attempt"),
        Mutant("M68 an item that was moved away while it was read is taken for a running one", (
            ("cells", RUNNING, "            standing = Standing.RUNNING\n"),
        ), scene((w(), m(), person(cancel, "x")), one().history("x", "failed", "failed")),
            harmless="whoever acts on it links into a folder that is not there, or loses; the next look says what it is"),
    ]  # fmt: skip


def parking() -> list[Mutant]:
    failed = one(attempts=2).history("x", "failed", "expired")
    return [
        Mutant("M45 an item whose attempts are spent is claimed", (
            ("cells", PARKED, "    if False:\n"),
        ), scene((w(),), failed)),
        Mutant("M46 spent attempts are counted in a listing", (
            ("cells", "    for k in range(1, n + 1):\n", '    for k in (x for x in range(1, n + 1) if x == n or f"{x}.end" in names):\n'),
        ), scene((w(),), failed, replies=1, torn=True)),
        Mutant("M50 what was given back counts as spent", (
            ("cells", "SPENDING = frozenset({Outcome.FAILED, Outcome.EXPIRED})", "SPENDING = frozenset({Outcome.FAILED, Outcome.EXPIRED, Outcome.RELEASED})"),
        ), scene((w(),), one(attempts=2).history("x", "released", "released"))),
        Mutant("M69 a grant does not allow the next attempt", (
            ("cells", PARKED, "    if parking_reason(item, attempts):\n"),
        ), scene((w(),), one(attempts=1).history("x", "failed").grant("x", 1))),
        Mutant("M70 a grant of an earlier attempt undoes a later hold", (
            ("cells", PARKED, "    if all(x.grant is None for x in attempts) and parking_reason(item, attempts):\n"),
        ), scene((w(),), one(attempts=1).history("x", "failed", "held").grant("x", 1))),
        Mutant("M71 what is held may be claimed", (
            ("cells", "    if last.end and last.end.outcome is Outcome.HELD:\n", "    if False:\n"),
        ), scene((w(),), one().history("x", "held"))),
        Mutant("M72 a grant counts twice", (
            ("cells", "sum(a.grant.extra for a in attempts if a.grant)", "sum(2 * a.grant.extra for a in attempts if a.grant)"),
        ), scene((w(),), one(attempts=1).history("x", "failed", "failed").grant("x", 1))),
        Mutant("M73 a grant of several attempts allows one", (
            ("cells", "sum(a.grant.extra for a in attempts if a.grant)", "sum(1 for a in attempts if a.grant)"),
        ), scene((w(),), one(attempts=1).history("x", "failed", "failed").grant("x", 1, extra=2))),
        Mutant("M74 a returned result costs no attempt", (
            ("cells", "(a.end.outcome in SPENDING or bool(a.verdict and a.verdict.returned))", "a.end.outcome in SPENDING"),
        ), scene((w(),), one(merge=True, attempts=1).history("g", "returned"))),
        Mutant("M75 an item may be given back for ever", (
            ("cells", "    if releases > MAX_RELEASES:\n", "    if False:\n"),
        ), scene((w(),), one().history("x", *["released"] * 21))),
        Mutant("M76 a grant does not forget what was given back before it", (
            ("cells", "        releases = 0 if a.grant else releases + counts\n", "        releases = releases + counts\n"),
        ), scene((w(),), one().history("x", *["released"] * 22).grant("x", 21))),
        Mutant("M77 a done end without a commit waits for a verdict", (
            ("cells", " and end.sha is not None\n", "\n"),
        ), scene((j(),), World().item("x", commit=CommitPolicy.OPTIONAL).cell("x", "1.claim", DEAD_CLAIM)
                 .cell("x", "1.end", End(n=1, outcome=Outcome.DONE, by=BEFORE)))),
        Mutant("M170 what waited for a limit counts as given back", (
            ("cells", " and not a.end.waits\n", "\n"),
        ), scene((w(),), one().history("x", "waited", "waited"), releases=1)),
        Mutant("M171 an item is parked one release early", (
            ("cells", "    if releases > MAX_RELEASES:\n", "    if releases >= MAX_RELEASES:\n"),
        ), scene((w(),), one().history("x", "released"), releases=1)),
    ]  # fmt: skip


def merging() -> list[Mutant]:
    return [
        Mutant("M19 the verdict comes before the target moves", (
            ("lane", SWAP, '        yield from publish(actor, "verdict", verdict, f"{home}/{n}.verdict")\n' + SWAP),
        ), scene((j(),), submitted())),
        Mutant("M20 the target moves without a check of the lane", (
            ("lane", SWAP, SWAP.replace("held", "None")),
        ), scene(mergers(), submitted(), fails=1)),
        Mutant("M21 what the target holds already is not looked for", (
            ("lane", "        merged = yield from ops.merged_as(project, old, uid, n, submitted.sha)\n", "        merged = None\n"),
        ), scene((j(),), submitted(), kills=1)),
        Mutant("M22 a refusal is not decided in the lane, which is only looked at", (
            ("lane", "            if (yield from ops.swap_lane(project, held, pending, True)) is None:\n",
             "            if (yield from ops.lane(project)) != held:\n"),
        ), scene(mergers(), submitted(), fails=1)),
        Mutant("M23 the target moves without a check of where it was", (
            ("lane", SWAP, SWAP.replace("old", "None")),
        ), scene(mergers(), submitted(), kills=1),
            harmless="among mergers the lane alone says that nobody else has moved the target; M53 says who needs the check"),
        Mutant("M24 the verdict is not looked for under the lane", (
            ("lane", VERDICT_THERE, ""),
        ), scene(mergers(), submitted(), fails=1)),
        Mutant("M25 the verdict is looked for after the end", (
            ("lane", VERDICT_THERE, ""),
            ("lane", SUBMITTED_END, SUBMITTED_END + VERDICT_THERE),
        ), scene((person(cancel, "g"), j()), submitted())),
        Mutant("M26 the next number is claimed while a result is judged", (
            ("cells", "            return Standing.SUBMITTED\n", "            return Standing.READY\n"),
        ), scene((w(),), submitted())),
        Mutant("M27 a result that is not judged counts as over", (
            ("cells", "            return Standing.SUBMITTED\n", "            return Standing.OVER\n"),
        ), scene((m(),), submitted())),
        Mutant("M28 an end is merged that can vanish", (
            ("lane", "    yield from ops.fsync_dir(home)  # never merge what can vanish\n", ""),
        ), scene((w(), j()), one(merge=True), powers=1)),
        Mutant("M29 the target is not durable before the verdict", (
            ("lane", FOUND, ""),
        ), scene((j(),), submitted(), powers=1)),
        Mutant("M31 the merge is not durable before the target", (
            ("lane", "        yield from ops.sync_hub(project)  # the merge outlives the ref that names it\n", ""),
        ), scene((j(),), submitted(), powers=1)),
        Mutant("M32 a refusal that was decided in the lane is not completed by the next", (
            ("lane", "    if held.pending:\n", "    if False:\n"),
        ), scene(mergers(), submitted(), fails=1)),
        Mutant("M49 a submitted item is cancelled without the lane", (
            ("operators", "                yield from judge(uid, seen.n, cancel_by=by, why=why)\n",
             lines(
                 "                record = Verdict(n=seen.n, cancelled=by)",
                 '                yield from publish(actor, "verdict", record, f"queue/open/{uid}/{seen.n}.verdict")',
             )),
            ("operators", "Outcome, VerdictKind\n", "Outcome, Verdict, VerdictKind\n"),
        ), scene((person(cancel, "g"), j()), submitted())),
        Mutant("M53 the target moves without a check of where it was, and somebody else moves it", (
            ("lane", SWAP, SWAP.replace("old", "None")),
        ), scene((j(), PUSH), submitted())),
        Mutant("M78 a result that the target holds is cancelled", (
            ("lane", "        if merged is not None:\n", "        if merged is not None and not cancel_by:\n"),
        ), scene((person(cancel, "g"), j()), submitted())),
        Mutant("M79 the lane is taken without a new epoch", (
            ("lane", "ops.swap_lane(project, held, None, False)", "ops.swap_lane(project, held, None, True)"),
        ), scene(mergers(), submitted(), fails=1)),
        Mutant("M80 a refusal in the lane is completed after the lane was taken", (
            ("lane", TAKE_LANE, lines(
                "    mine = yield from ops.swap_lane(project, held, None, False)",
                "    if mine is not None and held.pending:",
                "        yield from complete(actor, held.pending)",
                "    return mine",
            )),
        ), scene(mergers(), submitted(), kills=1, fails=1)),
        Mutant("M81 who did not get the lane goes on with it as it is", (
            ("lane", "    if held is None:\n        return False\n", "    if held is None:\n        held = yield from ops.lane(project)\n"),
        ), scene(mergers(), submitted(), fails=1)),
        Mutant("M82 a target that did not move because the lane was lost counts as moved", (
            ("lane", '        if reply == "lane":\n            return False\n        if reply == "ok":\n', '        if reply in ("ok", "lane"):\n'),
        ), scene(mergers(), submitted())),
        Mutant("M83 a target that somebody else moved counts as merged", (
            ("lane", '        if reply == "ok":\n', '        if reply != "lane":\n'),
        ), scene((j(), PUSH), submitted())),
        Mutant("M84 a refusal is not durable in the lane before it is a cell", (
            ("lane", FOUND, "    if verdict.merged:\n        yield from ops.sync_hub(project)\n"),
        ), scene((j(),), submitted(), powers=1, fails=1),
            harmless="a power loss that takes the lane back takes with it everybody who could merge under it"),
        Mutant("M85 the end is not made durable before a refusal in the lane is completed", (
            ("lane", '    yield from ops.fsync_dir(f"queue/open/{uid}")\n', ""),
        ), scene((w(), j()), one(merge=True), powers=1, fails=1),
            harmless="PUBLISH makes the folder of a cell durable before it links (M4)"),
        Mutant("M86 a result is taken for submitted although its item was archived meanwhile", (
            ("cells", "    if standing is Standing.SUBMITTED and (yield from ops.ls(home)) is None:\n        standing = Standing.GONE  #", "    if False:\n        pass  #"),
        ), scene((person(cancel, "g"), j()), submitted()),
            harmless="the merger finds no end there under the lane, and judges nothing"),
    ]  # fmt: skip


def people() -> list[Mutant]:
    held = one().history("x", "held")
    return [
        Mutant("M38 a canceller's claim expires", (
            ("attempts", "COMPLETION = {Act.RUN: Outcome.EXPIRED, Act.HOLD: Outcome.HELD, Act.CANCEL: Outcome.CANCELLED}",
             "COMPLETION = dict.fromkeys(Act, Outcome.EXPIRED)"),
        ), scene((person(cancel, "x"), m()), held, kills=1)),
        Mutant("M39 a hold consumes no number", (
            ("operators", CONSUME_HOLD, lines(
                "                record = End(n=seen.n, outcome=Outcome.HELD, by=by)",
                '                won, _ = yield from publish(actor, "hold", record, f"queue/open/{uid}/{seen.n}.hold")',
                "                if won is Won.YES:",
                "                    return Answer(said=Said.DONE, n=seen.n)",
            )),
            ("cells", "        standing = Standing.OVER if zero else Standing.READY\n", lines(
                "        standing = Standing.OVER if zero else Standing.READY",
                '        if (yield from ops.read(f"{home}/0.hold", End)) is not None:',
                "            standing = Standing.PARKED",
            )),
        ), scene((person(hold, "x"), w()), one())),
        Mutant("M40 a cancel kills first", (
            ("operators", OVERRULE, "    yield from ops.interrupt(uid, n)\n" + OVERRULE),
        ), scene((person(cancel, "x"), w()), one())),
        Mutant("M141 a recycle kills first", (
            ("operators", STOP, "    yield from ops.interrupt(uid, n)\n" + STOP),
        ), scene((person(stop, "x"), w()), one())),
        Mutant("M142 a running attempt is retried", (
            ("operators", "        case Standing.PARKED:\n            record = Grant(", "        case Standing.PARKED | Standing.RUNNING:\n            record = Grant("),
        ), scene((person(retry, "x"), w()), one())),
        Mutant("M48 a submitted attempt is retried", (
            ("operators", "        case Standing.PARKED:\n            record = Grant(", "        case Standing.PARKED | Standing.SUBMITTED:\n            record = Grant("),
        ), scene((person(retry, "g"),), submitted())),
        Mutant("M87 an operator's claim is overruled by another's act", (
            ("operators", "    if claimed.act is not Act.RUN:\n", "    if False:\n"),
        ), scene((person(cancel, "x"), person(hold, "x", "h")), held)),
        Mutant("M88 what a person forbade is given back", (
            ("operators", "    if claimed is None or claimed.act is not Act.RUN:", "    if claimed is None:"),
        ), scene((person(cancel, "x"), person(stop, "x", "s")), one())),
        Mutant("M89 who did not decide a running attempt says that it did", (
            ("operators", OVERRULE, "    yield from _decide(actor, uid, n, outcome, by, why)\n"),
        ), scene((person(hold, "x"), w(rounds=2)), one(), fails=1)),
        Mutant("M172 cancel says that it did what is over otherwise", (
            ("operators", "                if _cancelled(seen):\n", "                if True:\n"),
        ), scene((person(cancel, "g"), j()), submitted())),
        Mutant("M173 who asked for the cancel of a result does not look what became of it", (
            ("operators", JUDGE, JUDGE + "                return Answer(said=Said.DONE, n=seen.n)\n"),
        ), scene((person(cancel, "g"), j()), submitted())),
        Mutant("M174 who did not cancel a running attempt says that it did", (
            ("operators", OVERRULE, "    yield from _decide(actor, uid, n, outcome, by, why)\n"),
        ), scene((person(cancel, "x"), w()), one())),
        Mutant("M175 hold says that it parked what is over", (
            ("operators", TOO_LATE_TO_HOLD, TOO_LATE_TO_HOLD.replace("(yield from _too_late(seen))", "Answer(said=Said.DONE, n=seen.n)")),
        ), scene((person(hold, "x"), w()), one())),
        Mutant("M90 an operator's claim does not name its act", (
            ("operators", "    record = Claim(n=n, act=act, owner", "    record = Claim(n=n, act=Act.RUN, owner"),
        ), scene((person(cancel, "x"), m(), w()), held, kills=1)),
        Mutant("M91 a submitted item is held", (
            ("operators", "            case Standing.SUBMITTED:\n                return Answer(\n", "            case Standing.SUBMITTED if not uid:\n                return Answer(\n"),
            ("operators", "            case Standing.READY | Standing.PARKED:\n" + CONSUME_HOLD, "            case _:\n" + CONSUME_HOLD),
        ), scene((person(hold, "g"),), submitted())),
        Mutant("M92 a grant names the attempt that it allows", (
            ("operators", 'f"queue/open/{uid}/{seen.n}.grant"', 'f"queue/open/{uid}/{seen.n + 1}.grant"'),
        ), scene((person(retry, "x"),), one(attempts=1).history("x", "failed"))),
        Mutant("M93 an operator leaves the end of its claim to others", (
            ("operators", "    yield from _decide(actor, uid, n, outcome, by, why)\n    yield from ops.unlock(ticket)\n", "    yield from ops.unlock(ticket)\n"),
        ), scene((person(cancel, "x"), m(), w()), held),
            harmless="whoever finds the claim completes it by its act; the number is consumed, so nothing runs. It takes longer"),
    ]  # fmt: skip


def waits() -> list[Mutant]:
    granted = World().waiting("d", **LATER).cell("d", "0.grant", ZERO_GRANT)
    return [
        Mutant("M42 what waits again is moved back", (
            ("promotion", "    yield from move_to_open(item.uid, item.priority)\n", lines(
                "    yield from move_to_open(item.uid, item.priority)",
                "    if (yield from why_waiting(item)).for_:",
                '        yield from ops.rename(f"queue/open/{item.uid}", home)',
            )),
        ), scene((t(), w()), granted)),
        Mutant("M47 a cancelled dependency counts as met", (
            ("promotion", "        if uid and stub and (stub.outcome in MET or dep in item.optional_deps):\n", "        if uid and stub:\n"),
        ), scene((t(), w()), World().over("x", "cancelled").waiting("d", **AFTER_X))),
        Mutant("M51 an item does not wait for its dependencies", (
            ("promotion", "    if why.for_:\n", "    if False:\n"),
        ), scene((t(), w()), waiting())),
        Mutant("M54 a waiting item is promoted, then cancelled", (
            ("operators", ZERO_CANCEL, "        yield from move_to_open(uid, 9)\n"),
        ), scene((person(cancel, "d"), w()), waiting())),
        Mutant("M55 a cancel from the time in waiting/ is not looked for", (
            ("cells", '        zero = yield from ops.read(f"{home}/0.end", End)', "        zero = None"),
        ), scene((w(),), one().cell("x", "0.end", ZERO_END))),
        Mutant("M94 a dependency is looked up again at promotion", (
            ("promotion", "        uid, stub = fixed,", "        fixed = yield from resolve(dep)\n        uid, stub = fixed,"),
            ("promotion", "import REJECTED, first_holder\n", "import REJECTED, first_holder, resolve\n"),
        ), scene((t(), w()), World().over("x", "cancelled").over("x", "done", uid=X1).named("x", uid_of("x"), X1)
                 .waiting("d", **AFTER_X))),
        Mutant("M95 an unknown dependency means whoever has the id now", (
            ("promotion", "            uid = yield from first_holder(dep)\n", "            uid = yield from resolve(dep)\n"),
            ("promotion", "import REJECTED, first_holder\n", "import REJECTED, resolve\n"),
        ), scene((t(), w()), World().over("x", "cancelled").over("x", "done", uid=X1).named("x", uid_of("x"), X1)
                 .waiting("d", deps={"x": None}))),
        Mutant("M96 a drop that took an id and was rejected is a dependency for ever", (
            ("names", "        if not (yield from was_rejected(cell)):\n", "        if True:\n"),
        ), scene((t(), w()), World().stub(X2, "rejected").over("x", "done").named("x", X2, uid_of("x"))
                 .waiting("d", deps={"x": None}))),
        Mutant("M97 a drop that took an id and was rejected is the newest holder", (
            ("decisions", "            deps[dep] = yield from resolve(dep)\n",
             "            holder, _ = yield from newest_of(dep)\n            deps[dep] = holder.uid if holder else None\n"),
            ("decisions", "import resolve\n", "import newest_of\n"),
        ), scene((a(), t(), w()), World().over("x", "done").stub(X2, "rejected").named("x", uid_of("x"), X2)
                 .drop("d.json", NEEDS_X))),
        Mutant("M98 an item does not wait for its time", (
            ("promotion", "    if item.not_before and not (yield from ops.passed(item.not_before)):\n", "    if False:\n"),
        ), scene((t(), w()), World().waiting("d", **LATER))),
        Mutant("M176 the time is asked, and whatever it says the item runs", (
            ("promotion", "not (yield from ops.passed(item.not_before)):\n", "(yield from ops.passed(item.not_before)) is None:\n"),
        ), scene((t(), w()), World().waiting("d", **LATER))),
        Mutant("M99 an optional dependency must be met", (
            ("promotion", "(stub.outcome in MET or dep in item.optional_deps)", "stub.outcome in MET"),
        ), scene((t(),), World().over("x", "cancelled").waiting("d", optional_deps=("x",), **AFTER_X))),
        Mutant("M100 a waiting item whose canceller died waits on", (
            ("promotion", '        if "0.grant" not in names and "0.end" not in names:\n', '        if "0.grant" not in names:\n'),
        ), scene((t(),), World().over("x", "cancelled").waiting("d", **AFTER_X).cell("d", "0.end", ZERO_END))),
        Mutant("M101 a waiting item's cell is not durable before the item moves", (
            ("promotion", "            return why\n        yield from ops.fsync_dir(home)\n", "            return why\n"),
        ), scene((once(person(retry, "d")), once(t())), World().over("x", "cancelled").waiting("d", **AFTER_X), powers=1)),
        Mutant("M102 a stub is not durable before a dependant starts", (
            ("promotion", "        yield from ops.fsync_dir(folder)  # never start on what can vanish\n", "        pass\n"),
        ), scene((t(rounds=2), w(rounds=2)), waiting(), powers=1),
            harmless="a stub is set after its item's last cell is durable (M1): what vanishes is made again, and says the same"),
        Mutant("M103 the first claim is not built on a durable move from waiting/", (
            ("cells", "    if record.n == 1 and waits(item):\n", "    if False:\n"),
        ), scene((once(person(cancel, "d")), once(t()), w()), World().waiting("d", **LATER), powers=1)),
        Mutant("M104 a person is told of a decision that is not durable in waiting/", (
            ("operators", '    yield from ops.fsync_dir(f"queue/waiting/{uid}")\n', ""),
        ), scene((once(person(cancel, "d")), once(person(cancel, "d", "c"))), World().waiting("d", **LATER), powers=1)),
        Mutant("M105 a person is told of a decision that is not durable where the item was moved to", (
            ("operators", '    yield from ops.fsync_dir(f"queue/open/{uid}")  # not there either', "    pass  # not there either"),
        ), scene((once(person(cancel, "d")), once(t())), World().waiting("d", **LATER), powers=1)),
        Mutant("M106 a person is told that an item runs, and that is not durable", (
            ("operators", "            yield from make_durable(uid)\n            return Answer(\n", "            return Answer(\n"),
        ), scene((person(retry, "d"), t()), World().waiting("d", **LATER), powers=1)),
        Mutant("M177 a person is told of a cancel that was only seen", (
            ("operators", "                    yield from make_durable(uid)  # somebody else's verdict or end", "                    pass  # somebody else's verdict or end"),
        ), scene((Process("j", merger, {"publishes": True}, mortal=False), PUBLISH, person(cancel, "g")), submitted(), powers=1, publishes=True)),
        Mutant("M178 a person is told of a grant that was only seen", (
            ("operators", "            if won is Won.LOST:\n                yield from make_durable(uid)\n", ""),
        ), scene((once(person(retry, "x", "r")), person(retry, "x", "s")), one(attempts=1).history("x", "failed"), powers=1)),
        Mutant("M179 a person is told of what is over, and that is not durable", (
            ("operators", "    yield from make_durable(seen.uid)\n    last = seen.last\n", "    yield from ()\n    last = seen.last\n"),
        ), scene((once(person(hold, "x", "h")), once(w())), one(), powers=1)),
        Mutant("M180 a person is told of a cancel that was only seen in waiting/", (
            ("operators", "            yield from make_durable(uid)\n            return Answer(said=Said.TOO_LATE,", "            return Answer(said=Said.TOO_LATE,"),
        ), scene((once(person(cancel, "d")), once(person(retry, "d"))), World().waiting("d", **LATER), powers=1)),
        Mutant("M107 a person is told that a cancelled item runs", (
            ("operators", '        if (yield from ops.read(f"queue/waiting/{uid}/0.end", End)) is not None:\n', "        if False:\n"),
        ), scene((person(retry, "d"),), World().waiting("d", **LATER).cell("d", "0.end", ZERO_END))),
        Mutant("M139 a move to open/ is built on one to waiting/ that can vanish", (
            ("promotion", '    yield from ops.fsync_dir("queue/waiting")\n    moved', "    moved"),
        ), scene((a(), t(), w()), World().over("x", "done").named("x").drop("d.json", NEEDS_X), powers=1)),
        Mutant("M108 a move to open/ is not made durable by who made it", (
            ("promotion", '    yield from ops.fsync_dir("queue/open")\n    yield from ops.fsync_dir("queue/waiting")\n', ""),
        ), scene((t(rounds=2), w()), World().over("x", "done").waiting("d", **AFTER_X), powers=1),
            harmless="the first claim makes it durable (M103); without a claim nothing is built on it"),
    ]  # fmt: skip


def admission() -> list[Mutant]:
    x, named, bad = World().drop("x.json", X), World().drop("n1.json", NAMED), World().drop("bad.json", BAD)
    place = '    moved = yield from ops.rename(source, f"queue/{phase}/{item.uid}")\n'
    stub = '    yield from set_stub(home, f"{folder}/{cell}")\n'
    aside = '    yield from ops.rename(folder, f"queue/rejected/{home}")\n'
    own = "        owned = yield from names.own(actor, draft, stem_of(drop.name), home)\n"
    read = '    mine_or_anothers: Record | None = yield from ops.read(f"{folder}/item.json", Decided)\n'
    one_there = '    one: Record | None = yield from ops.read(f"{folder}/item.json", Decided)\n'
    published = '    yield from publish(actor, "item", cell, f"{folder}/item.json")\n'
    rejected_batch = World().stub("b-9999999999", "rejected").named("n", "n-99999999990", drop="b-9999999999")
    over = World().item("n").history("n", "cancelled").named("n").taken("n2.json", OTHER)
    why = lines(
        '    why = f"{folder}/why.json"',
        '    reply = yield from ops.link(f"{folder}/{cell}", why)',
        '    if reply is Linked.UNKNOWN and not (yield from ops.same(f"{folder}/{cell}", why)):',
        '        yield from ops.die("link", why)',
    )
    return [
        Mutant("M9 an item is copied to open/, not moved", (
            ("admission", place, lines(
                '    home = f"queue/{phase}/{item.uid}"',
                "    yield from ops.mkdir(home)",
                '    yield from ops.link(f"{source}/item.json", f"{home}/item.json")',
                '    moved = yield from ops.rename(f"{source}/raw.{item.drop}", f"{home}/raw.{item.drop}")',
            )),
        ), scene((a(),), x)),
        Mutant("M11 only the drop box is made durable after a drop was taken from it", (
            ("admission", TAKEN[0], "            taken.append((home, name))\n"),
            ("admission", TAKEN[1], '    if taken:\n        yield from ops.fsync_dir("queue")\n'),
        ), scene((a(),), x, powers=1),
            harmless="a rename is one operation of a file system: it is durable in both folders, or in none"),
        Mutant("M16 a drop's new home is not durable before it moves in", (
            ("admission", '        yield from ops.fsync_dir("queue/incoming")  # the new homes', "        pass  # the new homes"),
        ), scene((a(),), x, powers=1)),
        Mutant("M138 a drop is not durable in incoming/ before its id is taken", (
            ("admission", TAKEN[0], "            taken.append((home, name))\n"),
            ("admission", TAKEN[1], ""),
        ), scene((a(rounds=2),), named, powers=1)),
        Mutant("M109 an id is taken after the decision", (
            ("admission", own, lines(
                "        name, _, other = yield from names.choose(draft, stem_of(drop.name), home, set())",
                "        owned = other or name",
            )),
            ("admission", read, lines(
                "    if not drop.reasons:",
                "        yield from names.own(actor, drop.drafts[0], stem_of(drop.name), home)",
            ) + read),
        ), scene((d("n1.json"), d("n2.json", "b")), rivals())),
        Mutant("M110 a drop is rejected in another cell than it is admitted in", (
            ("admission", published, lines(
                '    where = f"{folder}/" + ("why.json" if isinstance(cell, Decision) else "item.json")',
                '    yield from publish(actor, "item", cell, where)',
            )),
            ("admission", read, "    mine_or_anothers = yield from ops.read(where, Decided)\n"),
            ("admission", one_there, one_there + '    one = one or (yield from ops.read(f"{folder}/why.json", Decided))\n'),
            ("admission", '"batch" if many is not None else "item.json"', '"batch" if many is not None else "why.json"'),
        ), scene((d("n2.json"), d("n2.json", "b"), m()), over)),
        Mutant("M111 who lost the decision about a drop carries out its own", (
            ("admission", "    return mine_or_anothers\n", "    return cell\n"),
        ), scene((d("n2.json"), d("n2.json", "b"), m()), over)),
        Mutant("M112 a default id that is taken is refused", (
            ("names", '        if draft.id is not None:\n            return name, "", holder\n', '        return name, "", holder\n'),
        ), scene((a(),), World().item("x").named("x").drop("x.json", X))),
        Mutant("M113 an id is free while its item is not in open/", (
            ("names", "    return (yield from stub_of(holder.uid)) is not None or (yield from was_rejected(holder))\n",
             '    return (yield from ops.ls(f"queue/open/{holder.uid}")) is None\n'),
        ), scene((a(),), World().waiting("n", **LATER).named("n").drop("n2.json", OTHER))),
        Mutant("M114 who lost an id uses it", (
            ("names", "        if won is Won.YES:\n            return name\n", "        return name\n"),
        ), scene((d("n1.json"), d("n2.json", "b")), rivals())),
        Mutant("M115 an item does not know its own id again after a crash", (
            ("names", "        if holder is not None and holder.uid == uid:", "        if False:"),
        ), scene((a(rounds=2),), named, kills=1)),
        Mutant("M116 an id that a rejected batch had taken is never free again", (
            ("names", "    for uid in (holder.uid, holder.drop):\n", "    for uid in (holder.uid,):\n"),
        ), scene((a(),), rejected_batch.drop("n1.json", NAMED))),
        Mutant("M117 the numbers of an id have gaps", (
            ("names", "            return name, name_path(name, k + 1), None\n", "            return name, name_path(name, 2 * k + 1), None\n"),
        ), scene((a(),), World().over("n", "done").named("n").drop("n1.json", NAMED))),
        Mutant("M118 an id that was found taken by oneself is not made durable", (
            ("names", '            yield from ops.fsync_dir(name_path(name, 1).rsplit("/", 1)[0])\n', ""),
        ), scene((d("n1.json"), d("n1.json", "b")), rivals(), powers=1)),
        Mutant("M119 a new folder of ids is not durable before an item has one", (
            ("names", '        yield from ops.ensure_dir(free.rsplit("/", 1)[0])\n', '        yield from ops.mkdir(free.rsplit("/", 1)[0])\n'),
        ), scene((d("n1.json"),), rivals(), powers=1)),
        Mutant("M120 a decision that was only seen is not made durable", (
            ("admission", "    yield from ops.fsync_dir(folder)  # help: the decision outlives what follows from it\n", ""),
        ), scene((d("x.json"), d("x.json", "b")), World().taken("x.json", X), powers=1)),
        Mutant("M121 the stub of a rejected drop comes after its move", (
            ("admission", stub, ""),
            ("admission", aside, aside + stub.replace("{folder}", "queue/rejected/{home}")),
        ), scene((a(),), bad)),
        Mutant("M122 a reason that could not be linked is left out", (
            ("admission", '        yield from ops.die("link", why)\n', "        pass\n"),
        ), scene((a(),), bad, replies=1)),
        Mutant("M123 the reason is not durable before the drop is put aside", (
            ("admission", "    yield from ops.fsync_dir(folder)\n" + aside, aside),
        ), scene((a(),), bad, powers=1)),
        Mutant("M124 a new folder of stubs is not durable before the drop is put aside", (
            ("cells", "    yield from ops.ensure_dir(folder)\n", "    yield from ops.mkdir(folder)\n"),
        ), scene((a(),), bad, powers=1)),
        Mutant("M125 the reason comes after the stub", (
            ("admission", why, ""),
            ("admission", stub, stub + why),
        ), scene((a(),), bad, kills=1, powers=1),
            harmless="both come before the move; until then the decision itself says why"),
        Mutant("M126 what has dependencies goes to open/", (
            ("admission", '    phase = "waiting" if waits(item) else "open"\n', '    phase = "open"\n'),
        ), scene((a(), w()), World().item("x").drop("d.json", NEEDS_X))),
        Mutant("M127 a move out of incoming/ is not made durable by who made it", (
            ("admission", '    yield from ops.fsync_dir(f"queue/{phase}")\n    yield from ops.fsync_dir("queue/incoming")\n    if moved', "    if moved"),
        ), scene((a(), t(), w()), World().over("x", "done").named("x").drop("d.json", NEEDS_X), powers=1),
            harmless="the drop is decided again, by the same cell; who builds on the move makes it durable first (M103, M139)"),
    ]  # fmt: skip


def batches() -> list[Mutant]:
    batch, raced = World().drop("b.json", BATCH), World().taken("b.json", BATCH).taken("c.json", SINGLE)
    tree_syncfs = "            yield from ops.syncfs()  # whole and durable before any cell that names it\n"
    ids_syncfs = "    if cells:\n        yield from ops.syncfs()\n"
    link_all = "            raced = yield from _link_all(cells)\n"
    mkdir = '            there = yield from ops.mkdir(f"queue/incoming/{home}/{tree}")\n'
    build = '                there = there and (yield from ops.build(f"queue/incoming/{home}/{tree}/{uids[k]}", item))\n'
    cell = '    yield from publish(actor, "batch", cell, f"{folder}/batch")\n'
    rejected = "        if reasons:\n            return Decision(rejected"
    return [
        Mutant("M33 a batch is built after its cell, in a folder for all", (
            *LATE_LIST,
            ("batches", "            tree = actor.tree()\n", '            tree = "b"\n'),
            ("batches", mkdir, "            there = True\n"),
            ("batches", build, "                late.append((uids[k], item))\n"),
            ("batches", BATCH_READ,
             lines(
                 '    yield from ops.mkdir(f"{folder}/b")',
                 "    for uid, item in late:",
                 '        yield from ops.build(f"{folder}/b/{uid}", item)',
             ) + BATCH_READ),
        ), scene(admitters(), batch)),
        Mutant("M34 an item of a batch moves before the cell", (
            ("batches", cell, lines(
                "    for uid in cell.items.values():",
                '        yield from ops.rename(f"{folder}/{cell.tree}/{uid}", f"queue/open/{uid}")',
            ) + cell),
        ), scene((a(),), batch)),
        Mutant("M35 the cells of a batch come before their data is durable", (
            ("batches", tree_syncfs, ""),
        ), scene((a(),), batch, powers=1)),
        Mutant("M36 a batch is put away before its moves are durable", (
            ("batches", lines(
                '    yield from ops.fsync_dir("queue/waiting")',
                '    yield from ops.fsync_dir("queue/open")',
                "    if batch.tree:",
                '        yield from ops.fsync_dir(f"{folder}/{batch.tree}")',
            ), ""),
        ), scene((a(),), batch, powers=1)),
        Mutant("M128 a batch is decided before its tree is durable", (
            ("batches", tree_syncfs, lines(
                "            for tmp, _ in cells:",
                "                yield from ops.fsync(tmp)",
            )),
            ("batches", ids_syncfs, lines(
                "    for _, cell in cells:",
                '        yield from ops.fsync_dir(cell.rsplit("/", 1)[0])',
            )),
        ), scene((a(),), batch, powers=1)),
        Mutant("M129 a batch takes its ids after its cell", (
            *LATE_LIST,
            ("batches", link_all, "            late.extend(cells)\n            cells, raced = [], False\n"),
            ("batches", BATCH_READ, "    yield from _link_all(late)\n" + BATCH_READ),
        ), scene((d("b.json"), d("c.json", "b")), raced)),
        Mutant("M130 a batch that lost an id uses it", (
            ("batches", "            if raced:\n                continue\n", ""),
        ), scene((d("b.json"), d("c.json", "b")), raced)),
        Mutant("M131 who lost the decision about a batch carries out its own", (
            ("batches", BATCH_READ, "    return cell\n"),
        ), scene(admitters(), batch)),
        Mutant("M132 each admitter of a batch makes its own uids", (
            ("batches", '    nonce = home.rsplit("-", 1)[1]\n', "    nonce = yield from ops.fresh()\n"),
        ), scene((a(),), batch)),
        Mutant("M133 a batch admits what it can", (
            ("batches", "        if names and not reasons:\n", "        if names:\n"),
            ("batches", rejected, rejected.replace("if reasons", "if reasons and not names")),
        ), scene((a(),), World().item("b2").named("b2").drop("b.json", BATCH))),
        Mutant("M134 what waits in a batch goes to open/", (
            ("batches", '        phase = "waiting" if uid in batch.waiting else "open"\n', '        phase = "open"\n'),
        ), scene((a(), w()), World().drop("b.json", CHAIN), fails=1)),
        Mutant("M135 a dependency in a batch is looked up outside of it first", (
            ("decisions", "            deps[dep] = local[dep]\n", "            deps[dep] = (yield from resolve(dep)) or local[dep]\n"),
        ), scene((a(), t(), w()), World().over("b1", "done").named("b1").drop("b.json", CHAIN))),
        Mutant("M136 a new day's folder of batches is not durable before one moves in", (
            ("batches", '    yield from ops.ensure_dir(f"queue/batches/{day}")\n', '    yield from ops.mkdir(f"queue/batches/{day}")\n'),
        ), scene((a(),), batch, powers=1)),
        Mutant("M137 a link of an id that failed for an unknown reason is taken for a win", (
            ("batches", '                yield from ops.die("link", cell)\n', "                continue\n"),
        ), scene((a(),), raced, replies=1)),
    ]  # fmt: skip


def sweeping() -> list[Mutant]:
    present = "            garbage = owner != mine and not (yield from ops.present(owner))\n"
    two_mergers = (j("j.0"), j("k.0"), s())
    taker = (a(), a("b", takes=False))
    x = World().drop("x.json", X)
    return [
        Mutant("M143 an owner whose private file was swept takes its item for moved on", (
            ("cells", SWEPT, "        if True:\n"),
        ), scene((w("w.0"), s()), one(), suspicions=1, sweeps=True)),
        Mutant("M144 a refusal leaves the lane although its private file was swept", (
            ("cells", SWEPT, SWEPT.replace("if ", 'if what == "verdict" or ')),
        ), scene(two_mergers, submitted(), suspicions=1, fails=1, sweeps=True)),
        Mutant("M145 who makes a ticket again keeps the lock of the one that was swept", (
            ("cells", "        if lock:\n            yield from ops.unlock(tmp)\n    if reply", "    if reply"),
        ), scene((w("w.0"), m("m.0"), s()), one(), suspicions=1, sweeps=True),
            harmless="the lock is on a file that has no name any more. It costs a descriptor"),
        Mutant("M146 private files are swept of the living, too", (
            ("sweeping", present, "            garbage = owner != mine\n"),
        ), scene((w("w.0"), m("m.0"), s(rounds=2)), one(), sweeps=True),
            harmless="who lives makes its private file again. It costs time, for ever if the sweep never rests"),
        Mutant("M147 an id of a batch whose private file was swept counts as taken", (
            ("batches", "        if reply is not Linked.OK and not (yield from ops.same(tmp, cell)):\n",
             "        if reply not in (Linked.OK, Linked.GONE) and not (yield from ops.same(tmp, cell)):\n"),
        ), scene((d("b.json", "a.0"), d("c.json", "b.0"), s()), World().taken("b.json", BATCH).taken("c.json", SINGLE),
                 suspicions=1, sweeps=True)),
        Mutant("M148 a home is swept with what is in it", (
            ("sweeping", "        yield from ops.rmdir(folder)\n", lines(
                "        for name in (yield from ops.ls(folder)) or ():",
                '            yield from ops.unlink(f"{folder}/{name}")',
                "        yield from ops.rmdir(folder)",
            )),
        ), scene(taker, x, sweeps=True)),
        Mutant("M149 a home that was swept is made again for its drop, and that is not durable", (
            ("admission", "        else:\n            yield from ops.rmdir(folder)\n", lines(
                "        else:",
                "            yield from ops.mkdir(folder)",
                '            yield from ops.rename(f"queue/{name}", f"{folder}/{raw_name(name)}")',
                "            yield from ops.fsync_dir(folder)",
                "            taken.append((home, name))",
            )),
        ), scene(taker, x, powers=1, sweeps=True)),
    ]  # fmt: skip


def persons() -> list[Mutant]:
    """T11, and how a merge is recognised on a line to which others push."""
    durable = "    yield from sync_hub()  # durable here before anybody else has it\n"
    push = "    refused = yield from push(ours, theirs)\n"
    ahead = "    if theirs is None or (yield from relation(ours, theirs)) is not Relation.AHEAD:\n"
    noted = "    yield from note(ours)\n"
    followed = '    if (yield from swap_target(held, theirs, ours)) != "ok":\n'
    merged = "    reply = yield from swap_target(held, new, ours)\n"
    found = "        if merge is not None and (merge.uid, merge.n, merge.submitted) == (uid, n, sha):\n"
    decided = '    yield from publish(actor, "verdict", verdict, f"{home}/{n}.verdict")\n    return True\n'

    def published(*processes: Process, **more: Any) -> Scenario:
        return scene(processes, submitted(), publishes=True, **more)

    def forged(*kinds: str) -> Scenario:
        return published(f(), j(), their(*kinds))

    return [
        Mutant("M150 what is pushed is not durable here first", (
            ("publishing", durable, ""),
        ), published(once(j()), PUBLISH, person(cancel, "g"), f(), powers=1)),
        Mutant("M151 what was seen there is noted before the push", (
            ("publishing", push, noted + push),
        ), published(jp(), kills=1)),
        Mutant("M152 a push has no lease", (
            ("publishing", push, push.replace("theirs", "None")),
        ), published(jp(), their("commit"))),
        Mutant("M153 what was seen there is no ancestor of what is pushed", (
            ("publishing", ahead, "    if theirs is None:\n"),
        ), published(j(), PUBLISH, once(f()), their("commit"))),
        Mutant("M154 the target follows without a check of where it was", (
            ("publishing", followed, followed.replace("ours", "None")),
        ), published(j(), f(), their("commit"))),
        Mutant("M155 the target follows without a check of the lane", (
            ("publishing", followed, followed.replace("held", "None")),
        ), published(j(), f(), their("commit"), kills=1, fails=1),
            harmless="what it follows contains the target as it was, and nothing of ours that the target had not"),
        Mutant("M156 theirs is merged without a check of the lane", (
            ("publishing", merged, merged.replace("held", "None")),
        ), published(j(), f(), their("commit"), kills=1, fails=1),
            harmless="as M155: it adds nothing of ours, so no refusal that stands in the lane can be undone by it"),
        Mutant("M157 theirs is merged without a check of where the target was, and somebody else moves it", (
            ("publishing", merged, merged.replace("held, new, ours", "None, new, None")),
        ), published(j(), f(), their("commit"), PUSH)),
        Mutant("M158 the target is moved to what does not contain it", (
            ("publishing", "    if how is not Relation.BEHIND:\n", "    if how in (Relation.SAME, Relation.AHEAD):\n"),
        ), published(j(), f(), their("commit"))),
        Mutant("M159 theirs is the first parent of the merge of both", (
            ("publishing", "        new = yield from join(ours, theirs)\n", "        new = yield from join(theirs, ours)\n"),
        ), published(j(), f(), their("commit"))),
        Mutant("M160 the merge of both is not durable before the target", (
            ("publishing", "    yield from sync_hub()  # the merge outlives the ref that names it\n", ""),
        ), published(j(), f(), their("commit"), powers=1)),
        Mutant("M161 what was fetched is not durable before the target follows", (
            ("publishing", "    yield from sync_hub()  # what was fetched outlives the ref that names it\n", ""),
        ), published(f(), their("commit"), powers=1)),
        Mutant("M162 a merge is pushed before the target moves", (
            ("lane", SWAP, '        yield ("push", project, verdict.merged, old)\n' + SWAP),
        ), published(j(), f(), person(cancel, "g"))),
        Mutant("M163 a merge is pushed before its verdict", (
            ("lane", decided, '    if verdict.merged:\n        yield ("push", project, verdict.merged, old)\n' + decided),
        ), published(j(), f(), person(cancel, "g")),
            harmless="it is on the target, and durable there: nobody can judge it in another way"),
        Mutant("M164 a merge is recognised by its trailers only", (
            ("trailers", found, "        if merge is not None and (merge.uid, merge.n) == (uid, n):\n"),
        ), forged("forged merge")),
        Mutant("M165 a merge is recognised by what it merges only", (
            ("trailers", found, "        merge = commit\n        if commit.parents[1:] == (sha,):\n"),
        ), forged("by hand")),
        Mutant("M166 a merge is recognised by trailers anywhere in its message", (
            ("trailers", '.split("\\n")[-2:]', '.split("\\n")\n    last = [x for x in last if x.startswith("Harness")]'),
        ), forged("quoted")),
        Mutant("M167 a merge of another item with the same commit is taken for this one's", (
            ("trailers", found, "        if merge is not None and merge.submitted == sha:\n"),
        ), forged("other")),
    ]  # fmt: skip


def mutants() -> list[Mutant]:
    """By what they break."""
    return [
        *publishing(),
        *attempts(),
        *parking(),
        *merging(),
        *people(),
        *waits(),
        *admission(),
        *batches(),
        *sweeping(),
        *persons(),
    ]


# Rules that are not the store's, so that no mutant of it can break them:
#
# M7   an effect before the end is won            the store has no effects but merges, and those come before their cell (M19)
# M10  a drop is taken while it is written        the lease is asked for in `store.dropbox`: tests of the drop box, R11
#      nobody looks at the person's branch after a power loss             the coordinator's: tests of projects
# M30  a commit is not durable before its end     the worker's: tests of an attempt, R34
# M52  no sweep makes hints again                 the coordinator's: tests of hinting, R33
#      a day of the archive is deleted before its file is durable         there is no such file: the archive is not rolled up
#      an index of who waits for whom is believed                         there is none on disk (docs/protocol.md, section 10)
#      a damaged record ends the daemon                                   no process writes one: tests of cells, of fsck
#      a worker finishes on an end that it did not win                    the worker's: `archive` believes who says `mine`
#      a hint is put away and not made again, an item's band is wrong     hints are no truth: tests of hints, of hinting


def row(mutant: Mutant, result: Result, good: bool) -> str:
    if result.violation:
        by = result.violation.removeprefix("after recovery: ").partition(" ")[0].rstrip(":")
    else:
        by = "holds" if result.complete else "cut"
    mark = "" if good else "  UNEXPECTED"
    return f"{mutant.name[:84]:84} | {by:8} | {result.name:64} | {result.states:>7,}{mark}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tests.model.mutants", description=__doc__)
    parser.add_argument("-v", "--verbose", action="store_true", help="say what was found, and the way there")
    parser.add_argument("--control", action="store_true", help="the product in the scenarios: all must hold")
    parser.add_argument("numbers", nargs="*", metavar="M12", help="these only")
    args = parser.parse_args(arguments)
    say = sys.stdout.write
    unexpected, seconds, chosen = [], 0.0, mutants()
    if args.numbers:
        chosen = [x for x in chosen if x.number in args.numbers]
    for mutant in chosen:
        if args.control:
            result = Explorer(mutant.scenario).run(seconds=LIMIT_S)
            good = not result.violation
        else:
            result = run(mutant)
            good = as_expected(mutant, result)
        seconds += result.seconds
        say(row(mutant, result, good) + "\n")
        if not good:
            unexpected.append(mutant.name)
        if args.verbose or not good:
            say("".join(f"    {step}\n" for step in (*result.trace, mutant.harmless or result.verdict)))
        sys.stdout.flush()
    harmless = sum(bool(x.harmless) for x in chosen)
    say(
        f"{len(chosen)} mutants, {harmless} of them harmless; {seconds:.0f} s; unexpected: {unexpected or 'none'}\n"
    )
    return int(bool(unexpected))


if __name__ == "__main__":
    sys.exit(main())

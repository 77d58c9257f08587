"""Every interleaving of a few processes on the model file system, with bounded faults everywhere they can happen.

A scenario names processes, a setup and budgets: kills, power losses, false suspicions, failures of agents and gates,
lost replies or torn listings. The explorer walks all states (depth first, each once), checks the invariants of
docs/protocol.md in every one, and from every state in which nothing runs any more it plays a recovery and checks that
all work comes to its end.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, NamedTuple

from harness.hub.trailers import ATTEMPT, ITEM
from harness.model import MAX_RELEASES, Claim, Outcome, Verdict
from harness.store.ops import Linked, Moved
from tests.model import copies, processes
from tests.model.automaton import END, PRIVATE, SYNC, TORN, Automaton, Interned
from tests.model.files import Files, split
from tests.model.git import BASE, Commits
from tests.model.invariants import Broken, Contents, Rules

DEAD = -2
QUIET = frozenset({"die", "alarm", "hint", "unhint", "unlock"})
"""Sometimes seen by nobody: `Explorer._quiet`."""
MAX_DRAIN_ROUNDS = 6
FAULTY = 0.01
"""How often a step of a random walk is a kill or a power loss, as long as one is left."""


class Budget(NamedTuple):
    """How many faults may still happen."""

    kills: int = 0
    powers: int = 0
    suspicions: int = 0
    fails: int = 0
    """Agents that fail or give back, red gates, agents that look at their end first."""
    replies: int = 0
    """Lost replies of link(2); with `torn`, names that a listing leaves out."""


NO_FAULTS = Budget()


class Lane(NamedTuple):
    epoch: str
    decided: str | None
    """The pending verdict as JSON: hashable."""

    @property
    def pending(self) -> dict[str, Any] | None:
        return json.loads(self.decided) if self.decided else None


@dataclass(frozen=True, slots=True)
class Process:
    """`maker` with `args`, as `name` followed by the letter of its incarnation."""

    name: str
    maker: processes.Maker
    args: dict[str, Any] = field(default_factory=dict)
    mortal: bool = True


@dataclass(slots=True)
class Scenario:
    name: str
    processes: tuple[Process, ...]
    setup: Callable[[Files, Interned], Contents]
    budget: Budget = NO_FAULTS
    weak: bool = True
    torn: bool = False
    """Spend `replies` on listings that miss a name (readdir is no snapshot)."""
    hints: bool = False
    """Are hints part of the state?"""
    sweeps: bool = False
    """Somebody sweeps queue/tmp/ and empty homes of drops: what is private may vanish."""
    publishes: bool = False
    """The target goes to a person's branch, and has arrived there at the end."""
    moves: bool = False
    """Somebody moves folders of the store: alarms are right."""
    kills_hung: bool = False
    """The monitor's kill is real: who expires a suspect may kill it first, or find that it lives on."""
    releases: int = MAX_RELEASES
    """The bound on releases. Another than the product's is that of a copy of it."""


@dataclass(slots=True)
class Result:
    name: str
    states: int = 0
    transitions: int = 0
    ends: int = 0
    drains: int = 0
    seconds: float = 0.0
    complete: bool = False
    violation: str = ""
    trace: tuple[Any, ...] = ()

    walks: str = ""
    """How many, by which seed; of what was not walked exhaustively."""

    @property
    def verdict(self) -> str:
        if self.violation:
            return f"VIOLATED: {self.violation}" + (f" ({self.walks})" if self.walks else "")
        if self.walks:
            return f"holds in {self.walks}"
        return "holds" if self.complete else "holds so far (cut)"


@contextmanager
def _told(result: Result) -> Iterator[None]:
    """What is broken is said in the result, with the way there."""
    try:
        yield
    except Broken as e:
        result.violation = e.what
        trace, steps = e.trace, []
        while trace:
            steps.append(trace[1])
            trace = trace[0]
        result.trace = tuple(reversed(steps))


State = tuple[Files, frozenset[Any], tuple[tuple[int, int], ...], Budget, Any]


class Explorer:
    def __init__(
        self, scenario: Scenario, p: SimpleNamespace | None = None, *, interned: Interned | None = None
    ) -> None:
        self.scenario = scenario
        shipped = scenario.releases == MAX_RELEASES
        self.p = p or (processes.product() if shipped else copies.bounded(scenario.releases))
        self.records = interned or Interned()
        self.commits = Commits()
        self.tracked = scenario.budget.powers > 0
        self._automata: dict[tuple[Any, ...], Automaton] = {}
        self._lives: dict[tuple[int, int], tuple[Automaton, str]] = {}
        self._checked: set[int] = set()
        self._drained: set[int] = set()
        self._alive: frozenset[str] = frozenset()

    # ---- processes -----------------------------------------------------------------------------------------------------

    def automaton(self, name: str, maker: processes.Maker, args: dict[str, Any]) -> Automaton:
        key = (name, maker, tuple(sorted((k, repr(v)) for k, v in args.items())))
        found = self._automata.get(key)
        if found is None:
            found = self._automata[key] = Automaton(processes.started(maker, self.p, name, args))
        return found

    def process(self, i: int, incarnation: int) -> tuple[Automaton, str]:
        """-> (what process i does in its k-th life, the name of that incarnation)"""
        found = self._lives.get((i, incarnation))
        if found is None:
            one = self.scenario.processes[i]
            me = f"{one.name}{'abcdefgh'[incarnation]}"
            found = self._lives[i, incarnation] = (self.automaton(me, one.maker, one.args), me)
        return found

    def incarnation(self, i: int, incarnation: int) -> str:
        return self.process(i, incarnation)[1]

    def settle(self, state: State, i: int) -> State:
        """Run what process i does for itself alone, up to its next visible operation."""
        files, ghost, procs, budget, trace = state
        incarnation, node = procs[i]
        if node < 0:
            return state
        automaton, me = self.process(i, incarnation)
        mine = False
        while node >= 0:
            at = automaton.nodes[node]
            op = at.op
            assert op is not None
            kind = op[0]
            if not (
                (at.local and not (self.scenario.sweeps and kind in PRIVATE))
                or (kind in SYNC and not self.tracked)
                or (kind in QUIET and self._quiet(files, op))
            ):
                break
            if op[0] in ("die", "alarm"):
                if op[0] == "alarm":
                    ghost |= {op}
                files = self._without_locks(files, me)
                node = END
                break
            if not mine:
                files, mine = files.copy(), True
            reply, ghost = self._local(files, ghost, op, me)
            node = automaton.step(node, reply)
        procs = (*procs[:i], (incarnation, node), *procs[i + 1 :])
        return files, ghost, procs, budget, trace

    def _quiet(self, files: Files, op: tuple[Any, ...]) -> bool:
        """Visible in general, but nobody can see it here."""
        match op[0]:
            case "die" | "alarm":
                return True
            case "hint" | "unhint":
                return not self.scenario.hints
            case _:  # unlock: of a ticket that was never linked, or is closed already
                return not any(
                    at != "tmp" and e[1][0] == op[1] for (at, _), e in files.names.items() if e[0] == "f"
                )

    @staticmethod
    def _without_locks(files: Files, me: str) -> Files:
        files = files.copy()
        files.locks = {inode: who for inode, who in files.locks.items() if who != me}
        return files

    # ---- operations ----------------------------------------------------------------------------------------------------

    def _local(
        self, files: Files, ghost: frozenset[Any], op: tuple[Any, ...], me: str
    ) -> tuple[Any, frozenset[Any]]:
        """Do a local operation on files that are ours to change. -> (reply, ghost)"""
        reply: Any = None
        match op[0]:
            case "make" | "stage":
                inode = (op[1], self.records.number(op[2]))
                files.add("tmp", op[1].rpartition("/")[2], ("f", inode))
                files.dirty |= {inode}
                if op[0] == "make" and op[3]:
                    files.locks[inode] = me
            case "fsync":
                entry = files.look(op[1])
                if entry is not None:
                    files.dirty -= {entry[1]}
            case "unlink":
                parts, name = split(op[1])
                at = files.folder(parts)
                if at is not None and (at, name) in files.names:
                    files.remove(at, name)
            case "unlock":
                files.locks = {inode: who for inode, who in files.locks.items() if inode[0] != op[1]}
            case "build":
                parts, name = split(op[1])
                at = files.folder(parts)
                reply = at is not None and (at, name) not in files.names
                if at is not None and reply:
                    inode = ("I:" + op[1], self.records.number(op[2]))
                    files.add(at, name, ("d", "D:" + op[1]))
                    files.add("D:" + op[1], "item.json", ("f", inode))
                    files.dirty |= {inode}
            case "commit":
                files.git = files.git._replace(objects=files.git.objects | {op[1]})
            case "exec" | "acked" | "promised":
                ghost |= {op}
            case "superseded":
                decided = any(files.look(f"{home}/{op[2]}.end") for home in self._homes(files, op[1]))
                if not decided:
                    ghost |= {("not superseded", op[1], op[2])}
            case "relation":
                reply = self._relation(op[2], op[3])
            case "unmerged":
                reply = "unmerged"
            case "fsync_dir" | "syncfs" | "sync_hub" | "hint" | "unhint":
                pass
            case _:
                raise AssertionError(op)
        return reply, ghost

    @staticmethod
    def _homes(files: Files, uid: str) -> list[str]:
        return [f"queue/{p}/{uid}" for p in ("open", "aside", f"archive/{processes.DAY}")]

    def apply(
        self, files: Files, ghost: frozenset[Any], op: tuple[Any, ...], me: str, budget: Budget
    ) -> list[tuple[Files, frozenset[Any], Any, Budget, str]]:
        """A visible operation. -> [(files, ghost, reply, budget, incarnation that it killed or "")], one per outcome."""

        def one(reply: Any) -> list[tuple[Files, frozenset[Any], Any, Budget, str]]:
            return [(files, ghost, reply, budget, "")]

        match op[0]:
            case "ls":
                at = files.folder((*split(op[1])[0], split(op[1])[1]))
                if at is None:
                    return one(None)
                names = tuple(sorted(files.inside(at)))
                if self.scenario.torn and budget.replies and at.startswith("D:"):
                    less = budget._replace(replies=budget.replies - 1)
                    torn = [x for x in names if x[0].isdigit()]
                    return one(names) + [
                        (files, ghost, tuple(n for n in names if n != x), less, "") for x in torn
                    ]
                return one(names)
            case "read":
                entry = files.look(op[1])
                if entry is None:
                    return one(None)
                number = entry[1][1]
                return one(
                    TORN if number is None or isinstance(number, str) else self.records.read(number, op[2])
                )
            case "hints":
                return one(tuple(sorted(n for at, n in files.names if at == "ready")))
            case "drops":
                whole = (
                    n
                    for (at, n), (kind, i) in files.names.items()
                    if at == "queue" and kind == "f" and i not in files.writers
                )
                return one(tuple(sorted(whole)))
            case "parse":
                entry = files.look(f"{op[1]}/{op[2]}")
                if entry is None or entry[1] in files.writers or entry[1][1] is None:
                    return one(None)
                return one(self.contents.drops[entry[1][1]])
            case "passed":
                if files.time_passed:
                    return one(True)
                later = files.copy()
                later.time_passed = True
                return [*one(False), (later, ghost, True, budget, "")]
            case "older":
                return [*one(False), *(one(True) if self.scenario.sweeps else ())]
            case "present":
                out = one(op[1] in self._alive)
                if op[1] in self._alive and budget.suspicions:
                    out.append((files, ghost, False, budget._replace(suspicions=budget.suspicions - 1), ""))
                return out
            case "suspect":
                return self._suspect(files, ghost, op[1], budget)
            case "clear":
                return self._clear(files, ghost, op[1], op[2], budget)
            case "choose":
                out = one("done")
                if budget.fails:
                    less = budget._replace(fails=budget.fails - 1)
                    out += [(files, ghost, x, less, "") for x in ("failed", "released", "look")]
                return out
            case "interrupt":
                decided = any(files.look(f"{home}/{op[2]}.end") for home in self._homes(files, op[1]))
                return [(files, ghost if decided else ghost | {("bad stop", op[1], op[2])}, None, budget, "")]
            case "same":
                a, b = files.look(op[1]), files.look(op[2])
                return one(a is not None and a == b)
            case "lane":
                return one(Lane(*(files.git.lane or ("0", None))))
            case "target" | "seen":
                return one(getattr(files.git, op[0]))
            case "merged_as":
                return one(self.p.trailers.merge_of(self.commits.line(op[2]), *op[3:]))
            case "fetch":
                return self._fetch(files, ghost, budget)
            case "join":
                return self._join(files, ghost, op, budget)
            case "push":
                return self._push(files, ghost, op, budget)
            case "build_merge":
                return self._build_merge(files, ghost, op, budget)
            case "link":
                return self._link(files, ghost, op, me, budget)
            case _:
                pass
        files = files.copy()
        reply = self._change(files, op, me)
        if op[0] in ("intrude", "commit_theirs") and reply:
            ghost |= {(op[0], reply)}
        return [(files, ghost, reply, budget, "")]

    def _suspect(self, files: Files, ghost: frozenset[Any], path: str, budget: Budget) -> list[Any]:
        entry = files.look(path)
        if entry is None:
            return [(files, ghost, None, budget, "")]
        inode = entry[1]
        claim = self.records.read(inode[1], Claim) if inode[1] is not None else TORN
        if inode not in files.locks:
            return [(files, ghost, claim, budget, "")]
        out: list[Any] = [(files, ghost, None, budget, "")]
        if budget.suspicions:
            out.append(
                (
                    files,
                    ghost | {("falsely", path)},
                    claim,
                    budget._replace(suspicions=budget.suspicions - 1),
                    "",
                )
            )
        return out

    def _clear(self, files: Files, ghost: frozenset[Any], uid: str, claim: Any, budget: Budget) -> list[Any]:
        owner = claim.owner.incarnation
        if owner in self._alive and ("falsely", f"queue/open/{uid}/{claim.n}.claim") not in ghost:
            ghost |= {("bad kill", uid, claim.n)}
        out = [(files, ghost, True, budget, "")]  # nothing was left, or it cannot be killed from here
        if self.scenario.kills_hung and owner in self._alive:
            out.append((self._without_locks(files, owner), ghost, True, budget, owner))
            out.append((files, ghost, False, budget, ""))
        return out

    def _build_merge(
        self, files: Files, ghost: frozenset[Any], op: tuple[Any, ...], budget: Budget
    ) -> list[Any]:
        _, _, tip, uid, n, sha = op
        sha = self.commits.merge(tip, uid, n, sha, f"{uid}\n\n{self.p.trailers.trailers(uid, n)}\n")
        built = files.copy()
        built.git = files.git._replace(objects=files.git.objects | {sha})
        merged = self.records.record(self.records.number(Verdict(n=n, merged=sha)))
        out = [(built, ghost, merged, budget, "")]
        if budget.fails:
            red = self.records.record(self.records.number(Verdict(n=n, returned="gate", gate="tests")))
            out.append((files, ghost, red, budget._replace(fails=budget.fails - 1), ""))
        return out

    def _fetch(self, files: Files, ghost: frozenset[Any], budget: Budget) -> list[Any]:
        git = files.git
        got = files.copy()
        got.git = git._replace(seen=git.theirs, objects=git.objects | self.commits.ancestors(git.theirs))
        out: list[Any] = [(got, ghost, None, budget, "")]
        if budget.fails:
            less = budget._replace(fails=budget.fails - 1)
            out.append((files, ghost, ("unreachable", ""), less, ""))
        return out

    def _join(self, files: Files, ghost: frozenset[Any], op: tuple[Any, ...], budget: Budget) -> list[Any]:
        joined = files.copy()
        sha = self.commits.write("join", (op[2], op[3]), "Merge from upstream")
        joined.git = files.git._replace(objects=files.git.objects | {sha})
        out: list[Any] = [(joined, ghost, sha, budget, "")]
        if budget.fails:
            less = budget._replace(fails=budget.fails - 1)
            out.append((files, ghost, ("they contradict each other",), less, ""))
        return out

    def _push(self, files: Files, ghost: frozenset[Any], op: tuple[Any, ...], budget: Budget) -> list[Any]:
        _, _, new, lease = op
        there = files.git.theirs
        if lease not in (there, None):  # None: a mutant's, without a lease
            return [(files, ghost, "stale", budget, "")]
        pushed = files.copy()
        pushed.git = files.git._replace(theirs=new)
        if there not in self.commits.ancestors(new):
            ghost |= {("overwritten", there, new)}
        out: list[Any] = [(pushed, ghost, None, budget, "")]
        if budget.fails:  # a hook says no
            out.append((files, ghost, "refused", budget._replace(fails=budget.fails - 1), ""))
        if budget.replies:  # made, and nobody heard of it
            out.append((pushed, ghost, "lost", budget._replace(replies=budget.replies - 1), ""))
        return out

    def _relation(self, ours: str, theirs: str) -> Any:
        relation = self.p.publishing.Relation
        if ours == theirs:
            return relation.SAME
        if theirs in self.commits.ancestors(ours):
            return relation.AHEAD
        on_line = any(c.sha == ours for c in self.commits.line(theirs))
        return relation.BEHIND if on_line else relation.DIVERGED

    def _commit_theirs(self, files: Files, kind: str) -> str:
        """What a person does to their branch. -> the commit; durable at once, with all that it builds on"""
        git = files.git
        there, g, c = git.theirs, "g-0000000000", "c-g-0000000000-1"
        forged = f"looks like ours\n\n{ITEM}: {g}\n{ATTEMPT}: 1"
        parents, message = {
            "commit": ((there,), "mine"),
            "pull": ((there, git.target), "Merge of what the hub has"),
            "forged": ((there,), forged),
            "forged merge": ((there, self.commits.write("side", (BASE,), "side")), forged),
            "by hand": ((there, c), "Merge branch harness/g/1"),
            "other": ((there, c), f"looks like another's\n\n{ITEM}: x-0000000000\n{ATTEMPT}: 1"),
            "quoted": ((there, c), f"{forged}\n\nas its message said"),
        }[kind]
        if parents[-1] in self.commits.ancestors(there) and len(parents) == 2:
            return ""
        sha = self.commits.write("u", parents, message)
        files.git = git._replace(theirs=sha)
        files.git_kept = files.git_kept._replace(theirs=sha)
        return sha

    def _link(
        self, files: Files, ghost: frozenset[Any], op: tuple[Any, ...], me: str, budget: Budget
    ) -> list[Any]:
        source = files.look(op[1])
        parts, name = split(op[2])
        at = files.folder(parts)
        if source is None or at is None:
            return [(files, ghost, Linked.GONE, budget, "")]
        if (at, name) in files.names:
            return [(files, ghost, Linked.EXISTS, budget, "")]
        if name.endswith(".end"):
            ghost = self._judged_alive(files, ghost, source[1], op[2])
        new = files.copy()
        new.add(at, name, source)
        out = [(new, ghost, Linked.OK, budget, "")]
        if budget.replies and not self.scenario.torn:
            less = budget._replace(replies=budget.replies - 1)
            out.append(
                (new, ghost, Linked.EXISTS, less, "")
            )  # made; NFS sent it again, and its second reply says so
            out.append((new, ghost, Linked.UNKNOWN, less, ""))  # made, and an error
            out.append((files, ghost, Linked.UNKNOWN, less, ""))  # not made, and an error
        return out

    def _judged_alive(self, files: Files, ghost: frozenset[Any], inode: Any, cell: str) -> frozenset[Any]:
        """I10: a claim whose owner lives, and that nobody suspected, is not expired."""
        end: Any = self.records.record(inode[1])
        claimed = files.look(cell[:-4] + ".claim")
        if end.outcome is Outcome.EXPIRED and claimed and claimed[1][1] is not None:
            claim: Any = self.records.record(claimed[1][1])
            if claim.owner.incarnation in self._alive and ("falsely", cell[:-4] + ".claim") not in ghost:
                return ghost | {("spurious", cell)}
        return ghost

    def _change(self, files: Files, op: tuple[Any, ...], me: str) -> Any:
        """An operation with one outcome that changes files. -> reply"""
        match op[0]:
            case "unlock" | "unlink" | "build" | "make" | "stage":
                return self._local(files, frozenset(), op, me)[0]
            case "mkdir":
                parts, name = split(op[1])
                at = files.folder(parts)
                if at is None:
                    return False
                if (at, name) not in files.names:
                    files.add(at, name, ("d", "D:" + op[1]))
                return True
            case "rmdir":
                parts, name = split(op[1])
                at = files.folder(parts)
                entry = files.names.get((at, name)) if at else None
                if at and entry and not files.inside(entry[1]):
                    files.remove(at, name)
                return None
            case "rename":
                return self._rename(files, op[1], op[2])
            case "fsync_dir":
                at = files.folder((*split(op[1])[0], split(op[1])[1]))
                if at is not None:
                    files.fsync_folder(at, self.scenario.weak)
            case "syncfs":
                files.syncfs()
            case "sync_hub":
                files.git_kept = files.git._replace(theirs=files.git_kept.theirs)
            case "note":
                files.git = files.git._replace(seen=op[2])
            case "take_hint":
                if ("ready", op[1]) not in files.names:
                    return False
                files.remove("ready", op[1])
                return True
            case "hint":
                if ("ready", op[1]) not in files.names:
                    files.add("ready", op[1], ("f", "hint"))
            case "unhint":
                if ("ready", op[1]) in files.names:
                    files.remove("ready", op[1])
            case "lock":  # of a mutant that locks what is visible already
                entry = files.look(op[1])
                if entry is not None:
                    files.locks[entry[1]] = me
            case "swap_lane":
                return self._swap_lane(files, op)
            case "swap_target":
                return self._swap_target(files, op)
            case "intrude":
                if files.git.target != op[1]:
                    return ""
                sha = self.commits.write("up", (op[1],), "by somebody else")
                files.git = files.git._replace(target=sha, objects=files.git.objects | {sha})
                return sha
            case "commit_theirs":
                return self._commit_theirs(files, op[1])
            case "open_drop":
                inode = ("U:" + op[1], op[1])
                files.add("queue", op[1], ("f", inode))
                files.writers[inode] = me
            case "write_drop":
                files.writers = {i: who for i, who in files.writers.items() if who != me}
            case _:
                raise AssertionError(op)
        return None

    def _swap_lane(self, files: Files, op: tuple[Any, ...]) -> Lane | None:
        _, _, old, pending, keep, epoch = op
        git = files.git
        if tuple(git.lane or ("0", None)) != tuple(old):
            return None
        lane = Lane(old.epoch if keep else epoch, json.dumps(pending, sort_keys=True) if pending else None)
        files.git = git._replace(lane=tuple(lane))
        return lane

    def _swap_target(self, files: Files, op: tuple[Any, ...]) -> str:
        _, _, held, new, old = op
        git = files.git
        if held is not None and tuple(git.lane or ("0", None)) != tuple(held):
            return "lane"
        if old is not None and git.target != old:
            return "target"
        files.git = git._replace(target=new)
        return "ok"

    @staticmethod
    def _rename(files: Files, source: str, target: str) -> Moved:
        parts, name = split(source)
        at = files.folder(parts)
        to_parts, to_name = split(target)
        to = files.folder(to_parts)
        entry = files.names.get((at, name)) if at is not None else None
        if at is None or to is None or entry is None:
            return Moved.GONE
        there = files.names.get((to, to_name))
        if there is not None:
            if there[0] == "d" and (entry[0] != "d" or files.inside(there[1])):
                return Moved.EXISTS
            files.remove(to, to_name)
        files.move(at, name, to, to_name)
        return Moved.OK

    # ---- exploring -----------------------------------------------------------------------------------------------------

    def run(self, *, seconds: float = 1e9, limit: int = 1 << 60) -> Result:
        """Walk the states, all of them if time and limit allow."""
        result = Result(self.scenario.name)
        began = time.process_time()
        with _told(result):
            self._run(result, began + seconds, limit)
        result.seconds = time.process_time() - began
        return result

    def walk(self, walks: int, *, seed: int) -> Result:
        """Go through what is too large to be walked whole: to its end, again and again, by chance."""
        result = Result(self.scenario.name, walks=f"{walks} walks, seed {seed}")
        began, chance = time.process_time(), random.Random(seed)
        with _told(result):
            start = self._start()
            for _ in range(walks):
                self._walk(result, start, chance)
        result.seconds = time.process_time() - began
        return result

    def _walk(self, result: Result, state: State, chance: random.Random) -> None:
        while True:
            result.states += 1
            self._visit(result, state)
            running = [i for i, (_, node) in enumerate(state[2]) if node >= 0]
            faults = list(self._faults(state)) if running and chance.random() < FAULTY else []
            if not running:
                return
            result.transitions += 1
            state = chance.choice(faults or list(self._steps(state, chance.choice(running))))

    def _start(self) -> State:
        files = Files(self.tracked)
        self.contents = self.scenario.setup(files, self.records)
        self.rules = Rules(self.contents, self.records, self.scenario, self.commits)
        files.settle()
        start: State = (
            files,
            frozenset(),
            tuple((0, self.process(i, 0)[0].start) for i in range(len(self.scenario.processes))),
            self.scenario.budget,
            None,
        )
        for i in range(len(self.scenario.processes)):
            start = self.settle(start, i)
        return start

    def _visit(self, result: Result, state: State) -> None:
        files, ghost, procs, _, trace = state
        self._alive = frozenset(self.incarnation(i, inc) for i, (inc, node) in enumerate(procs) if node >= 0)
        self._check(files, ghost, trace)
        if not self._alive:
            result.ends += 1
            result.drains += self._drain(files, ghost, trace)

    def _run(self, result: Result, until: float, limit: int) -> None:
        start = self._start()
        stack = [start]
        seen = {self._key(start)}
        while stack:
            state = stack.pop()
            result.states += 1
            if result.states >= limit or (not result.states & 0x3FF and time.process_time() > until):
                return
            self._visit(result, state)
            for new in self._successors(state):
                result.transitions += 1
                key = self._key(new)
                if key not in seen:
                    seen.add(key)
                    stack.append(new)
        result.complete = True

    @staticmethod
    def _key(state: State) -> int:
        files, ghost, procs, budget, _ = state
        return hash((files.key(), ghost, procs, budget))

    def _check(self, files: Files, ghost: frozenset[Any], trace: Any) -> None:
        key = hash((files.h, files.git, ghost, files.time_passed))
        if key in self._checked:
            return
        self._checked.add(key)
        try:
            self.rules.check(files, ghost)
        except Broken as e:
            e.trace = trace
            raise

    def _successors(self, state: State) -> Iterator[State]:
        for i, (_, node) in enumerate(state[2]):
            if node >= 0:
                yield from self._steps(state, i)
        yield from self._faults(state)

    def _steps(self, state: State, i: int) -> Iterator[State]:
        """What the next operation of process i may come to."""
        files, ghost, procs, budget, trace = state
        incarnation, node = procs[i]
        automaton, me = self.process(i, incarnation)
        op = automaton.nodes[node].op
        assert op is not None
        for new, seen, reply, left, killed in self.apply(files, ghost, op, me, budget):
            after = (*procs[:i], (incarnation, automaton.step(node, reply)), *procs[i + 1 :])
            if killed:
                after = tuple(
                    (inc, DEAD) if self.incarnation(j, inc) == killed else (inc, n)
                    for j, (inc, n) in enumerate(after)
                )
            yield self.settle((new, seen, after, left, (trace, (me, op, reply))), i)

    def _faults(self, state: State) -> Iterator[State]:
        """Kills and power losses."""
        files, ghost, procs, budget, trace = state
        if budget.kills:
            left = budget._replace(kills=budget.kills - 1)
            for i, (incarnation, node) in enumerate(procs):
                if node >= 0 and self.scenario.processes[i].mortal:
                    me = self.incarnation(i, incarnation)
                    start = self.process(i, incarnation + 1)[0].start
                    after = (*procs[:i], (incarnation + 1, start), *procs[i + 1 :])
                    freed = self._without_locks(files, me)
                    yield self.settle((freed, ghost, after, left, (trace, (me, "killed"))), i)
        if budget.powers:
            left = budget._replace(powers=budget.powers - 1)
            again = tuple(
                (inc + 1, self.process(i, inc + 1)[0].start)
                if self.scenario.processes[i].mortal
                else (inc, DEAD)
                for i, (inc, _) in enumerate(procs)
            )
            for lost in files.power_losses(self.scenario.weak, self.commits):
                new_state: State = (lost, ghost, again, left, (trace, ("*", "power lost", len(lost.names))))
                for i in range(len(again)):
                    new_state = self.settle(new_state, i)
                yield new_state

    # ---- the end -------------------------------------------------------------------------------------------------------

    def _drain(self, files: Files, ghost: frozenset[Any], trace: Any) -> int:
        """Liveness (L1, L5): a fresh coordinator, worker and merger bring everything to its end; what is parked needs a
        grant. -> 1 when this end was not seen before."""
        key = hash((files.h, files.git, ghost, files.time_passed))
        if key in self._drained:
            return 0
        self._drained.add(key)
        files = files.copy()
        files.locks, files.writers, files.pending, files.tracked = {}, {}, (), False
        files.time_passed = True
        self._alive = frozenset()
        try:
            for turn in range(MAX_DRAIN_ROUNDS):
                for name, maker, args in processes.everything(
                    self.contents.context, publishes=self.scenario.publishes, started=self.tracked
                ):
                    files, ghost = self._play(files, ghost, f"{name}{turn}", maker, args)
                if not self.rules.unfinished(files):
                    break
                for uid in self.rules.stuck(files):
                    files, ghost = self._play(files, ghost, f"Rg{turn}", processes.retry, {"uid": uid})
            else:
                raise Broken(f"L1 after recovery there is still {self.rules.unfinished(files)}")
        except Broken as e:
            e.what, e.trace = f"after recovery: {e.what}", trace
            raise
        return 1

    def _play(
        self, files: Files, ghost: frozenset[Any], me: str, maker: processes.Maker, args: dict[str, Any]
    ) -> tuple[Files, frozenset[Any]]:
        """Run one process alone, without faults."""
        automaton = self.automaton(me, maker, args)
        node = automaton.start
        before = files.h
        while node >= 0:
            at = automaton.nodes[node]
            op = at.op
            assert op is not None
            if op[0] in ("die", "alarm"):
                raise Broken(f"I17 the recovery ends with {op}")
            if at.local or op[0] in SYNC:
                files = files.copy()
                reply, ghost = self._local(files, ghost, op, me)
            else:
                files, ghost, reply, _, _ = self.apply(files, ghost, op, me, NO_FAULTS)[0]
            node = automaton.step(node, reply)
        if files.locks:
            files = files.copy()
            files.locks = {}
        if files.h != before:
            self.rules.check(files, ghost)
        return files, ghost

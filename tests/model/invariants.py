"""The invariants of docs/protocol.md on a tree of the model, written without the code that they judge.

`Contents` says what the scenario put into the world; `Rules.check` looks at one state, `Rules.unfinished` at the end.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.model import Act, Claim, CommitPolicy, End, Grant, Item, Outcome, Stub, Verdict, VerdictKind
from harness.store.decisions import Decision
from harness.store.drops import Context, Drop, stem_of
from harness.store.names import Name
from tests.model.automaton import Interned
from tests.model.files import Files
from tests.model.git import Commits, Git

if TYPE_CHECKING:
    from tests.model.explorer import Scenario

BEFORE = "old"
"""Who signed what was decided before the scenario began."""
DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
Part = tuple[str, int]
"""(file name of the drop, position in it): one item that somebody asked for."""


class Broken(Exception):
    """An invariant does not hold. `trace` is the way there."""

    def __init__(self, what: str, trace: Any = None) -> None:
        super().__init__(what)
        self.what = what
        self.trace = trace


@dataclass(slots=True)
class Contents:
    """What is in the world at the start, or may be written by somebody."""

    context: Context
    drops: dict[str, Drop] = field(default_factory=dict)
    """file name -> what its bytes say"""
    items: dict[str, Item] = field(default_factory=dict)
    """uid -> items that are there already"""
    rejected: frozenset[str] = frozenset()
    """uids of what had an id and was rejected, before the scenario began."""
    written_later: frozenset[str] = frozenset()
    """Drops that a process of the scenario writes: they may never come to be."""

    def rivals(self, name: str) -> set[str]:
        """Ids that anybody but this drop may have: a drop that wants none of them cannot be too late."""
        ids = {item.id for item in self.items.values()}
        for other, drop in self.drops.items():
            if other != name:
                ids |= {draft.id or stem_of(other) for draft in drop.drafts}
        return ids

    def parts(self, name: str) -> list[Part]:
        drop = self.drops[name]
        return [(name, k) for k in range(max(1, len(drop.drafts)))]


@dataclass(slots=True)
class Tree:
    """The visible names by folder."""

    kids: dict[Any, dict[str, tuple[str, Any]]]

    def __init__(self, files: Files) -> None:
        self.kids = {}
        for (at, name), entry in files.names.items():
            self.kids.setdefault(at, {})[name] = entry

    def of(self, inode: Any) -> dict[str, tuple[str, Any]]:
        return self.kids.get(inode, {})


@dataclass(slots=True)
class Cells:
    item: Item
    claims: dict[int, Claim] = field(default_factory=dict)
    ends: dict[int, End] = field(default_factory=dict)
    verdicts: dict[int, Verdict] = field(default_factory=dict)
    grants: dict[int, Grant] = field(default_factory=dict)

    def submitted(self, n: int) -> bool:
        end = self.ends.get(n)
        return bool(
            end and end.outcome is Outcome.DONE and end.sha and self.item.commit is not CommitPolicy.NONE
        )

    def closed(self, n: int) -> bool:
        return n in self.ends and (not self.submitted(n) or n in self.verdicts)

    def outcome(self, n: int) -> str | None:
        """How the item is over by attempt n, if it is."""
        end = self.ends.get(n)
        if end is None:
            return None
        if self.submitted(n):
            verdict = self.verdicts.get(n)
            return verdict.kind.value if verdict and verdict.kind is not VerdictKind.RETURNED else None
        return end.outcome.value if end.outcome in (Outcome.DONE, Outcome.CANCELLED) else None

    def allowed(self, upto: int) -> int:
        """How many attempts may be spent before the one after `upto`, without a grant for that one."""
        return self.item.max_attempts + sum(g.extra for n, g in self.grants.items() if 0 < n < upto)

    def released(self, upto: int) -> int:
        """How often it was given back since the last grant before `upto`, by anything but a limit, a budget or a stop."""
        last = max((n for n in self.grants if n < upto), default=0)
        ends = [self.ends[n] for n in range(last + 1, upto + 1)]
        return sum(end.outcome is Outcome.RELEASED and not end.waits for end in ends)

    def parked(self, releases: int) -> bool:
        """Does only a person move it on?"""
        n = max(self.claims, default=0)
        if n == 0 or not self.closed(n) or self.outcome(n) or n in self.grants:
            return False
        return (
            self.ends[n].outcome is Outcome.HELD
            or self.spent(n) >= self.allowed(n)
            or self.released(n) > releases
        )

    def spent(self, upto: int) -> int:
        return sum(
            self.ends[m].outcome in (Outcome.FAILED, Outcome.EXPIRED)
            or (m in self.verdicts and self.verdicts[m].kind is VerdictKind.RETURNED)
            for m in range(1, upto + 1)
            if m in self.ends
        )


@dataclass(slots=True)
class Rules:
    contents: Contents
    records: Interned
    scenario: Scenario
    commits: Commits
    _good: set[int] = field(default_factory=set)
    """Items that were found whole, by the hash of everything that the rules of one item look at."""

    # ---- the whole tree ------------------------------------------------------------------------------------------------

    def check(self, files: Files, ghost: frozenset[Any]) -> None:
        tree = Tree(files)
        where: dict[Part, list[str]] = {}
        items: dict[str, Cells] = {}
        self._drops(tree, where)
        self._incoming(tree, where)
        open_ids: Counter[str] = Counter()
        for phase, folder in self._homes(tree):
            for uid, (_, inode) in tree.of(folder).items():
                has = tree.of(inode)
                stub = self._stub(tree, uid)
                cells = self._item(phase, folder, uid, has, stub, files.git, ghost)
                items[uid] = cells
                where.setdefault(self._part(uid, cells.item), []).append(f"{phase}/{uid}")
                if phase in ("waiting", "open", "aside") and not stub:
                    open_ids[cells.item.id] += 1
        self._rejected(tree, where)
        self._batches(tree, where)
        self._kept(tree, items)
        self._ids(tree)
        for part, places in where.items():
            if len(places) > 1:
                raise Broken(f"I1 {part} is in {places}")
        for name in self.contents.drops:
            for part in self.contents.parts(name):
                if part not in where and not self._unwritten(tree, name):
                    raise Broken(f"I1 {part} is lost")
        for uid, item in self.contents.items.items():
            if (uid, -1) not in where:
                raise Broken(f"I1 {item.id} is lost")
        for name, count in open_ids.items():
            if count > 1:
                raise Broken(f"ids: {count} unfinished items are called {name!r}")
        self._target(files.git, items)
        self._history(files, tree, items, ghost)

    def _unwritten(self, tree: Tree, name: str) -> bool:
        """It is being written by somebody who may have lost power, or was never begun."""
        return name in self.contents.written_later and not any(
            has.get(f"raw.{name}") for has in tree.kids.values()
        )

    def _homes(self, tree: Tree) -> list[tuple[str, str]]:
        days = [("archive", inode) for _, (kind, inode) in tree.of("archive").items() if kind == "d"]
        return [("waiting", "waiting"), ("open", "open"), ("aside", "aside"), *days]

    def _part(self, uid: str, item: Item) -> Part:
        if uid in self.contents.items:
            return uid, -1
        tail = uid.rsplit("-", 1)[1][10:]
        return item.drop, DIGITS.index(tail) if tail else 0

    def _drops(self, tree: Tree, where: dict[Part, list[str]]) -> None:
        for name, (kind, _) in tree.of("queue").items():
            if kind == "f":
                for part in self.contents.parts(name):
                    where.setdefault(part, []).append("queue")

    def _incoming(self, tree: Tree, where: dict[Part, list[str]]) -> None:
        for home, (_, inode) in tree.of("incoming").items():
            has = tree.of(inode)
            raw = next((n for n in has if n.startswith("raw.")), None)
            if raw is None:
                continue
            name = raw.removeprefix("raw.")
            place = f"incoming/{home}"
            if "item.json" in has:
                one = self._whole(has["item.json"], "I4", f"{place}/item.json")
                if isinstance(one, Decision):
                    self._deserved(name, one)
            if "batch" in has:
                batch = self._whole(has["batch"], "I4", f"{place}/batch")
                assert isinstance(batch, Decision)
                self._deserved(name, batch)
                if not batch.rejected:
                    if batch.tree and batch.tree not in has:
                        raise Broken(f"I16 {place}: the tree {batch.tree} that its cell names is not there")
                    for uid in tree.of(has[batch.tree][1]) if batch.tree else ():
                        where.setdefault((name, DIGITS.index(uid.rsplit("-", 1)[1][10:])), []).append(place)
                    self._present(name, batch, where)
                    continue
            for part in self.contents.parts(name):
                where.setdefault(part, []).append(place)

    def _present(self, name: str, batch: Decision, where: dict[Part, list[str]]) -> None:
        """Items of the batch that were there already, under another uid: they need no place."""
        drafts = self.contents.drops[name].drafts
        for k, draft in enumerate(drafts):
            if (draft.id or "") in batch.present:
                where.setdefault((name, k), []).append("present")

    def _deserved(self, name: str, decision: Decision) -> None:
        drop = self.contents.drops[name]
        if decision.rejected and not drop.reasons:
            wanted = {draft.id for draft in drop.drafts if draft.id is not None}
            if not wanted & self.contents.rivals(name):
                raise Broken(f"T2 {name} is rejected, and nothing is wrong with it: {decision.rejected}")

    def _rejected(self, tree: Tree, where: dict[Part, list[str]]) -> None:
        for home, (_, inode) in tree.of("rejected").items():
            has = tree.of(inode)
            raw = next((n for n in has if n.startswith("raw.")), None)
            if raw is None:
                raise Broken(f"I1 rejected/{home} without what was dropped")
            if "why.json" not in has:
                raise Broken(f"T2r rejected/{home} without why.json")
            decision = self._whole(has["why.json"], "I4", f"rejected/{home}/why.json")
            if not isinstance(decision, Decision) or not decision.rejected:
                raise Broken(f"T2r rejected/{home} was admitted")
            stub = self._stub(tree, home)
            if stub is None or stub.outcome != "rejected":
                raise Broken(f"I6 rejected/{home} with the stub {stub}")
            self._deserved(raw.removeprefix("raw."), decision)
            for part in self.contents.parts(raw.removeprefix("raw.")):
                where.setdefault(part, []).append(f"rejected/{home}")

    def _batches(self, tree: Tree, where: dict[Part, list[str]]) -> None:
        for _, day in tree.of("batches").values():
            for home, (_, inode) in tree.of(day).items():
                has = tree.of(inode)
                raw = next((n for n in has if n.startswith("raw.")), None)
                if raw is None or "batch" not in has:
                    raise Broken(f"I16 batches/{home} has {sorted(has)}")
                batch = self._whole(has["batch"], "I4", f"batches/{home}/batch")
                assert isinstance(batch, Decision)
                if batch.tree in has and tree.of(has[batch.tree][1]):
                    raise Broken(f"I16 batches/{home} still holds items")
                self._present(raw.removeprefix("raw."), batch, where)

    def _kept(self, tree: Tree, items: dict[str, Cells]) -> None:
        """What was dropped stays, also when its items have left it."""
        homes = {home.rsplit("-", 1)[1] for home in tree.of("incoming")}
        homes |= {home.rsplit("-", 1)[1] for _, day in tree.of("batches").values() for home in tree.of(day)}
        for uid in items:
            tail = uid.rsplit("-", 1)[1]
            if len(tail) > 10 and tail[:10] not in homes:
                raise Broken(f"I1 the batch that {uid} is of is lost")

    def _ids(self, tree: Tree) -> None:
        for _, folder in tree.of("ids").values():
            cells = tree.of(folder)
            for cell, entry in cells.items():
                self._whole(entry, "I4", f"ids/{cell}")
                digest, _, k = cell.rpartition(".")
                if int(k) > 1 and f"{digest}.{int(k) - 1}" not in cells:
                    raise Broken(f"ids: there is a number {k} of {digest[:6]}, and none before it")

    def _meant(self, tree: Tree, name: str, fixed: str | None) -> str | None:
        """The uid that a dependency waits for."""
        stub = self._stub(tree, fixed) if fixed else None
        return fixed if fixed and not (stub and stub.outcome == "rejected") else self._first(tree, name)

    def _first(self, tree: Tree, name: str) -> str | None:
        """The first holder of an id that became an item, or may yet."""
        digest = hashlib.sha256(name.encode()).hexdigest()
        cells = {c: e for _, folder in tree.of("ids").values() for c, e in tree.of(folder).items()}
        k = 1
        while (entry := cells.get(f"{digest}.{k}")) is not None:
            holder = self._whole(entry, "I4", f"ids/{name}.{k}")
            assert isinstance(holder, Name)
            stubs = [self._stub(tree, uid) for uid in (holder.uid, holder.drop) if uid]
            if not any(stub and stub.outcome == "rejected" for stub in stubs):
                return holder.uid
            k += 1
        return None

    def _whole(self, entry: tuple[str, Any], invariant: str, where: str) -> Any:
        number = entry[1][1]
        if number is None:
            raise Broken(f"{invariant} {where} is torn")
        return self.records.record(number)

    def _stub(self, tree: Tree, uid: str) -> Stub | None:
        for kind, folder in tree.of("done").values():
            entry = tree.of(folder).get(uid) if kind == "d" else None
            if entry:
                cell = self._whole(entry, "I4", f"done/{uid}")
                return Stub(outcome="rejected") if isinstance(cell, Decision) else Stub.of(cell)
        return None

    # ---- one item ------------------------------------------------------------------------------------------------------

    def _cells(self, phase: str, uid: str, has: dict[str, tuple[str, Any]]) -> Cells:
        if "item.json" not in has:
            raise Broken(f"I3 {phase}/{uid} has no item.json")
        item = self._whole(has["item.json"], "I3", f"{phase}/{uid}/item.json")
        if not isinstance(item, Item) or item.uid != uid:
            raise Broken(f"I3 {phase}/{uid} holds {item}")
        cells = Cells(item)
        for name, entry in has.items():
            head, _, tail = name.partition(".")
            kinds: dict[str, dict[int, Any]] = {
                "claim": cells.claims,
                "end": cells.ends,
                "verdict": cells.verdicts,
                "grant": cells.grants,
            }
            into = kinds.get(tail)
            if into is not None and head.isdecimal():
                into[int(head)] = self._whole(entry, "I4", f"{phase}/{uid}/{name}")
        return cells

    def _item(
        self,
        phase: str,
        folder: str,
        uid: str,
        has: dict[str, tuple[str, Any]],
        stub: Stub | None,
        git: Git,
        ghost: frozenset[Any],
    ) -> Cells:
        cells = self._cells(phase, uid, has)
        acked = frozenset(x for x in ghost if x[0] == "acked" and x[1] == uid)
        key = hash((phase, folder, uid, frozenset(has.items()), stub, git, acked))
        if key not in self._good:
            self._one(phase, folder, uid, cells, stub, git, acked)
            self._good.add(key)
        return cells

    def _one(
        self,
        phase: str,
        folder: str,
        uid: str,
        cells: Cells,
        stub: Stub | None,
        git: Git,
        acked: frozenset[Any],
    ) -> None:
        claims, ends = sorted(cells.claims), sorted(n for n in cells.ends if n)
        if claims != list(range(1, len(claims) + 1)) or ends != list(range(1, len(ends) + 1)):
            raise Broken(f"I2 {uid} has the claims {claims} and the ends {ends}")
        if not len(claims) - 1 <= len(ends) <= len(claims):
            raise Broken(f"I2 {uid} has the claims {claims} and the ends {ends}")
        terminal = [n for n in sorted(cells.ends) if cells.outcome(n)]
        if len(terminal) > 1 or (terminal and len(claims) > terminal[0]):
            raise Broken(f"I5 {uid} lives on after its end {terminal}: claims {claims}")
        outcome = cells.outcome(terminal[0]) if terminal else None
        if phase == "archive":
            if stub is None:
                raise Broken(f"I6 {uid} is archived without a stub")
            if folder != f"D:queue/archive/{stub.day}":
                raise Broken(f"I6 {uid} is archived in {folder}, its stub says {stub.day}")
        if stub is not None and (stub.outcome, stub.n) != (outcome, terminal[0] if terminal else 0):
            raise Broken(
                f"I6 the stub of {uid} says {stub.outcome} by {stub.n}, its cells say {outcome} by {terminal}"
            )
        if phase == "waiting" and claims:
            raise Broken(f"I1 {uid} waits, and has the claims {claims}")
        self._order(uid, cells, git)
        self._allowed(uid, cells, acked)

    def _order(self, uid: str, cells: Cells, git: Git) -> None:
        history = self.commits.history(git.target)
        for n, verdict in cells.verdicts.items():
            if not cells.submitted(n):
                raise Broken(f"I11 a verdict of {uid}.{n}, which submitted nothing")
            there = [m for u, k, m in history if (u, k) == (uid, n)]
            if verdict.kind is VerdictKind.MERGED:
                if not there:
                    raise Broken(f"I12 {uid}.{n} is called merged, the target has {history}")
                if verdict.merged not in there:
                    raise Broken(f"I12 {uid}.{n} is merged as {there}, its verdict says {verdict.merged}")
            elif any(u == uid and k <= n for u, k, _ in history):
                raise Broken(f"I12 {uid}.{n} is called {verdict.kind.value}, the target has {history}")
        for n in cells.grants:
            if n and (not cells.closed(n) or cells.outcome(n)):
                raise Broken(f"I11 a grant for {uid}.{n}, which is not closed, or over")
        for n in cells.claims:
            if n > 1 and not cells.closed(n - 1):
                raise Broken(f"I11 {uid}.{n} was claimed while {n - 1} was not closed")
        for n, end in cells.ends.items():
            if cells.submitted(n) and end.sha not in git.objects:
                raise Broken(f"I18 the end of {uid}.{n} names an unreadable commit")

    def _allowed(self, uid: str, cells: Cells, acked: frozenset[Any]) -> None:
        for n, claim in cells.claims.items():
            end = cells.ends.get(n)
            wanted = {Act.HOLD: Outcome.HELD, Act.CANCEL: Outcome.CANCELLED}.get(claim.act)
            if wanted and end and end.outcome is not wanted:
                raise Broken(f"I13 {uid}.{n} was claimed to {claim.act.value} and ended {end.outcome.value}")
            if claim.act is not Act.RUN:
                continue
            if n > 1 and n - 1 not in cells.grants:
                if cells.spent(n - 1) >= cells.allowed(n - 1):
                    raise Broken(f"I13 {uid}.{n} runs, although {cells.spent(n - 1)} attempts are spent")
                free = cells.released(n - 1)
                if free > self.scenario.releases:
                    raise Broken(f"I13 {uid}.{n} runs after {free} releases")
            for held in range(1, n):
                if cells.ends[held].outcome is Outcome.HELD and not any(held <= g < n for g in cells.grants):
                    raise Broken(f"I13 {uid}.{n} runs although it was held as {held}")
            for _, _, told, _ in acked:
                if n > told and not any(told <= g < n for g in cells.grants):
                    raise Broken(f"I13 {uid}.{n} runs although a person was told that it does not, as {told}")
        for _, _, told, what in acked:
            is_ = cells.outcome(told)
            if is_ is None and told in cells.ends:
                is_ = cells.ends[told].outcome.value
            if is_ is None and told in cells.claims:  # whoever completes it does so by its act
                is_ = {Act.HOLD: "held", Act.CANCEL: "cancelled"}.get(cells.claims[told].act)
            if is_ != what:
                raise Broken(f"I13 a person was told that {uid} is {what} as {told}, and it is {is_}")

    # ---- git, and what happened ----------------------------------------------------------------------------------------

    def _target(self, git: Git, items: dict[str, Cells]) -> None:
        seen: set[str] = set()
        history = self.commits.history(git.target)
        if lost := self.commits.ancestors(git.target) - git.objects:
            raise Broken(f"I18 the target names the unreadable {sorted(lost)}")
        for uid, n, _ in history:
            if uid in seen:
                raise Broken(f"I12 the target holds {uid} twice: {history}")
            seen.add(uid)
            cells = items.get(uid)
            if cells is not None:
                if n not in cells.ends:
                    raise Broken(f"I12 the target holds {uid}.{n}, which has no end")
                if cells.ends[n].outcome is not Outcome.DONE:
                    raise Broken(f"I12 the target holds {uid}.{n}, which ended {cells.ends[n].outcome.value}")

    def _history(self, files: Files, tree: Tree, items: dict[str, Cells], ghost: frozenset[Any]) -> None:
        ran: dict[tuple[str, int], str] = {}
        for fact in ghost:
            match fact[0]:
                case "exec":
                    _, uid, n, me = fact
                    if ran.setdefault((uid, n), me) != me:
                        raise Broken(f"I9 attempt {uid}.{n} was executed by {ran[uid, n]} and by {me}")
                    self._dependencies(files, tree, items, uid)
                case "spurious":
                    raise Broken(f"I10 {fact[1]}: its owner lives, and nobody suspected it")
                case "bad kill":
                    if not self.scenario.moves:  # the end may be away exactly while it is looked for
                        raise Broken(
                            f"I10 {fact[1]}.{fact[2]}: killed, and its owner lives and nobody suspected it"
                        )
                case "bad stop":
                    raise Broken(f"I14 {fact[1]}.{fact[2]} was stopped before it was decided")
                case "not superseded":
                    raise Broken(f"I17 {fact[1]}.{fact[2]} was given up although nobody decided it")
                case "promised":
                    _, uid, n = fact
                    cells = items.get(uid)
                    zero = cells.ends.get(0) if cells else None
                    moved_on = (
                        n > 0 and n + 1 in cells.claims if cells else False
                    )  # it ran, or a later act forbade it
                    if cells and n not in cells.grants and not moved_on:
                        raise Broken(f"T7 a person was told that {uid} runs, and nothing says so any more")
                    if n == 0 and zero and zero.by == BEFORE:
                        raise Broken(f"T7 a person was told that {uid} runs, and it was cancelled before")
                case "alarm":
                    if not self.scenario.moves:
                        raise Broken(f"I17 a false alarm: {fact[1]}")
                case "intrude":
                    there = self.commits.ancestors(files.git.target)
                    if fact[1] not in there:
                        raise Broken(f"I12 what somebody else pushed was overwritten by {files.git.target}")
                case "commit_theirs":
                    if fact[1] not in self.commits.ancestors(files.git.theirs):
                        raise Broken(f"T11 {fact[1]} is gone from the person's branch: {files.git.theirs}")
                case "overwritten":
                    raise Broken(f"T11 {fact[1]} of the person's branch was overwritten by {fact[2]}")
                case _:
                    pass

    def _dependencies(self, files: Files, tree: Tree, items: dict[str, Cells], uid: str) -> None:
        cells = items.get(uid)
        if cells is None or 0 in cells.grants:
            return
        if cells.item.not_before and not files.time_passed:
            raise Broken(f"I15 {uid} ran before its time")
        for dep, fixed in cells.item.deps.items():
            holder = self._meant(tree, dep, fixed)
            if fixed in self.contents.rejected:
                raise Broken(f"I15 {uid} depends on {fixed}, which was rejected before it came")
            sibling = self._sibling(uid, cells.item, dep)
            if sibling and holder != sibling:
                raise Broken(f"I15 {uid} depends on {holder}, and means {sibling}")
            if dep in cells.item.optional_deps:
                continue
            on = items.get(holder or "")
            if on is None or not any(on.outcome(n) in ("done", "merged") for n in on.ends):
                raise Broken(f"I15 {uid} ran, and {dep} is not done")

    def _sibling(self, uid: str, item: Item, dep: str) -> str | None:
        """The uid that an id means inside of the same batch."""
        _, tail = uid.rsplit("-", 1)
        drop = self.contents.drops.get(item.drop) if len(tail) > 10 else None
        for k, draft in enumerate(drop.drafts if drop else ()):
            if draft.id == dep:
                return f"{dep}-{tail[:10]}{DIGITS[k]}"
        return None

    # ---- the end -------------------------------------------------------------------------------------------------------

    def stuck(self, files: Files) -> list[str]:
        """uids of what only a person moves on: parked, or waiting for what was cancelled, or is not known."""
        tree = Tree(files)
        found = []
        for uid, (_, inode) in tree.of("open").items():
            if self._cells("open", uid, tree.of(inode)).parked(self.scenario.releases):
                found.append(uid)
        for uid, (_, inode) in tree.of("waiting").items():
            cells = self._cells("waiting", uid, tree.of(inode))
            item = cells.item
            if 0 in cells.ends or 0 in cells.grants:
                continue
            for dep, fixed in item.deps.items():
                holder = self._meant(tree, dep, fixed)
                stub = self._stub(tree, holder) if holder else None
                if holder is None or (stub and stub.outcome == "cancelled" and dep not in item.optional_deps):
                    found.append(uid)
                    break
        return found

    def unfinished(self, files: Files) -> list[str]:
        """What a recovery should have brought to its end. Items in waiting/ may wait for what was cancelled."""
        tree = Tree(files)
        left = [f"queue/{n}" for n, (kind, _) in tree.of("queue").items() if kind == "f"]
        left += [f"open/{u}" for u in tree.of("open")] + [f"waiting/{u}" for u in tree.of("waiting")]
        for home, (_, inode) in tree.of("incoming").items():
            if any(n.startswith("raw.") for n in tree.of(inode)):
                left.append(f"incoming/{home}")
        if self.scenario.publishes and files.git.target not in self.commits.ancestors(files.git.theirs):
            left.append(f"to publish: {files.git.target}")
        return left

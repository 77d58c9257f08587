"""Checks a whole store: every invariant that shows on the tree, and what crashes and people leave behind.

Only reads. On a store that is in use things move while they are read; therefore what is found is looked for a second
time, and only what is there twice is reported. What needs no guessing is repaired by `repair`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace

from harness.errors import HarnessError, StoreError
from harness.layout import STORE_FOLDERS, fan
from harness.model import UID, Act, Item, Outcome, Stub, VerdictKind
from harness.store import provenance
from harness.store.cells import Standing, look, stub_path
from harness.store.disk import Disk
from harness.store.invariants import Cells, broken, read_cells
from harness.store.names import REJECTED
from harness.store.promotion import why_waiting
from harness.store.setup import check_format
from harness.store.survey import Named, Survey
from harness.store.sweeping import STARTING_S, owner_of
from harness.store.violations import Hubs, Repair, Violation, foreign


def nobody(_incarnation: str) -> bool:
    """Nobody is alive: for a store on which nothing runs."""
    return False


def check(disk: Disk, *, hubs: Hubs | None = None, alive: Callable[[str], bool] = nobody) -> list[Violation]:
    """Everything that is wrong, in no particular order; empty for a healthy store. `alive`: is an incarnation present?

    `Violation.harmless` tells what every crash leaves behind from what must never be. With `hubs` also: every commit
    that a cell names can be read, and verdicts agree with the target.
    """
    found = list(_pass(Survey(disk, hubs, alive)))
    if not found:
        return found
    again = set(_pass(Survey(disk, hubs, alive)))
    return [v for v in found if v in again]


def _pass(survey: Survey) -> Iterator[Violation]:
    yield from _folders(survey)
    for phase in ("open", "waiting"):
        for uid in survey.names(f"queue/{phase}"):
            yield from _item(survey, f"queue/{phase}/{uid}", uid)
    for day in survey.names("queue/archive"):
        for uid in survey.names(f"queue/archive/{day}"):
            yield from _item(survey, f"queue/archive/{day}/{uid}", uid, day)
    yield from provenance.incoming(survey)
    yield from provenance.rejected(survey)
    yield from provenance.batches(survey)
    for places in survey.places.values():
        for second in places[1:]:
            yield Violation(invariant="I1", path=second, what=f"is also {places[0]}")
    yield from _commits(survey)
    yield from _stubs(survey)
    yield from provenance.ids(survey)
    yield from _hints(survey)
    yield from _tmp(survey)


# ---- the folders -----------------------------------------------------------------------------------------------------


def _folders(survey: Survey) -> Iterator[Violation]:
    layout = survey.disk.layout
    try:
        check_format(layout)
    except HarnessError as e:
        missing = not (layout.queue / "FORMAT").exists()
        yield Violation(
            invariant="format",
            path="queue/FORMAT",
            what="is missing" if missing else e.what,
            repair=Repair.MAKE if missing else None,
        )
    queue = os.stat(layout.queue)
    if queue.st_mode & stat.S_IWOTH:
        yield Violation(invariant="mode", path="queue", what="everybody may write here", repair=Repair.MODE)
    for name in STORE_FOLDERS:
        path = f"queue/{name}"
        try:
            info = os.lstat(layout.queue / name)
        except FileNotFoundError:
            yield Violation(invariant="format", path=path, what="is missing", repair=Repair.MAKE)
            continue
        mode = stat.S_IMODE(info.st_mode)
        if not stat.S_ISDIR(info.st_mode):
            yield Violation(invariant="format", path=path, what="is no folder")
        elif info.st_dev != queue.st_dev:
            yield Violation(invariant="format", path=path, what="is on another file system than queue/")
        elif mode & 0o777 != 0o700:
            yield Violation(
                invariant="mode", path=path, what=f"has mode {mode:o}, not 700", repair=Repair.MODE
            )


# ---- items -----------------------------------------------------------------------------------------------------------


def _item(survey: Survey, place: str, uid: str, day: str = "") -> Iterator[Violation]:
    if not UID.match(uid) or survey.disk.do_ls(place) is None:
        yield foreign(place)
        return
    survey.saw(uid, place)
    cells = read_cells(survey.disk, place, uid)
    problems = broken(cells)
    for invariant, name, what in problems:
        repair = Repair.ASIDE if invariant == "foreign" else None
        path = f"{place}/{name}" if name else place
        yield Violation(invariant=invariant, path=path, what=what, repair=repair)
    if not cells.whole or cells.item is None:
        return
    yield from _stubbed(survey, cells, place, day)
    yield from _early(survey, cells, cells.item, place)
    if place.startswith("queue/open/"):
        if all(
            invariant == "foreign" for invariant, _, _ in problems
        ):  # else nothing is done to it: a person decides
            yield from _unfinished(cells, place)
            yield from _abandoned(survey, cells, place)
        _note_ready(survey, uid)
    for named in _results(cells, place):
        survey.named.setdefault(cells.item.project, []).append(named)


def _stubbed(survey: Survey, cells: Cells, place: str, day: str) -> Iterator[Violation]:
    """I6: archived = terminal and stubbed; a stub says what the terminal cell says."""
    stub = survey.stub(cells.uid)
    terminal = cells.terminal()
    outcome = cells.outcome(terminal[-1]) if terminal else None
    if outcome is None:
        if day:
            yield Violation(invariant="I6", path=place, what="is archived without a terminal cell")
        if stub:
            what = f"says {stub.outcome}, but the item is not over"
            yield Violation(invariant="I6", path=stub_path(cells.uid), what=what)
        return
    if day and not survey.has_stub(cells.uid):
        yield Violation(invariant="I6", path=place, what="is archived without a stub", repair=Repair.STUB)
    elif day and stub and stub.day != day:
        yield Violation(invariant="I6", path=place, what=f"is in archive/{day}, its stub says {stub.day}")
    if stub and (stub.outcome, stub.sha, stub.n) != (*outcome, terminal[-1]):
        what = (
            f"says {stub.outcome} by attempt {stub.n}, the cells say {outcome[0]} by attempt {terminal[-1]}"
        )
        yield Violation(invariant="I6", path=stub_path(cells.uid), what=what)


def _early(survey: Survey, cells: Cells, item: Item, place: str) -> Iterator[Violation]:
    """I15: what left waiting/ had all that it waits for, or a person's leave. Stubs stay, so this shows for ever.

    (That its time had come then shows nowhere.)
    """
    if not item.deps or place.startswith("queue/waiting/") or 0 in cells.grants or 0 in cells.ends:
        return
    try:
        why = survey.disk.run(why_waiting(replace(item, not_before=None)))
    except (StoreError, OSError):
        return  # what could not be read is said where it stands
    if why.for_:
        what = f"left waiting/ although it waits for {', '.join(why.for_)}"
        yield Violation(invariant="I15", path=place, what=what)


def _unfinished(cells: Cells, place: str) -> Iterator[Violation]:
    """A terminal cell, and the item is still in open/."""
    terminal = cells.terminal()
    if terminal and (outcome := cells.outcome(terminal[-1])):
        what = f"is over ({outcome[0]}) and not archived"
        yield Violation(invariant="finish", path=place, what=what, repair=Repair.FINISH)


def _abandoned(survey: Survey, cells: Cells, place: str) -> Iterator[Violation]:
    """A claim without an end whose lock is free: its owner is dead. (A lock of another host is not seen here.)"""
    n = max(cells.claims, default=0)
    path = f"{place}/{n}.claim"
    if (
        not n
        or n in cells.ends
        or not survey.is_free(path)
        or survey.alive(cells.claims[n].owner.incarnation)
    ):
        return
    owner = cells.claims[n].owner
    repair = Repair.EXPIRE if cells.claims[n].act is Act.RUN else Repair.COMPLETE
    what = f"its owner ({owner.name or owner.incarnation}) is dead, and nobody has ended it"
    yield Violation(invariant="expire", path=path, what=what, repair=repair)


def _note_ready(survey: Survey, uid: str) -> None:
    seen = survey.disk.run(look(uid))
    last = seen.attempts[-1].end if seen.attempts else None
    is_due = not (last and last.not_before) or survey.disk.do_passed(last.not_before)
    if seen.standing is Standing.READY and seen.item and is_due:
        survey.ready[uid] = seen.item.priority


# ---- what git holds --------------------------------------------------------------------------------------------------


def _results(cells: Cells, place: str) -> Iterator[Named]:
    """What the hub must hold.

    When an item is over, results that were returned or cancelled may have been given up with their pins
    (`hub.history.retire`); what was merged is held by the target, and what nobody was to merge by its pin alone.
    """
    is_over = place.startswith("queue/archive/")
    for n, end in sorted(cells.ends.items()):
        if end.outcome is Outcome.DONE and end.sha is not None and (not is_over or n == max(cells.ends)):
            yield Named(place=place, uid=cells.uid, end=end, verdict=cells.verdicts.get(n), is_over=is_over)


def _commits(survey: Survey) -> Iterator[Violation]:
    for project, named in survey.named.items():
        if survey.hubs:
            try:
                yield from _git(survey.hubs, project, named)
            except HarnessError as e:  # of a project that is not in config.yaml any more, or of its hub
                what = f"the commits of its items were not checked: {e.what}"
                yield Violation(invariant="hub", path=f"state/repos/{project}.git", what=what)


def _git(hubs: Hubs, project: str, named: list[Named]) -> Iterator[Violation]:
    """I18: every commit that a cell names can be read. I12: verdicts say what the target holds."""
    shas = {one.end.sha for one in named} | {one.verdict.merged for one in named if one.verdict}
    missing = hubs.missing(project, frozenset(sha for sha in shas if sha is not None))
    for one in named:
        n, sha, verdict = one.end.n, one.end.sha or "", one.verdict
        is_merged = verdict is not None and verdict.kind is VerdictKind.MERGED
        if sha in missing:
            if verdict is None or is_merged or not one.is_over:
                what = f"names the commit {sha}, which cannot be read"
                yield Violation(invariant="I18", path=f"{one.place}/{n}.end", what=what)
            continue
        if verdict is None:
            continue
        path = f"{one.place}/{n}.verdict"
        found = hubs.merged(project, one.uid, n, sha)
        if not is_merged:
            if found:
                what = f"says {verdict.kind.value}, but the target holds it as {found}"
                yield Violation(invariant="I12", path=path, what=what)
        elif verdict.merged in missing:
            what = f"names the merge {verdict.merged}, which cannot be read"
            yield Violation(invariant="I18", path=path, what=what)
        elif found != verdict.merged:
            what = f"says merged as {verdict.merged}, the target has {found or 'no merge of it'}"
            yield Violation(invariant="I12", path=path, what=what)


# ---- stubs, hints, tmp -----------------------------------------------------------------------------------------------


def _stubs(survey: Survey) -> Iterator[Violation]:
    for hh in survey.names("queue/done"):
        for uid in survey.names(f"queue/done/{hh}"):
            path = f"queue/done/{hh}/{uid}"
            if not UID.match(uid) or fan(uid) != hh:
                yield foreign(path)
                continue
            stub = yield from survey.read(path, Stub)
            if not isinstance(stub, Stub) or uid in survey.places or stub.outcome == REJECTED:
                continue
            # Of a day that was rolled up nothing is missed; of one that is there, everything must be.
            if survey.disk.do_ls(f"queue/archive/{stub.day}") is not None:
                yield Violation(invariant="I1", path=path, what=f"the item is {stub.outcome}, but nowhere")


def _hints(survey: Survey) -> Iterator[Violation]:
    hinted = survey.disk.hints.all()
    for uid, places in hinted.items():
        for k, (_, path) in enumerate(places):
            if k or uid not in survey.ready:
                what = "is there twice" if uid in survey.ready else "is for an item that cannot be claimed"
                short = os.path.relpath(path, survey.disk.layout.root)
                yield Violation(invariant="hint", path=short, what=what, repair=Repair.DROP_HINT)
    for uid in survey.ready.keys() - hinted.keys():
        what = "may be claimed, but has no hint"
        yield Violation(invariant="hint", path=f"queue/open/{uid}", what=what, repair=Repair.ADD_HINT)


def _tmp(survey: Survey) -> Iterator[Violation]:
    for name in survey.names("queue/tmp"):
        path = f"queue/tmp/{name}"
        owner = owner_of(name)
        if "." not in owner:  # of a start
            dead = survey.disk.do_older(path, STARTING_S)
        else:
            dead = not survey.alive(owner) and survey.is_free(path)
        if dead:
            what = f"was left by {owner}, which is dead"
            yield Violation(invariant="tmp", path=path, what=what, repair=Repair.SWEEP)

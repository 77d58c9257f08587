"""Finding the sessions of agents: which there are, which of them a name means, and who works on one now.

Reads only, and only what it must: days and folders newest first, a summary when it is asked for. Nothing is followed that
an agent can have put there (links, FIFOs); what cannot be read is still found, without its record.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

from harness import reports, sessionrecord
from harness.control.desk import Desk
from harness.dataclass import dataclass
from harness.errors import ConflictError, NotFoundError, UnreadableRecordError
from harness.layout import Layout
from harness.reports import AgentReport, process_of
from harness.sessionfolder import SUMMARY, SessionFolder
from harness.sessionrecord import SessionRecord
from harness.slots import names_in

SEARCHED = 5000
"""So many summaries are read for a conversation's id, newest first."""
SHORTEST_ID = 6
"""Of a conversation: a shorter beginning of one means none."""
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")
_NAME = re.compile(r"([a-z0-9][a-z0-9-]{1,63})\.([1-9][0-9]{0,8})\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One session. `place` is its folder, relative to the root."""

    uid: str
    n: int
    """The attempt in which it began."""
    place: str
    path: Path
    record: SessionRecord | None
    """None: there is no summary.json, or it cannot be read."""
    slot: str = ""
    """Whose worker lives and works on it now; "": nobody's."""

    @property
    def name(self) -> str:
        return f"{self.uid}.{self.n}"

    @property
    def folder(self) -> SessionFolder:
        return SessionFolder(self.path, Path())

    @property
    def rounds(self) -> int:
        """How many runs are known of it."""
        return len(self.record.runs) if self.record else _last_round(self.path)


def listed(desk: Desk, *, item: str = "", agent: str = "", running: bool = False) -> Iterator[Found]:
    """Sessions by the day on which they began, newest first, of one day those first that changed last.

    `item`: of this one only, as `View.find` knows it; `agent`: a name in config.yaml; `running`: on which somebody works.
    Raises NotFoundError, ConflictError.
    """
    uid = desk.view.find(item).uid if item else ""
    working = at_work(desk.layout)
    places = sorted(working, reverse=True) if running else _places(desk.layout, uid)
    for place in places:
        found = _read(desk.layout, place, working)
        if found is None or (uid and found.uid != uid):
            continue
        if not agent or (found.record is not None and found.record.agent == agent):
            yield found


def find(desk: Desk, name: str) -> Found:
    """A session by its name (``<uid>.<n>``); the newest of an item by its uid, id or a unique prefix; or by the id of its
    conversation, the tool's or ours, or a beginning of that.

    Raises NotFoundError, ConflictError with what matches.
    """
    layout = desk.layout
    working = at_work(layout)
    if _NAME.match(name):
        for day in _days(layout):
            if found := _read(layout, f"state/sessions/{day}/{name}", working):
                return found
    uid = _uid(desk, name)
    if uid:
        if (place := next(_places(layout, uid), None)) and (found := _read(layout, place, working)):
            return found
        raise NotFoundError(
            "no agent has worked on it yet", where=uid, remedy=f"its state: harnessctl show {uid}"
        )
    if len(name) >= SHORTEST_ID and (found := _by_conversation(layout, name, working)):
        return found
    began = _NAME.match(name)
    others = [place.rpartition("/")[2] for place in _places(layout, began[1])] if began else []
    remedy = f"of that item there is: {', '.join(others[:5])}" if others else "list them: harnessctl sessions"
    raise NotFoundError(f"there is no session {name!r}", remedy=remedy)


def of_item(layout: Layout, uid: str) -> list[Found]:
    """All sessions of an item, the newest first."""
    working = at_work(layout)
    return [found for place in _places(layout, uid) if (found := _read(layout, place, working))]


def again(layout: Layout, found: Found) -> Found:
    """The same session as it is now."""
    return _read(layout, found.place, at_work(layout)) or found


def at_work(layout: Layout) -> Mapping[str, str]:
    """Folder of a session, relative to the root -> the slot whose living worker has it in hand."""
    slots = {}
    for slot in sorted(names_in(layout.run / "agents")):
        report = reports.read(reports.agent_path(layout, slot), AgentReport)
        if report and report.session and report.state != "stopped" and process_of(report).alive():
            slots[str(report.session)] = slot
    return slots


def of_slot(layout: Layout, slot: str) -> Found | None:
    """The session that a slot has in hand now."""
    working = at_work(layout)
    place = next((place for place, by in working.items() if by == slot), None)
    return _read(layout, place, working) if place else None


# ---- below the folder of sessions ------------------------------------------------------------------------------------


def _read(layout: Layout, place: str, working: Mapping[str, str]) -> Found | None:
    """None when there is no such folder."""
    day, _, name = place.removeprefix("state/sessions/").rpartition("/")
    match = _NAME.match(name)
    path = layout.sessions / day / name
    if match is None or not _DAY.match(day) or path.is_symlink() or not path.is_dir():
        return None
    record = sessionrecord.read(path / SUMMARY)
    if record is not None and record.uid != match[1]:
        record = None  # of another one
    slot = working.get(place, "")
    return Found(uid=match[1], n=int(match[2]), place=place, path=path, record=record, slot=slot)


def _days(layout: Layout) -> list[str]:
    return sorted((name for name in names_in(layout.sessions) if _DAY.match(name)), reverse=True)


def _places(layout: Layout, uid: str = "") -> Iterator[str]:
    """Folders of sessions, relative to the root, newest first; of one item when it is named."""
    for day in _days(layout):
        found: list[tuple[float, int, str]] = []
        for entry in _entries(layout.sessions / day):
            match = _NAME.match(entry.name)
            if match is None or (uid and match[1] != uid):
                continue
            try:
                if entry.is_dir(follow_symlinks=False):
                    changed = 0.0 if uid else entry.stat(follow_symlinks=False).st_mtime
                    found.append((changed, int(match[2]), entry.name))
            except OSError:
                continue  # it was removed meanwhile
        yield from (f"state/sessions/{day}/{name}" for _, _, name in sorted(found, reverse=True))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []


def _uid(desk: Desk, name: str) -> str:
    """The item that a name means: the store's word, else that of the folders, which outlive it; "" when there is none."""
    try:
        return desk.view.find(name).uid
    except (NotFoundError, UnreadableRecordError):
        pass
    if not name:
        return ""
    names = (place.rpartition("/")[2] for place in _places(desk.layout))
    uids = {each.rpartition(".")[0] for each in names if each.startswith(name)}
    if _NAME.match(name):
        return ""  # a whole name, of which there is none: `fix.1` does not mean `fix.12`
    if len(uids) > 1 and name not in uids:
        raise _ambiguous(name, uids)
    return name if name in uids else next(iter(uids), "")


def _by_conversation(layout: Layout, name: str, working: Mapping[str, str]) -> Found | None:
    begun: list[Found] = []
    for place in islice(_places(layout), SEARCHED):
        found = _read(layout, place, working)
        record = found.record if found else None
        if found is None or record is None:
            continue
        if name in (record.conversation, record.session):
            return found
        if record.conversation.startswith(name) or record.session.startswith(name):
            begun.append(found)
    if len(begun) > 1:
        raise _ambiguous(name, {found.name for found in begun})
    return begun[0] if begun else None


def _ambiguous(name: str, matches: set[str]) -> ConflictError:
    shown = ", ".join(sorted(matches)[:5]) + (", ..." if len(matches) > 5 else "")
    return ConflictError(f"{name!r} is not unique: {shown}", remedy="write more of it")


def _last_round(path: Path) -> int:
    """By the names of its files."""
    rounds = [re.match(r"(?:events|stdout|prompt)\.([1-9][0-9]{0,3})\.", x.name) for x in _entries(path)]
    return max((int(match[1]) for match in rounds if match), default=0)

"""Is there anything that moves by itself, and what is left for a person: the end of `run --until-idle`.

Idle is not "all done": what is parked, paused, unpaid, or refused by the person's repository waits for a person, and whoever
started us hears of it by the exit code and by name. A budget of a day is no exception: nobody waits here for midnight.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from harness.config import Config
from harness.coordinator.hinting import Hinting
from harness.coordinator.index import Entry, Index
from harness.coordinator.intake import Intake
from harness.coordinator.mergers import Mergers
from harness.coordinator.pool import Pool
from harness.coordinator.projects import Projects
from harness.dataclass import dataclass
from harness.layout import Layout
from harness.store.cells import Standing

LIVE = (Standing.READY, Standing.RUNNING, Standing.SUBMITTED)
NAMED = 5
"""So many items are called by their names, the others are counted."""


@dataclass(slots=True)
class Idle:
    layout: Layout
    index: Index
    intake: Intake
    hinting: Hinting
    pool: Pool
    mergers: Mergers
    projects: Projects

    def reached(self, config: Config) -> bool:
        """Nothing can move any more without a person."""
        if self.intake.more or self.intake.pending:  # what else is in incoming/ is empty: its taker died
            return False
        if any(not self._stands(entry) for entry in self.index.of(*LIVE)):
            return False
        if any(self._may_start(uid) for uid in self.index.waiting):
            return False
        return not (
            self.projects.owing
            or self.projects.again
            or self.projects.looking - self.projects.unusable.keys()
        ) and all(map(self.mergers.settled, config.projects))

    def left(self, config: Config) -> list[str]:
        """What is not done, and why, one line each; nothing when everything is."""
        groups: dict[str, list[str]] = {}
        for entry in self.index.open.values():
            if entry.standing is not Standing.OVER:
                why = self._stands(entry) or f"{entry.standing.value}, and was not waited for"
                groups.setdefault(why, []).append(entry.item.id)
        for uid, item in self.index.waiting.items():
            waits = self.index.why.get(uid)
            why = f"waiting for {', '.join(waits.for_)}" if waits else "waiting"
            groups.setdefault(why, []).append(item.id)
        for name, why in (*self.index.unreadable.items(), *self.intake.unreadable.items()):
            if name not in self.index.open and name not in self.index.waiting:
                groups.setdefault(why, []).append(name)
        lines = [f"{_names(names)}: {why}" for why, names in groups.items()]
        return lines + [
            f"the merges of {name} are not published: {report.reason}. {report.remedy}".strip()
            for name in config.projects
            if (report := self.mergers.refused(name)) is not None
        ]

    def _stands(self, entry: Entry) -> str:
        """Why it does not go on by itself, or "" when it does."""
        if entry.standing is Standing.PARKED:
            return f"parked: {entry.reason}"
        if entry.standing is Standing.UNREADABLE:
            return entry.reason
        project = entry.item.project
        if entry.standing is Standing.RUNNING:
            return ""
        if project in self.projects.gone:
            return f"project {project} is not in config.yaml"
        if project in self.projects.unusable and project not in self.projects.soon():
            return f"project {project} cannot be used: {self.projects.unusable[project]}"
        if entry.standing is not Standing.READY:
            return ""
        return self._held_back(project) or self._limited(entry.item.agents) or self._unpaid(entry.uid)

    def _held_back(self, project: str) -> str:
        """Why nobody claims a ready item of this project, or ""."""
        if self._paused():
            return "paused, until: harnessctl resume"
        if project in self.hinting.paused - self.projects.soon():
            return f"project {project} is paused, until: harnessctl resume --project {project}"
        if not self.pool.can_work(self._paused):
            return "no worker can claim it: see harnessctl status"
        return ""

    def _limited(self, agents: Iterable[str]) -> str:
        """Which credential a person has to see to before anybody can work on it, or ""."""
        broken = self.hinting.limited.for_good
        credentials = [broken.get(agent, "") for agent in agents]
        if not credentials or not all(credentials):
            return ""
        name = credentials[0]
        return f"credential {name} is refused, until it is repaired or: harnessctl resume --credential {name}"

    def _unpaid(self, uid: str) -> str:
        """Which budget it waits for, or "". What runs may give something back: that is waited for as long as it runs."""
        rooms = [room for name in self.hinting.unpaid.get(uid, ()) if (room := self.hinting.rooms.get(name))]
        said = " and ".join(str(room) for room in rooms)
        return (
            f"{said}, until {' and '.join(room.setting for room in rooms)} is raised in config.yaml"
            if rooms
            else ""
        )

    def _paused(self, slot: str = "") -> bool:
        return (self.layout.control / (f"pause.{slot}" if slot else "pause")).exists()

    def _may_start(self, uid: str) -> bool:
        """Will it leave waiting/ by the mere passing of time? What waits for others is told by those."""
        why = self.index.why.get(uid)
        if why is None:
            return True
        item = self.index.waiting[uid]
        return bool(not why.blocked and item.not_before and any("not before" in w for w in why.for_))


def _names(names: Iterable[str]) -> str:
    return ", ".join(_some(sorted(names)))


def _some(names: list[str]) -> Iterator[str]:
    yield from names[:NAMED]
    if len(names) > NAMED:
        yield f"and {len(names) - NAMED} more"

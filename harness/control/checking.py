"""fsck: every invariant of the store, and of each hub what cells say about it; repaired where nothing is guessed."""

from __future__ import annotations

import functools

from harness import presence
from harness.config import Durability
from harness.containment import Containment
from harness.control.changes import make_hub, project_of
from harness.control.desk import Desk
from harness.dataclass import dataclass
from harness.errors import ConflictError, HarnessError, TryAgainError
from harness.hands import LocalHands
from harness.hub import Hub
from harness.store import fsck
from harness.store.disk import Disk
from harness.store.repair import repair
from harness.store.violations import Hubs, Violation


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What is wrong now, and what was put right."""

    left: tuple[Violation, ...]
    repaired: tuple[Violation, ...] = ()

    @property
    def healthy(self) -> bool:
        """Nothing is left but what every crash leaves behind, which the next coordinator sweeps up."""
        return all(violation.harmless for violation in self.left)


def check(desk: Desk, *, mend: bool = False, git: bool = False) -> Checked:
    """Check the store; with `git` also every object of the hubs; with `mend` repair what needs no guessing.

    Raises ConflictError when something is to be repaired while a coordinator runs: it repairs the same by itself.
    """
    coordinator = desk.coordinator()
    if mend and coordinator:
        raise ConflictError(
            f"a coordinator runs (pid {coordinator.pid}), which sweeps up by itself what crashes leave",
            where=desk.layout.root,
            remedy="check without --repair, or stop it first",
        )
    hubs = _Hubs(desk)
    asked = Hubs(missing=hubs.missing, merged=hubs.merged)
    alive = functools.partial(presence.present, desk.layout)
    if mend:
        done = repair(_mender(desk), desk.actor, hubs=asked, alive=alive)
        left, repaired = done.left, done.done
    else:
        left, repaired = tuple(fsck.check(desk.disk, hubs=asked, alive=alive)), ()
    if git:
        left += tuple(hubs.broken())
    return Checked(left=left, repaired=repaired)


def _mender(desk: Desk) -> Disk:
    """A disk that can end what is left of dead owners' attempts, killed first."""
    config = desk.config
    hands = LocalHands(desk.layout, desk.clock, Containment.probe(config.sandbox), config.health.hang_s)
    return Disk(
        desk.layout, desk.clock, durable=config.durability is Durability.POWER, hands=hands, hubs=desk.hub
    )


class _Hubs:
    """The hubs of the projects, opened when they are first asked for."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._hubs: dict[str, Hub] = {}
        self._lines: dict[str, tuple[str, dict[tuple[str, int, str], str]]] = {}

    def hub(self, project: str) -> Hub:
        if project not in self._hubs:
            desk = self._desk
            self._hubs[project] = make_hub(desk.layout, desk.config, project_of(desk, project), desk.clock)
        return self._hubs[project]

    def missing(self, project: str, shas: frozenset[str]) -> frozenset[str]:
        return self.hub(project).missing(shas)

    def merged(self, project: str, uid: str, n: int, sha: str) -> str | None:
        """What `Hub.merged_as` says, by reading the target's line once for all items, and again when it has moved."""
        hub = self.hub(project)
        tip = hub.target()
        seen, merges = self._lines.get(project, ("", {}))
        if seen != tip:
            merges = {(merge.uid, merge.n, merge.submitted): merge.sha for merge in hub.merges(tip)}
            self._lines[project] = tip, merges
        return merges.get((uid, n, sha))

    def broken(self) -> list[Violation]:
        """What `git fsck` says of each hub."""
        found = []
        for name in self._desk.config.projects:
            path = f"state/repos/{name}.git"
            try:
                said = self.hub(name).fsck()
            except TryAgainError:
                raise
            except HarnessError as e:
                found.append(Violation(invariant="I18", path=path, what=e.what))
                continue
            if said:
                found.append(Violation(invariant="I18", path=path, what=f"git fsck: {said[:500]}"))
        return found

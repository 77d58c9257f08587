"""What an item changed, from its project's hub; and hubs for whoever needs one."""

from __future__ import annotations

from harness.clock import Clock, SystemClock
from harness.config import Config, Durability, Project
from harness.containment import Containment
from harness.control.desk import Desk
from harness.dataclass import dataclass
from harness.errors import ConfigError, NotFoundError
from harness.hub import GitCommandError, Hub
from harness.lanehub import LaneHub, lane_hub
from harness.layout import Layout
from harness.runner import Runner
from harness.store.attempts import branch_of
from harness.store.view import Seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Diff:
    """The change of one attempt, or the merge that came of it."""

    uid: str
    id: str
    n: int
    base: str
    sha: str
    merged: bool
    text: str
    """As git shows it, the list of files first. Written by agents: not fit for a terminal as it is."""
    files: tuple[str, ...] = ()


def make_hub(layout: Layout, config: Config, project: Project, clock: Clock | None = None) -> Hub:
    """The hub of a project, made when it is missing. Raises ConfigError when the project cannot be used."""
    clock = clock or SystemClock()
    runner = Runner(clock=clock, containment=Containment())
    durable = config.durability is Durability.POWER
    return Hub.open(layout, project, runner=runner, clock=clock, durable=durable)


def project_of(desk: Desk, name: str) -> Project:
    """Raises ConfigError for a project that is not configured (any more)."""
    project = desk.config.projects.get(name)
    if project is None:
        raise ConfigError(
            f"there is no project {name!r} (any more)",
            where=desk.layout.config,
            remedy="put it back under projects:, the item needs it",
        )
    return project


def open_hub(desk: Desk, name: str) -> LaneHub:
    """The hub as the lane needs it, for judging a cancelled result. It never merges, so it needs no gates."""
    hub = make_hub(desk.layout, desk.config, project_of(desk, name), desk.clock)
    return lane_hub(hub, desk.actor, desk.disk)


def diff(desk: Desk, name: str, attempt: int | None = None) -> Diff:
    """The merge of an item, else its newest result, else what its running attempt has committed so far.

    Raises NotFoundError when there is no commit.
    """
    seen = desk.view.find(name)
    if seen.item is None:
        raise NotFoundError("it was not admitted, so nothing was changed", where=seen.uid)
    hub = make_hub(desk.layout, desk.config, project_of(desk, seen.item.project), desk.clock)
    n, sha, merged = _commit(seen, attempt, hub)
    try:
        base = hub.repo.git("rev-parse", f"{sha}^1").text if merged else _base(hub, sha)
        files = tuple(change.path for change in hub.changed_files(base, sha))
        text = hub.diff(base, sha)
    except GitCommandError as e:
        raise NotFoundError(
            f"the commit {sha[:12]} of attempt {n} is not in the hub any more",
            where=hub.path,
            remedy=f"what is known of it: harnessctl show {seen.uid}",
        ) from e
    return Diff(uid=seen.uid, id=seen.id, n=n, base=base, sha=sha, merged=merged, text=text, files=files)


def _base(hub: Hub, sha: str) -> str:
    return hub.repo.git("merge-base", hub.target(), sha).text


def _commit(seen: Seen, attempt: int | None, hub: Hub) -> tuple[int, str, bool]:
    """-> (attempt, commit, whether it is a merge)."""
    for one in reversed(seen.attempts):
        if attempt not in (None, one.n):
            continue
        if one.verdict and one.verdict.merged:
            return one.n, one.verdict.merged, True
        if one.end and one.end.sha:
            return one.n, one.end.sha, False
        branch = f"refs/heads/{branch_of(seen.uid, one.n)}"
        tip = None if one.end else hub.repo.refs.read(branch)
        if tip is not None and tip != _base(hub, tip):
            return one.n, tip, False
    saved = sorted(hub.salvaged(seen.uid))
    remedy = f"what was saved of it: git --git-dir {hub.path} show {saved[-1]}" if saved else None
    which = f"attempt {attempt}" if attempt else f"any of its {len(seen.attempts)} attempts"
    raise NotFoundError(f"there is no commit of {which}", where=seen.id, remedy=remedy)

"""`Hub`: everything the rest of the product may ask of a project's repository, in one list.

Each verb is one function of one module here; this class only binds them to an opened repository. One process and one
thread uses a Hub; any number of processes may each have one. Every call is idempotent, and may be repeated after a
crash in the middle of it. All raise GitCommandError for what git does not do although it should, and GitInterrupted
(exit code 75) when the runner was told to stop.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

from harness.clock import Clock
from harness.config import Project
from harness.dataclass import dataclass
from harness.hub import (
    carrying,
    clearing,
    far,
    history,
    leftovers,
    merging,
    publish,
    publishing,
    torn,
    trailers,
    upstream,
    worktrees,
)
from harness.hub.access import writable
from harness.hub.creation import open_repo
from harness.hub.git import CommandRunner
from harness.hub.guard import TRASH, Emit
from harness.hub.lane import Lane, Swap, read_lane, swap_lane, swap_target
from harness.hub.repo import LANE, Repo
from harness.layout import Layout
from harness.logs import Event

T = TypeVar("T")


def _silent(_event: Event, /, **_values: object) -> None:
    """For callers that keep no events."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """The operations of `publishing`, on git."""

    repo: Repo

    def fetch(self) -> tuple[str, str] | None:
        return upstream.look(self.repo)

    def lane(self) -> Lane:
        return Lane(blob=self.repo.refs.read(LANE), epoch="")

    def target(self) -> str:
        return upstream.target_of(self.repo)

    def seen(self) -> str | None:
        return self.repo.refs.read(self.repo.upstream)

    def relation(self, ours: str, theirs: str) -> publishing.Relation:
        return upstream.relation(self.repo, ours, theirs)

    def join(self, ours: str, theirs: str) -> str | merging.Conflict:
        message = f"Merge {self.repo.project.target} from upstream\n"
        made = merging.join(self.repo, ours, theirs, message)
        return made.sha if isinstance(made, merging.Built) else made

    def sync_hub(self) -> None:
        self.repo.sync()

    def swap_target(self, held: Lane, new: str, old: str) -> Swap:
        return swap_target(self.repo, held, new, old)

    def push(self, new: str, lease: str) -> publish.Refused | None:
        return publish.push(self.repo, new, lease)

    def unmerged(self) -> publish.Refused:
        return publish.unmerged(self.repo)

    def note(self, sha: str) -> None:
        self.repo.change_refs([f"update {self.repo.upstream} {sha}"])


class Hub:
    """One project's hub, opened."""

    def __init__(self, repo: Repo) -> None:
        self.repo = repo

    @classmethod
    def open(
        cls,
        layout: Layout,
        project: Project,
        *,
        runner: CommandRunner,
        clock: Clock,
        durable: bool = True,
        emit: Emit = _silent,
    ) -> Self:
        """Makes the hub when it is missing. Raises ConfigError when the project cannot be used (with what to do),
        TryAgainError when its URL cannot be reached and there is no hub yet."""
        return cls(open_repo(layout, project, runner=runner, clock=clock, durable=durable, emit=emit))

    @property
    def path(self) -> Path:
        return self.repo.path

    def check(self) -> tuple[str, ...]:
        """Puts the hub's own files back (also done before every git call). -> the names of those that differed."""
        return self.repo.guard.check()

    def sync(self) -> None:
        """Everything written to the hub so far survives power loss (nothing with `durability: process`)."""
        self.repo.sync()

    def mend(self) -> int:
        """Mends what a power loss tore, once in each boot, before anything works in the hub. -> how many objects were
        removed. Raises OSError."""
        return torn.mend(self.repo)

    def fsck(self) -> str:
        """What is wrong with the objects and with the refs that are ours, or "". Agents' own may name anything."""
        return far.fsck(self.repo)

    def sweep(self, emit: Emit) -> None:
        """Removes what the guard has put aside, and the lock files that killed gits left, as far as they are proved nobody's.
        Not one git command; waits for seconds when there are locks. Raises TryAgainError when the lock of the hub is not to
        be had."""
        clearing.remove_all(self.repo, list(self.repo.guard.copies.glob(f"{TRASH}*")))
        self.repo.gitlocks.sweep(emit)

    # ---- the target and the person's repository ----------------------------------------------------------------------

    def target(self) -> str:
        """The commit on which the next attempt is based."""
        return upstream.target_of(self.repo)

    def refresh(self) -> publishing.Refreshed:
        """Follows the person's target when that is safe. A network that fails is a value."""
        now = self._run(publishing.follow())
        if now.state is publishing.Upstream.FORWARDED:
            name = self.repo.project.name
            self.repo.emit(Event.TARGET_FETCHED, project=name, old=now.was, new=now.target)
        return now

    def merge_upstream(
        self, held: Lane
    ) -> (
        publishing.UpstreamMerged
        | publishing.UpstreamUnchanged
        | publishing.UpstreamFenced
        | merging.Conflict
    ):
        """Both moved: merges theirs into ours, as the holder of the lane."""
        done: Any = self._run(publishing.merge_upstream(held))
        return done  # type: ignore[no-any-return] # what `join` refuses is a Conflict

    def publish(self) -> publishing.Published | publishing.UpToDate | publish.Refused:
        """Pushes our target to the person's repository, with a lease."""
        done: Any = self._run(publishing.publish())
        return done  # type: ignore[no-any-return] # what is refused is a Refused

    def _run(self, step: publishing.Step[T]) -> T:
        asked, reply = _Asked(self.repo), None
        while True:
            try:
                op = step.send(reply)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]
            reply = getattr(asked, op[0])(*op[1:])

    def unpublished(self) -> list[trailers.Merge]:
        """Merges that are not upstream yet, oldest first."""
        return publish.unpublished(self.repo)

    # ---- worktrees ---------------------------------------------------------------------------------------------------

    def prepare(
        self, slot: str, uid: str, n: int, base: str, carry: carrying.Carry | None = None
    ) -> worktrees.Worktree:
        """A clean worktree at `base` on a fresh branch, or with what `carry` brings along. The caller proves first that
        nothing runs in the old one."""
        return worktrees.prepare(self.repo, slot, uid, n, base, carry)

    def carried(self, uid: str, n: int) -> carrying.Carry | None:
        """What attempt `n` left, for a session that goes on."""
        return carrying.carried(self.repo, uid, n, self.target())

    def found(self, uid: str, n: int) -> str | None:
        """A commit with what attempt `n` had not committed when the machine was restarted: files in it may be torn."""
        return carrying.found(self.repo, uid, n)

    def find(self, slot: str) -> worktrees.Worktree | None:
        """The worktree that a slot was given last; None when there is none that may hold work."""
        return worktrees.find(self.repo, slot)

    def status(self, worktree: worktrees.Worktree) -> leftovers.WorktreeStatus:
        """What the agent left."""
        return leftovers.worktree_status(self.repo, worktree)

    def head(self, worktree: worktrees.Worktree) -> str | None:
        """The commit that is checked out. No git is run for it."""
        return leftovers.head(self.repo, worktree)

    def tree_at(self, worktree: worktrees.Worktree) -> str | None:
        """The tree that is checked out, when nothing differs from it; None otherwise."""
        return leftovers.tree_at(self.repo, worktree)

    def commit_leftovers(self, worktree: worktrees.Worktree, message: str) -> leftovers.Leftovers:
        """Commits what the agent left uncommitted."""
        return leftovers.commit_leftovers(self.repo, worktree, message)

    def salvage(self, worktree: worktrees.Worktree, uid: str, n: int) -> worktrees.Salvage:
        """Saves everything unsaved of an attempt, durably; moves the tree aside when refs cannot hold it."""
        return worktrees.salvage(self.repo, worktree, uid, n)

    def policy(self, worktree: worktrees.Worktree, uid: str, n: int) -> tuple[Path, ...]:
        """What an agent may write so that git works in its worktree. The paths exist."""
        return writable(self.repo, worktree, uid)

    def checkout_merged(self, sha: str) -> Path:
        """A scratch worktree at a merge that was built, for the gates on it. Nothing in it is kept."""
        return worktrees.scratch(self.repo, "merger", sha)

    # ---- commits -----------------------------------------------------------------------------------------------------

    def pin(self, uid: str, n: int, sha: str) -> None:
        """Makes a result durable and keeps it, before any cell names it. Raises BrokenCommitError."""
        history.pin(self.repo, uid, n, sha)

    def is_targets(self, base: str, sha: str | None) -> bool:
        """Is this the base, or a commit of the target's since then?"""
        return history.is_targets(self.repo, base, sha)

    def fork(self, base: str, sha: str) -> str:
        """Where the work in `sha`, which began at `base`, parts from the target."""
        return history.fork(self.repo, base, sha)

    def faults(self, base: str, sha: str) -> tuple[str, ...]:
        """Why a commit can never be merged; for the agent to read."""
        return history.faults(self.repo, base, sha)

    def missing(self, shas: Collection[str]) -> frozenset[str]:
        """Which of them are not commits that can be read."""
        return history.missing(self.repo, shas)

    def changed_files(self, base: str, sha: str) -> list[history.Change]:
        return history.changed_files(self.repo, base, sha)

    def moved(self, sha: str, tip: str) -> dict[str, str]:
        """Files that were renamed on the way to `tip` since the two parted: name now -> name then."""
        fork = self.repo.git("merge-base", sha, tip, ok=(0, 1)).text
        return {c.path: c.was for c in self.changed_files(fork, tip) if c.was} if fork else {}

    def diff(self, base: str, sha: str) -> str:
        return history.diff(self.repo, base, sha)

    def is_ancestor(self, old: str, new: str) -> bool:
        """Whether `new` contains `old`."""
        return history.is_ancestor(self.repo, old, new)

    def salvaged(self, uid: str) -> dict[str, str]:
        """What was saved of an item: ref -> commit."""
        return history.salvaged(self.repo, uid)

    def retire(self, uid: str) -> int:
        """Removes branches and pins of an item that is over. -> how many."""
        return history.retire(self.repo, uid)

    # ---- the lane (PROTOCOL, section 7) ------------------------------------------------------------------------------

    def lane(self) -> Lane:
        return read_lane(self.repo)

    def swap_lane(self, old: Lane, epoch: str, pending: Mapping[str, Any] | None) -> Lane | None:
        """m0, m5r. None: the lane is not `old` any more."""
        return swap_lane(self.repo, old, epoch, pending)

    def merged_as(self, tip: str, uid: str, n: int, sha: str) -> str | None:
        """m2: the merge of this result on the first-parent line of `tip`."""
        return merging.merged_as(self.repo, tip, uid, n, sha)

    def merges(self, tip: str) -> list[trailers.Merge]:
        """All our merges on the first-parent line of `tip`, oldest first."""
        return merging.all_merges(self.repo, tip)

    def build_merge(
        self, onto: str, uid: str, n: int, sha: str, subject: str, body: str = ""
    ) -> merging.Built | merging.Conflict:
        """m3: a merge commit that nothing names yet."""
        return merging.build_merge(self.repo, onto, uid, n, sha, subject, body)

    def swap_target(self, held: Lane, new: str, old: str) -> Swap:
        """m5: moves the target, if the lane is still `held`."""
        return swap_target(self.repo, held, new, old)
